//! What the stores answer to the agent's requests, on the board: it is told of every try, so nothing is asked for this.
//!
//! A store counts as failing from the first failed try to the next answer. An operation that nobody waited for any
//! longer counts against it only if it had had [`PATIENCE`]: work is also given up for reasons of our own.

use std::sync::Arc;
use std::time::Duration;

use super::Hub;
use super::board::{Board, Failure, OperationFacts, StoreFacts};
use crate::config::StoreConfig;
use crate::error::Error;
use crate::model::{RepoName, Timestamp};
use crate::storage::observe::{Ending, Observer, Operation};
use crate::util::clock::Clock;

/// A store that has not answered for this long is not well.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Who is told of one repository's requests.
pub struct BoardObserver {
    board: Board,
    clock: Clock,
    repository: RepoName,
}

impl BoardObserver {
    /// For `repository::configured::open_observed`.
    pub fn of(board: &Board, clock: &Clock, repository: &RepoName) -> Arc<dyn Observer> {
        Arc::new(Self { board: board.clone(), clock: clock.clone(), repository: repository.clone() })
    }
    fn write(&self, change: impl FnOnce(&mut StoreFacts, Timestamp)) {
        let now = self.clock.now();
        self.board.repository(&self.repository, |facts| change(facts, now));
    }
}

/// With a new configuration: its repositories are on the board, and no others.
pub fn begin(hub: &Hub) {
    hub.board.update(|all| {
        all.repositories.retain(|name, _| hub.config.repositories.iter().any(|r| r.name == *name));
        for repository in &hub.config.repositories {
            let facts = all.repositories.entry(repository.name.clone()).or_default();
            facts.required = repository.required;
            facts.credentials_expire_at = expiry(&repository.store, |name| std::env::var(name).ok());
        }
    });
}

/// Where the credentials are said to end and nobody renews them: keys of the configuration, and temporary ones that the
/// agent was started with, which come with `AWS_CREDENTIAL_EXPIRATION` from tools such as `aws configure
/// export-credentials`. A role, an instance or a credential process is asked again by the S3 client in time.
fn expiry(store: &StoreConfig, variable: impl Fn(&str) -> Option<String>) -> Option<Timestamp> {
    if let Some(given) = &store.credentials {
        return given.expire_at;
    }
    if store.directory().is_some() || store.profile.is_some() {
        return None;
    }
    let _temporary = variable("AWS_SESSION_TOKEN")?;
    variable("AWS_CREDENTIAL_EXPIRATION")?.parse().ok()
}

/// A store may answer and hold no repository, or fail before it is asked anything.
pub fn not_opened(hub: &Hub, repository: &RepoName, error: &Error) {
    let failure = Failure::of(error, hub.clock.now());
    hub.board.repository(repository, |facts| facts.failure = Some(failure));
}

impl Observer for BoardObserver {
    fn ended(&self, operation: Operation, took: Duration, ending: Ending<'_>) {
        self.write(|facts, now| {
            let counts = facts.operations.entry(operation.as_str().to_owned()).or_default();
            count(counts, took, ending);
            match ending {
                Ending::Answered => {
                    facts.answered_at = Some(now);
                    facts.failure = None;
                }
                Ending::Failed(error) => facts.failure = Some(Failure::of(error, now)),
                Ending::GivenUp if took >= PATIENCE => {
                    let text = format!("no answer within {1} s to: {0}", operation.as_str(), took.as_secs());
                    facts.failure = Some(Failure { at: now, text });
                }
                Ending::GivenUp => {}
            }
        });
    }
    fn body_failed(&self, error: &Error) {
        self.write(|facts, now| {
            facts.operations.entry(Operation::Get.as_str().to_owned()).or_default().failures_total += 1;
            facts.failure = Some(Failure::of(error, now));
        });
    }
    fn sent(&self, bytes: u64) {
        self.write(|facts, _| facts.sent_bytes_total += bytes);
    }
    fn received(&self, bytes: u64) {
        self.write(|facts, _| facts.received_bytes_total += bytes);
    }
}

fn count(counts: &mut OperationFacts, took: Duration, ending: Ending<'_>) {
    counts.requests_total += 1;
    match ending {
        Ending::Answered => counts.seconds_total += took.as_secs_f64(),
        Ending::Failed(_) => counts.failures_total += 1,
        Ending::GivenUp if took >= PATIENCE => counts.failures_total += 1,
        Ending::GivenUp => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::Code;

    fn board() -> (Board, Arc<dyn Observer>, RepoName, Timestamp) {
        let at: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let board = Board::new(at);
        let name = RepoName::parse("eu").unwrap();
        let observer = BoardObserver::of(&board, &Clock::fixed(at), &name);
        (board, observer, name, at)
    }

    #[test]
    fn a_store_fails_from_the_first_failed_try_to_the_next_answer() {
        let (board, observer, name, at) = board();
        let down = Error::new(Code::StoreUnavailable, "no").hint("wait");
        observer.ended(Operation::Put, Duration::from_millis(500), Ending::Answered);
        observer.ended(Operation::Put, Duration::from_secs(3), Ending::Failed(&down));
        let facts = board.snapshot().repositories[&name].clone();
        assert_eq!(facts.failure, Some(Failure { at, text: "no (wait)".into() }));
        let puts = OperationFacts { requests_total: 2, failures_total: 1, seconds_total: 0.5 };
        assert_eq!(facts.operations["put"], puts);
        observer.ended(Operation::Head, Duration::ZERO, Ending::Answered);
        assert_eq!(board.snapshot().repositories[&name].failure, None);
        observer.sent(7);
        observer.received(9);
        observer.body_failed(&down);
        let facts = board.snapshot().repositories[&name].clone();
        assert_eq!((facts.sent_bytes_total, facts.received_bytes_total), (7, 9));
        assert!(facts.failure.is_some() && facts.operations["get"].failures_total == 1);
    }

    #[test]
    fn credentials_end_where_somebody_says_so_and_nobody_renews_them() {
        let store = |keys: &str| {
            let text = format!(
                "encryption = \"none\"\n[cluster.main]\nconnection = \"host=/tmp\"\n[[repository]]\nname = \"a\"\n{keys}"
            );
            let config = Config::parse(std::path::Path::new("/x"), &text).unwrap();
            config.repositories[0].store.clone()
        };
        let exported = |name: &str| match name {
            "AWS_SESSION_TOKEN" => Some("token".to_owned()),
            "AWS_CREDENTIAL_EXPIRATION" => Some("2026-11-21T15:00:00+01:00".to_owned()),
            _ => None,
        };
        let nothing = |_: &str| None;
        let s3 = "url = \"s3://b/p\"\nregion = \"eu\"\n";
        let written = format!(
            "{s3}[repository.credentials]\naccess_key_id = {{ env = \"A\" }}\nsecret_access_key = {{ env = \"B\" }}\n"
        );
        let until = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(expiry(&store(s3), exported), until("2026-11-21T14:00:00Z"));
        assert_eq!(expiry(&store(s3), nothing), None);
        assert_eq!(expiry(&store(&written), exported), None, "those of the environment are not used");
        let dated = format!("{written}expire_at = \"2027-03-01T00:00:00Z\"\n");
        assert_eq!(expiry(&store(&dated), nothing), until("2027-03-01T00:00:00Z"));
        assert_eq!(expiry(&store(&format!("{s3}profile = \"x\"\n")), exported), None);
        assert_eq!(expiry(&store("url = \"file:///srv/pgkeep\"\n"), exported), None);
    }

    #[test]
    fn what_is_given_up_counts_against_the_store_only_after_patience() {
        let (board, observer, name, _) = board();
        observer.ended(Operation::Upload, Duration::from_secs(1), Ending::GivenUp);
        assert_eq!(board.snapshot().repositories[&name].failure, None);
        observer.ended(Operation::Upload, Duration::from_mins(1), Ending::GivenUp);
        let facts = board.snapshot().repositories[&name].clone();
        assert_eq!(facts.failure.unwrap().text, "no answer within 60 s to: upload");
        assert_eq!(facts.operations["upload"].failures_total, 1);
    }
}
