//! The control socket's `fetch`: what `wal fetch` asks where a standby follows the archive. The segment and the next ones
//! are received ahead of the replay (`archive::ahead`), so that it does not wait for the store.
//!
//! Promise kept here (2): the answer is a file that is there (`spooled`), a store that does not answer (`failed`), or
//! `declined`: decide yourself. That something does not exist is never said here.
//!
//! A prefetcher is made when a cluster's server asks for the first time, and again after a failure, when the data
//! directory is another one, and in the next generation. Nobody asked for [`IDLE`]: it ends, and its spool is gone; so does
//! a standby that streams, and one that was promoted. What a killed agent left in a spool is removed by the next, unserved.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::archiver::push::HEARTBEAT;
use super::control::Replies;
use super::control::wire::failure;
use super::services::Services;
use super::supervisor::Task;
use crate::archive::ahead::{self, Ahead, Settings, Spooled};
use crate::archive::source::{self, Source};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, SegmentName, WalFileName};
use crate::postgres::control_file::ControlFile;
use crate::repository::wal_object::blocking;

/// A standby that waits for WAL asks every few seconds (`wal_retrieve_retry_interval`).
const IDLE: Duration = Duration::from_mins(1);
const SWEEP: Duration = Duration::from_secs(5);
/// Nothing arrives for so long: the store is silent.
const SILENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// `--cluster`
    #[serde(default)]
    pub cluster: Option<ClusterName>,
    /// PostgreSQL's working directory.
    pub data_directory: String,
    /// `%f`
    pub name: String,
}

/// What is answered, besides `ok`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Spooled(Spooled),
    /// As `control::wire` writes errors.
    Failed(Value),
    Declined(String),
}

/// The prefetchers of one generation, by cluster. Cheap to clone.
#[derive(Clone, Default)]
pub struct Prefetchers(Arc<Mutex<BTreeMap<ClusterName, Following>>>);

struct Following {
    ahead: Arc<Ahead>,
    asked_at: Instant,
}

/// The task that ends prefetchers; the questions themselves are answered where they are heard.
pub fn task(services: &Services) -> Task {
    let services = services.clone();
    Task::new("prefetch", move || tend(services.clone()))
}

async fn tend(services: Services) -> Result<()> {
    let mut swept = BTreeSet::new();
    loop {
        let ended = tokio::time::timeout(SWEEP, services.hub.shutdown.cancelled()).await.is_ok();
        let mut following = services.prefetchers.0.lock().await;
        if ended {
            following.clear();
            return Ok(());
        }
        following.retain(|_, f| f.asked_at.elapsed() < IDLE);
        for cluster in &services.hub.config.clusters {
            let Some(place) = services.archivers.data_directory(&cluster.name) else { continue };
            if !following.contains_key(&cluster.name) && swept.insert(cluster.name.clone()) {
                let places = Places::of(&services, &cluster.name, &place);
                if let Err(error) = blocking(move || places.clear()).await {
                    tracing::warn!(cluster = %cluster.name, %error, "a spool of an earlier agent stays");
                }
            }
        }
    }
}

/// Where a cluster's spool may be.
struct Places {
    configured: Option<PathBuf>,
    state: PathBuf,
    data_directory: PathBuf,
}

impl Places {
    fn of(services: &Services, cluster: &ClusterName, data_directory: &Path) -> Self {
        // Never the bare name: there may be a data directory of this name.
        let name = format!("{}.{cluster}", ahead::DIRECTORY);
        let config = &services.hub.config;
        Self {
            configured: config.prefetch.directory.as_ref().map(|directory| directory.join(&name)),
            state: config.state_directory.join(&name),
            data_directory: data_directory.join(ahead::DIRECTORY),
        }
    }

    /// As configured; else where the segments can be renamed from, if we may write there. Blocks.
    fn choose(&self) -> PathBuf {
        if let Some(configured) = &self.configured {
            return configured.clone();
        }
        let (state, data) = (self.state.parent(), self.data_directory.parent());
        let device = |path: PathBuf| std::fs::metadata(path).ok().map(|meta| meta.dev());
        let pg_wal = data.map(|data| data.join("pg_wal")).and_then(device);
        let near = pg_wal.is_some() && pg_wal == state.map(Path::to_owned).and_then(device);
        let writable = |path: &Path| nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok();
        if !near && data.is_some_and(writable) { self.data_directory.clone() } else { self.state.clone() }
    }

    fn clear(&self) -> Result<()> {
        self.configured
            .iter()
            .chain([&self.state, &self.data_directory])
            .try_for_each(|spool| ahead::clear(spool))
    }
}

pub async fn answer(services: &Services, question: Question, replies: &mut Replies) -> Result<Value> {
    let answer = match answered(services, question, replies).await? {
        Ok(Some(spooled)) => Answer::Spooled(spooled),
        Ok(None) => Answer::Declined("the archive is to be asked".to_owned()),
        Err(error) => Answer::Failed(failure(&error)),
    };
    serde_json::to_value(answer).map_err(|e| Error::internal("cannot write an answer").because(e))
}

/// The outer error: the asker has gone.
async fn answered(
    services: &Services,
    question: Question,
    replies: &mut Replies,
) -> Result<Result<Option<Spooled>>> {
    let Some(WalFileName::Segment(segment)) = WalFileName::parse(&question.name) else { return Ok(Ok(None)) };
    if !services.hub.config.prefetch.enabled {
        return Ok(Ok(None));
    }
    let ahead = match patiently(prefetcher(services, &question), segment, || 0, replies).await? {
        Ok(Some(ahead)) => ahead,
        Ok(None) => return Ok(Ok(None)),
        Err(error) => {
            tracing::debug!(%segment, %error, "nothing is prefetched");
            return Ok(Err(error));
        }
    };
    let fetched = patiently(ahead.get(segment), segment, || ahead.received_bytes(), replies).await?;
    if let Err(error) = &fetched {
        tracing::warn!(%segment, %error, "a segment was not prefetched");
    }
    if fetched.as_ref().is_err_and(|error| error.code() != Code::StoreUnavailable) {
        // Other credentials, another disk: the next question begins anew.
        services.prefetchers.0.lock().await.retain(|_, f| !Arc::ptr_eq(&f.ahead, &ahead));
    }
    Ok(fetched)
}

/// Waits, and lets the asker hear of it. Gives up when nothing has arrived for [`SILENCE`]; what is under way goes on for
/// the next question.
async fn patiently<T>(
    work: impl Future<Output = Result<T>>,
    segment: SegmentName,
    arrived: impl Fn() -> u64,
    replies: &mut Replies,
) -> Result<Result<T>> {
    let mut work = std::pin::pin!(work);
    let (mut seen, mut since) = (arrived(), Instant::now());
    loop {
        if let Ok(done) = tokio::time::timeout(HEARTBEAT, &mut work).await {
            return Ok(done);
        }
        if seen != arrived() {
            (seen, since) = (arrived(), Instant::now());
        } else if since.elapsed() >= SILENCE {
            let what = format!("{segment}: nothing arrives from the store");
            return Ok(Err(Error::new(Code::StoreUnavailable, what)));
        }
        replies.progress(json!({ "fetching": segment.to_string() })).await?;
    }
}

/// The one of the asker's cluster; None where the asker is none of ours, or we have no key.
async fn prefetcher(services: &Services, question: &Question) -> Result<Option<Arc<Ahead>>> {
    let data_directory = PathBuf::from(&question.data_directory);
    let (archivers, place) = (services.archivers.clone(), data_directory.clone());
    let (named, all) = (question.cluster.clone(), services.clone());
    let recognised = blocking(move || {
        let Some(cluster) = archivers.cluster_at(&place, named.as_ref()) else { return Ok(None) };
        let control = ControlFile::read(&place)?;
        let spool = Places::of(&all, &cluster, &place).choose();
        Ok(Some((cluster, control.system, control.wal_segment_size, spool)))
    });
    let Some((cluster, system, size, spool)) = recognised.await? else { return Ok(None) };
    let config = &services.hub.config;
    let settings = Settings {
        system,
        size,
        data_directory,
        spool,
        spool_bytes: config.prefetch.size,
        deadline: config.archive.fetch_deadline,
    };
    let mut following = services.prefetchers.0.lock().await;
    if let Some(known) = following.get_mut(&cluster).filter(|known| *known.ahead.settings() == settings) {
        known.asked_at = Instant::now();
        return Ok(Some(known.ahead.clone()));
    }
    following.remove(&cluster);
    let identities = {
        let config = config.clone();
        blocking(move || source::identities(&config)).await?
    };
    let (opened, unavailable) = services.stores.get().await.into_parts();
    if let (true, Some((_, _, error))) = (opened.is_empty(), unavailable.into_iter().next()) {
        return Err(error);
    }
    let source = Source::opened(&opened, &cluster, system, identities, config.archive.optional_grace);
    let ahead = Arc::new(Ahead::begin(settings, source)?);
    tracing::info!(%cluster, "segments are fetched ahead of a server that follows the archive");
    following.insert(cluster, Following { ahead: ahead.clone(), asked_at: Instant::now() });
    Ok(Some(ahead))
}
