//! Each repository: whether it is one, whether it knows this server, what its store really does, its clock, its room.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::Subject;
use super::findings::Findings;
use crate::config::{ChecksumMode, RepositoryConfig};
use crate::error::Result;
use crate::postgres::facts::ServerFacts;
use crate::repository::configured::{self, Patience};
use crate::repository::{Repository, keys, open};
use crate::storage::{self, Ability, Capabilities, Storage, StoreSettings};
use crate::util::{clock, human};

/// A request's signature is refused beyond 15 minutes; long before that something is wrong.
const SKEW: Duration = Duration::from_mins(1);
/// A directory with less free than this part of its disk will be full soon.
const LITTLE_ROOM: u64 = 10;

/// Checks all selected repositories; gives those that can be used.
pub async fn all(
    subject: &Subject<'_>,
    facts: Option<&ServerFacts>,
    findings: &mut Findings,
) -> Vec<Repository> {
    let selected = match configured::selected(subject.config, subject.ctx.repo.as_ref()) {
        Ok(selected) => selected,
        Err(error) => {
            findings.error("repositories", &error);
            return Vec::new();
        }
    };
    let mut usable = Vec::new();
    for config in selected {
        let check = format!("repository {}", config.name);
        match one(subject, &config, facts, &check, findings).await {
            Ok(repository) => usable.push(repository),
            Err(error) => findings.error_if(config.required, check, &error),
        }
    }
    usable
}

async fn one(
    subject: &Subject<'_>,
    config: &RepositoryConfig,
    facts: Option<&ServerFacts>,
    check: &str,
    findings: &mut Findings,
) -> Result<Repository> {
    let settings = configured::store_settings(config, Patience::default())?;
    let storage = storage::open(&settings).await?;
    let repository = Repository::open(config.name.clone(), config.required, storage).await?;
    findings.ok(check, format!("{} is a repository", repository.storage.location()));
    if let Some(facts) = facts {
        match open::system(&repository, &subject.cluster.name, facts.system_identifier).await {
            Ok(_) => findings.ok(check, format!("knows system identifier {}", facts.system_identifier)),
            Err(error) => findings.error_if(config.required, check, &error),
        }
    }
    let prefix = keys::probe(rand::random());
    match storage::probe(&settings, &prefix).await {
        Ok(seen) => capabilities(config, &settings, &seen, check, findings),
        Err(error) => findings.error_if(config.required, check, &error),
    }
    skew(&*repository.storage, check, findings).await?;
    if let Some(directory) = config.store.directory() {
        room(&directory, check, findings);
    }
    Ok(repository)
}

/// What was seen, and what of it contradicts the configuration.
fn capabilities(
    config: &RepositoryConfig,
    settings: &StoreSettings,
    seen: &Capabilities,
    check: &str,
    findings: &mut Findings,
) {
    let needed = [
        ("lists what was just written", &seen.list_after_write),
        ("reads byte ranges", &seen.ranged_get),
        ("takes objects in parts", &seen.multipart),
    ];
    let mut works = vec!["writes", "reads"];
    for (what, ability) in needed {
        match ability {
            Ability::Yes => works.push(what),
            Ability::No(why) => findings.fail(
                check,
                format!("the store does not do it: {what}: {why}"),
                "pgkeep needs this; another store, or another setting of this one",
            ),
        }
    }
    findings.ok(check, format!("the store {}", works.join(", ")));
    if config.store.directory().is_none() {
        optional(config, settings, seen, check, findings);
    }
    if let Ability::No(why) = &seen.delete {
        findings.ok(
            check,
            format!("deletes nothing ({why}): nothing can expire from here, a few probe objects stay"),
        );
    }
}

fn optional(
    config: &RepositoryConfig,
    settings: &StoreSettings,
    seen: &Capabilities,
    check: &str,
    findings: &mut Findings,
) {
    match (&seen.conditional_put, settings.conditional_writes) {
        (Ability::Yes, true) => findings.ok(check, "obeys conditional writes, and they are on"),
        (Ability::Yes, false) => {
            findings.ok(check, "obeys conditional writes (conditional_writes = true would use them)");
        }
        (Ability::No(why), true) => findings.fail(
            check,
            format!("does not obey conditional writes: {why}"),
            "take `conditional_writes = true` out of the configuration",
        ),
        (Ability::No(_), false) => findings.ok(check, "has no conditional writes; none are used"),
    }
    match (&seen.checksums, config.store.checksum) {
        (Ability::Yes, ChecksumMode::WhenSupported) => {
            findings.ok(check, "takes checksum headers, and they are sent");
        }
        (Ability::Yes, ChecksumMode::WhenRequired) => {
            findings.ok(check, "takes checksum headers (checksum = \"when_supported\" would send them)");
        }
        (Ability::No(why), ChecksumMode::WhenSupported) => findings.fail(
            check,
            format!("does not take checksum headers: {why}"),
            "set checksum = \"when_required\"",
        ),
        (Ability::No(_), ChecksumMode::WhenRequired) => {
            findings.ok(check, "takes no checksum headers; none are sent");
        }
    }
    if let Ability::No(why) = &seen.list_unfinished {
        findings.warn(
            check,
            format!("cannot list unfinished uploads: {why}"),
            "give the bucket a lifecycle rule that aborts unfinished multipart uploads after a week: they cost money",
        );
    }
}

/// The store's clock, by the time it gives to a new object.
async fn skew(store: &dyn Storage, check: &str, findings: &mut Findings) -> Result<()> {
    let key = format!("{}/clock", keys::probe(rand::random()));
    let before = clock::now();
    store.put(&key, Bytes::from_static(b"pgkeep check\n")).await?;
    let after = clock::now();
    let written = store.head(&key).await?.and_then(|object| object.modified);
    // What cannot be deleted has been said by the probe.
    let _ = store.delete(&key).await;
    let Some(written) = written else { return Ok(()) };
    // Stores count in whole seconds.
    let off = before.since(written).max(written.since(after)).saturating_sub(Duration::from_secs(1));
    if off > SKEW {
        findings.fail(
            check,
            format!("its clock and this host's are {} apart", human::span(off)),
            "set the clocks right (NTP): requests are refused when they differ too much",
        );
    } else {
        findings.ok(check, "its clock agrees with this host's");
    }
    Ok(())
}

fn room(directory: &Path, check: &str, findings: &mut Findings) {
    let Ok(disk) = nix::sys::statvfs::statvfs(directory) else { return };
    let unit = u128::from(disk.fragment_size());
    let bytes = |blocks: u64| u64::try_from(u128::from(blocks) * unit).unwrap_or(u64::MAX);
    let (free, all) = (bytes(disk.blocks_available()), bytes(disk.blocks()).max(1));
    let what = format!("{} of {} free on its disk", human::size(free), human::size(all));
    if free / (all / 100).max(1) < LITTLE_ROOM {
        findings.warn(check, what, "make room: a full repository stops archiving, and then pg_wal fills");
    } else {
        findings.ok(check, what);
    }
}
