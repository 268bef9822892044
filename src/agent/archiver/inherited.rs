//! WAL that this server received while it followed another one, and that nobody archived.
//!
//! PostgreSQL marks what a standby receives as `.done` (`XLogArchiveForceDone`), trusting that the primary archives it. If
//! the primary dies with segments still waiting, the promoted standby alone has them and never asks for them to be
//! archived; no recovery could then pass from the old timeline to the new one. So, once for each timeline that a running
//! primary is on, the whole segments before the switch that lie in `pg_wal` are looked for in the archive, and those that
//! a required repository lacks are shipped as if they were `.ready`. Both servers' files are the same to the last byte.
//!
//! A look that fails is made again; a file that PostgreSQL has removed meanwhile is no longer waited for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};

use super::scan::{Scan, path_of};
use crate::archive::ship::Shipper;
use crate::error::{Error, Result};
use crate::model::{SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::postgres::history::{History, TimelinePath};
use crate::repository::wal_object::blocking;

/// Between two looks, after one that failed.
const AGAIN: Duration = Duration::from_secs(10);

/// What one look found.
pub(super) type Found = (TimelineId, Result<Vec<WalFileName>>);

#[derive(Default)]
pub(super) struct Inheritance {
    /// The timeline whose ancestors were looked at.
    looked: Option<TimelineId>,
    looking: Option<JoinHandle<Found>>,
    not_before: Option<Instant>,
    /// To be shipped.
    names: Vec<WalFileName>,
}

impl Inheritance {
    /// Must be called inside a runtime. Does nothing while there is nothing new to look at.
    pub(super) fn look(&mut self, shipper: &Arc<Shipper>, data_directory: &Path, scan: &Scan, now: Instant) {
        let new = scan.primary_on.filter(|timeline| self.looked != Some(*timeline));
        let Some(timeline) = new else { return };
        if self.looking.is_some() || self.not_before.is_some_and(|at| at > now) {
            return;
        }
        let (shipper, data_directory, done) =
            (shipper.clone(), data_directory.to_path_buf(), scan.done.clone());
        self.looking =
            Some(tokio::spawn(
                async move { (timeline, missing(&shipper, data_directory, timeline, done).await) },
            ));
    }
    pub(super) fn looking(&mut self) -> &mut Option<JoinHandle<Found>> {
        &mut self.looking
    }
    /// True when there is something to be shipped.
    pub(super) fn looked(&mut self, ended: Result<Found, JoinError>, now: Instant) -> bool {
        self.looking = None;
        let (timeline, found) = ended.unwrap_or_else(|e| {
            (TimelineId::FIRST, Err(Error::internal("the look for inherited WAL panicked").because(e)))
        });
        match found {
            Ok(names) => {
                self.looked = Some(timeline);
                if let (Some(first), Some(last)) = (names.first(), names.last()) {
                    tracing::warn!(%timeline, %first, %last, files = names.len(),
                        "the former primary did not archive these; this server has them and does");
                }
                self.names = names;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell yet whether the former primary archived everything");
                self.not_before = Some(now + AGAIN);
            }
        }
        !self.names.is_empty()
    }
    pub(super) fn names(&self) -> &[WalFileName] {
        &self.names
    }
}

async fn missing(
    shipper: &Shipper,
    data_directory: PathBuf,
    timeline: TimelineId,
    done: Vec<SegmentName>,
) -> Result<Vec<WalFileName>> {
    let path = path_of(&data_directory, WalFileName::History(timeline));
    let read = move || {
        let bytes = std::fs::read(&path);
        bytes.map_err(|e| Error::io("cannot read the timeline's history", &path, e))
    };
    let history = History::parse(timeline, &blocking(read).await?)?;
    let whole = before_the_switch(&history.path(), done, shipper.segment_size());
    let absent = shipper.absent(&whole).await?;
    Ok(absent.into_iter().map(WalFileName::Segment).collect())
}

/// The segments of the path's former timelines that the path needs as a whole, in their order.
fn before_the_switch(path: &TimelinePath, done: Vec<SegmentName>, size: SegmentSize) -> Vec<SegmentName> {
    let needed = |segment: &SegmentName| {
        let leg = path.leg(segment.timeline);
        leg.and_then(|leg| leg.end).is_some_and(|switch| segment.end(size) <= switch)
    };
    let mut whole: Vec<_> = done.into_iter().filter(needed).collect();
    whole.sort();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_before_the_switch_are_inherited() {
        let size = SegmentSize::DEFAULT;
        let segment = |timeline, number| SegmentName::numbered(TimelineId(timeline), number, size);
        let at = |timeline, number| segment(timeline, number).start(size);
        let inside = crate::model::Lsn(at(2, 9).0 + 100);
        let text = format!("1\t{}\tno reason\n2\t{inside}\tno reason\n", at(1, 6));
        let path = History::parse(TimelineId(3), text.as_bytes()).unwrap().path();
        let done = [(3, 9), (2, 9), (2, 8), (1, 5), (1, 6), (2, 6), (4, 1)];
        let done = done.into_iter().map(|(t, n)| segment(t, n)).collect();
        let found = before_the_switch(&path, done, size);
        assert_eq!(found, [segment(1, 5), segment(2, 6), segment(2, 8)]);
    }
}
