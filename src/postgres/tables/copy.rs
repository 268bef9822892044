//! Rows from one server to another, through memory: `COPY … TO STDOUT` into `COPY … FROM STDIN`, text format, which
//! writes every type and reads it back to the bit.

use std::future::Future;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::roles::quote_identifier;
use crate::postgres::session::{QUICK, Session};
use crate::postgres::snapshot::quote_literal;

/// No server is silent for longer in the middle of a table unless something is wrong.
const SILENCE: Duration = Duration::from_mins(15);

/// The server sends row by row; handed on one by one they would cost a system call each.
const PIECE: usize = 128 << 10;

/// The setting that names a database's encoding.
const ENCODING: &str = "server_encoding";

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

/// The statement that takes a CSV with its header, in the encoding that the export has written down.
pub fn copy_csv_in(table: &TableName, columns: &[String], encoding: &str) -> String {
    let list = column_list(columns);
    format!(
        "COPY {} {list} FROM STDIN (FORMAT csv, HEADER, ENCODING {})",
        table.quoted(),
        quote_literal(encoding)
    )
}

/// Between databases of one encoding bytes go over as they are: nothing is lost where an encoding is none (`SQL_ASCII`),
/// and nothing is spent. Otherwise both servers translate, to and from UTF-8.
async fn as_they_are(source: &Session, target: &Session) -> Result<String> {
    let (from, to) = (source.setting(ENCODING).await?, target.setting(ENCODING).await?);
    let one = from.filter(|from| to.as_ref() == Some(from));
    Ok(one.map_or_else(String::new, |one| format!(" (ENCODING {})", quote_literal(&one))))
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
    let encoding = as_they_are(source, target).await?;
    let (reading, writing) = (format!("read the rows of {from}"), format!("write the rows of {to}"));
    let take = format!("COPY {} {list} TO STDOUT{encoding}", from.quoted());
    let give = format!("COPY {} {list} FROM STDIN{encoding}", to.quoted());
    let mut out = source.copy_out(&reading, &take, PIECE, QUICK).await?;
    let mut into = target.copy_in(&writing, &give, QUICK).await?;
    let mut copied = Copied { read: 0, written: 0, bytes: 0 };
    while let Some(piece) = bounded(source, from, out.next()).await? {
        copied.read += piece.rows;
        copied.bytes += piece.bytes.len() as u64;
        advance(piece.bytes.len() as u64);
        bounded(target, from, into.send(piece.bytes)).await?;
    }
    copied.written = bounded(target, from, into.finish()).await?;
    Ok(copied)
}

async fn bounded<T>(who: &Session, table: &TableName, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(SILENCE, work).await.unwrap_or_else(|_| {
        let what = format!("the copy of {table} has stood still for {} min", SILENCE.as_secs() / 60);
        Err(Error::new(Code::Sql, what).at(who.place()))
    })
}
