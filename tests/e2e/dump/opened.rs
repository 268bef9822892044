//! A dump taken, opened with age and zstd alone, and given to PostgreSQL's own programs.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{TestEnv, fsck};

/// A published logical backup.
pub(super) struct Taken<'e> {
    pub(super) env: &'e TestEnv,
    pub(super) id: String,
    pub(super) record: Value,
    pub(super) index: Value,
}

#[track_caller]
pub(super) fn dump<'e>(env: &'e TestEnv, args: &[&str]) -> Taken<'e> {
    let command: Vec<&str> = ["backup", "dump"].iter().chain(args).copied().collect();
    let json = env.pgkeep.clone().global("--json").run(command).ok().json();
    Taken::open(env, json["id"].as_str().unwrap())
}

impl<'e> Taken<'e> {
    #[track_caller]
    pub(super) fn open(env: &'e TestEnv, id: &str) -> Self {
        let record = env.repo().read(&format!("main/backups/{id}/backup.json"));
        let record: Value = serde_json::from_slice(&record).unwrap();
        let mut taken = Self { env, id: id.to_owned(), record, index: Value::Null };
        taken.index = serde_json::from_slice(&taken.plain("index.json.zst.age")).unwrap();
        taken
    }
    /// What `age -d | zstd -d` makes of one of its objects.
    #[track_caller]
    pub(super) fn plain(&self, relative: &str) -> Vec<u8> {
        let key = format!("main/backups/{}/{relative}", self.id);
        fsck::open(&self.env.repo().read(&key), &key, &self.env.identity_file).unwrap()
    }
    #[track_caller]
    pub(super) fn database(&self, name: &str) -> &Value {
        let mut databases = self.index["databases"].as_array().unwrap().iter();
        databases.find(|d| d["name"] == name).unwrap_or_else(|| panic!("no {name} in {}", self.index))
    }
    #[track_caller]
    pub(super) fn table(&self, database: &str, schema: &str, table: &str) -> &Value {
        let mut tables = self.database(database)["tables"].as_array().unwrap().iter();
        let found = tables.find(|t| t["schema"] == schema && t["name"] == table);
        found.unwrap_or_else(|| panic!("no {schema}.{table} in {}", self.index))
    }
    #[track_caller]
    pub(super) fn rows(&self, database: &str, schema: &str, table: &str) -> u64 {
        self.table(database, schema, table)["rows"].as_u64().unwrap()
    }
    /// The archive of a database, in a file.
    #[track_caller]
    pub(super) fn archive(&self, database: &str) -> PathBuf {
        let key = self.database(database)["dump"].as_str().unwrap();
        let path = self.env.root.file("archive.dump", 0o644, "");
        std::fs::write(&path, self.plain(key)).unwrap();
        path
    }
    /// `pg_restore` into a database, which is made if it is not there.
    #[track_caller]
    pub(super) fn restore(&self, database: &str, into: &str) {
        let archive = self.archive(database);
        let exists = self.env.pg.one(&format!("select count(*) from pg_database where datname = '{into}'"));
        if exists == "0" {
            let facts = self.database(database);
            let encoding = facts["encoding"].as_str().unwrap();
            self.env.pg.sql(&format!(
                "create database \"{into}\" encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'"
            ));
        }
        let (host, port) = self.env.pg.socket();
        let (host, port) = (host.display().to_string(), port.to_string());
        let archive = archive.display().to_string();
        let args = ["-h", &host, "-p", &port, "-U", "postgres", "-d", into, "--exit-on-error", &archive];
        self.env.pg.build.run_tool("pg_restore", args);
    }
}

/// `pg_dump` of a database as text, without what differs between two runs.
#[track_caller]
pub(super) fn text_of(env: &TestEnv, database: &str) -> String {
    let (host, port) = env.pg.socket();
    let (host, port) = (host.display().to_string(), port.to_string());
    // A bare name with an equals sign would be read as a connection string.
    let database = format!("dbname='{}'", database.replace('\'', "\\'"));
    let args = ["-h", &host, "-p", &port, "-U", "postgres", "--quote-all-identifiers", "-d", &database];
    let text = env.pg.build.run_tool("pg_dump", args);
    let kept =
        text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    kept.collect::<Vec<_>>().join("\n")
}
