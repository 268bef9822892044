//! Room for the rows, in tables that are exchanged: locked, looked at again, foreign keys taken away, triggers and forced
//! row security switched off, emptied.

use std::collections::BTreeSet;

use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::session::Session;
use crate::postgres::tables::{ForeignKey, TableFacts, TableKind, Trigger};
use crate::restore::report::Phases;
use crate::restore::table::rows::{self, Stream};
use crate::restore::table::take_out::{Taken, Tree};
use crate::restore::table::{Job, Way, foreign_keys};

/// What production had of the tables that are exchanged.
pub struct Cleared {
    pub tables: Vec<Exchanged>,
    pub keys: Vec<ForeignKey>,
    pub triggers: Vec<Trigger>,
    /// Where not even the owner sees all rows, but for now.
    forced: Vec<TableName>,
}

pub struct Exchanged {
    pub asked: TableName,
    pub rows_before: u64,
    parts: Vec<TableFacts>,
    streams: Vec<Stream>,
}

impl Cleared {
    pub fn of(&self, tree: &Tree) -> Option<&Exchanged> {
        self.tables.iter().find(|e| e.asked == tree.asked)
    }
    pub fn streams(&self, tree: &Tree) -> Result<Vec<Stream>> {
        match (tree.way, self.of(tree)) {
            (Way::Rows, Some(exchanged)) => Ok(exchanged.streams.clone()),
            (Way::Rows, None) => Err(Error::internal("a table that was not looked at")),
            _ => Ok(rows::into_new(tree)),
        }
    }
    /// What was below the table and is there no more.
    pub fn partitions_gone(&self, tree: &Tree) -> Vec<TableName> {
        let Some(exchanged) = self.of(tree) else { return Vec::new() };
        let is_there = |name: &TableName| exchanged.parts.iter().any(|now| now.name == *name);
        tree.parts.iter().map(|then| then.name.clone()).filter(|name| !is_there(name)).collect()
    }
    pub fn oids(&self) -> Vec<u32> {
        self.tables.iter().flat_map(|t| t.parts.iter().map(|p| p.oid)).collect()
    }
    /// Triggers and row security as they were; foreign keys come back elsewhere, with everything they check.
    pub async fn switch_on_again(&self, session: &Session) -> Result<()> {
        for trigger in &self.triggers {
            session.enable_trigger(trigger).await?;
        }
        for table in &self.forced {
            session.force_row_security(table, true).await?;
        }
        Ok(())
    }
}

pub async fn run(job: &Job<'_>, session: &Session, taken: &Taken, phases: &mut Phases) -> Result<Cleared> {
    let asked: Vec<&Tree> = taken.trees.iter().filter(|t| t.way == Way::Rows).collect();
    let mut cleared =
        Cleared { tables: Vec::new(), keys: Vec::new(), triggers: Vec::new(), forced: Vec::new() };
    if asked.is_empty() {
        return Ok(cleared);
    }
    // In one order, so that two restores do not wait for each other.
    for table in to_lock(session, &asked).await? {
        session.lock_exclusively(&table).await?;
    }
    phases.done("lock");
    for tree in asked {
        let now = session.table(&tree.asked).await?.ok_or_else(|| {
            Error::new(Code::Refused, "the table was dropped meanwhile")
                .at(&tree.asked)
                .hint("run the restore again")
        })?;
        let parts = session.table_tree(now.oid).await?;
        let streams = rows::into_existing(tree, &parts, job.request.keep_new_columns)?;
        for part in parts.iter().filter(|p| p.forces_row_security) {
            session.force_row_security(&part.name, false).await?;
            cleared.forced.push(part.name.clone());
        }
        let rows_before = session.count_rows(&tree.asked).await?;
        cleared.tables.push(Exchanged { asked: tree.asked.clone(), parts, streams, rows_before });
    }
    let oids = cleared.oids();
    cleared.keys = foreign_keys::take_away(session, &oids).await?;
    cleared.triggers = session.triggers(&oids, true).await?;
    for trigger in &cleared.triggers {
        session.disable_trigger(trigger).await?;
    }
    let targets: BTreeSet<TableName> =
        cleared.tables.iter().flat_map(|t| t.streams.iter().map(|s| s.to.clone())).collect();
    session.truncate(&targets.into_iter().collect::<Vec<_>>(), &partitioned(&cleared)).await?;
    Ok(cleared)
}

/// Roots that are emptied with everything below them; of all others only the table itself is.
fn partitioned(cleared: &Cleared) -> Vec<TableName> {
    let all = cleared.tables.iter().flat_map(|t| &t.parts);
    all.filter(|p| p.kind == TableKind::Partitioned).map(|p| p.name.clone()).collect()
}

/// The tables themselves and those at the other ends of their foreign keys, by name.
async fn to_lock(session: &Session, asked: &[&Tree]) -> Result<BTreeSet<TableName>> {
    let mut names = BTreeSet::new();
    for tree in asked {
        names.extend(locked_with(session, &tree.asked).await?);
    }
    Ok(names)
}

/// Of one table: taking a foreign key away locks both its ends.
pub async fn locked_with(session: &Session, table: &TableName) -> Result<BTreeSet<TableName>> {
    let mut names = BTreeSet::from([table.clone()]);
    if let Some(facts) = session.table(table).await? {
        let oids: Vec<u32> = session.table_tree(facts.oid).await?.iter().map(|p| p.oid).collect();
        let keys = session.foreign_keys(&oids).await?;
        names.extend(keys.into_iter().flat_map(|k| [k.table, k.references]));
    }
    Ok(names)
}
