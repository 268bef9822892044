//! Every kind of target on every major, aimed at the places where a recovery is easily off by one: a commit at the
//! backup's end, the last commit of a segment and the first of the next, two commits a moment apart, a commit's exact
//! time. The ledger is written before, during and after the backup. Sizes of segments and checksums vary along.

use std::thread::sleep;
use std::time::Duration;

use pgkeep::model::{Inclusion, Lsn, Target, Timestamp};

use super::{ends_exactly, holds_exactly, lsn, record, refused, side};
use crate::support::ledger::Entry;
use crate::support::{EnvOptions, Ledger, PgOptions, TestEnv};

use Inclusion::{After, Before};

struct Story {
    env: TestEnv,
    ledger: Ledger,
    /// The backup's own range.
    start: Lsn,
    stop: Lsn,
    stop_time: Timestamp,
    /// The last commit of a segment, and the first of the next.
    closing: Entry,
    opening: Entry,
    /// Written while nothing else happened: between its `before_commit` and its commit record lies nothing.
    quiet: Entry,
}

impl Story {
    fn write(major: u32, shape: impl FnOnce(PgOptions) -> PgOptions) -> Self {
        let env = EnvOptions::new(major).pg(shape).build();
        let mut ledger = Ledger::create(&env.pg);
        ledger.write(&env.pg, 5);
        let writer = ledger.write_in_background(&env.pg, Duration::from_millis(4));
        sleep(Duration::from_millis(100));
        env.pg.switch_wal();
        let id = env.backup();
        sleep(Duration::from_millis(100));
        env.pg.switch_wal();
        sleep(Duration::from_millis(100));
        let mut ledger = writer.stop();
        let closing = ledger.write(&env.pg, 3);
        env.pg.switch_wal();
        let opening = ledger.write(&env.pg, 1);
        ledger.restore_point(&env.pg, "here");
        let quiet = ledger.write(&env.pg, 2);
        // Of two points of one name recovery takes the first.
        ledger.restore_point(&env.pg, "here");
        ledger.write(&env.pg, 2);
        env.pg.switch_and_archive();
        let record = record(&env, &id);
        let (start, stop) = (lsn(&record, "start_lsn"), lsn(&record, "stop_lsn"));
        let stop_time = record["stop_time"].as_str().unwrap().parse().unwrap();
        Self { env, ledger, start, stop, stop_time, closing, opening, quiet }
    }

    #[track_caller]
    fn ends_exactly(&self, target: &Target, inclusion: Inclusion) {
        ends_exactly(&self.env, &self.ledger, target, inclusion);
    }
    /// The neighbours with the least time between them, after the backup.
    fn moment_apart(&self) -> (&Entry, &Entry) {
        let after: Vec<&Entry> = self.after_the_backup().collect();
        let pairs = after.windows(2).map(|pair| (pair[0], pair[1]));
        pairs.min_by_key(|(first, second)| second.at.since(first.at)).unwrap()
    }
    fn after_the_backup(&self) -> impl Iterator<Item = &Entry> {
        self.ledger.entries.iter().filter(|e| e.before_commit >= self.stop && e.at > self.stop_time)
    }

    fn the_end_of_the_wal(&self) {
        self.ends_exactly(&Target::Latest, After);
    }
    /// `backup` is the end of the backup's last record. A commit whose place was read while that record was written
    /// may lie on either side.
    fn the_end_of_the_backup(&self) {
        let side = side(&self.env, &["--to", "backup"]);
        let found = Ledger::assert_contiguous(&side.pg, 5);
        let surely = self.ledger.entries.iter().filter(|e| e.end <= self.stop).count();
        let at_most = self.ledger.entries.iter().filter(|e| e.before_commit < self.stop).count();
        assert!((surely..=at_most).contains(&(found as usize)), "{surely} <= {found} <= {at_most}");
        holds_exactly(&self.ledger, &side.pg, &side.report, found);
        assert!(found < self.after_the_backup().next().unwrap().id);
    }
    fn a_restore_point(&self) {
        self.ends_exactly(&Target::Name("here".to_owned()), After);
    }
    fn commit_times(&self) {
        let (first, second) = self.moment_apart();
        self.ends_exactly(&Target::Time(first.at), After);
        self.ends_exactly(&Target::Time(second.at), Before);
    }
    fn transactions(&self) {
        self.ends_exactly(&Target::Xid(self.closing.xid), After);
        self.ends_exactly(&Target::Xid(self.opening.xid), Before);
    }
    fn places_in_wal(&self) {
        let at_the_end = self.after_the_backup().next().unwrap();
        self.ends_exactly(&Target::Lsn(at_the_end.end), After);
        self.ends_exactly(&Target::Lsn(self.quiet.before_commit), After);
        self.ends_exactly(&Target::Lsn(self.quiet.before_commit), Before);
    }
    /// Before the backup is consistent, and after the last commit; nothing is done, and the window is named.
    fn what_cannot_be_reached(&self) {
        let inside = self.ledger.entries.iter().rfind(|e| e.end < self.stop && e.end > self.start);
        let inside = inside.expect("the ledger was written during the backup");
        let last = self.ledger.entries.last().unwrap();
        for (target, inclusion) in [
            (Target::Lsn(inside.end), After),
            (Target::Time(inside.at), After),
            (Target::Xid(inside.xid), Before),
        ] {
            let words = super::words(&target, inclusion);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let window = format!("from {} (lsn {})", self.stop_time.postgres(), self.stop);
            refused(&self.env, &words).says(&window).says(&format!("to {}", last.at.postgres()));
        }
        // Nothing ended after it, so PostgreSQL would never stop there.
        refused(&self.env, &["--to", &last.at.postgres()]).says("--to latest");
    }

    fn every_kind_of_target(&self) {
        self.the_end_of_the_wal();
        self.the_end_of_the_backup();
        self.a_restore_point();
        self.commit_times();
        self.transactions();
        self.places_in_wal();
        self.what_cannot_be_reached();
    }
}

#[test]
fn postgres_14_without_checksums_ends_exactly_at_every_kind_of_target() {
    Story::write(14, |pg| pg.checksums(false)).every_kind_of_target();
}
#[test]
fn postgres_15_with_segments_of_1_mib_ends_exactly_at_every_kind_of_target() {
    Story::write(15, |pg| pg.segment_mib(1)).every_kind_of_target();
}
#[test]
fn postgres_16_with_segments_of_64_mib_ends_exactly_at_every_kind_of_target() {
    Story::write(16, |pg| pg.segment_mib(64)).every_kind_of_target();
}
#[test]
fn postgres_17_ends_exactly_at_every_kind_of_target() {
    let story = Story::write(17, |pg| pg);
    story.every_kind_of_target();
    // A microsecond beside a commit is on one side of it; the last commit of all is within reach of `--before`.
    let (row, last) = (&story.quiet, story.ledger.entries.last().unwrap());
    let microsecond = Duration::from_micros(1);
    story.ends_exactly(&Target::Time(row.at.minus(microsecond)), After);
    story.ends_exactly(&Target::Time(row.at.plus(microsecond)), Before);
    story.ends_exactly(&Target::Time(last.at), Before);
}
#[test]
fn postgres_18_without_checksums_and_with_segments_of_1_mib_ends_exactly_at_every_kind_of_target() {
    Story::write(18, |pg| pg.checksums(false).segment_mib(1)).every_kind_of_target();
}
