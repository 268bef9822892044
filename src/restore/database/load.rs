//! The steps of `pg_restore`, each program fed with what it is to restore.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use futures::future::try_join_all;

use super::lists::Lists;
use crate::error::{Code, Error, Result};
use crate::postgres::ConnInfo;
use crate::postgres::archive_format::{Archive, Head};
use crate::postgres::restore_tool::{self, EntryList, LeaveOut, RestoreTool};
use crate::restore::logical::StoredStream;
use crate::util::failpoint;
use crate::util::process::reader_is_gone;
use crate::util::progress::Progress;

const BUFFER: usize = 256 << 10;

/// What all the programs of one restore have in common.
pub struct Load<'a> {
    pub tool: &'a RestoreTool,
    /// Of the database that is being made.
    pub info: ConnInfo,
    pub stream: &'a StoredStream,
    pub head: &'a Arc<Head>,
    pub leave_out: LeaveOut,
    /// Plain bytes of all tables.
    pub data_bytes: u64,
    pub progress: Arc<dyn Progress>,
}

impl Load<'_> {
    /// All of it; what the programs warned of.
    pub async fn run(&self, lists: &Lists) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        self.progress.phase("definitions");
        warnings.extend(self.one(&lists.before, "make the tables").await?);
        failpoint::reach("database-after-definitions")?;

        self.progress.phase("rows");
        self.progress.total(self.data_bytes);
        let all = lists.data.iter().map(|list| self.one(list, "load the rows"));
        warnings.extend(try_join_all(all).await?.into_iter().flatten());
        failpoint::reach("database-after-rows")?;

        self.progress.phase("indexes and constraints");
        let all = lists.indexes.iter().map(|list| self.one(list, "make the indexes"));
        warnings.extend(try_join_all(all).await?.into_iter().flatten());
        warnings.extend(self.one(&lists.after, "make keys and triggers").await?);
        failpoint::reach("database-after-indexes")?;

        self.progress.phase("grants and materialised views");
        warnings.extend(self.one(&lists.last, "give the grants and fill the views").await?);
        warnings.sort();
        warnings.dedup();
        Ok(warnings)
    }

    /// One program with one list.
    pub async fn one(&self, ids: &[u32], doing: &str) -> Result<Vec<String>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = EntryList::new(ids)?;
        let run = self.tool.restore(&self.info, &list, self.leave_out);
        let with_data = ids.iter().copied().filter(|id| self.head.toc.entry(*id).is_some_and(|e| e.has_data));
        let feed = Feed {
            head: Arc::clone(self.head),
            stream: self.stream.clone(),
            wanted: with_data.collect(),
            progress: Arc::clone(&self.progress),
        };
        let fed = run.feed(move |input| feed.write(input)).await?;
        fed.written?;
        if !fed.finished.status.success() {
            return Err(restore_tool::failure(&fed.finished, doing));
        }
        Ok(restore_tool::warnings(&fed.finished))
    }
}

/// The archive that one program reads. Works on a blocking thread.
struct Feed {
    head: Arc<Head>,
    stream: StoredStream,
    wanted: BTreeSet<u32>,
    progress: Arc<dyn Progress>,
}

impl Feed {
    fn write(self, input: File) -> Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, input);
        let written = self.pass(&mut out)?.and_then(|()| out.flush());
        // Nothing is left to be tried again when it is dropped.
        let _ = out.into_parts();
        match written {
            // Why it has gone, it says itself.
            Err(e) if reader_is_gone(&e) => Ok(()),
            written => written.map_err(|e| Error::new(Code::Io, "cannot feed pg_restore").because(e)),
        }
    }

    /// The outer error is the archive's, the inner one the program's.
    fn pass(&self, out: &mut impl Write) -> Result<io::Result<()>> {
        let head = out.write_all(&self.head.bytes);
        if head.is_err() || self.wanted.is_empty() {
            return Ok(head);
        }
        let damaged = |e: Error| {
            e.at(self.stream.place())
                .while_doing("the dump cannot be read to its end")
                .see("restore-a-dump.md")
        };
        let mut archive = Archive::open(self.stream.open()?).map_err(damaged)?;
        archive.pass_on(&self.wanted, out, |bytes| self.progress.advance(bytes)).map_err(damaged)
    }
}
