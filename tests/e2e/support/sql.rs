//! SQL for tests: synchronous, textual, one connection.

use std::path::Path;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// One connection with a small runtime of its own.
pub struct Session {
    // Dropped before the runtime that drives it.
    client: Client,
    runtime: Runtime,
}

impl Session {
    pub fn connect(socket_dir: &Path, port: u16, database: &str) -> Result<Self, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut config = Config::new();
        config.host_path(socket_dir).port(port).user("postgres").dbname(database).application_name("test");
        let client = runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Self { client, runtime })
    }

    /// The rows of the last statement that has rows; every value as text.
    pub fn try_sql(&self, text: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(text))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
    #[track_caller]
    pub fn sql(&self, text: &str) -> Vec<Vec<Option<String>>> {
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

/// tokio-postgres says only "db error"; the server said more.
pub fn describe(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |e| format!("{} ({})", e.message(), e.code().code()))
}
