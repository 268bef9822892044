//! `pgkeep verify`: what is wrong is found, named, and told with what it means; a healthy repository is never accused.

mod damage;
mod expiring;
mod forged;
mod heal;
mod healthy;
mod life;
mod mutations;
mod scale;

use serde_json::Value;

use crate::support::{EnvOptions, Pgkeep, RawStore, TestEnv};

/// Missing WAL is not waited for.
pub const AT_ONCE: &str = "[verify]\npatience = \"0s\"\n";

/// A small cluster with 1 MiB segments.
pub fn options(major: u32) -> EnvOptions {
    EnvOptions::new(major).pg(|pg| pg.segment_mib(1)).config(AT_ONCE)
}

/// What `verify` said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub json: Value,
    pub stderr: String,
}

pub fn verify(pgkeep: &Pgkeep, args: &[&str]) -> Said {
    let mut all = vec!["verify"];
    all.extend(args);
    let ran = pgkeep.clone().global("--json").run(&all);
    let json = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
    Said { code: ran.code.unwrap_or(-1), json, stderr: ran.stderr }
}

impl Said {
    /// Kind, key and the whole text of each finding.
    pub fn findings(&self) -> Vec<(String, String, String)> {
        let repositories = self.json["repositories"].as_array().cloned().unwrap_or_default();
        let findings =
            repositories.iter().flat_map(|r| r["findings"].as_array().cloned().unwrap_or_default());
        findings
            .map(|f| {
                let text = |name: &str| f[name].as_str().unwrap_or_default().to_owned();
                (text("kind"), text("key"), format!("{}; {}", text("what"), text("means")))
            })
            .collect()
    }
    #[track_caller]
    pub fn assert_clean(self) -> Self {
        assert!(self.code == 0 && self.findings().is_empty(), "{self:#?}");
        self
    }
    /// Panics unless there is a finding of this kind whose key contains `key`; says what it says.
    #[track_caller]
    pub fn names(&self, kind: &str, key: &str) -> String {
        let all = self.findings();
        let found = all.iter().find(|(k, where_, _)| k == kind && where_.contains(key));
        let (_, _, text) = found.unwrap_or_else(|| panic!("no {kind} of {key}: {self:#?}"));
        assert_eq!(self.code, 4, "{self:#?}");
        text.clone()
    }
    pub fn unproved(&self) -> String {
        self.json["repositories"][0]["unproved"].to_string()
    }
}

/// A base backup, a dump and an export, with WAL on both sides; the base backup's id.
pub fn fill(env: &TestEnv) -> String {
    env.pg.sql("create table t as select n, md5(n::text) as m from generate_series(1, 2000) n");
    let id = env.backup();
    env.pg.sql("insert into t select n, 'more' from generate_series(1, 200) n");
    env.pg.switch_and_archive();
    env.pgkeep.run(["backup", "dump", "--database", "postgres"]).ok();
    env.pgkeep.run(["backup", "tables", "--database", "postgres", "--table", "t"]).ok();
    for _ in 0..3 {
        env.pg.sql("insert into t values (0, 'x')");
        env.pg.switch_and_archive();
    }
    id
}

/// The archived segments behind the first base backup, in order: their names and keys.
pub fn segments(store: &RawStore) -> Vec<(String, String)> {
    let record =
        store.list().into_iter().find(|k| k.contains("-full-") && k.ends_with("/backup.json")).unwrap();
    let record: Value = serde_json::from_slice(&store.read(&record)).unwrap();
    let last = record["wal_last"].as_str().unwrap().to_owned();
    let named = store.list().into_iter().filter(|key| key.contains("/wal/")).filter_map(|key| {
        let name = key.rsplit('/').next()?.get(..24)?.to_owned();
        let whole = key.rsplit('/').next()?.as_bytes().get(24) == Some(&b'-');
        (whole && !key.contains(".damaged") && name > last).then_some((name, key))
    });
    named.collect()
}
