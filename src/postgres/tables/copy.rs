//! Rows from one server to another, through memory: `COPY … TO STDOUT` into `COPY … FROM STDIN`, text format, which
//! writes every type and reads it back to the bit.

use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;

use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::roles::quote_identifier;
use crate::postgres::session::{QUICK, Session};

/// No server is silent for longer in the middle of a table unless something is wrong.
const SILENCE: Duration = Duration::from_mins(15);

/// The server sends row by row; handed on one by one they would cost a system call each.
const PIECE: usize = 128 << 10;

/// What both sides counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub read: u64,
    pub written: u64,
    pub bytes: u64,
}

/// `("a", "b")`.
fn column_list(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|c| quote_identifier(c)).collect();
    format!("({})", names.join(", "))
}

/// The statement that takes a CSV with its header, in UTF-8.
pub fn copy_csv_in(table: &TableName, columns: &[String]) -> String {
    let list = column_list(columns);
    format!("COPY {} {list} FROM STDIN (FORMAT csv, HEADER, ENCODING 'UTF8')", table.quoted())
}

/// Copies the rows of one relation into another; `advance` hears of every piece.
pub async fn copy_rows(
    source: &Session,
    from: &TableName,
    target: &Session,
    to: &TableName,
    columns: &[String],
    advance: &(dyn Fn(u64) + Send + Sync),
) -> Result<Copied> {
    let list = column_list(columns);
    let (reading, writing) = (format!("read the rows of {from}"), format!("write the rows of {to}"));
    let mut out =
        source.copy_out(&reading, &format!("COPY {} {list} TO STDOUT", from.quoted()), QUICK).await?;
    let mut into =
        target.copy_in(&writing, &format!("COPY {} {list} FROM STDIN", to.quoted()), QUICK).await?;
    let mut copied = Copied { read: 0, written: 0, bytes: 0 };
    let mut gathered = BytesMut::with_capacity(PIECE);
    while let Some(piece) = bounded(source, from, out.next()).await? {
        // A line of the text format is a row: line ends in values are escaped.
        copied.read += memchr::memchr_iter(b'\n', &piece).count() as u64;
        copied.bytes += piece.len() as u64;
        advance(piece.len() as u64);
        gathered.extend_from_slice(&piece);
        if gathered.len() >= PIECE {
            bounded(target, from, into.send(gathered.split().freeze())).await?;
        }
    }
    bounded(target, from, into.send(gathered.freeze())).await?;
    copied.written = bounded(target, from, into.finish()).await?;
    Ok(copied)
}

async fn bounded<T>(who: &Session, table: &TableName, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(SILENCE, work).await.unwrap_or_else(|_| {
        let what = format!("the copy of {table} has stood still for {} min", SILENCE.as_secs() / 60);
        Err(Error::new(Code::Sql, what).at(who.place()))
    })
}
