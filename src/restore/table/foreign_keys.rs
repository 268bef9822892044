//! Foreign keys while rows are exchanged: taken away before, and put back, which checks every row in both directions,
//! when all rows are there. All of it by the owner of the tables, in the one transaction.

use super::take_out::Taken;
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::session::Session;
use crate::postgres::tables::ForeignKey;
use crate::util::progress::Progress;

/// Those of production that touch the tables; they are gone until [`put_back`].
pub async fn take_away(production: &Session, tables: &[u32]) -> Result<Vec<ForeignKey>> {
    let keys = production.foreign_keys(tables).await?;
    for key in &keys {
        production.drop_constraint(&key.table, &key.name).await?;
    }
    Ok(keys)
}

/// Puts production's own back as they were. Rows that do not fit end the restore.
pub async fn put_back(production: &Session, keys: &[ForeignKey], progress: &dyn Progress) -> Result<()> {
    for key in keys {
        progress.note(&format!("checking foreign key {} of {}", key.name, key.table));
        production.add_foreign_key(key).await.map_err(|e| match e.code() {
            Code::Sql => e
                .while_doing(format!("foreign key {} of {} does not hold any more", key.name, key.table))
                .hint(format!(
                    "{} refers to {}: restore both in one command, or restore beside (without --replace) and take \
                     the rows that fit",
                    key.table, key.references
                )),
            _ => e,
        })?;
    }
    Ok(())
}

/// Brings back those of that moment that production has not: with a table, `DROP … CASCADE` took them away. What
/// cannot come back is said, with the statement.
pub async fn bring_back(production: &Session, taken: &Taken) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for key in &taken.foreign_keys {
        if production.has_constraint(&key.table, &key.name).await? {
            continue;
        }
        let label = format!("foreign key {} of {} to {}", key.name, key.table, key.references);
        let missing =
            |table: &TableName| format!("{label} is not back: {table} does not exist: {}", key.statement());
        if production.table(&key.table).await?.is_none() {
            findings.push(missing(&key.table));
            continue;
        }
        if production.table(&key.references).await?.is_none() {
            findings.push(missing(&key.references));
            continue;
        }
        let Err(why) = production.try_statement("add a foreign key", &key.statement()).await else {
            continue;
        };
        if production.is_lost() {
            return Err(why);
        }
        match production.try_statement("add a foreign key", &key.statement_for_new_rows()).await {
            Ok(()) => findings.push(format!(
                "{label} is back for new rows alone, for some of the old ones break it ({why}); when they are put \
                 right: ALTER TABLE {} VALIDATE CONSTRAINT {}",
                key.table.quoted(),
                crate::postgres::roles::quote_identifier(&key.name)
            )),
            Err(e) if production.is_lost() => return Err(e),
            Err(e) => findings.push(format!("{label} is not back ({e}): {}", key.statement())),
        }
    }
    Ok(findings)
}

/// Nobody must be in doubt about who holds the lock that was waited for.
pub async fn explain_lock(error: Error, watcher: Option<Session>, ours: i32, tables: &[TableName]) -> Error {
    let Some(watcher) = watcher.filter(|_| error.code() == Code::Busy) else { return error };
    let mut holders = Vec::new();
    for table in tables {
        // The reason makes the message better; it is not worth an error of its own.
        for holder in watcher.lock_holders(table, ours).await.unwrap_or_default() {
            holders.push(format!("{holder} on {table}"));
        }
    }
    let who = if holders.is_empty() { "somebody else".to_owned() } else { holders.join(", ") };
    error.hint(format!(
        "the lock is held by {who}; nothing was changed: wait until it is free, or give more time with --lock-timeout"
    ))
}
