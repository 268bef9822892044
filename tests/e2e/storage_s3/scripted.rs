//! An HTTP server that answers as it is told: for what no real store does on demand. One request per connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgkeep::storage::{self, Storage, StoreSettings};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// `PUT /bucket/key?partNumber=1`
    pub line: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// What the server does with it.
pub enum Answer {
    Say {
        status: u16,
        headers: String,
        body: Vec<u8>,
        /// Another length than the body's in the header.
        announced: Option<usize>,
    },
    /// Closes without a word.
    Hang,
    /// Says nothing for a long time.
    Silence,
}

impl Answer {
    pub fn say(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::Say { status, headers: String::new(), body: body.as_ref().to_vec(), announced: None }
    }
    /// An error in S3's form.
    pub fn error(status: u16, code: &str) -> Self {
        Self::say(status, format!("<Error><Code>{code}</Code><Message>as scripted</Message></Error>"))
    }
    pub fn with(mut self, header: &str) -> Self {
        if let Self::Say { headers, .. } = &mut self {
            headers.push_str(header);
            headers.push_str("\r\n");
        }
        self
    }
    pub fn announcing(mut self, bytes: usize) -> Self {
        if let Self::Say { announced, .. } = &mut self {
            *announced = Some(bytes);
        }
        self
    }
}

/// The server. Its thread ends with the test's process.
pub struct Scripted {
    endpoint: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// `answer` gets the request and its number, from 1, among those with the same line.
    pub fn new(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || converse(stream, &log, &*answer));
            }
        });
        Self { endpoint, asked }
    }

    pub fn settings(&self, scratch: &tempfile::TempDir) -> StoreSettings {
        let file = scratch.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id=a\naws_secret_access_key=b\n").unwrap();
        StoreSettings {
            endpoint: Some(self.endpoint.clone()),
            credentials_file: Some(file),
            part_size: 5 << 20,
            ..StoreSettings::new("s3://bucket")
        }
    }

    /// A store on it, as users open it, after `change` to its settings; `test` runs with it.
    pub fn with<F: Future>(
        &self,
        change: impl FnOnce(&mut StoreSettings),
        test: impl FnOnce(Arc<dyn Storage>) -> F,
    ) -> F::Output {
        let scratch = tempfile::tempdir().unwrap();
        let mut settings = self.settings(&scratch);
        change(&mut settings);
        crate::storage_conformance::run(async { test(storage::open(&settings).await.unwrap()).await })
    }

    /// Requests whose line holds this.
    pub fn count(&self, part_of_line: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|r| r.line.contains(part_of_line)).count()
    }
}

fn converse(mut stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Answer) {
    let Some(request) = read_request(&mut BufReader::new(stream.try_clone().unwrap())) else { return };
    let nth = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.iter().filter(|r| r.line == request.line).count()
    };
    match answer(&request, nth) {
        Answer::Say { status, headers, body, announced } => {
            let length = announced.unwrap_or(body.len());
            let head = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
            );
            // A client that has gone is part of some tests.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
        Answer::Hang => {}
        Answer::Silence => std::thread::sleep(Duration::from_secs(20)),
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, headers, body })
}
