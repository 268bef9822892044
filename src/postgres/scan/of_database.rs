//! Which database a file of a data directory belongs to, by its path alone. Pure.

use super::rules::parse_relation;

/// Object ids below this one are given by `initdb` (`FirstNormalObjectId` of `transam.h`): template0, template1, postgres.
pub const FIRST_OF_USERS: u32 = 16384;

/// A file in a database's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfDatabase {
    pub database: u32,
    pub what: DatabaseFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseFile {
    /// Of a relation, whatever fork and segment.
    Relation,
    /// `PG_VERSION`: without it the server lets nobody into the database (`ValidatePgVersion` of `miscinit.c`).
    Version,
    /// `pg_filenode.map` and whatever else lies there.
    Other,
}

/// `base/<database>/…` and `pg_tblspc/<tablespace>/PG_…/<database>/…`, relative to the data directory. None for everything
/// else, the directories themselves among it.
pub fn of_database(path: &[u8]) -> Option<OfDatabase> {
    let path = std::str::from_utf8(path).ok()?;
    let parts: Vec<&str> = path.split('/').collect();
    let (database, file) = match parts.as_slice() {
        ["base", database, file] => (database, file),
        ["pg_tblspc", _, version, database, file] if version.starts_with("PG_") => (database, file),
        _ => return None,
    };
    let digits = !database.is_empty() && database.bytes().all(|b| b.is_ascii_digit());
    let database = database.parse().ok().filter(|_| digits)?;
    let what = match *file {
        "PG_VERSION" => DatabaseFile::Version,
        name if parse_relation(name.as_bytes()).is_some() => DatabaseFile::Relation,
        _ => DatabaseFile::Other,
    };
    Some(OfDatabase { database, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_its_database_and_whether_it_is_a_relation() {
        let of = |path: &str| of_database(path.as_bytes()).map(|of| (of.database, of.what));
        for path in ["base/5/1259", "base/5/16385_vm.2", "pg_tblspc/16400/PG_18_202506291/5/2619_fsm"] {
            assert_eq!(of(path), Some((5, DatabaseFile::Relation)), "{path}");
        }
        assert_eq!(of("base/16384/PG_VERSION"), Some((16384, DatabaseFile::Version)));
        assert_eq!(of("base/16384/pg_filenode.map"), Some((16384, DatabaseFile::Other)));
        let nobodys = [
            "global/1262",
            "base/5",
            "base/pgsql_tmp/1",
            "base/+5/1",
            "pg_xact/0000",
            "PG_VERSION",
            "pg_tblspc/16400/PG_18_202506291/5",
            "pg_tblspc/16400/theirs/5/6",
            "base/99999999999/1",
        ];
        for path in nobodys {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
