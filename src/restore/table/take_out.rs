//! Looks at the tables in the side instance, and changes them there so that `pg_dump` writes just what production shall
//! get: a copy gets its new names, and loses what would bind production to it. The side instance is ours alone.

use super::plan::TablePlan;
use super::side::Side;
use super::{Job, Way, names};
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::session::Session;
use crate::postgres::tables::{Attachment, Dependent, ForeignKey, OtherDependent, TableFacts, TableKind};
use crate::postgres::user_tables::SequenceState;
use crate::restore::production::Production;

/// A table with everything below it.
pub struct Tree {
    pub asked: TableName,
    pub way: Way,
    /// The table itself first; names as they are in the side instance by now.
    pub parts: Vec<TableFacts>,
}

impl Tree {
    pub fn root(&self) -> &TableFacts {
        // `look` refuses a tree without a root.
        &self.parts[0]
    }
    pub fn oids(&self) -> Vec<u32> {
        self.parts.iter().map(|p| p.oid).collect()
    }
}

/// What was found at the asked moment.
pub struct Taken {
    pub session: Session,
    pub trees: Vec<Tree>,
    /// Of the tables that are exchanged or made anew, in both directions.
    pub foreign_keys: Vec<ForeignKey>,
    /// What would have gone away with those that are made anew.
    pub views: Vec<Dependent>,
    pub publications: Vec<(TableName, String)>,
    pub others: Vec<OtherDependent>,
    /// Partitions that are made anew, without their parents.
    pub attachments: Vec<Attachment>,
    /// Of all the tables, with the names that they have by now.
    pub sequences: Vec<(Way, SequenceState)>,
    /// Statements that make what production does not have: before the rows, and after them.
    pub before: String,
    pub after: String,
    pub notes: Vec<String>,
}

pub async fn look(job: &Job<'_>, side: &Side, production: &Production, plan: &TablePlan) -> Result<Taken> {
    job.progress.phase("taking the tables out");
    let session = side.connect(&plan.database).await?;
    let mut trees = Vec::new();
    for planned in &plan.tables {
        let table = session.table(&planned.table).await?.ok_or_else(|| gone(&planned.table, plan))?;
        let parts = session.table_tree(table.oid).await?;
        trees.push(Tree { asked: planned.table.clone(), way: planned.way, parts });
    }
    refuse_overlaps(&trees)?;
    let mut notes = remarks(&trees);
    let real = oids(&trees, |way| way != Way::Beside);
    let foreign_keys = session.foreign_keys(&real).await?;
    let anew = oids(&trees, |way| way == Way::Anew);
    let views = session.dependent_views(&anew).await?;
    let publications = session.named_in_publications(&anew).await?;
    let others = session.other_dependents(&anew).await?;
    let mut attachments = Vec::new();
    for tree in &mut trees {
        match tree.way {
            Way::Rows => {}
            Way::Anew => {
                attachments.extend(detach(&session, tree).await?);
                drop_foreign_keys(&session, &tree.oids(), true).await?;
            }
            Way::Beside => {
                make_a_copy(&session, tree, &mut notes).await?;
                let copy = job.request.copy_name(&tree.asked);
                names::give(&session, &production.session, tree, &copy.name).await?;
            }
        }
    }
    let mut sequences = Vec::new();
    for tree in &trees {
        for table in tree.oids() {
            let owned = session.owned_sequences(table).await?;
            sequences.extend(owned.into_iter().map(|state| (tree.way, state)));
        }
    }
    let made: Vec<TableName> = trees
        .iter()
        .filter(|t| t.way != Way::Rows)
        .flat_map(|t| t.parts.iter().map(|p| p.name.clone()))
        .collect();
    let (mut before, mut after) = (String::new(), String::new());
    if !made.is_empty() {
        let no_owner = job.request.no_owner;
        before = side.definitions(&plan.database, &made, "pre-data", no_owner).await?;
        after = side.definitions(&plan.database, &made, "post-data", no_owner).await?;
    }
    Ok(Taken {
        session,
        trees,
        foreign_keys,
        views,
        publications,
        others,
        attachments,
        sequences,
        before,
        after,
        notes,
    })
}

/// What does not come with the tables.
fn remarks(trees: &[Tree]) -> Vec<String> {
    let mut notes = Vec::new();
    for part in trees.iter().flat_map(|t| &t.parts) {
        if part.kind == TableKind::Foreign {
            notes.push(format!(
                "{} is a foreign table: its rows are on another server and stay there",
                part.name
            ));
        }
        if part.unlogged {
            notes.push(format!("{} is unlogged: no backup has its rows, and it comes back empty", part.name));
        }
    }
    notes
}

fn oids(trees: &[Tree], wanted: impl Fn(Way) -> bool) -> Vec<u32> {
    trees.iter().filter(|t| wanted(t.way)).flat_map(Tree::oids).collect()
}

fn gone(table: &TableName, plan: &TablePlan) -> Error {
    Error::new(Code::Refused, format!("{table} did not exist at that moment"))
        .at(format!("database {}", plan.database))
        .hint(
            "nothing in production was changed; check the name (quoted as in SQL), the database and the moment: one \
             just before the drop is needed, for example with --before",
        )
}

fn refuse_overlaps(trees: &[Tree]) -> Result<()> {
    for tree in trees {
        let inside = trees.iter().find(|other| {
            other.asked != tree.asked && other.parts[1..].iter().any(|part| part.oid == tree.root().oid)
        });
        if let Some(other) = inside {
            return Err(Error::new(Code::Usage, format!("{} is a part of {}", tree.asked, other.asked))
                .hint("name only one of them: a table comes with its partitions and children"));
        }
    }
    Ok(())
}

/// A partition that comes back alone: production's parent has its indexes already and would make the partition's own,
/// which `pg_dump` makes too. So it is made by itself, and attached when its indexes are there.
async fn detach(session: &Session, tree: &Tree) -> Result<Option<Attachment>> {
    let Some(attachment) = session.attachment(tree.root().oid).await? else { return Ok(None) };
    free_from_references(session, tree.root()).await?;
    session.detach_from_parent(&attachment.partition, &attachment.parent, true).await?;
    Ok(Some(attachment))
}

/// Rows that others refer to through the table above could not leave it.
async fn free_from_references(session: &Session, table: &TableFacts) -> Result<()> {
    let mut above = table.parents.clone();
    while let Some(parent) = above.pop() {
        let Some(parent) = session.table_tree(parent).await?.into_iter().next() else { continue };
        for key in session.foreign_keys(&[parent.oid]).await? {
            if key.references == parent.name {
                session.drop_constraint(&key.table, &key.name).await?;
            }
        }
        above.extend(parent.parents);
    }
    Ok(())
}

/// Their definitions are known; they are added when all rows are there.
async fn drop_foreign_keys(session: &Session, tables: &[u32], both_ways: bool) -> Result<()> {
    let all = session.foreign_keys(tables).await?;
    for key in all {
        let own = session.table(&key.table).await?.is_some_and(|t| tables.contains(&t.oid));
        if own || both_ways {
            session.drop_constraint(&key.table, &key.name).await?;
        }
    }
    Ok(())
}

/// A copy stands for itself: what would fire, redirect or hold back production's rows is left out.
async fn make_a_copy(session: &Session, tree: &Tree, notes: &mut Vec<String>) -> Result<()> {
    let oids = tree.oids();
    let keys = session.foreign_keys(&oids).await?;
    let own: Vec<&str> = keys
        .iter()
        .filter(|k| tree.parts.iter().any(|p| p.name == k.table))
        .map(|k| k.name.as_str())
        .collect();
    let triggers = session.triggers(&oids, false).await?;
    let rules = session.rules(&oids).await?;
    drop_foreign_keys(session, &oids, true).await?;
    for trigger in &triggers {
        session.drop_trigger(trigger).await?;
    }
    for (table, rule) in &rules {
        session.drop_rule(table, rule).await?;
    }
    free_from_references(session, tree.root()).await?;
    for parent in &tree.root().parents {
        let above = session.table_tree(*parent).await?;
        if let Some(parent) = above.first() {
            session.detach_from_parent(&tree.root().name, &parent.name, tree.root().is_partition).await?;
        }
    }
    let counted = [(own.len(), "foreign keys"), (triggers.len(), "triggers"), (rules.len(), "rules")];
    let left: Vec<String> =
        counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if !left.is_empty() {
        notes.push(format!("the copy of {} is without its {}", tree.asked, left.join(" and ")));
    }
    Ok(())
}
