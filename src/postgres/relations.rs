//! What the files of relations are called in SQL, database by database.

use std::collections::BTreeMap;
use std::time::Duration;

use super::conninfo::ConnInfo;
use super::session::{QUICK, Session, get};
use crate::error::Result;

/// Reading a large catalog takes a while.
const CATALOG: Duration = Duration::from_mins(5);
/// Of one database; where there are more, names are a luxury that memory cannot pay for.
const MOST: i64 = 200_000;

/// Files by their path relative to the data directory, and why some database's are not among them.
#[derive(Debug, Clone, Default)]
pub struct RelationNames {
    /// `base/16384/16385` → `app.public.users`, each part quoted as SQL needs it.
    pub names: BTreeMap<String, String>,
    pub unknown: Vec<String>,
}

impl Session {
    /// Databases that take connections.
    async fn databases(&self) -> Result<Vec<String>> {
        let sql =
            "SELECT datname::pg_catalog.text FROM pg_catalog.pg_database WHERE datallowconn ORDER BY oid";
        self.rows("list the databases", QUICK, sql, &[]).await?.iter().map(|row| get(row, 0)).collect()
    }

    async fn relation_names(&self) -> Result<BTreeMap<String, String>> {
        let sql = format!(
            "SELECT pg_catalog.pg_relation_filepath(c.oid), \
             pg_catalog.format('%I.%I.%I', pg_catalog.current_database(), n.nspname, c.relname) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'i', 't', 'm', 'S') AND c.relpersistence <> 't' \
             AND (c.relisshared = false OR pg_catalog.current_database() = 'postgres') LIMIT {MOST}"
        );
        let mut names = BTreeMap::new();
        for row in self.rows("list the relations", CATALOG, &sql, &[]).await? {
            // A relation dropped this moment has no path.
            if let Some(path) = get::<Option<String>>(&row, 0)? {
                names.insert(path, get(&row, 1)?);
            }
        }
        Ok(names)
    }

    /// Asks every database for its relations; one that cannot be entered is named and passed over.
    pub async fn all_relation_names(&self, info: &ConnInfo) -> Result<RelationNames> {
        let mut all = RelationNames::default();
        for database in self.databases().await? {
            let asked = async {
                super::connect_to(&info.clone().with_dbname(&database)).await?.relation_names().await
            };
            match asked.await {
                Ok(names) => all.names.extend(names),
                Err(e) => all.unknown.push(format!("{database}: {e}")),
            }
        }
        Ok(all)
    }
}
