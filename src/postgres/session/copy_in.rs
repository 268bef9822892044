//! `COPY … FROM STDIN`: rows as they come.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::CopyInSink;

use super::Session;
use crate::error::{Error, Result};

/// One COPY into a table. Dropped before [`CopyIn::finish`], nothing of it stays, and the session's transaction has
/// failed.
pub struct CopyIn<'s> {
    session: &'s Session,
    doing: String,
    sink: Pin<Box<CopyInSink<Bytes>>>,
}

impl Session {
    /// Begins a COPY. `sql` is one statement; `doing` completes "cannot …".
    pub async fn copy_in(&self, doing: &str, sql: &str, within: Duration) -> Result<CopyIn<'_>> {
        let sink = self.within(doing, within, self.client.copy_in(sql)).await?;
        Ok(CopyIn { session: self, doing: doing.to_owned(), sink: Box::pin(sink) })
    }
}

impl CopyIn<'_> {
    /// Hands bytes over, of any cut.
    pub async fn send(&mut self, piece: Bytes) -> Result<()> {
        let sent = self.sink.send(piece).await;
        sent.map_err(|e| self.error(e))
    }

    /// Ends it; how many rows the server took.
    pub async fn finish(mut self) -> Result<u64> {
        let ended = self.sink.as_mut().finish().await;
        ended.map_err(|e| self.error(e))
    }

    fn error(&self, e: tokio_postgres::Error) -> Error {
        if e.is_closed() {
            return self.session.lost(&self.doing).because(e);
        }
        self.session.sql_error(&self.doing, &e)
    }
}
