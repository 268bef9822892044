//! How full the repositories are: each is counted once a day, what this agent sends in between is added.
//!
//! The count is remembered across restarts. Of a directory the capacity is what it holds and what its disk has free,
//! unless one is configured; of a bucket only what is configured. A store that fails or hangs is asked again at the next
//! [`ROUND`], and holds up nobody but itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::Hub;
use super::services::Services;
use super::state::usage::{self, Count};
use super::supervisor::Task;
use crate::config::RepositoryConfig;
use crate::error::Result;
use crate::model::{RepoName, Timestamp};
use crate::repository::usage::stored_bytes;

const ROUND: Duration = Duration::from_mins(10);
/// Between two counts.
const COUNTED: Duration = Duration::from_hours(24);
/// A disk that hangs is not asked for longer.
const DISK: Duration = Duration::from_secs(10);

/// One for each repository: one that hangs holds up no other.
pub fn tasks(services: &Services) -> Vec<Task> {
    let task = |repository: &RepositoryConfig| {
        let (services, repository) = (services.clone(), repository.clone());
        Task::new(format!("usage {}", repository.name), move || watch(services.clone(), repository.clone()))
    };
    services.hub.config.repositories.iter().map(task).collect()
}

async fn watch(services: Services, repository: RepositoryConfig) -> Result<()> {
    let shutdown = services.hub.shutdown.clone();
    let mut meter = Meter::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ended = round(&services, &repository, &mut meter) => {
                if let Err(error) = ended {
                    tracing::debug!(repository = %repository.name, %error, "what it holds is not known");
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

/// From a count and what was sent since to what is there.
#[derive(Default)]
struct Meter {
    counted: Option<Count>,
    /// The board's total when the count was current.
    sent: u64,
}

impl Meter {
    /// A clock that was set back makes a count look as if it were still to come.
    fn is_due(&self, now: Timestamp) -> bool {
        self.counted.is_none_or(|count| count.at > now || now.since(count.at) >= COUNTED)
    }
    fn took(&mut self, count: Count, sent: u64) {
        (self.counted, self.sent) = (Some(count), sent);
    }
    /// What is there, after so many bytes were sent in all; None before the first count.
    fn moved(&mut self, sent: u64) -> Option<Count> {
        let count = self.counted.as_mut()?;
        count.bytes += sent.saturating_sub(self.sent);
        self.sent = sent;
        Some(*count)
    }
}

async fn round(services: &Services, repository: &RepositoryConfig, meter: &mut Meter) -> Result<()> {
    let (hub, name) = (&services.hub, &repository.name);
    let opened = services.stores.one(name).await?;
    if meter.counted.is_none()
        && let Some(count) = usage::load(&hub.state, name, &opened.id)?
    {
        meter.took(count, sent(hub, name));
    }
    if meter.is_due(hub.clock.now()) {
        // What is sent meanwhile may be listed or not; it is counted, too much rather than too little.
        let (at, sent) = (hub.clock.now(), sent(hub, name));
        let bytes = stored_bytes(&opened).await?;
        meter.took(Count { at, bytes }, sent);
    }
    let Some(count) = meter.moved(sent(hub, name)) else { return Ok(()) };
    usage::keep(&hub.state, name, &opened.id, count)?;
    let capacity = match (repository.store.capacity, repository.store.directory()) {
        (Some(bytes), _) => Some(bytes),
        (None, Some(directory)) => free(directory).await.map(|free| free.saturating_add(count.bytes)),
        (None, None) => None,
    };
    hub.board.repository(name, |facts| {
        facts.used_bytes = Some(count.bytes);
        facts.capacity_bytes = capacity;
    });
    Ok(())
}

fn sent(hub: &Hub, name: &RepoName) -> u64 {
    hub.board.read(|all| all.repositories.get(name).map_or(0, |facts| facts.sent_bytes_total))
}

/// What an ordinary user may still write there.
async fn free(directory: PathBuf) -> Option<u64> {
    let asked = tokio::task::spawn_blocking(move || statvfs(Path::new(&directory)));
    let disk = tokio::time::timeout(DISK, asked).await.ok()?.ok()?.ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_counted_once_a_day_and_what_is_sent_is_added() {
        let at: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let mut meter = Meter::default();
        assert!(meter.is_due(at) && meter.moved(5).is_none());
        meter.took(Count { at, bytes: 100 }, 40);
        assert!(!meter.is_due(at.plus(Duration::from_hours(23))));
        assert!(meter.is_due(at.plus(Duration::from_hours(24))));
        assert!(meter.is_due(at.minus(Duration::from_secs(1))), "the clock was set back");
        assert_eq!(meter.moved(50).unwrap().bytes, 110);
        assert_eq!(meter.moved(50).unwrap().bytes, 110);
        assert_eq!(meter.moved(57).unwrap().bytes, 117);
    }
}
