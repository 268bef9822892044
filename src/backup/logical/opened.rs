//! One database, its tables locked and its snapshot taken.

use super::run::Run;
use crate::error::Result;
use crate::postgres::user_tables::{Database, Relation, RelationKind};
use crate::postgres::{ConnInfo, Snapshot, TableName, connect_to};
use crate::repository::logical_index::DatabaseFacts;

/// Dropped, it lets go of everything.
pub(super) struct Opened {
    pub(super) info: ConnInfo,
    pub(super) snapshot: Snapshot,
    /// As the snapshot sees them.
    pub(super) relations: Vec<Relation>,
}

impl Opened {
    /// `wanted` says, of all there are, which ones are read: those are locked before the snapshot is taken.
    pub(super) async fn open(
        run: &Run<'_>,
        database: &Database,
        wanted: impl Fn(&[Relation]) -> Result<Vec<Relation>>,
    ) -> Result<Self> {
        let info = run.ready.info.clone().with_dbname(&database.name);
        let session = connect_to(&info).await?;
        let wanted = wanted(&session.user_relations().await?)?;
        let patience = run.request.config.dump.lock_timeout;
        let snapshot = Snapshot::export(session, &run.ready.session, &lockable(&wanted), patience).await?;
        let relations = snapshot.session().user_relations().await?;
        Ok(Self { info, snapshot, relations })
    }
}

/// `LOCK TABLE` takes tables alone; partitions are locked with what they are part of.
pub(super) fn lockable(relations: &[Relation]) -> Vec<TableName> {
    let tables =
        relations.iter().filter(|r| matches!(r.kind, RelationKind::Table | RelationKind::Partitioned));
    tables.map(|r| r.table.clone()).collect()
}

pub(super) fn facts(database: &Database) -> DatabaseFacts {
    DatabaseFacts {
        encoding: database.encoding.clone(),
        collate: database.collate.clone(),
        ctype: database.ctype.clone(),
        locale_provider: database.locale_provider.clone(),
        locale: database.locale.clone(),
        icu_rules: database.icu_rules.clone(),
        owner: database.owner.clone(),
        tablespace: database.tablespace.clone(),
    }
}
