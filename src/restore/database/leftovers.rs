//! What an earlier, killed restore of a database left on the server: a database under a name of ours, and roles and
//! tablespaces that were made for it. Its comment says which; the lock says that nobody works on it any more.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::postgres::databases::{drop_role, drop_tablespace};
use crate::postgres::session::Session;
use crate::postgres::{ConnInfo, connect_to};

/// How unfinished databases are called; hex digits follow.
pub const PREFIX: &str = "pgkeep_restoring_";

/// The comment of an unfinished database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// For people.
    pub pgkeep: String,
    /// Made for it, in this order.
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub tablespaces: Vec<String>,
}

/// A database that may be removed once the lock is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub database: String,
    pub made: Unfinished,
}

/// A name that nobody else has.
pub fn fresh_name() -> String {
    format!("{PREFIX}{:016x}", rand::random::<u64>())
}

pub async fn find(session: &Session) -> Result<Vec<Leftover>> {
    let found = session.databases_called(PREFIX).await?.into_iter().filter(|(name, _)| is_ours(name));
    let leftover = |(database, comment): (String, Option<String>)| Leftover {
        database,
        made: comment.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
    };
    Ok(found.map(leftover).collect())
}

fn is_ours(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Removes the database and what was made for it. What has come to be used elsewhere stays; it is said in the result.
/// `info` leads to the same server as `session`.
pub async fn remove(session: &Session, info: &ConnInfo, leftover: &Leftover) -> Result<Vec<String>> {
    let subscriptions = session.subscriptions_of(&leftover.database).await?;
    if !subscriptions.is_empty() {
        let inside = connect_to(&info.clone().with_dbname(&leftover.database)).await?;
        for name in &subscriptions {
            inside.forget_subscription(name).await?;
        }
    }
    session.drop_database(&leftover.database).await?;
    let mut stays = Vec::new();
    let tablespaces =
        leftover.made.tablespaces.iter().rev().map(|name| ("tablespace", name, drop_tablespace(name)));
    let roles = leftover.made.roles.iter().rev().map(|name| ("role", name, drop_role(name)));
    for (kind, name, statement) in tablespaces.chain(roles) {
        if let Err(error) = session.alone(&format!("drop {kind} {name}"), &statement).await {
            if session.is_lost() {
                return Err(error);
            }
            stays.push(format!("{kind} {name}, which was made for it, stays: {error}"));
        }
    }
    Ok(stays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_making_are_leftovers() {
        assert!(is_ours(&fresh_name()));
        for other in ["pgkeep_restoring_", "pgkeep_restoring_app", "x", "pgkeep_restoring_0123456789abcdeF"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
