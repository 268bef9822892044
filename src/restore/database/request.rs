//! What was asked for.

use crate::error::{Code, Error, Result};
use crate::restore::logical::Wanted;

/// PostgreSQL's limit (`NAMEDATALEN - 1`).
const LONGEST_NAME: usize = 63;
/// Where pgkeep itself connects while databases are made and renamed, and what they are made from.
const NEVER_REPLACED: [&str; 3] = ["postgres", "template0", "template1"];

/// One database, from a dump.
// Each is an option of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct DatabaseRequest {
    /// As it was called when it was dumped.
    pub database: String,
    pub from: Wanted,
    /// The time was given without a zone and read as UTC.
    pub zone_assumed: bool,
    /// What it is called now; the same as then unless given.
    pub target: String,
    /// A database of the target's name gives way.
    pub replace: bool,
    /// It is dropped instead of kept under another name.
    pub overwrite: bool,
    /// Sessions that are in the way are ended.
    pub terminate: bool,
    /// Roles and tablespaces that are missing are made.
    pub globals: bool,
    /// Neither owners nor grants.
    pub no_owner: bool,
    /// Everything in the database's own tablespace.
    pub no_tablespaces: bool,
    pub other_cluster: bool,
    /// The server's, instead of the cluster's own.
    pub connection: Option<String>,
    /// How many work at once; None for as many as pay off.
    pub jobs: Option<usize>,
}

impl DatabaseRequest {
    /// Options that do not go together, and names that cannot be.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String, hint: &str| Err(Error::new(Code::Usage, what).hint(hint));
        if self.target.is_empty() || self.target.len() > LONGEST_NAME || self.target.contains('\0') {
            return wrong(format!("`{}` is no name for a database", self.target), "a name has 1 to 63 bytes");
        }
        if self.overwrite && !self.replace {
            return wrong("--overwrite says what happens to the old database".into(), "it needs --replace");
        }
        if self.terminate && !self.replace {
            return wrong("--terminate ends sessions of the old database".into(), "it needs --replace");
        }
        if self.replace && NEVER_REPLACED.contains(&self.target.as_str()) {
            return Err(Error::new(Code::Refused, format!("database {} is not replaced", self.target))
                .hint(
                    "the server and pgkeep themselves need it; restore it beside the old one with --as NAME",
                )
                .see("restore-a-dump.md"));
        }
        Ok(())
    }
}

/// Another name made of this one, as long as a name may be.
pub fn with_suffix(name: &str, suffix: &str) -> String {
    let room = LONGEST_NAME.saturating_sub(suffix.len());
    let end = (0..=name.len().min(room)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{suffix}", &name[..end])
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn request() -> DatabaseRequest {
        DatabaseRequest {
            database: "app".into(),
            from: Wanted::Latest,
            zone_assumed: false,
            target: "app".into(),
            replace: false,
            overwrite: false,
            terminate: false,
            globals: false,
            no_owner: false,
            no_tablespaces: false,
            other_cluster: false,
            connection: None,
            jobs: None,
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        request().check().unwrap();
        for wrong in [
            DatabaseRequest { overwrite: true, ..request() },
            DatabaseRequest { terminate: true, ..request() },
            DatabaseRequest { target: String::new(), ..request() },
            DatabaseRequest { target: "x".repeat(64), ..request() },
        ] {
            assert_eq!(wrong.check().unwrap_err().code(), Code::Usage, "{wrong:?}");
        }
        let own = DatabaseRequest { target: "postgres".into(), replace: true, ..request() };
        assert_eq!(own.check().unwrap_err().code(), Code::Refused);
    }

    #[test]
    fn a_longer_name_is_cut_between_characters() {
        assert_eq!(with_suffix("app", "_before_x"), "app_before_x");
        let long = with_suffix(&"ü".repeat(31), "_x");
        assert_eq!((long.len(), long.ends_with("ü_x")), (62, true));
    }
}
