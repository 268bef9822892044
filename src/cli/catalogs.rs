//! What the repositories hold together: one line per backup, with the repositories that have it. A repository that
//! does not answer is said, never taken for an empty one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::context::{Context, Outcome};
use crate::codec::Identities;
use crate::config::{Config, EncryptionConfig};
use crate::error::{Error, Result};
use crate::model::{BackupId, ClusterName, RepoName};
use crate::repository::catalog::{Catalog, CatalogEntry, Mark};
use crate::repository::configured::{self, Patience};
use crate::repository::record::BackupRecord;
use crate::repository::signature::Verdict;
use crate::repository::{Repository, access};

/// One backup, wherever it is.
pub struct Held {
    pub record: BackupRecord,
    /// Of the repository that believes it most.
    pub trust: Verdict,
    pub repositories: Vec<RepoName>,
    /// From all repositories, by time.
    pub marks: Vec<Mark>,
}

/// All that was asked.
pub struct Holdings {
    pub cluster: ClusterName,
    /// Oldest first.
    pub backups: Vec<Held>,
    /// Objects without a record: running backups, or what killed ones left.
    pub unfinished: Vec<(RepoName, BackupId, u64)>,
    pub unreadable: Vec<(RepoName, String, Error)>,
    /// Name, whether it is required, why.
    pub unavailable: Vec<(RepoName, bool, Error)>,
    pub opened: Vec<Repository>,
}

/// Asks every selected repository. An error only when none answers.
pub async fn load(ctx: &Context, config: &Config) -> Result<Holdings> {
    let cluster = ctx.cluster(config)?.name.clone();
    let trust = access::trust(config)?;
    let repositories = configured::open_all(config, ctx.repo.as_ref(), Patience::default()).await?;
    let (opened, unavailable) = repositories.into_parts();
    let mut holdings = Holdings {
        cluster: cluster.clone(),
        backups: Vec::new(),
        unfinished: Vec::new(),
        unreadable: Vec::new(),
        unavailable,
        opened: Vec::new(),
    };
    let reads = opened.iter().map(|repository| Catalog::load(repository, &cluster, &trust));
    let catalogs = futures::future::join_all(reads).await;
    let mut merged: BTreeMap<BackupId, Held> = BTreeMap::new();
    for (repository, catalog) in opened.into_iter().zip(catalogs) {
        match catalog {
            Ok(catalog) => {
                holdings.take(&repository.name, catalog, &mut merged);
                holdings.opened.push(repository);
            }
            Err(error) => holdings.unavailable.push((repository.name, repository.required, error)),
        }
    }
    if holdings.opened.is_empty()
        && let Some((name, _, error)) = holdings.unavailable.pop()
    {
        return Err(error.while_doing(format!("no repository answers; {name}")));
    }
    holdings.backups = merged.into_values().collect();
    Ok(holdings)
}

/// The identities, and whether WAL can be opened at all. An identity that is not on this host is no error: it should
/// be elsewhere.
pub fn keys(config: &Config) -> Result<(Option<Identities>, bool)> {
    match &config.encryption {
        EncryptionConfig::Recipients { identity_file: Some(path), .. } if path.exists() => {
            Ok((access::identities(config)?, true))
        }
        EncryptionConfig::Recipients { .. } => Ok((None, false)),
        EncryptionConfig::None | EncryptionConfig::Unset => Ok((None, true)),
    }
}

impl Holdings {
    fn take(&mut self, repo: &RepoName, catalog: Catalog, merged: &mut BTreeMap<BackupId, Held>) {
        for CatalogEntry { record, trust, marks } in catalog.backups {
            let held = merged.entry(record.id.clone()).or_insert_with(|| Held {
                record,
                trust: trust.clone(),
                repositories: Vec::new(),
                marks: Vec::new(),
            });
            if trust == Verdict::Trusted {
                held.trust = trust;
            }
            held.repositories.push(repo.clone());
            held.marks
                .extend(marks.into_iter().filter(|mark| !held.marks.contains(mark)).collect::<Vec<_>>());
            held.marks.sort_by_key(|mark| mark.at);
        }
        self.unfinished.extend(catalog.unpublished.into_iter().map(|(id, bytes)| (repo.clone(), id, bytes)));
        self.unreadable.extend(catalog.unreadable.into_iter().map(|(key, e)| (repo.clone(), key, e)));
    }

    /// What keeps this from being the whole truth, a line each.
    pub fn doubts(&self) -> Vec<String> {
        let down = self.unavailable.iter().map(|(name, required, error)| {
            let kind = if *required { "required" } else { "optional" };
            format!("WARNING: {kind} repository {name} is not seen here: {error}")
        });
        let broken = self
            .unreadable
            .iter()
            .map(|(repo, key, error)| format!("WARNING: unreadable record in {repo}: {key}: {error}"));
        down.chain(broken).collect()
    }

    /// A view that lacks a required repository, or has records that cannot be read, is a finding.
    pub fn outcome(&self) -> Outcome {
        let lacks = self.unavailable.iter().any(|(_, required, _)| *required);
        if lacks || !self.unreadable.is_empty() { Outcome::Finding } else { Outcome::Done }
    }

    pub fn doubts_json(&self) -> Value {
        json!({
            "unavailable": self.unavailable.iter().map(|(name, required, error)| json!({
                "repository": name, "required": required, "code": error.code().as_str(), "message": error.to_string(),
            })).collect::<Vec<_>>(),
            "unreadable": self.unreadable.iter().map(|(repo, key, error)| json!({
                "repository": repo, "key": key, "message": error.to_string(),
            })).collect::<Vec<_>>(),
        })
    }
}

/// Of these marks only the last one holds.
fn is_verification(mark: &Mark) -> bool {
    mark.mark == "verified" || mark.mark == "failed-verification"
}

impl Held {
    /// `ok`, or what is wrong with it, then its marks.
    pub fn state(&self) -> String {
        let mut words = Vec::new();
        if let Verdict::Untrusted(reason) = &self.trust {
            words.push(format!("untrusted ({reason})"));
        }
        let pages: usize = self.record.base.iter().flat_map(|b| &b.page_errors).map(|e| e.blocks.len()).sum();
        if self.record.is_damaged() {
            words.push(format!("damaged ({pages} bad pages)"));
        }
        match self.record.logical.as_ref().map_or(0, |l| l.warnings) {
            0 => {}
            1 => words.push("1 warning".to_owned()),
            n => words.push(format!("{n} warnings")),
        }
        let newest = self.marks.iter().rev().find(|mark| is_verification(mark));
        for mark in self.marks.iter().filter(|mark| !is_verification(mark)).chain(newest) {
            let word = mark.mark.clone();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        if words.is_empty() { "ok".to_owned() } else { words.join(", ") }
    }

    pub fn repositories_text(&self) -> String {
        self.repositories.iter().map(RepoName::as_str).collect::<Vec<_>>().join(",")
    }
}
