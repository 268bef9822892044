//! What was done, as a value.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Way;
use crate::model::{SystemId, TableName};
use crate::restore::report::Phase;
use crate::util::human;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    pub host: String,
    /// The server that has the tables now.
    pub production: String,
    pub system_identifier: SystemId,
    /// Which moment the rows are of.
    pub stands_at: String,
    pub database: String,
    pub counts: Counts,
    pub tables: Vec<RestoredTable>,
    pub notes: Vec<String>,
    /// What is not as it was, with the statement that a person may run.
    pub findings: Vec<String>,
    pub phases: Vec<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub tables: usize,
    pub rows: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoredTable {
    pub table: TableName,
    /// What it is called in production.
    pub becomes: TableName,
    pub way: Way,
    /// Read at the asked moment, written, and counted in production: all the same.
    pub rows: u64,
    /// As they went from server to server.
    pub bytes: u64,
    /// Rows that were there before, where they were exchanged.
    pub rows_before: Option<u64>,
}

impl TableReport {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let RestoredTable { table: was, becomes, rows, .. } = table;
            let what = match table.way {
                Way::Beside => format!("{was} is in {becomes}, {rows} rows"),
                Way::Anew => format!("{was} is there again, {rows} rows"),
                Way::Rows => {
                    format!("{was} has its {rows} rows again (it had {})", table.rows_before.unwrap_or(0))
                }
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "done: {what}");
        }
        let _ = writeln!(text, "as of {}", self.stands_at);
        let _ = writeln!(text, "in {}", self.production);
        let took: f64 = self.phases.iter().map(|p| p.seconds).sum();
        let span = human::rough(std::time::Duration::from_secs_f64(took.max(0.0)));
        let _ = write!(text, "in {span}; the counts of rows agree");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_is_where_and_of_when() {
        let table = |name: &str, becomes: &str, way, before| RestoredTable {
            table: TableName::new("app", name),
            becomes: TableName::new("app", becomes),
            way,
            rows: 300,
            bytes: 4096,
            rows_before: before,
        };
        let report = TableReport {
            host: "db1".into(),
            production: "host /run/postgresql port 5432 user app database shop".into(),
            system_identifier: SystemId(7_000_000_000_000_000_001),
            stands_at: "2026-11-21 14:25:00+00; last commit kept: transaction 741".into(),
            database: "shop".into(),
            counts: Counts { tables: 3, rows: 900 },
            tables: vec![
                table("orders", "orders", Way::Rows, Some(12)),
                table("Customers", "Customers", Way::Anew, None),
                table("events", "events_restored", Way::Beside, None),
            ],
            notes: Vec::new(),
            findings: Vec::new(),
            phases: vec![Phase { name: "copy rows".into(), seconds: 75.2 }],
        };
        insta::assert_snapshot!(report.text(), @r#"
        done: app.orders has its 300 rows again (it had 12)
        done: app."Customers" is there again, 300 rows
        done: app.events is in app.events_restored, 300 rows
        as of 2026-11-21 14:25:00+00; last commit kept: transaction 741
        in host /run/postgresql port 5432 user app database shop
        in 1m 15s; the counts of rows agree
        "#);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<TableReport>(&json).unwrap(), report);
    }
}
