//! The DDL of one database, as text that `psql` reads.

use super::globals;
use super::opened::{self, Opened};
use super::outgoing::Held;
use super::run::{DatabasePart, Run};
use crate::error::Result;
use crate::model::{Lsn, Timestamp};
use crate::postgres::dump_tool::DumpScope;
use crate::postgres::user_tables::Database;
use crate::repository::keys::backup;
use crate::repository::logical_index::IndexedDatabase;

pub(super) async fn database(run: &Run<'_>, database: &Database) -> Result<DatabasePart> {
    let doing = format!("dump the schema of database {}", database.name);
    run.request.progress.phase(&format!("schema of {}", database.name));
    let mut tries = run.tries(&doing);
    let (schema, snapshot, warnings) = loop {
        match attempt(run, database, &doing).await {
            Err(error) => tries.again(error).await?,
            Ok(done) => break done,
        }
    };
    let key = backup::schema(&database.name, run.destination.protection.suffix());
    let bytes_raw = schema.plain_bytes;
    let objects = globals::store(run, schema, key.clone()).await?;
    let indexed = IndexedDatabase {
        name: database.name.clone(),
        facts: opened::facts(database),
        snapshot_lsn: snapshot.0,
        snapshot_at: snapshot.1,
        dump: None,
        schema: key,
        archive_version: None,
        only_tables: Vec::new(),
        large_objects: 0,
        tables: Vec::new(),
    };
    Ok(DatabasePart { indexed, objects, bytes_raw, warnings, notes: Vec::new(), matched: Vec::new() })
}

type Text = (Held, (Lsn, Timestamp), Vec<String>);

async fn attempt(run: &Run<'_>, database: &Database, doing: &str) -> Result<Text> {
    // No rows are read: pg_dump's own locks are enough.
    let opened = Opened::open(run, database, |_| Ok(Vec::new())).await?;
    let lock_timeout = run.request.config.dump.lock_timeout;
    let scope = DumpScope { snapshot: &opened.snapshot.id, lock_timeout, tables: &[] };
    let program = run.ready.tool.schema(&opened.info, &scope);
    let (held, warnings) = globals::text(run, program, doing).await?;
    Ok((held, (opened.snapshot.lsn, opened.snapshot.at), warnings))
}
