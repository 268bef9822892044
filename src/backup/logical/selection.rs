//! From patterns and what there is to what is backed up. Pure.

use std::fmt::Display;

use crate::error::{Code, Error, Result};
use crate::model::{DatabasePattern, TablePattern};
use crate::postgres::user_tables::{Database, Relation, RelationKind};

fn chooses_nothing(what: &str, patterns: &[impl Display]) -> Error {
    let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    Error::new(Code::Usage, format!("no {what} is called so")).at(patterns.join(", "))
}

/// The databases that are backed up, by name. Templates, and databases that take no connections, only when named.
pub(super) fn databases<'d>(all: &'d [Database], patterns: &[DatabasePattern]) -> Result<Vec<&'d Database>> {
    for pattern in patterns {
        let found = all.iter().find(|d| pattern.matches(&d.name));
        match found {
            None => {
                let error = chooses_nothing("database", std::slice::from_ref(pattern));
                return Err(error.hint("`psql -l` shows them"));
            }
            Some(database) if pattern.is_exact() && !database.allows_connections => {
                return Err(Error::new(Code::NotReady, "the database takes no connections").at(pattern));
            }
            Some(_) => {}
        }
    }
    let chosen = |d: &&Database| {
        let named = patterns.iter().any(|p| p.is_exact() && p.matches(&d.name));
        let fits = patterns.is_empty() || patterns.iter().any(|p| p.matches(&d.name));
        d.allows_connections && (named || (fits && !d.is_template))
    };
    let chosen: Vec<&Database> = all.iter().filter(chosen).collect();
    if chosen.is_empty() {
        return Err(chooses_nothing("database that takes connections", patterns));
    }
    Ok(chosen)
}

/// The tables of one database that the patterns choose; empty when they choose none here. A pattern without wildcards
/// that names something without rows of its own is an error.
pub(super) fn tables<'r>(all: &'r [Relation], patterns: &[TablePattern]) -> Result<Vec<&'r Relation>> {
    let fits = |r: &Relation| patterns.iter().any(|p| p.matches(&r.table.schema, &r.table.name));
    let holds = |r: &Relation| !matches!(r.kind, RelationKind::View | RelationKind::Foreign);
    for pattern in patterns.iter().filter(|p| p.is_exact()) {
        let named = all.iter().filter(|r| pattern.matches(&r.table.schema, &r.table.name));
        let named: Vec<&Relation> = named.collect();
        if let Some(first) = named.first()
            && !named.iter().any(|r| holds(r))
        {
            let what = if first.kind == RelationKind::View { "a view" } else { "a foreign table" };
            return Err(Error::new(
                Code::Usage,
                format!("{} is {what}: it has no rows of its own", first.table),
            )
            .hint("name the tables that hold the rows"));
        }
    }
    Ok(all.iter().filter(|r| holds(r) && fits(r)).collect())
}

/// With the chosen tables, the partitions of those that are partitioned: for locks and for DDL.
pub(super) fn with_partitions<'r>(all: &'r [Relation], chosen: &[&Relation]) -> Vec<&'r Relation> {
    let roots: std::collections::HashSet<u32> = chosen.iter().map(|r| r.oid).collect();
    all.iter()
        .filter(|r| roots.contains(&r.oid) || r.root.is_some_and(|root| roots.contains(&root)))
        .collect()
}

/// Without partitions of a table that is chosen itself: its CSV has their rows.
pub(super) fn without_parts_of_chosen(chosen: Vec<Relation>) -> Vec<Relation> {
    let roots: std::collections::HashSet<u32> = chosen.iter().map(|r| r.oid).collect();
    let apart = |r: &Relation| r.root.is_none_or(|root| root == r.oid || !roots.contains(&root));
    chosen.into_iter().filter(apart).collect()
}

/// The patterns, as given, that chose something.
pub(super) fn matched(chosen: &[&Relation], patterns: &[TablePattern]) -> Vec<String> {
    let matches = |p: &&TablePattern| chosen.iter().any(|r| p.matches(&r.table.schema, &r.table.name));
    patterns.iter().filter(matches).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::TableName;

    fn database(name: &str, is_template: bool, allows_connections: bool) -> Database {
        Database {
            name: name.into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            locale_provider: "c".into(),
            locale: None,
            icu_rules: None,
            owner: "o".into(),
            tablespace: "pg_default".into(),
            is_template,
            allows_connections,
        }
    }

    fn chosen(patterns: &[&str]) -> Result<Vec<String>> {
        let all = [
            database("app", false, true),
            database("app2", false, true),
            database("closed", false, false),
            database("template0", true, false),
            database("template1", true, true),
        ];
        let patterns: Vec<_> = patterns.iter().map(|p| DatabasePattern::parse(p).unwrap()).collect();
        Ok(databases(&all, &patterns)?.into_iter().map(|d| d.name.clone()).collect())
    }

    #[test]
    fn all_databases_but_templates_and_closed_ones_unless_named() {
        assert_eq!(chosen(&[]).unwrap(), ["app", "app2"]);
        assert_eq!(chosen(&["app?", "template1"]).unwrap(), ["app2", "template1"]);
        assert_eq!(chosen(&["*"]).unwrap(), ["app", "app2"]);
        assert!(chosen(&["template*"]).is_err());
        assert_eq!(chosen(&["app", "x*"]).unwrap_err().place(), Some("x*"));
        assert_eq!(chosen(&["closed"]).unwrap_err().code(), Code::NotReady);
    }

    fn relation(oid: u32, name: &str, kind: RelationKind, root: Option<u32>) -> Relation {
        let table = TableName { schema: "public".into(), name: name.into() };
        Relation { oid, table, kind, root, bytes: 0, rows: 0, of_extension: false }
    }

    #[test]
    fn tables_are_chosen_views_are_not_and_partitions_come_with_their_root() {
        let all = [
            relation(1, "log", RelationKind::Partitioned, None),
            relation(2, "log_1", RelationKind::Table, Some(1)),
            relation(3, "logs", RelationKind::View, None),
        ];
        let names = |found: Vec<&Relation>| found.iter().map(|r| r.oid).collect::<Vec<_>>();
        let pattern = |text: &str| [TablePattern::parse(text).unwrap()];
        assert_eq!(names(tables(&all, &pattern("log*")).unwrap()), [1, 2]);
        let log = tables(&all, &pattern("log")).unwrap();
        assert_eq!(names(log.clone()), [1]);
        assert_eq!(names(with_partitions(&all, &log)), [1, 2]);
        assert!(tables(&all, &pattern("logs")).unwrap_err().what().contains("a view"));
        assert!(tables(&all, &pattern("nothing")).unwrap().is_empty());
        let both = tables(&all, &pattern("log*")).unwrap();
        assert_eq!(matched(&both, &pattern("LOG_?")), ["LOG_?"]);
        assert!(matched(&both, &pattern("x")).is_empty());
        let both = both.into_iter().cloned().collect();
        assert_eq!(names(without_parts_of_chosen(both).iter().collect()), [1]);
    }
}
