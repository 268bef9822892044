//! Reads the WAL of a recovery before it runs: where the target lies, what is kept and lost, which tablespaces it
//! makes. The same records in the same order as PostgreSQL will replay them, so the answer is exact.

use async_trait::async_trait;
use futures::StreamExt;

use crate::error::{Error, Result};
use crate::model::{Lsn, SegmentName, SegmentSize, SystemId};
use crate::repository::continuity::{Ending, Reach};
use crate::util::progress::Progress;
use crate::wal::redirect::Created;
use crate::wal::{
    Canary, CanaryWatch, End, Fact, Flow, Outcome, SegmentScan, SegmentSummary, TargetScanner, WalReader,
    WalSettings,
};

/// Segments fetched ahead of the reader.
const AHEAD: usize = 6;
/// How far beyond the stop the first lost commit is looked for, and before the end the last one.
const LOOK_AROUND: usize = 16;

/// One file of a recovery's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayFile {
    pub segment: SegmentName,
    /// Set where only a part of the segment is served and recovery ends in it, and where heads stand for the segment.
    pub ending: Option<Ending>,
}

/// Gives the plain bytes of a file of the way, whole, endings padded with zeros. Implemented over the archive and over
/// a `pg_wal` that holds what the archive lacks.
#[async_trait]
pub trait WalSource: Send + Sync {
    async fn read(&self, file: &WayFile) -> Result<Vec<u8>>;
}

/// The files of a reach, in the order in which they are replayed.
pub fn way(reach: &Reach, size: SegmentSize) -> Vec<WayFile> {
    let mut files = Vec::new();
    for leg in &reach.legs {
        if let Some((first, last)) = leg.whole {
            for number in first.number(size)..=last.number(size) {
                let segment = SegmentName::numbered(leg.timeline, number, size);
                let ending = reach.joined.get(&segment).map(|heads| Ending::Heads {
                    segment,
                    heads: heads.clone(),
                    until: heads.last().map_or(0, |h| h.to),
                });
                files.push(WayFile { segment, ending });
            }
        }
        if let Some(ending) = &leg.ending {
            files.push(WayFile { segment: ending.segment(), ending: Some(ending.clone()) });
        }
    }
    files
}

/// `CREATE DATABASE … STRATEGY FILE_COPY`, a move to another tablespace, `DROP DATABASE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyOfDatabase {
    Made { database: u32, from: u32 },
    Dropped { database: u32 },
}

/// What reading found.
#[derive(Debug)]
pub struct Scanned {
    pub outcome: Outcome,
    /// The end of the record that makes PostgreSQL stop: the last byte that it must read.
    pub needed_to: Option<Lsn>,
    /// Tablespaces made by records that are replayed.
    pub created: Vec<Created>,
    /// Databases whose files replay copies or removes, in this order.
    pub copies: Vec<CopyOfDatabase>,
    /// The most that the replayed records ask of a standby's settings.
    pub asked: Option<WalSettings>,
    /// The last of the agent's rows that is committed when the recovery ends, as far as this WAL has one.
    pub canary: Option<Canary>,
    /// The last record read.
    pub last_record: Option<Lsn>,
    /// Where and why reading ended.
    pub end: End,
    /// Reading ended before the last file: WAL in the middle of the way cannot be read.
    pub broken: bool,
}

/// Everything that a scan needs to know.
pub struct ScanTask<'a> {
    pub source: &'a dyn WalSource,
    pub files: &'a [WayFile],
    pub size: SegmentSize,
    pub system: SystemId,
    /// Where replay begins; the first file holds it.
    pub start: Lsn,
    pub progress: &'a dyn Progress,
}

struct Notes {
    scanner: TargetScanner,
    needed_to: Option<Lsn>,
    created: Vec<Created>,
    copies: Vec<CopyOfDatabase>,
    asked: Option<WalSettings>,
    canary: CanaryWatch,
    last_record: Option<Lsn>,
    failed: Option<Error>,
}

impl ScanTask<'_> {
    /// Reads from the start until the target and the first commit after it are known, or WAL ends.
    pub async fn run(&self, scanner: TargetScanner) -> Result<Scanned> {
        let first = self.files.first().map_or(self.start, |f| f.segment.start(self.size));
        let mut reader = WalReader::new(first, self.size, Some(self.system));
        let mut notes = Notes {
            scanner,
            needed_to: None,
            created: Vec::new(),
            copies: Vec::new(),
            asked: None,
            canary: CanaryWatch::default(),
            last_record: None,
            failed: None,
        };
        self.progress.total(self.files.len() as u64 * self.size.bytes());
        let reads = self.files.iter().map(|f| self.source.read(f));
        let mut reads = futures::stream::iter(reads).buffered(AHEAD);
        let (mut after_stop, mut fed) = (0, 0);
        while let Some(bytes) = reads.next().await {
            let bytes = bytes?;
            let flow = reader.feed(&bytes, &mut |record| {
                if record.lsn >= self.start { notes.take(record) } else { notes.pass(record) }
            });
            if let Some(error) = notes.failed {
                return Err(error);
            }
            fed += 1;
            self.progress.advance(self.size.bytes());
            if notes.needed_to.is_some() {
                after_stop += 1;
            }
            if flow == Flow::Stop || notes.scanner.outcome().is_settled() || after_stop > LOOK_AROUND {
                break;
            }
        }
        let cut_off = reader.ended().is_some() && fed < self.files.len();
        let end = reader.finish(&mut |_| Flow::Continue);
        Ok(Scanned {
            outcome: notes.scanner.into_outcome(),
            needed_to: notes.needed_to,
            created: notes.created,
            copies: notes.copies,
            asked: notes.asked,
            canary: notes.canary.last(),
            last_record: notes.last_record,
            end,
            broken: cut_off && notes.needed_to.is_none(),
        })
    }
}

impl Notes {
    fn take(&mut self, record: &crate::wal::Record<'_>) -> Flow {
        match self.try_take(record) {
            Ok(()) => Flow::Continue,
            Err(error) => {
                self.failed = Some(error);
                Flow::Stop
            }
        }
    }
    /// Of before the start: the base backup holds it.
    fn pass(&mut self, record: &crate::wal::Record<'_>) -> Flow {
        self.canary.observe(record, Fact::of(record).ok().flatten().as_ref());
        Flow::Continue
    }
    fn try_take(&mut self, record: &crate::wal::Record<'_>) -> Result<()> {
        let stopped_before = self.scanner.outcome().stop.is_some();
        self.scanner.observe(record)?;
        let outcome = self.scanner.outcome();
        self.last_record = Some(record.lsn);
        if !stopped_before && outcome.stop.is_some() {
            self.needed_to = Some(record.end_lsn);
        }
        // Replayed, when no stop has come before its end.
        if record.end_lsn > outcome.end {
            return Ok(());
        }
        let fact = Fact::of(record)?;
        self.canary.observe(record, fact.as_ref());
        match fact {
            Some(Fact::TablespaceCreate { oid, path }) => {
                self.created.push(Created::keep(record, oid, path));
            }
            Some(Fact::DatabaseCreate { database, copied_from: Some((from, _)), .. }) => {
                self.copies.push(CopyOfDatabase::Made { database, from });
            }
            Some(Fact::DatabaseDrop { database, .. }) => {
                self.copies.push(CopyOfDatabase::Dropped { database });
            }
            Some(Fact::ParameterChange(settings)) => {
                self.asked = Some(self.asked.map_or(settings, |asked| asked.most(settings)));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The end of a way, read from behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    pub last_commit: Option<crate::wal::TransactionMark>,
    /// The start of the last whole record.
    pub last_record: Option<Lsn>,
    /// The first byte after it.
    pub end: Lsn,
}

/// Reads from the last file back until a commit has been met, [`LOOK_AROUND`] files at most.
pub async fn tail(
    source: &dyn WalSource,
    files: &[WayFile],
    size: SegmentSize,
    system: SystemId,
) -> Result<Option<Tail>> {
    let mut tail: Option<Tail> = None;
    for file in files.iter().rev().take(LOOK_AROUND) {
        let summary = summarize(source, file, size, system).await?;
        let found =
            tail.get_or_insert(Tail { last_commit: None, last_record: None, end: file.segment.start(size) });
        if found.last_record.is_none() && summary.end.last_record.is_some() {
            (found.last_record, found.end) = (summary.end.last_record, summary.end.lsn);
        }
        if summary.last_commit.is_some() {
            found.last_commit = summary.last_commit;
            break;
        }
    }
    Ok(tail)
}

/// What one file holds.
pub async fn summarize(
    source: &dyn WalSource,
    file: &WayFile,
    size: SegmentSize,
    system: SystemId,
) -> Result<SegmentSummary> {
    let bytes = source.read(file).await?;
    let mut scan = SegmentScan::new(file.segment.start(size), size, Some(system));
    let _ = scan.feed(&bytes);
    scan.finish()
}
