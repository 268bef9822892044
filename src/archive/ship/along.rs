//! An optional repository of a shipper: written to beside the required ones, never waited for longer than the grace, and
//! not at all for a while after it was left behind.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::super::push::lane::{self, Cargo, Goal, Looked};
use super::super::push::{Presence, presence};
use super::Target;
use crate::error::Result;
use crate::model::WalFileName;

/// How long a repository that was left behind is passed over.
pub(super) const SPARED: Duration = Duration::from_secs(30);

pub(super) struct Along {
    target: Target,
    spared_until: Mutex<Option<Instant>>,
}

/// One file on its way to an optional repository; None while that is spared.
pub(super) type Going = Option<JoinHandle<Result<Vec<String>>>>;

impl Along {
    pub(super) fn new(target: Target) -> Self {
        Self { target, spared_until: Mutex::default() }
    }

    /// Must be called inside a runtime.
    pub(super) fn go(self: &Arc<Self>, goal: &Arc<Goal>, cargo: &Arc<Cargo>) -> Going {
        let until = *self.spared_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| until > Instant::now()) {
            return None;
        }
        let (this, goal, cargo) = (self.clone(), goal.clone(), cargo.clone());
        Some(tokio::spawn(async move { this.write(&goal, &cargo).await }))
    }

    async fn write(&self, goal: &Goal, cargo: &Cargo) -> Result<Vec<String>> {
        let target = &self.target;
        let looked = target.look(goal.name, std::future::ready(())).await?;
        match presence(&looked.listing, goal.name, cargo.digest(), cargo.is_damaged()) {
            Presence::Present { others } => Ok(lane::others_warning(&looked, &others)),
            Presence::Conflict { .. } => Err(lane::taken(&target.repository.place(&goal.name.to_string()))),
            Presence::Absent => {
                let (placed, mut warnings) = lane::place(&looked, goal, cargo).await?;
                let now = target.look(goal.name, std::future::ready(())).await?;
                warnings.extend(lane::confirm_in(&now.listing, &looked, goal, cargo, placed).await?);
                Ok(warnings)
            }
        }
    }

    /// For a stream, which begins in all repositories at once: looked at within the grace, or what is to be said.
    pub(super) async fn look(&self, name: WalFileName, grace: Duration) -> Result<Looked, String> {
        match tokio::time::timeout(grace, self.target.look(name, std::future::ready(()))).await {
            Ok(Ok(looked)) => Ok(looked),
            Ok(Err(e)) => Err(self.left_behind(&e.to_string())),
            Err(_) => Err(self.left_behind("it does not answer")),
        }
    }

    fn left_behind(&self, why: &str) -> String {
        *self.spared_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SPARED);
        lane::behind(&self.target.repository.name, why)
    }
}

/// What the optional ones came to within the grace; the rest is left behind.
pub(super) async fn wait(along: Vec<(&Arc<Along>, Going)>, grace: Duration) -> Vec<String> {
    let deadline = Instant::now() + grace;
    let mut warnings = Vec::new();
    for (along, going) in along {
        let Some(mut going) = going else {
            warnings.push(lane::behind(&along.target.repository.name, "it failed a moment ago"));
            continue;
        };
        match timeout_at(deadline, &mut going).await {
            Ok(Ok(Ok(said))) => warnings.extend(said),
            Ok(Ok(Err(e))) => warnings.push(along.left_behind(&e.to_string())),
            Ok(Err(e)) => warnings.push(along.left_behind(&e.to_string())),
            Err(_) => {
                going.abort();
                let grace = humantime::format_duration(grace);
                warnings.push(along.left_behind(&format!("not done {grace} after the required ones")));
            }
        }
    }
    warnings
}
