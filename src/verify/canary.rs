//! The canary, asked of a restored instance: is its last row the one that WAL says it must be?
//!
//! WAL and table are two independent witnesses. Where WAL names no row, nothing can be proved, and it is said so; where the
//! table says that there should have been one, or has another one than WAL names, the restore has not brought back what was
//! there.

use super::drill::part::{self, Missing};
use super::inside::Running;
use super::report::Check;
use crate::config::CanaryConfig;
use crate::error::Result;
use crate::model::Target;
use crate::postgres::canary::{CanaryPlace, CanaryRows};
use crate::restore::canary::Expected;

/// None where nobody has ever written a canary and none is asked for.
pub async fn check(
    running: &Running,
    expected: &Expected,
    target: &Target,
    config: &CanaryConfig,
    missing: &Missing,
) -> Option<Check> {
    let check = match expected {
        Expected::Row(canary) => {
            let planned = format!("number {} of {}", canary.number, canary.written.postgres());
            Check::new("instance", "the canary's last row", planned).essential()
        }
        Expected::NoneSince(_) if config.enabled => {
            Check::new("instance", "the canary's last row", "the one that WAL names")
        }
        Expected::NoneSince(_) => return None,
    };
    let left_out = match expected {
        Expected::Row(canary) => missing.has_oid(canary.database),
        Expected::NoneSince(_) => missing.has(&config.database),
    };
    if left_out {
        return Some(check.unproved(part::WHY));
    }
    Some(match ask(running, expected, config).await {
        Ok(found) => judged(check, expected, found, target),
        Err(e) => check.found(false, e.to_string()),
    })
}

/// What the instance has; none where there is no table.
async fn ask(running: &Running, expected: &Expected, config: &CanaryConfig) -> Result<Option<CanaryRows>> {
    let database = match expected {
        // Whatever the configuration says now.
        Expected::Row(canary) => running.connect("template1").await?.database_name(canary.database).await?,
        Expected::NoneSince(_) => Some(config.database.clone()),
    };
    let Some(database) = database else { return Ok(None) };
    let session = running.connect(&database).await?;
    match session.canary_place().await? {
        // As superuser only what can run nobody's code is read.
        CanaryPlace { table: Some(_), plain: true, .. } => session.canary_rows().await.map(Some),
        _ => Ok(None),
    }
}

/// Pure: what became of the question.
fn judged(check: Check, expected: &Expected, found: Option<CanaryRows>, target: &Target) -> Check {
    let newest = found.and_then(|rows| rows.newest);
    let words = newest.map_or_else(
        || if found.is_some() { "the table is empty".to_owned() } else { "there is no table".to_owned() },
        |row| format!("number {} of {}", row.number, row.written.postgres()),
    );
    match expected {
        Expected::Row(canary) => {
            let missing = found.map_or(0, |rows| rows.missing());
            let late = matches!(target, Target::Time(time) if canary.written > *time);
            let same = newest.is_some_and(|row| (row.number, row.written) == (canary.number, canary.written));
            let gaps = match missing {
                0 => "",
                _ => "; numbers before it are missing",
            };
            let late_words = if late { "; that is later than the target" } else { "" };
            let rows = found.map_or(0, |rows| rows.count);
            check.found(same && missing == 0 && !late, format!("{words}, {rows} rows{gaps}{late_words}"))
        }
        Expected::NoneSince(since) => match (since, newest) {
            (Some(since), Some(row)) if row.written > *since => {
                check.found(false, format!("{words}, which WAL from {} on does not name", since.postgres()))
            }
            (Some(since), _) => {
                check.unproved(format!("WAL from {} on names no row; {words}", since.postgres()))
            }
            (None, _) => check.unproved(format!("WAL up to there names no row; {words}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Timestamp, Xid};
    use crate::postgres::canary::CanaryRow;
    use crate::verify::report::Verdict;
    use crate::wal::{Canary, TransactionMark};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-21T{text}Z").parse().unwrap()
    }
    fn row() -> Expected {
        let written = at("02:00:00.25");
        let commit = TransactionMark { xid: Xid(9), at: written, lsn: Lsn(1), end_lsn: Lsn(2) };
        Expected::Row(Canary { database: 5, number: 10, written, commit })
    }
    fn rows(oldest: u64, newest: u64, written: &str, count: u64) -> CanaryRows {
        CanaryRows { newest: Some(CanaryRow { number: newest, written: at(written) }), oldest, count }
    }
    fn verdict(expected: &Expected, found: impl Into<Option<CanaryRows>>) -> (Verdict, String) {
        let target = Target::Time(at("02:00:30"));
        let check = judged(Check::new("instance", "canary", ""), expected, found.into(), &target);
        (check.verdict, check.found)
    }

    #[test]
    fn the_last_row_must_be_the_very_one_that_wal_names() {
        assert_eq!(verdict(&row(), rows(1, 10, "02:00:00.25", 10)).0, Verdict::Holds);
        assert_eq!(verdict(&row(), rows(7, 10, "02:00:00.25", 4)).0, Verdict::Holds, "older ones are gone");
        for (found, why) in [
            (Some(rows(1, 9, "01:59:00.25", 9)), "the last one is missing"),
            (Some(rows(1, 11, "02:01:00.25", 11)), "one too many"),
            (Some(rows(1, 10, "02:00:00.75", 10)), "another row of this number"),
            (Some(rows(1, 10, "02:00:00.25", 9)), "one in between is missing"),
            (None, "no table"),
            (Some(CanaryRows { newest: None, oldest: 0, count: 0 }), "no rows"),
        ] {
            assert_eq!(verdict(&row(), found).0, Verdict::Fails, "{why}");
        }
    }

    #[test]
    fn a_row_that_is_later_than_the_target_does_not_hold() {
        let target = Target::Time(at("01:59:59"));
        let check = Check::new("instance", "canary", "");
        let check = judged(check, &row(), Some(rows(1, 10, "02:00:00.25", 10)), &target);
        assert_eq!(check.verdict, Verdict::Fails);
        assert!(check.found.contains("later than the target"), "{}", check.found);
    }

    #[test]
    fn without_a_row_in_wal_nothing_is_proved_and_a_row_that_wal_should_name_is_wrong() {
        let since = Expected::NoneSince(Some(at("01:50:00")));
        assert_eq!(verdict(&since, None).0, Verdict::Unproved);
        assert_eq!(verdict(&since, rows(1, 3, "01:00:00", 3)).0, Verdict::Unproved);
        let (verdict_, words) = verdict(&since, rows(1, 9, "01:55:00", 9));
        assert_eq!(verdict_, Verdict::Fails);
        assert!(words.contains("number 9"), "{words}");
        assert_eq!(verdict(&Expected::NoneSince(None), rows(1, 9, "01:55:00", 9)).0, Verdict::Unproved);
    }
}
