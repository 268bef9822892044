//! What is wrong, and what it means for whom.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::reading::Trouble;
use crate::model::{BackupId, RepoName};

/// The sorts of what can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An object that must be there is not.
    Missing,
    /// It is shorter or longer than what was stored.
    WrongLength,
    /// Its bytes are not those that were stored.
    Damaged,
    /// It is another cluster's.
    Foreign,
    /// The store has it and does not give it.
    Unreadable,
    /// No identity here opens it.
    WrongKey,
    /// No trusted host has signed it.
    Untrusted,
    /// Parts of a backup contradict each other.
    Inconsistent,
    /// WAL between two places is missing or damaged.
    WalHole,
    /// A base backup lacks WAL that makes it consistent.
    WalIncomplete,
    /// WAL ends before the place where it ended once.
    WalShorter,
    /// One name with several contents: two servers archive into one place.
    Conflict,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Missing,
        Self::WrongLength,
        Self::Damaged,
        Self::Foreign,
        Self::Unreadable,
        Self::WrongKey,
        Self::Untrusted,
        Self::Inconsistent,
        Self::WalHole,
        Self::WalIncomplete,
        Self::WalShorter,
        Self::Conflict,
    ];
    /// As it is printed and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongLength => "wrong-length",
            Self::Damaged => "damaged",
            Self::Foreign => "foreign",
            Self::Unreadable => "unreadable",
            Self::WrongKey => "wrong-key",
            Self::Untrusted => "untrusted",
            Self::Inconsistent => "inconsistent",
            Self::WalHole => "wal-hole",
            Self::WalIncomplete => "wal-incomplete",
            Self::WalShorter => "wal-shorter",
            Self::Conflict => "conflict",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub kind: Kind,
    pub repository: RepoName,
    /// The object, or what stands for it.
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    /// What was seen.
    pub what: String,
    /// For which restores it matters.
    pub means: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.repository, self.kind.as_str(), self.key, self.what)?;
        if !self.means.is_empty() {
            write!(f, "; {}", self.means)?;
        }
        Ok(())
    }
}

/// What one look at an object says: nothing wrong, or why not.
pub(super) type Checked<T> = Result<T, Trouble>;
