//! Texts that PostgreSQL's programs write: the DDL of a database, and what belongs to the cluster as a whole.

use super::outgoing::Held;
use super::program;
use super::run::{Run, blocking};
use crate::codec::SealWriter;
use crate::error::Result;
use crate::repository::keys::backup;
use crate::repository::logical_index::IndexedGlobals;
use crate::repository::record::ObjectEntry;
use crate::util::process::Run as Program;

/// A text, sealed, and what the program warned of.
pub(super) async fn text(run: &Run<'_>, program: Program, doing: &str) -> Result<(Held, Vec<String>)> {
    let seal = SealWriter::undigested(Vec::new(), &run.destination.protection, run.destination.level, None)?;
    let (progress, cancel) = (run.request.progress.clone(), &run.request.cancel);
    let passed = program::pass(program, doing, seal, progress, cancel, |_| Ok(())).await?;
    Ok((Held::finish(passed.out)?, passed.warnings))
}

/// Stores a text under its key.
pub(super) async fn store(run: &Run<'_>, held: Held, key: String) -> Result<Vec<ObjectEntry>> {
    let destination = run.destination.clone();
    blocking(&run.request.cancel, move || held.store(&destination, &key)).await
}

/// Roles and tablespaces, stored.
pub(super) struct Globals {
    pub(super) indexed: IndexedGlobals,
    pub(super) objects: Vec<ObjectEntry>,
    pub(super) plain_bytes: u64,
    pub(super) warnings: Vec<String>,
}

pub(super) async fn globals(run: &Run<'_>) -> Result<Globals> {
    let (request, ready) = (run.request, &run.ready);
    request.progress.phase("roles and tablespaces");
    let passwords = ready.session.reads_role_passwords().await?;
    let doing = "dump roles and tablespaces";
    let patience = request.config.dump.lock_timeout;
    let mut tries = run.tries(doing);
    let (held, mut warnings) = loop {
        match text(run, ready.tool.globals(&ready.info, passwords, patience), doing).await {
            Err(error) => tries.again(error).await?,
            Ok(done) => break done,
        }
    };
    if !passwords {
        warnings.push(format!(
            "roles are stored without their passwords: {} may not read pg_authid",
            ready.session.user()
        ));
    }
    let key = backup::globals(run.destination.protection.suffix());
    let plain_bytes = held.plain_bytes;
    let objects = store(run, held, key.clone()).await?;
    Ok(Globals { indexed: IndexedGlobals { object: key, passwords }, objects, plain_bytes, warnings })
}
