//! What was done, as a value.

use serde::{Deserialize, Serialize};

use super::count::Difference;
use crate::model::BackupId;
use crate::restore::report::Phase;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseReport {
    pub backup: BackupId,
    /// Its name when it was dumped.
    pub was: String,
    /// Its name now.
    pub database: String,
    pub tables: u64,
    pub rows: u64,
    pub large_objects: u64,
    /// Tables whose rows are not those of the dump.
    pub differ: Vec<Difference>,
    /// The old database of this name.
    pub kept_as: Option<String>,
    pub dropped: bool,
    pub roles_made: Vec<String>,
    pub tablespaces_made: Vec<String>,
    /// What killed restores had left.
    pub removed: Vec<String>,
    /// What PostgreSQL's programs warned of, and what is not as it was.
    pub warnings: Vec<String>,
    pub notes: Vec<String>,
    pub phases: Vec<Phase>,
}

impl DatabaseReport {
    /// For people.
    pub fn text(&self) -> String {
        let counted = if self.differ.is_empty() {
            "counted and equal to the dump's".to_owned()
        } else {
            format!("and {} tables differ from the dump", self.differ.len())
        };
        let mut lines = vec![
            format!("done: database {} is there, from {}", self.database, self.backup),
            format!("rows: {} in {} tables, {counted}", self.rows, self.tables),
        ];
        if let Some(name) = &self.kept_as {
            lines.push(format!("kept until you drop it: database {name}"));
        }
        if self.dropped {
            lines.push("dropped: the old database".to_owned());
        }
        for (what, names) in [("roles", &self.roles_made), ("tablespaces", &self.tablespaces_made)] {
            if !names.is_empty() {
                lines.push(format!("made {what}: {}", names.join(", ")));
            }
        }
        let whole = self.phases.iter().find(|p| p.name == "altogether");
        lines.extend(whole.map(|p| format!("took: {:.1} s", p.seconds)));
        lines.join("\n")
    }

    /// Everything is as it was dumped.
    pub fn holds(&self) -> bool {
        self.differ.is_empty() && self.warnings.is_empty()
    }
}
