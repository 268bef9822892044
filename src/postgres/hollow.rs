//! A cluster of which some databases are *hollow*: their files are there in their lengths, without a byte in them.
//!
//! What PostgreSQL does with them (tried on 14 and 18):
//! * Replay writes into them as into others: the first change of a page after a checkpoint is the whole page. A record that
//!   needs a page that is not there (the visibility map's, hints) ends a recovery (`XLogCheckInvalidPages`), unless
//!   [`SETTINGS`] say otherwise; then it is a warning in the log, which [`invalid_pages`] reads. In a database that is
//!   there such a warning says what it always says: recovery would have ended.
//! * Nobody may enter one: a backend that finds no catalog ends the whole server (PANIC). Without the file `PG_VERSION`
//!   in its directory it is refused before (`ValidatePgVersion`), whoever asks: a session, a background worker, autovacuum. A
//!   copy of a hollow database that WAL makes (`CREATE DATABASE … STRATEGY FILE_COPY`, a move to another tablespace) lacks the
//!   file too, and one that WAL holds whole (`WAL_LOG`) has it. So the file alone says what is hollow.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::roles::quote_identifier;
use super::scan::of_database;
use super::session::{QUICK, Session, get};
use crate::error::{Error, Result};

/// Of a recovery over hollow databases. Without their context the warnings of a page are two short lines.
pub const SETTINGS: [(&str, &str); 2] = [("ignore_invalid_pages", "on"), ("log_error_verbosity", "terse")];

/// Findings that are kept by name.
const MOST: usize = 20;
/// Of a line; the rest of a longer one is passed over.
const LONGEST_LINE: u64 = 8 << 10;

/// Pages that WAL needed and that were not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InvalidPages {
    /// Warnings of databases that are hollow, where they are to be expected.
    pub expected: u64,
    /// Warnings of others, and of shared relations.
    pub wrong: u64,
    /// The first of those.
    pub examples: Vec<String>,
}

/// Reads the server's log to its end.
pub fn invalid_pages(log: &Path, hollow: impl Fn(u32) -> bool) -> Result<InvalidPages> {
    let failed = |e| Error::io("cannot read the server's log", log, e);
    let mut lines = BufReader::new(File::open(log).map_err(failed)?);
    let mut found = InvalidPages::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut lines, LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(failed)? == 0 {
            return Ok(found);
        }
        let text = String::from_utf8_lossy(&line);
        let Some((page, path)) = missing_page(&text) else { continue };
        // Shared relations are nobody's: they are always there.
        if of_database(path.as_bytes()).is_some_and(|of| hollow(of.database)) {
            found.expected += 1;
            continue;
        }
        found.wrong += 1;
        if found.examples.len() < MOST && !found.examples.iter().any(|known| known == page) {
            found.examples.push(page.to_owned());
        }
    }
}

/// `page 7 of relation base/5/16385 does not exist` (`report_invalid_page` of `xlogutils.c`): the words, and the path.
fn missing_page(line: &str) -> Option<(&str, &str)> {
    let (_, said) = line.split_once("WARNING:  ")?;
    let said = said.trim_end();
    let (number, rest) = said.strip_prefix("page ")?.split_once(" of relation ")?;
    let (path, what) = rest.split_once(' ')?;
    let fits = number.parse::<u32>().is_ok() && matches!(what, "does not exist" | "is uninitialized");
    fits.then_some((said, path))
}

/// A database, and where it lies, relative to the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabasePlace {
    pub oid: u32,
    pub name: String,
    pub directory: PathBuf,
}

impl DatabasePlace {
    /// Whether nothing of it is there; see the module.
    pub fn is_hollow(&self, data_directory: &Path) -> bool {
        !data_directory.join(&self.directory).join("PG_VERSION").exists()
    }
}

impl Session {
    /// All of them, by name.
    pub async fn database_places(&self) -> Result<Vec<DatabasePlace>> {
        // pg_default is the tablespace of `base`; every other has the server's own directory in it.
        let sql = "SELECT oid, datname::pg_catalog.text, CASE WHEN dattablespace = 1663 THEN 'base/' || oid \
                   ELSE 'pg_tblspc/' || dattablespace || '/PG_' \
                   || pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 || '_' \
                   || (SELECT catalog_version_no FROM pg_catalog.pg_control_system()) || '/' || oid END \
                   FROM pg_catalog.pg_database ORDER BY datname";
        let rows = self.rows("list the databases", QUICK, sql, &[]).await?;
        let place = |row| {
            Ok(DatabasePlace {
                oid: get(row, 0)?,
                name: get(row, 1)?,
                directory: PathBuf::from(get::<String>(row, 2)?),
            })
        };
        rows.iter().map(place).collect()
    }

    /// So that programs that go through all databases pass it over, instead of failing at it.
    pub async fn allow_no_connections(&self, database: &str) -> Result<()> {
        let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", quote_identifier(database));
        self.batch("close a database that is not there", QUICK, &sql).await
    }
}

/// Removes the files of these databases from an instance that goes away and whose server is down.
pub fn remove(data_directory: &Path, databases: &BTreeSet<u32>) -> Result<()> {
    for directory in directories(data_directory, databases)? {
        std::fs::remove_dir_all(&directory)
            .map_err(|e| Error::io("cannot remove what was left out", &directory, e))?;
    }
    Ok(())
}

/// The directories of these databases, wherever they lie in a data directory.
fn directories(data_directory: &Path, databases: &BTreeSet<u32>) -> Result<Vec<PathBuf>> {
    let mut homes = vec![data_directory.join("base")];
    for tablespace in below(&data_directory.join("pg_tblspc"))? {
        homes.extend(below(&tablespace)?.into_iter().filter(|path| name_of(path).starts_with("PG_")));
    }
    let names: BTreeSet<String> = databases.iter().map(u32::to_string).collect();
    let mut found = Vec::new();
    for home in homes {
        found.extend(below(&home)?.into_iter().filter(|path| names.contains(name_of(path))));
    }
    Ok(found)
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The directories in a directory, through links; none where there is none.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("cannot look into the directory", directory, e);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-22 02:00:00.123 UTC [77] LOG:  redo starts at 0/2000028\n\
        2026-11-22 02:00:00.124 UTC [77] WARNING:  page 7 of relation base/16384/2619_vm does not exist\n\
        2026-11-22 02:00:00.124 UTC [77] WARNING:  WAL contains references to invalid pages\n\
        2026-11-22 02:00:00.125 UTC [77] WARNING:  page 0 of relation pg_tblspc/16400/PG_18_1/16384/16390 is uninitialized\n\
        2026-11-22 02:00:00.126 UTC [77] WARNING:  page 3 of relation base/16500/16501 is uninitialized\n\
        2026-11-22 02:00:00.126 UTC [77] WARNING:  page 3 of relation base/16500/16501 is uninitialized\n\
        2026-11-22 02:00:00.127 UTC [77] WARNING:  page 9 of relation global/1262 does not exist\n\
        2026-11-22 02:00:00.128 UTC [77] WARNING:  page nine of relation base/5/1 does not exist\n";

    #[test]
    fn a_missing_page_is_expected_in_a_hollow_database_and_wrong_in_any_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LOG).unwrap();
        let found = invalid_pages(file.path(), |oid| oid == 16384).unwrap();
        assert_eq!((found.expected, found.wrong), (2, 3));
        let examples = [
            "page 3 of relation base/16500/16501 is uninitialized",
            "page 9 of relation global/1262 does not exist",
        ];
        assert_eq!(found.examples, examples);
        assert!(invalid_pages(Path::new("/nowhere/at/all"), |_| true).is_err());
    }

    #[test]
    fn the_directories_of_databases_are_found_in_every_tablespace() {
        let data = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(data.path().join(path)).unwrap();
        for path in [
            "base/5",
            "base/16384",
            "pg_tblspc/16400/PG_18_1/16384",
            "pg_tblspc/16400/PG_18_1/5",
            "elsewhere/PG_18_1/16384",
            "elsewhere/theirs/16384",
        ] {
            make(path);
        }
        std::os::unix::fs::symlink(data.path().join("elsewhere"), data.path().join("pg_tblspc/16401"))
            .unwrap();
        let found = directories(data.path(), &BTreeSet::from([16384])).unwrap();
        let found: BTreeSet<_> =
            found.iter().map(|p| p.strip_prefix(data.path()).unwrap().to_owned()).collect();
        let expected = ["base/16384", "pg_tblspc/16400/PG_18_1/16384", "pg_tblspc/16401/PG_18_1/16384"];
        assert_eq!(found, expected.iter().map(PathBuf::from).collect());
        let place = DatabasePlace { oid: 5, name: "postgres".to_owned(), directory: PathBuf::from("base/5") };
        assert!(place.is_hollow(data.path()));
        std::fs::write(data.path().join("base/5/PG_VERSION"), "18\n").unwrap();
        assert!(!place.is_hollow(data.path()));
    }
}
