//! What the repositories remember of the last kit, so that a host can tell when no kit fits any more: a signed report that
//! holds the kit's contents (public keys, names, dates), nothing of its secrets.

use std::time::Duration;

use bytes::Bytes;

use super::{Contents, KitRepository, recipients};
use crate::config::Config;
use crate::error::Result;
use crate::model::{ClusterName, Timestamp};
use crate::repository::fanout::Outcome;
use crate::repository::reports;
use crate::repository::signature::{HostKey, Trust};
use crate::repository::{Repository, documents};

/// As it stands in the keys of reports.
pub const REPORT_KIND: &str = "recovery-kit";
/// An older kit is as good as none.
const AGE: Duration = Duration::from_hours(3 * 366 * 24);
/// More than one for the case that the newest is not believed.
const READ: usize = 4;

/// Writes it into each of these.
pub async fn put(
    repositories: &[&Repository],
    cluster: &ClusterName,
    contents: &Contents,
    key: &HostKey,
) -> Result<Vec<Outcome>> {
    let bytes = Bytes::from(documents::to_bytes(contents)?);
    reports::put(repositories, cluster, contents.made_at, REPORT_KIND, &bytes, Some(key)).await
}

/// The newest kit that a trusted host has written down.
pub async fn newest(
    repository: &Repository,
    cluster: &ClusterName,
    trust: &Trust,
    now: Timestamp,
) -> Result<Option<Contents>> {
    let found = reports::recent(repository, cluster, &[REPORT_KIND], now.minus(AGE), READ, trust).await?;
    Ok(found.iter().find_map(|report| report.trusted().ok()))
}

/// Why a kit is no longer enough, the worst first; nothing where it is.
pub fn outdated(kit: &Contents, config: &Config, own_key: Option<&str>) -> Vec<String> {
    let mut why = Vec::new();
    let now = recipients(config);
    if !kit.is_complete() {
        why.push("it holds no identity and cannot restore".to_owned());
    } else if !now.is_empty() && !now.iter().any(|recipient| kit.opens.contains(recipient)) {
        why.push("its identity opens nothing of what is written now: the recipients have changed".to_owned());
    } else if super::fingerprint(&now) != kit.fingerprint {
        why.push("the recipients have changed since".to_owned());
    }
    let known = |repository: &KitRepository, url: &str| repository.url == url;
    for repository in &config.repositories {
        let url = &repository.store.url;
        if !kit.repositories.iter().any(|one| known(one, url)) {
            why.push(format!("it does not know repository {} ({url})", repository.name));
        }
    }
    let believed = config.trust_hosts.iter().map(String::as_str).chain(own_key);
    let unknown = believed.filter(|host| !kit.trusted_hosts.iter().any(|one| one == host)).count();
    if unknown > 0 {
        why.push(format!("it does not believe the backups of {unknown} hosts that are trusted now"));
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const HOST: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn config() -> Config {
        let text = format!(
            "[cluster.main]\nconnection = \"host=/tmp\"\n[[repository]]\nname = \"r\"\nurl = \"file:///srv/r\"\n\
             [encryption]\nrecipients = [\"{RECIPIENT}\"]\n[trust]\nhosts = [\"{HOST}\"]\n"
        );
        Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), &text).unwrap()
    }

    fn kit() -> Contents {
        Contents {
            format: 1,
            made_at: "2026-11-22T02:00:00Z".parse().unwrap(),
            host: "db1".to_owned(),
            pgkeep_version: "0".to_owned(),
            clusters: Vec::new(),
            repositories: vec![KitRepository {
                name: config().repositories[0].name.clone(),
                url: "file:///srv/r".to_owned(),
                endpoint: None,
                id: None,
                variables: Vec::new(),
            }],
            recipients: vec![RECIPIENT.to_owned()],
            fingerprint: super::super::fingerprint(&[RECIPIENT.to_owned()]),
            opens: vec![RECIPIENT.to_owned()],
            trusted_hosts: vec![HOST.to_owned(), "RWown".to_owned()],
            proved: Vec::new(),
            certificates: Vec::new(),
        }
    }

    #[test]
    fn a_kit_is_outdated_by_each_thing_that_a_restore_with_it_would_miss() {
        assert_eq!(outdated(&kit(), &config(), Some("RWown")), Vec::<String>::new());
        let says = |kit: &Contents, own: &str, word: &str| {
            let why = outdated(kit, &config(), Some(own));
            assert!(why.len() == 1 && why[0].contains(word), "{word}: {why:?}");
        };
        says(&kit(), "RWother", "1 hosts");
        says(&Contents { opens: Vec::new(), ..kit() }, "RWown", "no identity");
        let rotated = Contents { opens: vec!["age1old".into()], fingerprint: "x".into(), ..kit() };
        says(&rotated, "RWown", "opens nothing");
        says(&Contents { fingerprint: "x".into(), ..kit() }, "RWown", "have changed since");
        says(&Contents { repositories: Vec::new(), ..kit() }, "RWown", "does not know repository r");
    }
}
