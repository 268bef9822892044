//! The WAL reader against `pg_waldump`, record for record, and the target scanner against recoveries that PostgreSQL
//! really ran, on every major.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgkeep::model::{Inclusion, Lsn, SegmentName, SegmentSize, SystemId, Target, TimelineId, Timestamp, Xid};
use pgkeep::postgres::control_file::ControlFile;
use pgkeep::postgres::history::History;
use pgkeep::wal::check::{Ended, SegmentVerdict, check_segment};
use pgkeep::wal::summary::{last_valid_record_end, summarize};
use pgkeep::wal::{Consistency, Fact, Flow, Outcome, TargetScanner, WalReader};

use crate::support::{Build, Pg, PgOptions, Root, Stop};

/// A record as both sides see it: manager, length, transaction, start, predecessor.
type Row = (String, u32, u32, Lsn, Lsn);

/// Everything that the reader says about a run of segments.
#[derive(Default)]
struct Read {
    rows: Vec<Row>,
    commits: Vec<(u32, Timestamp)>,
    points: Vec<String>,
    tablespaces: Vec<String>,
    databases: usize,
    switches: usize,
}

fn server(root: &Arc<Root>, major: u32, segment_mib: u32) -> Pg {
    let keep = "wal_keep_size = '2GB'";
    let pg = PgOptions::new(Build::of(major))
        .segment_mib(segment_mib)
        .conf(keep)
        .conf("max_prepared_transactions = 5")
        .create(root);
    pg.start();
    pg
}

/// A little of everything that the reader has an opinion on; the name of the last whole segment.
fn work(pg: &Pg, root: &Arc<Root>) -> String {
    let space = root.dir("space", 0o700);
    let session = pg.session();
    session.sql("create table t (id int, text text)");
    session.sql("insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 3000) i");
    session.sql("create index on t (text); create index on t using gin (to_tsvector('simple', text))");
    session.sql("select pg_create_restore_point('before the change')");
    session.sql("begin; insert into t values (0, 'x'); savepoint a; insert into t values (0, 'y'); commit");
    session.sql("begin; update t set id = id + 1 where id < 100; rollback");
    for (name, end) in [("p", "commit"), ("q", "rollback")] {
        session.sql(&format!("begin; insert into t values (0, '{name}'); prepare transaction '{name}'"));
        session.sql(&format!("{end} prepared '{name}'"));
    }
    // Longer than a 1 MiB segment.
    session.sql("select pg_logical_emit_message(false, 'long', repeat('x', 2500000))");
    session.sql("checkpoint");
    session.sql("delete from t where id % 3 = 0");
    session.sql("vacuum t");
    session.sql("truncate t");
    session.sql(&format!("create tablespace space location '{}'", space.display()));
    session.sql("create table u tablespace space as select generate_series(1, 1000) i");
    session.sql("create database other");
    session.sql("drop database other");
    pg.switch_wal();
    session.sql("insert into u values (1)");
    pg.switch_wal()
}

fn size_of(pg: &Pg) -> (SegmentSize, SystemId) {
    let control = ControlFile::read(&pg.data).unwrap();
    (control.wal_segment_size, control.system)
}
fn segment_bytes(pg: &Pg, name: SegmentName) -> Vec<u8> {
    std::fs::read(pg.data.join("pg_wal").join(name.to_string())).unwrap()
}
/// initdb may have removed the very first ones.
fn oldest(pg: &Pg) -> SegmentName {
    let files = std::fs::read_dir(pg.data.join("pg_wal")).unwrap().flatten();
    files.filter_map(|f| SegmentName::parse(f.file_name().to_str().unwrap())).min().unwrap()
}
/// The segments from `first` to `last` that lie in pg_wal.
fn names(first: SegmentName, last: SegmentName, size: SegmentSize) -> Vec<SegmentName> {
    (first.number(size)..=last.number(size)).map(|n| SegmentName::numbered(last.timeline, n, size)).collect()
}

fn read(pg: &Pg, segments: &[SegmentName]) -> Read {
    let (size, system) = size_of(pg);
    let mut seen = Read::default();
    let mut reader = WalReader::new(segments[0].start(size), size, Some(system));
    for name in segments {
        for piece in segment_bytes(pg, *name).chunks(100_000) {
            reader.feed(piece, &mut |record| {
                let manager = record.rmgr().name().unwrap().to_owned();
                let header = record.header;
                seen.rows.push((manager, header.total_len, header.xid.0, record.lsn, header.prev));
                assert!(record.decode().is_some(), "{}", record.lsn);
                match Fact::of(record).unwrap() {
                    Some(Fact::Transaction(end)) if end.committed => seen.commits.push((end.xid.0, end.at)),
                    Some(Fact::RestorePoint { name, .. }) => seen.points.push(name),
                    Some(Fact::TablespaceCreate { path, .. }) => seen.tablespaces.push(path),
                    Some(Fact::DatabaseCreate { .. } | Fact::DatabaseDrop { .. }) => seen.databases += 1,
                    Some(Fact::Switch) => seen.switches += 1,
                    _ => {}
                }
                Flow::Continue
            });
        }
    }
    assert_eq!(reader.ended(), None);
    seen
}

/// `pg_waldump` of the same segments: rows, commits with xid and time, restore points.
fn dumped(pg: &Pg, segments: &[SegmentName]) -> (Vec<Row>, Vec<(u32, Timestamp)>, Vec<String>) {
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    let wal = pg.data.join("pg_wal");
    let args = ["-t", &last.timeline.to_string(), "-p", wal.to_str().unwrap(), &first.to_string()]
        .map(str::to_owned);
    let text = pg.build.run_tool("pg_waldump", args.into_iter().chain([last.to_string()]));
    let (mut rows, mut commits, mut points) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines().filter(|l| l.starts_with("rmgr: ")) {
        let between = |from: &str, to: &str| {
            let rest = &line[line.find(from).unwrap() + from.len()..];
            rest[..rest.find(to).unwrap()].trim().to_owned()
        };
        let xid: u32 = between(", tx:", ",").parse().unwrap();
        let total = between("len (rec/tot):", ", tx").rsplit('/').next().unwrap().trim().parse().unwrap();
        let lsn = |from, to| between(from, to).parse::<Lsn>().unwrap();
        rows.push((between("rmgr: ", "len"), total, xid, lsn("lsn: ", ","), lsn("prev ", ",")));
        let what = &line[line.find("desc: ").unwrap() + 6..];
        if let Some(rest) = what.strip_prefix("COMMIT_PREPARED ") {
            let (xid, rest) = rest.split_once(": ").unwrap();
            commits.push((xid.parse().unwrap(), time(rest)));
        } else if let Some(rest) = what.strip_prefix("COMMIT ") {
            commits.push((xid, time(rest)));
        } else if let Some(name) = what.strip_prefix("RESTORE_POINT ") {
            points.push(name.to_owned());
        }
    }
    (rows, commits, points)
}
/// `2026-11-21 10:00:00.123456 UTC; …`
fn time(text: &str) -> Timestamp {
    format!("{}T{}Z", &text[..10], &text[11..26]).parse().unwrap()
}

fn agrees_with_pg_waldump(major: u32, segment_mib: u32) {
    let root = Root::new();
    let pg = server(&root, major, segment_mib);
    let (size, system) = size_of(&pg);
    assert_eq!(size.bytes(), u64::from(segment_mib) << 20);
    let last = SegmentName::parse(&work(&pg, &root)).unwrap();
    let segments = names(oldest(&pg), last, size);

    let seen = read(&pg, &segments);
    let (rows, commits, points) = dumped(&pg, &segments);
    assert!(rows.len() > 3000, "{}", rows.len());
    for (ours, theirs) in seen.rows.iter().zip(&rows) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(seen.rows.len(), rows.len());
    assert_eq!(seen.commits, commits);
    assert_eq!(seen.points, points);
    assert_eq!(seen.tablespaces, [root.join("space").to_str().unwrap()]);
    assert!(seen.databases >= 2 && seen.switches >= 2);

    let mut before = None;
    for name in &segments {
        let bytes = segment_bytes(&pg, *name);
        let verdict = check_segment(*name, &bytes, size, system).unwrap();
        assert!(verdict.is_sound(), "{name}: {verdict:?}");
        let summary = summarize(&bytes, name.start(size), size, Some(system)).unwrap();
        if let Some(before) = before.replace(summary.clone()) {
            assert_ne!(before.is_continued_by(&summary), Some(false), "{name}");
        }
    }
    let mut flipped = segment_bytes(&pg, last);
    flipped[100] ^= 1;
    let verdict = check_segment(last, &flipped, size, system).unwrap();
    assert!(matches!(verdict, SegmentVerdict::Damaged { .. }), "{verdict:?}");

    // An orderly stop ends WAL with a checkpoint record, which pg_control names.
    pg.stop(Stop::Fast);
    let checkpoint = ControlFile::read(&pg.data).unwrap().checkpoint;
    let name = SegmentName::containing(TimelineId(1), checkpoint, size);
    let end = last_valid_record_end(&segment_bytes(&pg, name), name.start(size), size, Some(system));
    assert_eq!(end.last_record, Some(checkpoint));
    assert!(!end.reason.is_damage(), "{end:?}");
}

#[test]
fn every_record_of_14_is_read_as_pg_waldump_reads_it() {
    agrees_with_pg_waldump(14, 1);
}
#[test]
fn every_record_of_15_is_read_as_pg_waldump_reads_it() {
    agrees_with_pg_waldump(15, 16);
}
#[test]
fn every_record_of_16_is_read_as_pg_waldump_reads_it() {
    agrees_with_pg_waldump(16, 64);
}
#[test]
fn every_record_of_17_is_read_as_pg_waldump_reads_it() {
    agrees_with_pg_waldump(17, 16);
}
#[test]
fn every_record_of_18_is_read_as_pg_waldump_reads_it() {
    agrees_with_pg_waldump(18, 1);
}

#[test]
fn wal_ends_cleanly_in_a_recycled_segment() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(18))
        .segment_mib(1)
        .conf("min_wal_size = '8MB'\nmax_wal_size = '8MB'")
        .create(&root);
    pg.start();
    let (size, system) = size_of(&pg);
    let session = pg.session();
    session.sql("create table t (text text)");
    for _ in 0..3 {
        session.sql("insert into t select repeat(md5(i::text), 30) from generate_series(1, 2000) i");
        session.sql("checkpoint");
    }
    pg.stop(Stop::Fast);
    let checkpoint = ControlFile::read(&pg.data).unwrap().checkpoint;
    let current = SegmentName::containing(TimelineId(1), checkpoint, size);
    let bytes = segment_bytes(&pg, current);
    let end = last_valid_record_end(&bytes, current.start(size), size, Some(system));
    assert_eq!(end.last_record, Some(checkpoint));
    let tail = &bytes[usize::try_from(size.offset_of(end.lsn)).unwrap()..];
    assert!(tail.iter().any(|b| *b != 0), "the segment is not a recycled one");
    assert!(!end.reason.is_damage(), "{end:?}");
    // As a segment to archive it would be the end of WAL, not damage.
    let verdict = check_segment(current, &bytes, size, system).unwrap();
    assert!(matches!(verdict, SegmentVerdict::EndsEarly { .. }), "{verdict:?}");
    // The file made ready for later still says what it once was.
    let ready = current.next(size);
    let refused = check_segment(ready, &segment_bytes(&pg, ready), size, system).unwrap_err();
    assert!(refused.to_string().contains("begins at"), "{refused}");
}

#[test]
fn a_record_that_a_crash_cut_off_is_no_damage() {
    for major in [14, 18] {
        let root = Root::new();
        let pg = server(&root, major, 1);
        let (size, system) = size_of(&pg);
        pg.sql("create table t (i int)");
        pg.switch_wal();
        let from = pg.one("select pg_walfile_name(pg_current_wal_insert_lsn())");
        pg.sql("insert into t values (0)");
        pg.sql("select pg_logical_emit_message(true, 'long', repeat('x', 3000000))");
        pg.stop(Stop::Immediate);
        // The segments in which the record goes on never reached the disk.
        let mut name = SegmentName::parse(&from).unwrap().next(size);
        let cut = name;
        while std::fs::remove_file(pg.data.join("pg_wal").join(name.to_string())).is_ok() {
            name = name.next(size);
        }
        assert!(name.number(size) > cut.number(size) + 1);
        pg.start();
        pg.sql("insert into t select generate_series(1, 1000)");
        let last = SegmentName::parse(&pg.switch_wal()).unwrap();

        let segments = names(cut.previous(size).unwrap(), last, size);
        let seen = read(&pg, &segments);
        assert_eq!(seen.rows, dumped(&pg, &segments).0);
        let summary = |name: SegmentName| {
            summarize(&segment_bytes(&pg, name), name.start(size), size, Some(system)).unwrap()
        };
        assert!(summary(cut).overwrites);
        assert_eq!(summary(segments[0]).is_continued_by(&summary(cut)), Some(true));
        for name in segments {
            let verdict = check_segment(name, &segment_bytes(&pg, name), size, system).unwrap();
            assert!(verdict.is_sound(), "{name}: {verdict:?}");
        }
    }
}

#[test]
fn a_promotion_is_followed_into_the_new_timeline() {
    for major in [14, 18] {
        let root = Root::new();
        let pg = server(&root, major, 1);
        pg.sql("create table t as select generate_series(1, 1000) i");
        let standby = Pg::standby_of(&pg, "standby");
        standby.start();
        pg.sql("insert into t values (1)");
        let sent = pg.one("select pg_current_wal_lsn()");
        crate::support::eventually("the standby has it", std::time::Duration::from_secs(30), || {
            standby.one(&format!("select pg_last_wal_replay_lsn() >= '{sent}'")) == "t"
        });
        standby.promote();
        standby.sql("insert into t select generate_series(1, 30000)");
        let last = SegmentName::parse(&standby.switch_wal()).unwrap();
        assert_eq!(last.timeline, TimelineId(2));

        let (size, system) = size_of(&standby);
        let history = std::fs::read(standby.data.join("pg_wal/00000002.history")).unwrap();
        let history = History::parse(TimelineId(2), &history).unwrap();
        assert_eq!(
            history.build().as_bytes(),
            std::fs::read(standby.data.join("pg_wal/00000002.history")).unwrap()
        );
        let fork = history.fork().unwrap().switch;
        let first = SegmentName::containing(TimelineId(2), fork, size);
        assert!(first < last);
        let segments = names(first, last, size);
        let seen = read(&standby, &segments);
        assert_eq!(seen.rows, dumped(&standby, &segments).0);
        for name in segments {
            let verdict = check_segment(name, &segment_bytes(&standby, name), size, system).unwrap();
            assert!(verdict.is_sound(), "{name}: {verdict:?}");
            if name == last {
                assert!(matches!(verdict, SegmentVerdict::Sound { ended: Ended::Switch, .. }));
            }
        }
    }
}

/// A cluster with a base backup and its WAL copied to `archive`, and the moments to recover to.
struct Past {
    root: Arc<Root>,
    pg: Pg,
    base: PathBuf,
    archive: PathBuf,
    last: SegmentName,
    /// Of `backup_label`.
    redo: Lsn,
}

impl Past {
    fn new(major: u32) -> Self {
        let root = Root::new();
        let pg = server(&root, major, 1);
        pg.sql("create table t (i int)");
        let base = root.join("base");
        let (socket, port) = pg.socket();
        let args = ["-X", "none", "-c", "fast", "--no-manifest", "-U", "postgres", "-D"];
        let place = [base.to_str().unwrap(), "-h", socket.to_str().unwrap(), "-p", &port.to_string()]
            .map(str::to_owned);
        pg.build.run_tool("pg_basebackup", args.map(str::to_owned).into_iter().chain(place));
        let label = std::fs::read_to_string(base.join("backup_label")).unwrap();
        let redo = label.split_once("START WAL LOCATION: ").unwrap().1.split_once(' ').unwrap().0;
        for i in 0..4 {
            pg.sql(&format!("insert into t values ({i})"));
        }
        pg.sql("select pg_create_restore_point('here')");
        pg.sql("begin; insert into t values (9); prepare transaction 'p'");
        pg.sql("insert into t values (10)");
        pg.sql("commit prepared 'p'");
        pg.sql("begin; insert into t values (11); rollback");
        pg.sql("insert into t values (12)");
        let last = SegmentName::parse(&pg.switch_wal()).unwrap();
        let archive = pg.data.join("pg_wal");
        pg.stop(Stop::Fast);
        Self { redo: redo.parse().unwrap(), root, base, archive, last, pg }
    }

    fn scan(&self, target: &Target, inclusion: Inclusion) -> Outcome {
        let (size, system) = size_of(&self.pg);
        let consistency = Consistency::BackupEnd { start: self.redo };
        let mut scanner = TargetScanner::new(target.clone(), inclusion, self.redo, consistency);
        let first = SegmentName::containing(TimelineId(1), self.redo, size);
        let mut reader = WalReader::at_record(self.redo, size, Some(system));
        for name in names(first, self.last, size) {
            reader.feed(&segment_bytes(&self.pg, name), &mut |record| {
                scanner.observe(record).unwrap();
                Flow::Continue
            });
        }
        scanner.into_outcome()
    }

    /// Lets PostgreSQL recover to the target and promote: where the new timeline begins.
    fn recover(&self, name: &str, target: &Target, inclusion: Inclusion) -> Lsn {
        let data = self.root.join(name);
        copy(&self.base, &data);
        let pg = Pg::at(&self.root, &data, self.pg.build.clone());
        let (sockets, archive) = (self.root.join(format!("{name}.s")), self.archive.display());
        let value = match target {
            Target::Time(t) => format!("recovery_target_time = '{}'", t.postgres()),
            Target::Xid(x) => format!("recovery_target_xid = '{x}'"),
            Target::Lsn(l) => format!("recovery_target_lsn = '{l}'"),
            Target::Name(n) => format!("recovery_target_name = '{n}'"),
            Target::Backup => "recovery_target = 'immediate'".to_owned(),
            Target::Latest => String::new(),
        };
        pg.add_conf(&format!(
            "unix_socket_directories = '{}'\nrestore_command = 'cp {archive}/%f %p'\n{value}\n\
             recovery_target_inclusive = {}\nrecovery_target_action = promote\nrecovery_target_timeline = current",
            sockets.display(),
            if inclusion == Inclusion::After { "on" } else { "off" },
        ));
        std::fs::write(data.join("recovery.signal"), "").unwrap();
        own(&data.join("recovery.signal"));
        pg.start();
        crate::support::eventually("recovery ends", std::time::Duration::from_secs(30), || {
            pg.one("select pg_is_in_recovery()") == "f"
        });
        let history = std::fs::read(data.join("pg_wal/00000002.history")).unwrap();
        History::parse(TimelineId(2), &history).unwrap().fork().unwrap().switch
    }
}

/// `cp -a`, for a base backup without tablespaces.
fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}
fn own(path: &Path) {
    crate::support::root::Ids::server().own(path);
}

fn stops_where_the_scanner_said(major: u32) {
    let past = Past::new(major);
    let all = past.scan(&Target::Latest, Inclusion::After);
    let last = all.last_kept.unwrap();
    // The third insert, by each of its names; the prepared transaction; the abort after it.
    let third = past.scan(&Target::Name("here".to_owned()), Inclusion::After).last_kept.unwrap();
    let prepared = Xid(third.xid.0 + 1);
    let mut wanted = vec![
        (Target::Backup, Inclusion::After),
        (Target::Name("here".to_owned()), Inclusion::After),
        (Target::Xid(prepared), Inclusion::Before),
        (Target::Xid(prepared), Inclusion::After),
        (Target::Xid(Xid(last.xid.0 - 1)), Inclusion::After),
    ];
    for inclusion in [Inclusion::Before, Inclusion::After] {
        wanted.push((Target::Time(third.at), inclusion));
        wanted.push((Target::Lsn(third.lsn), inclusion));
    }
    for (number, (target, inclusion)) in wanted.iter().enumerate() {
        let outcome = past.scan(target, *inclusion);
        let stop = outcome.stop.unwrap_or_else(|| panic!("{target} {inclusion:?} is not found"));
        assert!(stop.consistent);
        let real = past.recover(&format!("r{number}"), target, *inclusion);
        assert_eq!(stop.end, real, "{target} {inclusion:?} on {major}");
    }
}

#[test]
fn recovery_of_14_stops_where_the_scanner_said() {
    stops_where_the_scanner_said(14);
}
#[test]
fn recovery_of_18_stops_where_the_scanner_said() {
    stops_where_the_scanner_said(18);
}
