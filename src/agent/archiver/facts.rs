//! What the board says of one cluster's archiving, and the log.

use super::acks::Acks;
use super::holes;
use super::progress::archived_to;
use super::queue::Queue;
use super::scan::Scan;
use super::ship::Done;
use crate::agent::Hub;
use crate::agent::board::Failure;
use crate::error::{Code, Error};
use crate::model::{ClusterName, SegmentName, SystemId, Timestamp, WalFileName};

pub(super) struct Tally {
    hub: Hub,
    cluster: ClusterName,
    /// Why the data directory could not be looked at, last time.
    unseen: Option<String>,
}

impl Tally {
    pub(super) fn new(hub: &Hub, cluster: &ClusterName) -> Self {
        Self { hub: hub.clone(), cluster: cluster.clone(), unseen: None }
    }

    pub(super) fn looked(&mut self, system: SystemId) {
        let now = self.hub.clock.now();
        let was_unseen = self.unseen.take();
        self.hub.board.cluster(&self.cluster, |facts| {
            facts.system = Some(system);
            facts.archive.scanned_at = Some(now);
            if was_unseen.is_some_and(|why| facts.archive.failure.as_ref().is_some_and(|f| f.text == why)) {
                facts.archive.failure = None;
            }
        });
    }

    pub(super) fn cannot_look(&mut self, error: &Error) {
        let text = error.with_hint();
        if self.unseen.as_ref() != Some(&text) {
            tracing::warn!(cluster = %self.cluster, %error, "cannot look for WAL to archive");
        }
        let failure = Failure { at: self.hub.clock.now(), text: text.clone() };
        self.hub.board.cluster(&self.cluster, |facts| facts.archive.failure = Some(failure));
        self.unseen = Some(text);
    }

    /// What is to be said to who waits for it comes back.
    pub(super) fn done(&self, name: WalFileName, done: &Done, now: Timestamp) -> Vec<String> {
        let shipped = match done {
            Done::Shipped(shipped) => Some(shipped),
            Done::Known(..) => None,
        };
        self.hub.board.cluster(&self.cluster, |facts| {
            let archive = &mut facts.archive;
            archive.archived_at = Some(now);
            archive.failure = None;
            if let Some(shipped) = shipped.filter(|s| s.shipped) {
                archive.files_total += 1;
                archive.plain_bytes_total += shipped.plain_bytes;
                archive.stored_bytes_total += shipped.stored_bytes;
            }
            let contested = shipped.is_some_and(|s| s.contested);
            note(&mut archive.conflicts, name, contested);
        });
        let Some(shipped) = shipped else { return Vec::new() };
        if shipped.shipped {
            tracing::info!(cluster = %self.cluster, %name, "archived");
        }
        if let Some((lsn, why)) = &shipped.damage {
            tracing::error!(cluster = %self.cluster, %name, %lsn, why, "archived a damaged segment as it is");
        }
        for warning in &shipped.warnings {
            tracing::warn!(cluster = %self.cluster, %name, "{warning}");
        }
        shipped.warnings.clone()
    }

    pub(super) fn failed(&self, name: Option<WalFileName>, error: &Error, now: Timestamp) {
        let hint = error.hint_text().unwrap_or_default();
        let file = name.map(|name| name.to_string()).unwrap_or_default();
        tracing::warn!(cluster = %self.cluster, file, %error, hint, "not archived; it is tried again");
        self.hub.board.cluster(&self.cluster, |facts| {
            let archive = &mut facts.archive;
            archive.failures_total += 1;
            archive.failure = Some(Failure::of(error, now));
            if let (Some(name), Code::WalConflict) = (name, error.code()) {
                note(&mut archive.conflicts, name, true);
            }
        });
    }

    /// What waits and how far the archive reaches.
    pub(super) fn report(&self, scan: &Scan, queue: &Queue, acks: Option<&Acks>, holes: &holes::Watcher) {
        let waiting = queue.waiting();
        let acked = acks.map(|acks| acks.segments().collect::<Vec<_>>()).unwrap_or_default();
        let archived = scan.done.iter().copied().chain(acked.iter().copied());
        let names: Vec<SegmentName> = queue.names().filter_map(whole).collect();
        let reached = archived_to(archived, names.iter().copied(), scan.size);
        holes.reached(reached);
        let damaged = acks.map(Acks::damaged).unwrap_or_default();
        let found = holes.found();
        self.hub.board.cluster(&self.cluster, |facts| {
            let archive = &mut facts.archive;
            archive.waiting_files = waiting.files;
            archive.waiting_bytes = waiting.bytes;
            archive.waiting_since = waiting.since;
            archive.timeline = reached.map(|(timeline, _)| timeline);
            archive.archived_to = reached.map(|(_, lsn)| lsn);
            archive.damaged = damaged;
            archive.holes = found;
        });
    }
}

fn whole(name: WalFileName) -> Option<SegmentName> {
    match name {
        WalFileName::Segment(segment) => Some(segment),
        _ => None,
    }
}

fn note(conflicts: &mut Vec<SegmentName>, name: WalFileName, contested: bool) {
    let Some(segment) = name.segment() else { return };
    conflicts.retain(|known| *known != segment);
    if contested {
        conflicts.push(segment);
    }
}
