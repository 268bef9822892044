//! The rows of one table with everything below it: which relation of the side instance goes where in production.

use super::shape;
use super::take_out::Tree;
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::session::Session;
use crate::postgres::tables::{Copied, TableFacts, TableKind, copy_rows};
use crate::util::progress::Progress;

/// One `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub from: TableName,
    pub to: TableName,
    pub columns: Vec<String>,
}

/// Into tables that were just made: each relation into that of its name.
pub fn into_new(tree: &Tree) -> Vec<Stream> {
    with_rows(tree).map(|part| stream(part, &part.name)).collect()
}

/// Into the table that is there: through its root where it is partitioned, for partitions may have changed since.
pub fn into_existing(tree: &Tree, now: &[TableFacts], keep_new_columns: bool) -> Result<Vec<Stream>> {
    let root = now.first().ok_or_else(|| Error::internal("a table without a root"))?;
    let through_root =
        root.kind == TableKind::Partitioned || tree.root().kind == TableKind::Partitioned && now.len() == 1;
    let mut streams = Vec::new();
    if let Some(foreign) = now.iter().chain(&tree.parts).find(|p| p.kind == TableKind::Foreign) {
        return Err(Error::new(Code::Refused, "a part of the table has its rows on another server")
            .at(&foreign.name)
            .hint("restore beside the table (without --replace)"));
    }
    let is_then = |part: &&TableFacts| tree.parts.iter().any(|then| then.name == part.name);
    if let Some(new) = now.iter().skip(1).find(|part| !through_root && !is_then(part)) {
        return Err(Error::new(Code::Refused, format!("{} has got a child since that moment", tree.asked))
            .at(&new.name)
            .hint("restore beside the table (without --replace), or part them first: ALTER TABLE … NO INHERIT …"));
    }
    for part in with_rows(tree) {
        let to = if through_root { Some(root) } else { now.iter().find(|n| n.name == part.name) };
        let to = to.ok_or_else(|| {
            Error::new(Code::Refused, format!("{} is a child of {} no more", part.name, tree.asked))
                .hint("restore beside the table (without --replace)")
        })?;
        check_shape(part, to, keep_new_columns)?;
        streams.push(stream(part, &to.name));
    }
    Ok(streams)
}

fn with_rows(tree: &Tree) -> impl Iterator<Item = &TableFacts> {
    tree.parts.iter().filter(|p| p.kind == TableKind::Plain)
}

fn stream(part: &TableFacts, to: &TableName) -> Stream {
    let columns = part.copied().map(|c| c.name.clone()).collect();
    Stream { from: part.name.clone(), to: to.clone(), columns }
}

fn check_shape(then: &TableFacts, now: &TableFacts, keep_new_columns: bool) -> Result<()> {
    let found = shape::compare(then, now);
    if !found.fatal.is_empty() {
        return Err(Error::new(
            Code::Refused,
            format!("the table has another shape than at that moment: {}", found.fatal.join("; ")),
        )
        .at(&now.name)
        .hint("restore beside it (without --replace): the copy has the shape of that moment"));
    }
    if !found.new_columns.is_empty() && !keep_new_columns {
        return Err(Error::new(
            Code::Refused,
            format!("the table has got columns since that moment: {}", found.new_columns.join(", ")),
        )
        .at(&now.name)
        .hint(
            "their values would be lost: with --keep-new-columns the columns stay, filled with their defaults; without \
             --replace the rows come beside the table",
        ));
    }
    Ok(())
}

/// Copies one stream; both sides must agree on the number of rows.
pub async fn copy(
    source: &Session,
    production: &Session,
    stream: &Stream,
    progress: &dyn Progress,
) -> Result<Copied> {
    let Stream { from, to, columns } = stream;
    if columns.is_empty() {
        // COPY of no columns writes a line for each row and reads none back.
        let rows = source.count_rows(from).await?;
        production.insert_empty_rows(to, rows).await?;
        return Ok(Copied { read: rows, written: rows, bytes: 0 });
    }
    let copied = copy_rows(source, from, production, to, columns, &|bytes| progress.advance(bytes)).await?;
    if copied.read != copied.written {
        let what = format!("{} rows were read and {} written", copied.read, copied.written);
        return Err(Error::new(Code::Sql, what)
            .at(to)
            .hint("a rule or a trigger of production takes rows away"));
    }
    Ok(copied)
}
