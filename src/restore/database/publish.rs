//! The new database gets its owner, its settings, its grants and its name, and the old one gives way: one transaction.

use std::time::Duration;

use super::leftovers::Leftover;
use super::prepare::{Prepared, in_the_way, properties};
use super::request::{DatabaseRequest, with_suffix};
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::postgres::connect_to;
use crate::postgres::databases::{comment_on_database, give_database, rename_database};
use crate::postgres::roles::quote_identifier;
use crate::util::progress::Progress;

/// How long sessions that came meanwhile are waited for.
const LEAVE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(300);

/// Under which names it is all done in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub new: String,
    /// What the old one is called now, and how it shall be called.
    pub aside: Option<(String, String)>,
    /// The old one, under its new name, is dropped.
    pub dropped: Option<String>,
}

impl Names {
    /// `sound`: the counts are those of the dump. Else nothing is replaced.
    pub fn of(prepared: &Prepared, sound: bool, now: Timestamp) -> Self {
        let plan = &prepared.plan;
        let becomes = plan.becomes.clone();
        match &plan.existing {
            None => Self { new: becomes, aside: None, dropped: None },
            Some(_) if !sound => {
                let new = with_suffix(&becomes, &format!("_restored_{}", now.compact_seconds()));
                Self { new, aside: None, dropped: None }
            }
            Some(existing) => {
                let doomed = || with_suffix(&becomes, &format!("_dropped_{}", now.compact_seconds()));
                let aside = existing.kept_as.clone().unwrap_or_else(doomed);
                let dropped = existing.kept_as.is_none().then(|| aside.clone());
                Self { new: becomes.clone(), aside: Some((becomes, aside)), dropped }
            }
        }
    }
}

/// What could not be taken over of the database's own settings.
pub async fn run(
    prepared: &Prepared,
    request: &DatabaseRequest,
    unfinished: &Leftover,
    names: &Names,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let session = &prepared.production.session;
    let from = &unfinished.database;
    let mut statements = vec![comment_on_database(from, None)];
    let (own, lost) = properties(prepared, request.no_owner, &quote_identifier(from));
    // Grants are given by the owner.
    statements.extend(prepared.plan.owner.as_ref().map(|owner| give_database(from, owner)));
    statements.extend(own.into_iter().map(|s| s.trim_end().trim_end_matches(';').to_owned()));
    statements.extend(names.aside.as_ref().map(|(now, then)| rename_database(now, then)));
    statements.push(rename_database(from, &names.new));
    if let Some((old, _)) = &names.aside {
        make_way(prepared, old, request.terminate, progress).await?;
    }
    let exchange = session.all_or_nothing("give the database its name", &statements);
    match &names.aside {
        // New connections wait for the exchange, so who is ended now does not come back before it.
        Some((old, _)) if request.terminate => {
            let helper = connect_to(&prepared.production.info).await?;
            tokio::pin!(exchange);
            loop {
                tokio::select! {
                    done = &mut exchange => break done,
                    () = tokio::time::sleep(LOOK) => helper.end_sessions_in(old).await?,
                }
            }
        }
        _ => exchange.await,
    }
    .map_err(|e| held_up(e, names))?;
    Ok(lost)
}

/// Ends who is in the way, or waits a while for them to go.
async fn make_way(prepared: &Prepared, old: &str, terminate: bool, progress: &dyn Progress) -> Result<()> {
    let session = &prepared.production.session;
    let mut waited = Duration::ZERO;
    loop {
        if terminate {
            session.end_sessions_in(old).await?;
            return Ok(());
        }
        let others = session.sessions_in(old).await?;
        if others.is_empty() {
            return Ok(());
        }
        if waited >= LEAVE {
            return Err(in_the_way(old, &others).at(prepared.production.info.place()));
        }
        if waited.is_zero() {
            progress.note(&format!("waiting for {} sessions to leave {old}", others.len()));
        }
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
}

fn held_up(error: Error, names: &Names) -> Error {
    // object_in_use says it in the server's own language.
    match &names.aside {
        Some((old, _)) => error.hint(format!(
            "somebody is connected to {old}: end the sessions, or give --terminate; nothing has changed"
        )),
        None => error,
    }
}
