//! What was asked for, and whether it makes sense in itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::restore::logical::Wanted;
use crate::restore::request::Request;

/// `restore table …`, parsed.
// One flag per option of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct TableRequest {
    pub tables: Vec<TableName>,
    pub from: From,
    /// The database that the tables were in.
    pub database: String,
    /// The one that they come into.
    pub into: String,
    /// Of production, instead of the cluster's own.
    pub connection: Option<String>,
    /// Instead of `<table>_restored`.
    pub rename: Option<String>,
    pub replace: bool,
    /// Columns that production has got since may stay, with their defaults.
    pub keep_new_columns: bool,
    /// The tables belong to the role of the connection, without the old grants.
    pub no_owner: bool,
    /// Into a cluster with another system identifier.
    pub other_cluster: bool,
    /// How long one lock of production is waited for.
    pub lock_timeout: Duration,
    /// How often the whole is tried again after that.
    pub lock_retries: u32,
    /// Where the side instance is made; it does not exist yet.
    pub work: PathBuf,
}

/// Where the rows come from.
#[derive(Debug, Clone)]
pub enum From {
    /// A moment of the cluster's life: the restore of the side instance.
    Moment(Box<Request>),
    /// A dump or an export of tables; true: the time was given without a zone and read as UTC.
    Backup(Wanted, bool),
}

impl TableRequest {
    pub fn check(&self) -> Result<()> {
        for (at, table) in self.tables.iter().enumerate() {
            if self.tables[..at].contains(table) {
                return Err(Error::new(Code::Usage, "a table is named twice").at(table));
            }
        }
        if self.rename.is_some() && self.tables.len() > 1 {
            return Err(Error::new(Code::Usage, "`--as` names one table, and several are restored")
                .hint("leave it out: each gets its name with `_restored`"));
        }
        if self.rename.is_some() && self.replace {
            return Err(Error::new(Code::Usage, "`--as` and `--replace` exclude each other")
                .hint("`--replace` puts the rows into the table itself, `--as` beside it"));
        }
        if self.keep_new_columns && !self.replace {
            return Err(Error::new(Code::Usage, "`--keep-new-columns` goes with `--replace`")
                .hint("a copy beside the table has the columns of the asked moment"));
        }
        Ok(())
    }

    /// What the copy of `table` is called.
    pub fn copy_name(&self, table: &TableName) -> TableName {
        let name = self
            .rename
            .clone()
            .unwrap_or_else(|| crate::model::table_name::with_suffix(&table.name, "_restored"));
        table.sibling(&name)
    }
}
