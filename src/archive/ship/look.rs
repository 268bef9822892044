//! Listings that several files share: whoever asks while a listing runs waits for the next one, which then answers all
//! that wait. Each answer comes from a listing that was begun after the question, so that it is as true as one of its
//! own would be, with fewer requests.
//!
//! Cancellation: a dropped question is forgotten; if it was the one that lists, another takes over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::error::{Error, Result};
use crate::model::WalFileName;
use crate::repository::Repository;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::WalListing;

type Answer = Result<Arc<WalListing>, Arc<Error>>;

/// One repository's listings.
pub(super) struct Lister {
    root: WalRoot,
    waiting: Mutex<Vec<(WalFileName, oneshot::Sender<Answer>)>>,
    turn: AsyncMutex<()>,
}

impl Lister {
    pub(super) fn new(root: WalRoot) -> Self {
        Self { root, waiting: Mutex::default(), turn: AsyncMutex::default() }
    }

    /// What the repository holds under this name (and under some others). `rest` is waited for once by who lists, so that
    /// others can join.
    pub(super) async fn look(
        &self,
        repository: &Repository,
        file: WalFileName,
        rest: impl Future<Output = ()>,
    ) -> Result<Arc<WalListing>> {
        let mut rest = Some(rest);
        loop {
            let (tell, mut told) = oneshot::channel();
            self.waiting().push((file, tell));
            let turn = tokio::select! {
                biased;
                answer = &mut told => match answer {
                    Ok(answer) => return answer.map_err(|error| error.again()),
                    // The one who listed for us was cancelled.
                    Err(_) => continue,
                },
                turn = self.turn.lock() => turn,
            };
            if let Some(rest) = rest.take() {
                rest.await;
            }
            let asked = std::mem::take(&mut *self.waiting());
            let answer = self.list(repository, &asked).await.map(Arc::new).map_err(Arc::new);
            drop(turn);
            for (_, tell) in asked {
                // Who has gone does not need it.
                let _ = tell.send(answer.clone());
            }
            if let Ok(answer) = told.await {
                return answer.map_err(|error| error.again());
            }
        }
    }

    async fn list(
        &self,
        repository: &Repository,
        asked: &[(WalFileName, oneshot::Sender<Answer>)],
    ) -> Result<WalListing> {
        // A directory holds 4 GiB of WAL, or the history files: what is asked of several has nothing in common.
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for (file, _) in asked {
            let prefix = self.root.file_prefix(*file);
            let directory =
                prefix.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned());
            let common = places.get(&directory).map_or_else(|| prefix.clone(), |c| common_prefix(c, &prefix));
            places.insert(directory, common);
        }
        let mut listing = WalListing::default();
        for prefix in places.values() {
            for info in repository.storage.list(prefix, None).await? {
                listing.add(&repository.name, &self.root, info);
            }
        }
        Ok(listing)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(WalFileName, oneshot::Sender<Answer>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys are ASCII: any byte is a good place to cut.
fn common_prefix(a: &str, b: &str) -> String {
    let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.chars().take(common).collect()
}
