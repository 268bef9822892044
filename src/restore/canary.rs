//! Which of the agent's rows a recovered cluster must have as its last, from WAL alone.
//!
//! The WAL of the recovery itself nearly always has one: there is one a minute. Where the target lies within the first minute
//! after the base backup began, the row is one that the backup holds, and the WAL before it says which: it is read back in
//! growing stretches, until a row is found, until it is plain that none was written, or until [`FARTHEST`].

use std::time::Duration;

use super::prepare::Prepared;
use super::scan::{self, WalSource, WayFile};
use super::wal_source::Files;
use crate::error::Result;
use crate::model::Timestamp;
use crate::util::progress::Progress;
use crate::wal::{Canary, CanaryWatch, Fact, Flow, WalReader};

/// Segments before the backup's own WAL that are read at most.
const FARTHEST: u64 = 128;
/// Whoever writes a row a minute and has written none for so long did not write at all.
const SILENCE: Duration = Duration::from_mins(10);

/// What the WAL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This row is the last one that was committed.
    Row(Canary),
    /// None was committed in the WAL that was looked at, whose first commit is of this moment.
    NoneSince(Option<Timestamp>),
}

/// Of a planned recovery whose own WAL has none. What cannot be read before the backup is as if it were not there.
pub async fn expected(prepared: &Prepared, progress: &dyn Progress) -> Result<Expected> {
    progress.phase("looking for the canary before the backup");
    let size = prepared.held.record.base()?.wal_segment_bytes;
    let source = Files { wal: &prepared.wal, local: &prepared.local, chosen: &prepared.chosen, size };
    let Some(first) = scan::way(&prepared.located.reach, size).into_iter().next() else {
        return Ok(Expected::NoneSince(None));
    };
    let number = first.segment.number(size);
    let mut seen = Seen::default();
    for back in [1, 4, 16, 64, FARTHEST] {
        let from = number.saturating_sub(back).max(1);
        let mut files: Vec<WayFile> = (from..number)
            .map(|number| WayFile { segment: prepared.path.segment(number, size), ending: None })
            .collect();
        let there = |file: &&WayFile| prepared.wal.listing.has_segment(file.segment);
        let whole = files.iter().rev().take_while(there).count();
        let all_there = whole == files.len();
        files.drain(..files.len() - whole);
        files.push(first.clone());
        seen = look(&source, &files, prepared).await?;
        if let Some(canary) = seen.last {
            return Ok(Expected::Row(canary));
        }
        let silent = seen.first_commit.zip(seen.last_commit).is_some_and(|(a, b)| b.since(a) > SILENCE);
        if silent || !all_there || from == 1 {
            break;
        }
    }
    Ok(Expected::NoneSince(seen.first_commit))
}

#[derive(Default)]
struct Seen {
    last: Option<Canary>,
    first_commit: Option<Timestamp>,
    last_commit: Option<Timestamp>,
}

/// Up to where the recovery ends, which may be in the last of these files.
async fn look(source: &Files<'_>, files: &[WayFile], prepared: &Prepared) -> Result<Seen> {
    let size = prepared.held.record.base()?.wal_segment_bytes;
    let mut seen = Seen::default();
    let Some(first) = files.first() else { return Ok(seen) };
    let mut reader = WalReader::new(first.segment.start(size), size, Some(prepared.plan.system_identifier));
    let mut watch = CanaryWatch::default();
    for file in files {
        let bytes = source.read(file).await?;
        let _ = reader.feed(&bytes, &mut |record| {
            if record.end_lsn > prepared.located.end {
                return Flow::Stop;
            }
            let fact = Fact::of(record).ok().flatten();
            watch.observe(record, fact.as_ref());
            if let Some(Fact::Transaction(end)) = &fact {
                seen.first_commit.get_or_insert(end.at);
                seen.last_commit = Some(end.at);
            }
            Flow::Continue
        });
    }
    seen.last = watch.last();
    Ok(seen)
}
