//! The repositories of one run: the required ones stay, an optional one that fails is dropped and remembered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::model::RepoName;
use crate::repository::Repository;
use crate::repository::fanout::Outcome;

pub(super) struct Targets {
    inner: Mutex<Inner>,
}

struct Inner {
    current: Vec<Repository>,
    dropped: Vec<(RepoName, Error)>,
}

impl Targets {
    /// `dropped`: those that did not answer in the first place.
    pub(super) fn new(current: Vec<Repository>, dropped: Vec<(RepoName, Error)>) -> Self {
        Self { inner: Mutex::new(Inner { current, dropped }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that still take part, required ones first.
    pub(super) fn current(&self) -> Vec<Repository> {
        let mut current = self.lock().current.clone();
        current.sort_by_key(|r| !r.required);
        current
    }
    pub(super) fn required(&self) -> Vec<Repository> {
        self.lock().current.iter().filter(|r| r.required).cloned().collect()
    }
    pub(super) fn optional(&self) -> Vec<Repository> {
        self.lock().current.iter().filter(|r| !r.required).cloned().collect()
    }

    /// An optional repository is out of this run.
    pub(super) fn drop_out(&self, name: &RepoName, why: Error) {
        let mut inner = self.lock();
        inner.current.retain(|r| &r.name != name);
        if !inner.dropped.iter().any(|(known, _)| known == name) {
            inner.dropped.push((name.clone(), why));
        }
    }

    /// Drops those whose write failed. (A required one's failure is an error before it comes here.)
    pub(super) fn take(&self, outcomes: Vec<Outcome>) {
        for (name, result) in outcomes {
            if let Err(why) = result {
                self.drop_out(&name, why);
            }
        }
    }

    /// Those that were dropped, with the reason, for the report.
    pub(super) fn take_dropped(&self) -> Vec<(RepoName, Error)> {
        std::mem::take(&mut self.lock().dropped)
    }
}
