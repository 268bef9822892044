//! The repositories of one push. The required ones are looked at, decided on and written together; each optional one
//! is a task of its own that is told what to write, and left behind when it is too slow.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::file::{Content, LocalFile};
use super::lane::{self, Cargo, Goal, Looked};
use super::presence::{Presence, presence};
use super::{Report, Request};
use crate::codec::Identities;
use crate::config::RepositoryConfig;
use crate::error::{Error, Result};
use crate::model::{RepoName, SegmentSize, SystemId, WalFileName};
use crate::repository::Repository;
use crate::repository::configured;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_object::{self, Placement, Plain, Sealer};
use crate::util::failpoint;

/// What an optional lane is told.
#[derive(Clone)]
pub(super) enum Order {
    Wait,
    Write(Arc<Cargo>),
    /// Come along with the required ones, whose bytes are streamed.
    Join,
}

type Along = JoinHandle<Result<(Option<Looked>, Vec<String>)>>;

pub(super) struct Lanes {
    goal: Arc<Goal>,
    required: Vec<RepositoryConfig>,
    looked: Vec<Looked>,
    optional: Vec<(RepoName, Along)>,
    order: watch::Sender<Order>,
    grace: Duration,
    /// Only for the name of a host in a message.
    identities: Option<Identities>,
}

/// Refuses a configuration that does not say who may read the archive.
pub(super) fn sealer(request: &Request<'_>) -> Result<Sealer> {
    let protection = configured::protection(request.config)?;
    Ok(Sealer::new(protection, request.config.archive.compression, request.now))
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.optional.iter().for_each(|(_, task)| task.abort());
    }
}

impl Lanes {
    /// Starts on the optional repositories; the required ones wait for [`Self::look`].
    pub(super) fn open(
        request: &Request<'_>,
        name: WalFileName,
        system: SystemId,
        size: SegmentSize,
    ) -> Result<Self> {
        let cluster = request.cluster.name.clone();
        let goal = Arc::new(Goal {
            root: WalRoot::new(&cluster, system),
            cluster,
            system,
            name,
            size,
            state_directory: request.config.state_directory.clone(),
            patience: request.config.archive.push_deadline,
        });
        let (required, optional): (Vec<_>, Vec<_>) =
            configured::selected(request.config, request.only)?.into_iter().partition(|r| r.required);
        let (order, orders) = watch::channel(Order::Wait);
        let start = |config: RepositoryConfig| {
            let (goal, orders, name) = (goal.clone(), orders.clone(), config.name.clone());
            (name, tokio::spawn(async move { lane::go_along(config, &goal, orders).await }))
        };
        Ok(Self {
            optional: optional.into_iter().map(start).collect(),
            goal,
            required,
            looked: Vec::new(),
            order,
            grace: request.config.archive.optional_grace,
            identities: configured::identities(request.config).ok().flatten(),
        })
    }

    /// Opens the required repositories and lists the file's name in each.
    pub(super) async fn look(&mut self) -> Result<()> {
        let goal = &self.goal;
        self.looked = try_join_all(self.required.iter().map(|config| lane::look(config, goal))).await?;
        Ok(())
    }

    /// Decides and writes.
    pub(super) async fn ship(mut self, local: LocalFile, sealer: Sealer) -> Result<Report> {
        let digest = local.digest.short();
        let (mut warnings, mut lacking) = (Vec::new(), Vec::new());
        let looked = std::mem::take(&mut self.looked);
        for looked in &looked {
            match presence(&looked.listing, local.name, digest, local.damage.is_some()) {
                Presence::Absent => lacking.push(looked),
                Presence::Present { others } => warnings.extend(lane::others_warning(looked, &others)),
                Presence::Conflict { others } => {
                    let (host, identities) = (&sealer.header.host, self.identities.take());
                    return Err(lane::conflict(looked, &self.goal, &others, identities, host).await);
                }
            }
        }
        let shipped = !lacking.is_empty();
        if shipped {
            failpoint::reach("push-before-upload")?;
            let cargo = Arc::new(Cargo::of(&local, sealer).await?);
            warnings.extend(match &local.content {
                Content::Memory(_) | Content::Sealed(_) => self.write(&lacking, cargo).await?,
                Content::Disk(path) => self.stream(&lacking, &cargo, path).await?,
            });
            failpoint::reach("push-after-upload")?;
        }
        failpoint::reach("push-before-answer")?;
        Ok(Report { name: local.name, shipped, damage: local.damage, warnings })
    }

    /// Everything at once: the required ones are waited for, the optional ones only as long as the grace.
    async fn write(&mut self, lacking: &[&Looked], cargo: Arc<Cargo>) -> Result<Vec<String>> {
        let _ = self.order.send(Order::Write(cargo.clone()));
        let writes = lacking.iter().map(|looked| lane::write(looked, &self.goal, &cargo));
        let mut warnings: Vec<_> = try_join_all(writes).await?.into_iter().flatten().collect();
        warnings.extend(self.wait_for_optional().await.1);
        Ok(warnings)
    }

    /// A file too long for memory goes through one stream into all that lack it.
    async fn stream(&mut self, lacking: &[&Looked], cargo: &Cargo, path: &Path) -> Result<Vec<String>> {
        let _ = self.order.send(Order::Join);
        let (along, mut warnings) = self.wait_for_optional().await;
        let name = self.goal.name;
        let lacks =
            |l: &&Looked| presence(&l.listing, name, cargo.digest(), cargo.is_damaged()) == Presence::Absent;
        let all: Vec<&Looked> = lacking.iter().copied().chain(along.iter().filter(lacks)).collect();
        for looked in &all {
            warnings.extend(lane::mark(looked, &self.goal, cargo).await?);
        }
        let targets: Vec<&Repository> = all.iter().map(|l| &l.repository).collect();
        let file = File::open(path).map_err(|e| Error::io("cannot read the WAL file", path, e))?;
        let (root, plain) = (&self.goal.root, Plain::File(file));
        let placed = wal_object::store(&targets, root, cargo.name, plain, &cargo.sealer, self.grace).await?;
        for (repo, outcome) in placed {
            let Some(looked) = all.iter().find(|l| l.repository.name == repo) else { continue };
            match self.confirm(looked, cargo, (repo, outcome)).await {
                Ok(more) => warnings.extend(more),
                Err(e) if looked.repository.required => return Err(e),
                Err(e) => warnings.push(lane::behind(&looked.repository.name, &e.to_string())),
            }
        }
        Ok(warnings)
    }

    async fn confirm(&self, looked: &Looked, cargo: &Cargo, placed: Placement) -> Result<Vec<String>> {
        lane::confirm(looked, &self.goal, cargo, placed.1?).await
    }

    /// What the optional lanes came to within the grace; the rest is left behind.
    async fn wait_for_optional(&mut self) -> (Vec<Looked>, Vec<String>) {
        let deadline = Instant::now() + self.grace;
        let (mut ready, mut warnings) = (Vec::new(), Vec::new());
        for (name, task) in &mut self.optional {
            match timeout_at(deadline, &mut *task).await {
                Ok(Ok(Ok((looked, said)))) => {
                    ready.extend(looked);
                    warnings.extend(said);
                }
                Ok(Ok(Err(e))) => warnings.push(lane::behind(name, &e.to_string())),
                Ok(Err(e)) => warnings.push(lane::behind(name, &e.to_string())),
                Err(_) => {
                    task.abort();
                    let grace = humantime::format_duration(self.grace);
                    warnings.push(lane::behind(name, &format!("not done {grace} after the required ones")));
                }
            }
        }
        self.optional.clear();
        (ready, warnings)
    }
}
