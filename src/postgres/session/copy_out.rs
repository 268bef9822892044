//! `COPY … TO STDOUT`: a table's rows as they come.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::CopyOutStream;

use super::Session;
use super::tap::Diversion;
use crate::error::{Code, Error, Result};
use crate::util::buffers::Buffers;

/// Rows, one after the other. The last one may go on in the next piece.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Bytes,
    /// How many ended in it. Each of the server's messages is one, and so is a CSV's header (PostgreSQL's documentation,
    /// "Message Formats", `CopyData`).
    pub rows: u64,
}

/// The rows of one COPY, in pieces of the size that was asked for; the last is smaller. The session is busy until the
/// end was reached; given up before, it is of no use any more.
pub struct CopyOut<'s> {
    session: &'s Session,
    doing: String,
    rows: Pin<Box<CopyOutStream>>,
    way: Way<'s>,
}

enum Way<'s> {
    /// The stream gathers them, and the driver hears of the end alone.
    Diverted(Diverted<'s>),
    Driver(Gathered),
}

struct Diverted<'s> {
    diversion: &'s Diversion,
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

struct Gathered {
    piece_bytes: usize,
    buffers: Buffers,
    /// What did not go into the last piece.
    row: Option<Bytes>,
    /// The driver is not asked again: it takes what comes after the rows for one of them.
    ended: bool,
}

impl Drop for Diverted<'_> {
    fn drop(&mut self) {
        self.diversion.end();
    }
}

impl Session {
    /// Begins a COPY. `sql` is one statement; `doing` completes "cannot …".
    pub async fn copy_out(
        &self,
        doing: &str,
        sql: &str,
        piece_bytes: usize,
        within: Duration,
    ) -> Result<CopyOut<'_>> {
        let way = match &self.local {
            Some(local) => {
                let (diversion, pieces) = (&local.diversion, local.diversion.begin(piece_bytes));
                Way::Diverted(Diverted { diversion, pieces, ended: false })
            }
            None => {
                Way::Driver(Gathered { piece_bytes, buffers: Buffers::default(), row: None, ended: false })
            }
        };
        let rows = self.within(doing, within, self.client.copy_out(sql)).await?;
        Ok(CopyOut { session: self, doing: doing.to_owned(), rows: Box::pin(rows), way })
    }
}

impl CopyOut<'_> {
    /// The next piece; None at the end, which is only reached when all rows were sent.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        let (session, doing) = (self.session, self.doing.as_str());
        match &mut self.way {
            Way::Diverted(way) => way.next(session, doing, &mut self.rows).await,
            Way::Driver(way) => way.next(session, doing, &mut self.rows).await,
        }
    }

    /// How many rows the server says that it has sent, where that can be heard; asked at the end.
    pub fn said(&self) -> Option<u64> {
        match &self.way {
            Way::Diverted(way) => way.diversion.said(),
            Way::Driver(_) => None,
        }
    }
}

type Rows = Pin<Box<CopyOutStream>>;

impl Diverted<'_> {
    async fn next(&mut self, session: &Session, doing: &str, rows: &mut Rows) -> Result<Option<Piece>> {
        if !self.ended {
            tokio::select! {
                biased;
                Some(piece) = self.pieces.recv() => return Ok(Some(piece)),
                message = message(session, doing, rows) => match message? {
                    None => self.ended = true,
                    Some(_) => return Err(Error::internal("a row went another way than the others")),
                },
            }
        }
        if let Ok(piece) = self.pieces.try_recv() {
            return Ok(Some(piece));
        }
        if self.diversion.said().is_none() {
            let what = format!("cannot {doing}: PostgreSQL did not say how many rows it has sent");
            return Err(Error::new(Code::Sql, what).at(session.place()));
        }
        Ok(None)
    }
}

impl Gathered {
    async fn next(&mut self, session: &Session, doing: &str, rows: &mut Rows) -> Result<Option<Piece>> {
        let mut piece = self.buffers.with_room(self.piece_bytes);
        let mut ended = 0;
        while !self.ended {
            if let Some(row) = &mut self.row {
                let fits = row.len().min(self.piece_bytes - piece.len());
                piece.extend(&row.split_to(fits));
                if !row.is_empty() {
                    break;
                }
                ended += 1;
            }
            self.row = message(session, doing, rows).await?;
            self.ended = self.row.is_none();
        }
        Ok((ended > 0 || !piece.is_empty()).then(|| Piece { bytes: piece.share(), rows: ended }))
    }
}

/// The server's next message; None at the end.
async fn message(session: &Session, doing: &str, rows: &mut Rows) -> Result<Option<Bytes>> {
    match rows.next().await {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(e)) if e.is_closed() => Err(session.lost(doing).because(e)),
        // The server may say why it ends the session before it does.
        Some(Err(e)) => Err(session.sql_error(doing, &e)),
    }
}
