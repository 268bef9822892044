//! The three answers of `wal fetch`, and the only place that knows their numbers.

use std::fmt;

use crate::error::{Code, Error, Result};

/// Delivered: the file is where PostgreSQL wants it.
const DELIVERED: u8 = 0;
/// There is no such file. PostgreSQL takes every status from 1 to 125 for this, ends the recovery and opens the database.
const DOES_NOT_EXIST: u8 = 1;
/// Everything else; PostgreSQL stops.
pub const FAILED: u8 = 200;

/// How a fetch that did not fail ended.
#[derive(Debug)]
pub enum Fetched {
    Delivered,
    DoesNotExist(Absence),
}

/// The proof that a file does not exist, or that a standby may look elsewhere. Made only in this module.
#[derive(Debug)]
pub struct Absence {
    why: String,
    /// A person should see it.
    pub notable: bool,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Fetched {
    /// The plan of the recovery says so.
    pub(super) fn outside_plan(why: &str) -> Self {
        Self::absent(format!("not part of this recovery: {why}"), false)
    }
    /// Every required repository answered, and none has it or anything later.
    pub(super) fn nowhere() -> Self {
        Self::absent("no repository has it".to_owned(), false)
    }
    /// The archive has only its beginning, or later beginnings: a standby asks again, and that is its everyday.
    pub(super) fn only_begun(why: &str) -> Self {
        Self::absent(why.to_owned(), false)
    }
    /// PostgreSQL has a whole copy of its own, which it reads next.
    pub(super) fn in_pg_wal(why: &str) -> Self {
        Self::absent(format!("{why}; a whole copy lies in pg_wal"), true)
    }
    /// A standby asks again, and streaming can take over.
    pub(super) fn standby_waits(why: &str) -> Self {
        Self::absent(format!("not served now, the standby asks again: {why}"), true)
    }
    fn absent(why: String, notable: bool) -> Self {
        Self::DoesNotExist(Absence { why, notable })
    }
}

/// The exit status of `wal fetch`.
pub fn exit_status(fetched: &Result<Fetched>) -> u8 {
    match fetched {
        Ok(Fetched::Delivered) => DELIVERED,
        Ok(Fetched::DoesNotExist(_)) => DOES_NOT_EXIST,
        Err(_) => FAILED,
    }
}

/// Failures of a store, which a standby waits out. Arguments, configuration, keys and damage are none.
pub(super) fn is_of_store(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::StoreUnavailable
            | Code::StoreDenied
            | Code::StoreLied
            | Code::NotARepository
            | Code::ObjectMissing
            | Code::Io
    )
}

/// A store that another process has just found not to answer: it would not answer this one either.
pub(super) fn is_unreachable(error: &Error) -> bool {
    matches!(error.code(), Code::StoreUnavailable | Code::StoreDenied | Code::NotARepository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_leaves_between_1_and_125() {
        for code in Code::ALL {
            assert_eq!(exit_status(&Err(Error::new(*code, "x"))), FAILED, "{code:?}");
        }
        assert_eq!(exit_status(&Ok(Fetched::Delivered)), 0);
        assert_eq!(exit_status(&Ok(Fetched::nowhere())), 1);
    }

    #[test]
    fn a_standby_waits_for_stores_only() {
        for code in [Code::Usage, Code::Config, Code::Key, Code::WrongKey, Code::Damaged, Code::Internal] {
            assert!(!is_of_store(&Error::new(code, "x")), "{code:?}");
        }
        assert!(is_of_store(&Error::new(Code::StoreUnavailable, "x")));
    }
}
