//! Those whom the agent tells: a server that writes requests down, a real Alertmanager, a real mail server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::root::Root;
use super::wait::eventually_some;

const START: Duration = Duration::from_secs(30);

/// Writes down what is posted to it. Dropped, it is gone.
pub struct Hook {
    address: SocketAddr,
    state: Arc<Mutex<HookState>>,
    _runtime: Runtime,
}

struct HookState {
    requests: Vec<(String, Value)>,
    answer: (u16, String),
}

impl Hook {
    pub fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = HookState { requests: Vec::new(), answer: (200, String::new()) };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let app = Router::new().fallback(move |uri: Uri, body: Bytes| {
            let shared = Arc::clone(&shared);
            async move {
                let mut state = shared.lock().unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (status, said) = state.answer.clone();
                let said = said.replace("{path}", uri.path());
                let said = said.replace("{key}", body["routing_key"].as_str().unwrap_or("nothing"));
                state.requests.push((uri.path().to_owned(), body));
                (StatusCode::from_u16(status).unwrap(), said)
            }
        });
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, state, _runtime: runtime }
    }
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
    /// What it says from now on; `{path}` and `{key}` stand for the request's own and for its routing key.
    pub fn answer(&self, status: u16, said: &str) {
        self.state.lock().unwrap().answer = (status, said.to_owned());
    }
    /// The bodies of what came to `path`, in order.
    pub fn posted(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|(at, _)| at == path).map(|(_, body)| body.clone()).collect()
    }
}

/// A program that is killed with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's `prometheus-alertmanager` on loopback, without a cluster, telling a hook at once of what begins and ends.
pub struct Alertmanager {
    _server: Server,
    port: u16,
}

impl Alertmanager {
    #[track_caller]
    pub fn start(root: &Root, tells: &str) -> Self {
        let config = format!(
            "route: {{ receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 24h }}\n\
             receivers: [{{ name: hook, webhook_configs: [{{ url: '{tells}', send_resolved: true }}] }}]\n"
        );
        let config = root.file("alertmanager.yml", 0o644, &config);
        let storage = root.dir("alertmanager", 0o700);
        // Somebody else may take the port between our look and its start: then the next one.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let log = std::fs::File::create(root.join("alertmanager.log")).unwrap();
            let child = Command::new("prometheus-alertmanager")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.path={}", storage.display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .arg("--cluster.listen-address=")
                .stderr(log)
                .stdout(Stdio::null())
                .spawn()
                .expect("prometheus-alertmanager is missing: run scripts/install-test-deps");
            let mut server = Server(child);
            let ready = eventually_some("the Alertmanager is ready or ends", START, || {
                if server.0.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                ask(port, "/-/ready").ok().filter(|answer| answer.starts_with("HTTP/1.0 200")).map(|_| true)
            });
            if ready {
                return Self { _server: server, port };
            }
        }
        panic!("{}", std::fs::read_to_string(root.join("alertmanager.log")).unwrap());
    }
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
    /// What is firing, as its own API says.
    pub fn firing(&self) -> Vec<Value> {
        let answer = ask(self.port, "/api/v2/alerts").unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
    }
    /// Alerts that it was sent so far, by `firing` or `resolved`.
    pub fn received(&self, status: &str) -> u64 {
        let wanted = format!("alertmanager_alerts_received_total{{status=\"{status}\",version=\"v2\"}}");
        let answer = ask(self.port, "/metrics").unwrap();
        answer.lines().find_map(|line| line.strip_prefix(&wanted)?.trim().parse().ok()).unwrap_or(0)
    }
}

fn ask(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Debian's aiosmtpd. User `pgkeep`, password `opensesame` where there is a login.
pub struct MailServer {
    _server: Server,
    pub port: u16,
    out: PathBuf,
}

impl MailServer {
    /// `mode` is `plain`, `starttls` (demanded, with a login) or `tls`.
    #[track_caller]
    pub fn start(root: &Root, mode: &str, certificate: Option<&Certificate>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/support/mail_server.py");
        let (out, port_file) = (root.join(format!("mail-{mode}")), root.join(format!("mail-{mode}.port")));
        // Debian's own, which has aiosmtpd, whatever stands first in the path.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(mode).arg(&out).arg(&port_file);
        if let Some(certificate) = certificate {
            command.arg(&certificate.server).arg(&certificate.key);
        }
        let mut server = Server(command.spawn().unwrap());
        let port = eventually_some("the mail server listens", START, || {
            let ended = server.0.try_wait().unwrap();
            assert!(ended.is_none(), "no mail server: run scripts/install-test-deps (python3-aiosmtpd)");
            std::fs::read_to_string(&port_file).ok()?.parse().ok()
        });
        Self { _server: server, port, out }
    }
    /// The mails that it took, in order.
    pub fn mails(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// For `localhost`, signed by an authority of its own.
pub struct Certificate {
    pub ca: PathBuf,
    server: PathBuf,
    key: PathBuf,
}

impl Certificate {
    #[track_caller]
    pub fn make(root: &Root) -> Self {
        let dir = root.dir("tls", 0o755);
        let script = "set -e; \
            new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'; \
            openssl req -x509 $new -days 2 -subj '/CN=a test' -keyout ca.key -out ca.pem \
                -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign; \
            openssl req $new -subj /CN=localhost -keyout server.key -out server.csr; \
            printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=serverAuth\\n' >ext; \
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext \
                -out server.pem; chmod 644 ca.pem";
        let done = Command::new("/bin/sh").args(["-c", script]).current_dir(&dir).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self { ca: dir.join("ca.pem"), server: dir.join("server.pem"), key: dir.join("server.key") }
    }
}

/// What a hook was told of each alert: `opened` and `resolved` (and `repeated`) in their order, by the alert's key.
pub fn told(hook: &Hook, path: &str) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut told: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for body in hook.posted(path) {
        let word = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no word in {body}")).to_owned();
        told.entry(word(&body["alert"]["key"])).or_default().push(word(&body["event"]));
    }
    told
}

/// What an Alertmanager told a hook: `firing` and `resolved` in their order, by name and subject.
pub fn told_by_alertmanager(hook: &Hook, path: &str) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut told: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for body in hook.posted(path) {
        for alert in body["alerts"].as_array().unwrap_or_else(|| panic!("no alerts in {body}")) {
            let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
            let subject = ["cluster", "repository", "job", "task", "sink"].map(label).concat();
            let key = format!("{}:{subject}", label("alertname").trim_start_matches("pgkeep-"));
            let status = alert["status"].as_str().unwrap().to_owned();
            told.entry(key).or_default().push(status);
        }
    }
    told
}
