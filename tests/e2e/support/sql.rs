//! SQL for tests: synchronous, textual, one connection.

use std::path::Path;
use std::sync::mpsc;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

type Rows = Vec<Vec<Option<String>>>;
type Answer = Result<Rows, tokio_postgres::Error>;

/// One connection, driven by a thread with a small runtime of its own: asynchronous tests may use it too.
pub struct Session(mpsc::Sender<(String, mpsc::Sender<Answer>)>);

impl Session {
    pub fn connect(socket_dir: &Path, port: u16, database: &str) -> Result<Self, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(socket_dir).port(port).user("postgres").dbname(database).application_name("test");
        let (requests, work) = mpsc::channel::<(String, mpsc::Sender<Answer>)>();
        let (opened, open) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let connected = runtime.block_on(async {
                let (client, connection) = config.connect(NoTls).await?;
                tokio::spawn(connection);
                Ok::<_, tokio_postgres::Error>(client)
            });
            let client = match connected {
                Ok(client) => client,
                Err(e) => return opened.send(Err(e)).unwrap(),
            };
            opened.send(Ok(())).unwrap();
            while let Ok((text, answer)) = work.recv() {
                let _ = answer.send(runtime.block_on(client.simple_query(&text)).map(rows));
            }
        });
        open.recv().unwrap().map(|()| Self(requests))
    }

    /// The rows of the last statement that has rows; every value as text.
    pub fn try_sql(&self, text: &str) -> Answer {
        let (answer, answered) = mpsc::channel();
        self.0.send((text.to_owned(), answer)).unwrap();
        answered.recv().unwrap()
    }
    #[track_caller]
    pub fn sql(&self, text: &str) -> Rows {
        match self.try_sql(text) {
            Ok(rows) => rows,
            Err(e) => panic!("{text}: {}", describe(&e)),
        }
    }
    /// The first column of the only row; an SQL NULL is an empty string.
    #[track_caller]
    pub fn one(&self, text: &str) -> String {
        let mut rows = self.sql(text);
        assert_eq!(rows.len(), 1, "{text}: expected one row, got {rows:?}");
        rows.remove(0).remove(0).unwrap_or_default()
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
        _ => None,
    });
    rows.collect()
}

/// tokio-postgres says only "db error"; the server said more.
pub fn describe(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |e| format!("{} ({})", e.message(), e.code().code()))
}
