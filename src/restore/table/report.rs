//! What was done, as a value.

use serde::{Deserialize, Serialize};

use super::Way;
use crate::model::TableName;
use crate::restore::report::Phase;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    pub database: String,
    pub tables: Vec<RestoredTable>,
    pub notes: Vec<String>,
    /// What is not as it was, with the statement that a person may run.
    pub findings: Vec<String>,
    pub phases: Vec<Phase>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoredTable {
    pub table: TableName,
    /// What it is called in production.
    pub becomes: TableName,
    pub way: Way,
    /// Read at the asked moment, and the same number written.
    pub rows: u64,
    /// Rows that were there before, where they were exchanged.
    pub rows_before: Option<u64>,
}

impl TableReport {
    /// For people.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for table in &self.tables {
            let RestoredTable { table: was, becomes, rows, .. } = table;
            lines.push(match table.way {
                Way::Beside => format!("done: {was} is in {becomes}, {rows} rows"),
                Way::Anew => format!("done: {was} is there again, {rows} rows"),
                Way::Rows => {
                    format!(
                        "done: {was} has its {rows} rows again (it had {})",
                        table.rows_before.unwrap_or(0)
                    )
                }
            });
        }
        lines.join("\n")
    }
}
