//! `COPY … TO STDOUT`: a table's rows as they come.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio_postgres::CopyOutStream;

use super::Session;
use crate::error::{Error, Result};

/// The rows of one COPY, in pieces as the server sends them: a row each, as a rule. The session is busy until the
/// end was reached; given up before, it is of no use any more.
pub struct CopyOut<'s> {
    session: &'s Session,
    doing: String,
    rows: Pin<Box<CopyOutStream>>,
}

impl Session {
    /// Begins a COPY. `sql` is one statement; `doing` completes "cannot …".
    pub async fn copy_out(&self, doing: &str, sql: &str, within: Duration) -> Result<CopyOut<'_>> {
        let rows = self.within(doing, within, self.client.copy_out(sql)).await?;
        Ok(CopyOut { session: self, doing: doing.to_owned(), rows: Box::pin(rows) })
    }
}

impl CopyOut<'_> {
    /// The next piece; None at the end, which is only reached when all rows were sent.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.rows.next().await {
            None => Ok(None),
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(e)) if e.is_closed() => Err(self.session.lost(&self.doing).because(e)),
            Some(Err(e)) => Err(self.error(&e)),
        }
    }

    fn error(&self, e: &tokio_postgres::Error) -> Error {
        // The server may say why it ends the session before it does.
        self.session.sql_error(&self.doing, e)
    }
}
