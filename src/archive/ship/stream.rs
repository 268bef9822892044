//! A file too long for memory: one stream into all that lack it.

use std::fs::File;

use super::super::push::file::{Content, LocalFile};
use super::super::push::lane::{self, Cargo, Goal, Looked};
use super::super::push::{Presence, presence};
use super::{Shipped, Shipper};
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::repository::wal_object::{self, Plain, Sealer};

impl Shipper {
    /// Optional repositories come along when they answer within the grace.
    pub(super) async fn stream(
        &self,
        lacking: &[&Looked],
        local: &LocalFile,
        goal: &Goal,
        sealer: Sealer,
        done: &mut Shipped,
    ) -> Result<()> {
        let Content::Disk(path) = &local.content else {
            return Err(Error::internal("a file in memory is not streamed"));
        };
        let cargo = Cargo::of(local, sealer).await?;
        let along = self.optional_lacking(goal, &cargo, done).await;
        let all: Vec<&Looked> = lacking.iter().copied().chain(&along).collect();
        for looked in &all {
            match lane::mark(looked, goal, &cargo).await {
                Ok(warnings) => done.warnings.extend(warnings),
                Err(e) if looked.repository.required => return Err(e),
                Err(e) => done.warnings.push(lane::behind(&looked.repository.name, &e.to_string())),
            }
        }
        let targets: Vec<&Repository> = all.iter().map(|l| &l.repository).collect();
        let file = File::open(path).map_err(|e| Error::io("cannot read the WAL file", path, e))?;
        let (root, plain) = (&self.root, Plain::File(file));
        let placed = wal_object::store(&targets, root, cargo.name, plain, &cargo.sealer, self.grace).await?;
        for (repo, outcome) in placed {
            let Some(looked) = all.iter().find(|l| l.repository.name == repo) else { continue };
            let confirmed = async {
                let placed = outcome?;
                Ok((placed, lane::confirm(looked, goal, &cargo, placed).await?))
            };
            match confirmed.await {
                Ok((placed, warnings)) => {
                    done.contest(warnings);
                    if looked.repository.required {
                        done.count(placed);
                    }
                }
                Err(e) if looked.repository.required => return Err(e),
                Err(e) => done.warnings.push(lane::behind(&looked.repository.name, &Error::to_string(&e))),
            }
        }
        Ok(())
    }

    async fn optional_lacking(&self, goal: &Goal, cargo: &Cargo, done: &mut Shipped) -> Vec<Looked> {
        let looks = self.optional.iter().map(|along| along.look(goal.name, self.grace));
        let mut lacking = Vec::new();
        for looked in futures::future::join_all(looks).await {
            match looked {
                Err(warning) => done.warnings.push(warning),
                Ok(looked) => {
                    let found = presence(&looked.listing, goal.name, cargo.digest(), cargo.is_damaged());
                    if found == Presence::Absent {
                        lacking.push(looked);
                    }
                }
            }
        }
        lacking
    }
}
