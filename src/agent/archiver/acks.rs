//! What may be answered from memory. An acknowledgement speaks of a content, not of a name: it is an answer only for a
//! file whose device, inode, size and times are those of the file that was digested. After a restore in place, or when a
//! name comes back, they differ, and the file is digested again.

use std::collections::HashMap;

use crate::agent::state::State;
use crate::agent::state::acks::{self, Ack};
use crate::archive::push::Fingerprint;
use crate::model::{Digest, SegmentName, SystemId, Timestamp, WalFileName};

/// Older ones are forgotten: PostgreSQL asks within minutes, and again at most after a crash.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(2);
/// More are not kept in memory; the oldest go first.
const MOST: usize = 20_000;

/// Of one cluster, given by one set of repositories.
#[derive(Debug)]
pub(super) struct Acks {
    state: State,
    system: SystemId,
    holders: String,
    known: HashMap<WalFileName, Ack>,
}

impl Acks {
    /// What is remembered. A memory that cannot be read is an empty one.
    pub(super) fn load(state: &State, system: SystemId, holders: String, now: Timestamp) -> Self {
        let remembered =
            acks::prune(state, Timestamp(now.0 - KEPT)).and_then(|()| acks::load(state, system, &holders));
        let remembered = remembered.unwrap_or_else(|error| {
            tracing::warn!(%error, "acknowledgements are not remembered");
            Vec::new()
        });
        let known = remembered.into_iter().map(|ack| (ack.name, ack)).collect();
        Self { state: state.clone(), system, holders, known }
    }

    /// The acknowledgement of exactly this file.
    pub(super) fn of(&self, name: WalFileName, fingerprint: &Fingerprint) -> Option<&Ack> {
        self.known.get(&name).filter(|ack| ack.fingerprint == *fingerprint)
    }
    /// The content of this name that was acknowledged last.
    pub(super) fn digest(&self, name: WalFileName) -> Option<Digest> {
        self.known.get(&name).map(|ack| ack.digest)
    }
    pub(super) fn get(&self, name: WalFileName) -> Option<&Ack> {
        self.known.get(&name)
    }
    pub(super) fn segments(&self) -> impl Iterator<Item = SegmentName> {
        self.known.keys().filter_map(|name| match name {
            WalFileName::Segment(segment) => Some(*segment),
            _ => None,
        })
    }
    /// Segments that were archived as they are, damaged.
    pub(super) fn damaged(&self) -> Vec<SegmentName> {
        let damaged = self.known.values().filter(|ack| ack.damage.is_some());
        let mut damaged: Vec<_> = damaged.filter_map(|ack| ack.name.segment()).collect();
        damaged.sort();
        damaged
    }

    /// Remembers these, on disk too. A disk that refuses costs time after the next start, nothing else.
    pub(super) fn add(&mut self, new: Vec<Ack>, now: Timestamp) {
        if let Err(error) = acks::keep(&self.state, self.system, &self.holders, &new) {
            tracing::warn!(%error, "acknowledgements are not remembered");
        }
        self.known.extend(new.into_iter().map(|ack| (ack.name, ack)));
        if self.known.len() > MOST {
            self.forget(now);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let mut times: Vec<_> = self.known.values().map(|ack| ack.at).collect();
        times.sort();
        let before = times.get(times.len() / 2).copied().unwrap_or(now);
        self.known.retain(|_, ack| ack.at >= before);
        if let Err(error) = acks::prune(&self.state, before) {
            tracing::warn!(%error, "old acknowledgements are not forgotten");
        }
    }
}
