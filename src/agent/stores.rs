//! The repositories, kept open as long as a configuration lasts: opening one reads its secrets, makes its connections
//! and reads `pgkeep.json`, which nobody wants to pay for every segment.
//!
//! One that does not open is tried again when somebody asks, at most every [`RETRY`], and never twice at once, however
//! long a try hangs: a store that is away costs the others no more than [`PATIENCE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::{Hub, store_facts};
use crate::config::RepositoryConfig;
use crate::error::{Code, Error, Result};
use crate::model::RepoName;
use crate::repository::{Repositories, Repository, configured};

/// Between two tries.
const RETRY: Duration = Duration::from_secs(5);
/// How long somebody who asks waits for a try.
const PATIENCE: Duration = Duration::from_secs(15);

/// Cheap to clone.
#[derive(Clone)]
pub struct Stores(Arc<Vec<Slot>>);

struct Slot {
    config: RepositoryConfig,
    /// Whose board says how the store answers.
    hub: Hub,
    state: Mutex<State>,
}

enum State {
    Closed,
    Trying(JoinHandle<Result<Repository>>),
    Open(Repository),
    Failed { at: Instant, error: Error },
}

impl Stores {
    /// Opens nothing yet.
    pub fn new(hub: &Hub) -> Self {
        store_facts::begin(hub);
        let slot = |config: &RepositoryConfig| Slot {
            config: config.clone(),
            hub: hub.clone(),
            state: Mutex::new(State::Closed),
        };
        Self(Arc::new(hub.config.repositories.iter().map(slot).collect()))
    }

    /// Every configured repository, opened or with the reason why not.
    pub async fn get(&self) -> Repositories {
        let tries = self
            .0
            .iter()
            .map(|slot| async { (slot.config.name.clone(), slot.config.required, slot.open().await) });
        Repositories::from_results(join_all(tries).await)
    }

    /// The one of this name, opened.
    pub async fn one(&self, name: &RepoName) -> Result<Repository> {
        match self.0.iter().find(|slot| slot.config.name == *name) {
            Some(slot) => slot.open().await,
            None => Err(Error::new(Code::Usage, format!("the configuration has no repository `{name}`"))),
        }
    }

    /// What uses it has failed in a way that only opening it again can mend: other credentials, a disk mounted anew.
    pub async fn close(&self, name: &RepoName) {
        for slot in self.0.iter().filter(|slot| slot.config.name == *name) {
            let mut state = slot.state.lock().await;
            if matches!(*state, State::Open(_)) {
                *state = State::Closed;
            }
        }
    }
}

impl Slot {
    async fn open(&self) -> Result<Repository> {
        let mut state = self.state.lock().await;
        loop {
            match &mut *state {
                State::Open(repository) => return Ok(repository.clone()),
                State::Failed { at, error } if at.elapsed() < RETRY => return Err(error.again()),
                State::Closed | State::Failed { .. } => *state = State::Trying(self.begin()),
                State::Trying(attempt) => {
                    let Ok(ended) = tokio::time::timeout(PATIENCE, attempt).await else {
                        let error = self.hangs();
                        store_facts::not_opened(&self.hub, &self.config.name, &error);
                        return Err(error);
                    };
                    let opened = ended
                        .unwrap_or_else(|e| Err(Error::internal("opening a repository panicked").because(e)));
                    *state = match opened {
                        Ok(repository) => State::Open(repository),
                        Err(error) => {
                            store_facts::not_opened(&self.hub, &self.config.name, &error);
                            State::Failed { at: Instant::now(), error }
                        }
                    };
                }
            }
        }
    }

    /// A task of its own: a caller that gives up does not make the next one begin anew.
    fn begin(&self) -> JoinHandle<Result<Repository>> {
        let config = self.config.clone();
        let observer = store_facts::BoardObserver::of(&self.hub.board, &self.hub.clock, &config.name);
        tokio::spawn(async move {
            let patience = configured::Patience::default();
            let storage = configured::open_store_observed(&config, patience, Some(observer)).await?;
            Repository::open(config.name, config.required, storage).await
        })
    }

    fn hangs(&self) -> Error {
        Error::new(
            Code::StoreUnavailable,
            format!("the repository {} is being opened and hangs", self.config.name),
        )
        .at(&self.config.store.url)
        .hint("look at the network, the mount or the store itself; it is used as soon as it answers")
    }
}
