//! Rows of every table, held against what was counted in the dump's own stream.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Result};
use crate::model::TableName;
use crate::postgres::{ConnInfo, connect_to};
use crate::repository::logical_index::{IndexedDatabase, IndexedTable};

/// A table that came back with another number of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub table: TableName,
    pub dumped: u64,
    /// None when the table is not there.
    pub restored: Option<u64>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, dumped, restored } = self;
        match restored {
            Some(rows) => write!(f, "{table} has {rows} rows, and {dumped} were dumped"),
            None => write!(f, "{table} is not there, and {dumped} rows were dumped"),
        }
    }
}

/// Counts over `sessions` connections to the new database.
pub async fn differences(
    info: &ConnInfo,
    database: &IndexedDatabase,
    sessions: usize,
) -> Result<Vec<Difference>> {
    // The script of an extension may fill its table too: what was dumped comes on top.
    let session = connect_to(info).await?;
    let relations = session.user_relations().await?;
    let of_extension: HashSet<TableName> =
        relations.into_iter().filter(|r| r.of_extension).map(|r| r.table).collect();
    drop(session);
    let queue: Mutex<VecDeque<&IndexedTable>> = Mutex::new(database.tables.iter().collect());
    let workers = (0..sessions.clamp(1, database.tables.len().max(1))).map(|_| async {
        let session = connect_to(info).await?;
        let mut found = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(indexed) = next else { return Ok(found) };
            let table = TableName { schema: indexed.schema.clone(), name: indexed.name.clone() };
            let restored = match session.count_own_rows(&table).await {
                Ok(rows) => Some(rows),
                Err(e) if e.code() == Code::NoTable => None,
                Err(e) => return Err(e),
            };
            let more_may_be = of_extension.contains(&table);
            let right =
                restored.is_some_and(|rows| rows == indexed.rows || (more_may_be && rows > indexed.rows));
            if !right {
                found.push(Difference { table, dumped: indexed.rows, restored });
            }
        }
    });
    let mut found: Vec<Difference> = try_join_all(workers).await?.into_iter().flatten().collect();
    found.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(found)
}
