//! The canary: whether the agent may write it, and what is left of one that is switched off.

use super::Subject;
use super::findings::Findings;
use crate::agent::canary::usable;
use crate::error::Result;
use crate::postgres::canary::{CanaryPlace, CanaryRow};
use crate::postgres::{ConnInfo, Session, connect_to};

const CHECK: &str = "canary";

pub async fn all(subject: &Subject<'_>, findings: &mut Findings) {
    let config = &subject.config.canary;
    let looked = look(subject).await;
    match looked {
        Ok(seen) if config.enabled => told(&seen, &config.database, findings),
        Ok(Seen { place, .. }) if place.schema.is_some() && place.table.is_some() => findings.ok(
            CHECK,
            format!(
                "it is off; its table is still there: DROP SCHEMA pgkeep CASCADE in database {} removes it",
                config.database
            ),
        ),
        Err(error) if config.enabled => findings.error(CHECK, &error),
        // Nobody asked for it.
        Ok(_) | Err(_) => {}
    }
}

struct Seen {
    place: CanaryPlace,
    newest: Option<CanaryRow>,
    session: Session,
}

async fn look(subject: &Subject<'_>) -> Result<Seen> {
    let info = ConnInfo::resolve(&subject.cluster.connection)?.with_dbname(&subject.config.canary.database);
    let session = connect_to(&info).await?;
    let place = session.canary_place().await?;
    let ours = place.plain && place.table.as_ref().is_some_and(|keeper| keeper.trusted);
    let newest =
        if ours && subject.config.canary.enabled { session.canary_rows().await?.newest } else { None };
    Ok(Seen { place, newest, session })
}

fn told(seen: &Seen, database: &str, findings: &mut Findings) {
    if let Err(error) = usable(&seen.place, seen.session.user(), database) {
        return findings.error(CHECK, &error);
    }
    let words = match seen.newest {
        Some(row) => format!("the newest row is number {} of {}", row.number, row.written.human()),
        None => "no row is written yet: the agent makes the table".to_owned(),
    };
    findings.ok(
        CHECK,
        if seen.place.in_recovery {
            format!("{words}; nothing is written here, on a standby")
        } else {
            words
        },
    );
}
