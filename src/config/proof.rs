//! `[proof]` and `[[assertion]]`: what restores must hold to, and what a restored instance must answer.

use std::collections::HashSet;
use std::time::Duration;

use super::ClusterConfig;
use super::reader::Section;
use crate::model::ClusterName;

/// `[proof]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofConfig {
    /// What may be lost at most, if somebody has said so.
    pub rpo: Option<Duration>,
    /// How long a return may take at most.
    pub rto: Option<Duration>,
    /// Bytes that a drill or a restore test leaves free on every disk that it writes to.
    pub reserve: u64,
    /// Whether `pg_amcheck` reads every table and index.
    pub amcheck: bool,
    /// Whether all that is run for a drill gives way to everything else on the host.
    pub low_priority: bool,
    /// Each of the proofs may take so long.
    pub deadline: Duration,
}

impl Default for ProofConfig {
    fn default() -> Self {
        Self {
            rpo: None,
            rto: None,
            reserve: 2 << 30,
            amcheck: true,
            low_priority: true,
            deadline: Duration::from_hours(12),
        }
    }
}

/// `[[assertion]]`: a statement whose answer must be `true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionConfig {
    pub name: String,
    pub cluster: ClusterName,
    pub database: String,
    pub sql: String,
}

pub(super) fn read(section: Option<Section<'_>>) -> ProofConfig {
    let defaults = ProofConfig::default();
    let Some(mut section) = section else { return defaults };
    let config = ProofConfig {
        rpo: section.duration("rpo"),
        rto: section.duration("rto"),
        reserve: section.size("reserve").unwrap_or(defaults.reserve),
        amcheck: section.boolean("amcheck").unwrap_or(defaults.amcheck),
        low_priority: section.boolean("low_priority").unwrap_or(defaults.low_priority),
        deadline: section.duration("deadline").unwrap_or(defaults.deadline),
    };
    section.finish();
    config
}

pub(super) fn assertions(root: &mut Section<'_>, clusters: &[ClusterConfig]) -> Vec<AssertionConfig> {
    let mut names = HashSet::new();
    let sections = root.list_of_tables("assertion").into_iter();
    sections.filter_map(|section| assertion(section, clusters, &mut names)).collect()
}

fn assertion(
    mut section: Section<'_>,
    clusters: &[ClusterConfig],
    names: &mut HashSet<String>,
) -> Option<AssertionConfig> {
    let name = section.required_string("name");
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        section.fault("name", "the name is there twice");
    }
    let cluster = super::jobs::cluster(&mut section, clusters);
    let database = section.required_string("database");
    let sql = section.required_string("sql");
    section.finish();
    Some(AssertionConfig { name: name?, cluster: cluster?, database: database?, sql: sql? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const BASE: &str =
        "[cluster.main]\nconnection = \"host=/tmp\"\n[[repository]]\nname = \"r\"\nurl = \"file:///srv/r\"\n";

    fn parse(text: &str) -> crate::error::Result<Config> {
        Config::parse(std::path::Path::new("/etc/pgkeep/pgkeep.toml"), &format!("{BASE}{text}"))
    }

    #[test]
    fn objectives_and_assertions_are_read() {
        let config = parse(
            "[proof]\nrpo = \"1m\"\nreserve = \"5GiB\"\n[[assertion]]\nname = \"a\"\ndatabase = \"app\"\nsql = \"select true\"\n",
        )
        .unwrap();
        assert_eq!((config.proof.rpo, config.proof.rto), (Some(Duration::from_mins(1)), None));
        assert_eq!(config.proof.reserve, 5 << 30);
        assert_eq!(config.assertions[0].cluster, config.clusters[0].name);
        assert_eq!(config.assertions[0].sql, "select true");
    }

    #[test]
    fn an_assertion_needs_a_name_of_its_own_a_database_and_a_statement() {
        let twice = "[[assertion]]\nname = \"a\"\ndatabase = \"app\"\nsql = \"select true\"\n";
        let said = parse(&format!("{twice}{twice}[[assertion]]\nname = \"b\"\ncluster = \"other\"\n"))
            .unwrap_err()
            .to_string();
        for fault in ["twice", "`database`", "`sql`", "other"] {
            assert!(said.contains(fault) || said.contains(&fault.replace('`', "")), "{fault}: {said}");
        }
    }
}
