//! What went away with a table, and does not come back with it: views, memberships in publications, and whatever else
//! depended on it. Said with what makes it again, never made by itself: others may have decided that it shall be gone.

use super::take_out::Taken;
use crate::error::Result;
use crate::postgres::roles::quote_identifier;
use crate::postgres::session::Session;

/// Each is something that is not as it was.
pub async fn findings(production: &Session, taken: &Taken) -> Result<Vec<String>> {
    let mut findings = lost_views(production, taken).await?;
    for (table, publication) in &taken.publications {
        let Some(facts) = production.table(table).await? else { continue };
        if production.left_out_of(publication, facts.oid).await? {
            findings.push(format!(
                "{table} was published by {publication} and is not: ALTER PUBLICATION {} ADD TABLE {}",
                quote_identifier(publication),
                table.quoted()
            ));
        }
    }
    for other in &taken.others {
        if !production.object_exists(other).await? {
            findings.push(format!("{} depended on the table and is gone", other.description));
        }
    }
    Ok(findings)
}

/// Views of that moment which went away with a table: said with what makes them again.
async fn lost_views(production: &Session, taken: &Taken) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for view in &taken.views {
        if production.relation_exists(&view.name).await? {
            continue;
        }
        let kind = if view.materialised { "MATERIALIZED VIEW" } else { "VIEW" };
        let definition = view.definition.trim().trim_end_matches(';');
        findings.push(format!(
            "view {} read {} and is gone; with its grants to be given anew: CREATE {kind} {} AS {definition}",
            view.name,
            view.reads,
            view.name.quoted()
        ));
    }
    Ok(findings)
}

/// Materialised views still show the rows that were there.
pub async fn stale_views(production: &Session, tables: &[u32]) -> Result<Vec<String>> {
    let views = production.dependent_views(tables).await?;
    let stale = views.into_iter().filter(|v| v.materialised);
    Ok(stale
        .map(|v| {
            format!("{} shows the old rows until: REFRESH MATERIALIZED VIEW {}", v.name, v.name.quoted())
        })
        .collect())
}
