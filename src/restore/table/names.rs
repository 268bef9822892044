//! New names for a copy: its table, partitions, indexes, sequences and statistics live in schemas where production's own
//! still have the old ones.

use super::take_out::Tree;
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::model::table_name::with_suffix;
use crate::postgres::session::Session;
use crate::postgres::tables::TableKind;

/// More copies beside each other than anybody needs.
const MOST: u32 = 1000;

/// Renames everything in the side instance, and notes the new names in the tree.
pub async fn give(side: &Session, production: &Session, tree: &mut Tree, copy: &str) -> Result<()> {
    let oids = tree.oids();
    for index in side.indexes(&oids).await? {
        let name = free(side, production, &index).await?;
        side.rename_relation("INDEX", &index, &name).await?;
    }
    for table in &oids {
        for state in side.owned_sequences(*table).await? {
            let name = free(side, production, &state.sequence).await?;
            side.rename_relation("SEQUENCE", &state.sequence, &name).await?;
        }
    }
    for statistics in side.extended_statistics(&oids).await? {
        let name = free_statistics(production, &statistics).await?;
        side.rename_relation("STATISTICS", &statistics, &name).await?;
    }
    for (at, part) in tree.parts.iter_mut().enumerate() {
        let name = if at == 0 { copy.to_owned() } else { free(side, production, &part.name).await? };
        let kind = if part.kind == TableKind::Foreign { "FOREIGN TABLE" } else { "TABLE" };
        if name != part.name.name {
            side.rename_relation(kind, &part.name, &name).await?;
            part.name.name = name;
        }
    }
    Ok(())
}

fn candidates(name: &TableName) -> impl Iterator<Item = TableName> {
    (1..MOST).map(|n| {
        let suffix = if n == 1 { "_restored".to_owned() } else { format!("_restored{n}") };
        name.sibling(&with_suffix(&name.name, &suffix))
    })
}

fn exhausted(name: &TableName) -> Error {
    Error::new(Code::Refused, format!("there is no free name for a copy of {name}"))
        .hint("drop the copies that earlier restores made")
}

async fn free(side: &Session, production: &Session, name: &TableName) -> Result<String> {
    for candidate in candidates(name) {
        if !production.relation_exists(&candidate).await? && !side.relation_exists(&candidate).await? {
            return Ok(candidate.name);
        }
    }
    Err(exhausted(name))
}

async fn free_statistics(production: &Session, name: &TableName) -> Result<String> {
    for candidate in candidates(name) {
        if !production.statistics_exist(&candidate).await? {
            return Ok(candidate.name);
        }
    }
    Err(exhausted(name))
}
