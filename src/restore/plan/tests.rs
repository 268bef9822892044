//! Golden plans: what a person is shown, and what the recovery is configured with.

use std::path::PathBuf;

use super::*;
use crate::model::{BackupKind, SegmentName, SegmentSize, ShortDigest, Xid};
use crate::postgres::history::History;
use crate::repository::continuity::reach;
use crate::repository::keys::wal::WalObjectName;
use crate::repository::record::TablespaceEntry;
use crate::repository::wal_listing::tests::listing;
use crate::restore::choose::Candidate;
use crate::restore::place::{Disk, OldTablespace, Role};
use crate::restore::request::tests::request;
use crate::restore::show;
use crate::wal::target::Stop;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const SEG: u64 = 16 << 20;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}
fn mark(xid: u32, time: &str, lsn: u64) -> TransactionMark {
    TransactionMark { xid: Xid(xid), at: at(time), lsn: Lsn(lsn), end_lsn: Lsn(lsn + 40) }
}

fn record(tablespaces: Vec<TablespaceEntry>) -> BackupRecord {
    let wal = |n| SegmentName::numbered(TimelineId(1), n, SIZE);
    BackupRecord {
        format: 1,
        id: "20261121T020000Z-full-3f9a".parse().unwrap(),
        kind: BackupKind::Full,
        cluster: ClusterName::parse("main").unwrap(),
        host: "db1".to_owned(),
        pgkeep_version: "0.1.0".to_owned(),
        started_at: at("2026-11-21T02:00:00Z"),
        finished_at: at("2026-11-21T02:05:00Z"),
        pg_version: "18.6".to_owned(),
        system_identifier: SystemId(7_000_000_000_000_000_001),
        recipients: Vec::new(),
        codec: "zstd+age".to_owned(),
        bytes_raw: 5 << 30,
        bytes_stored: 2 << 30,
        objects: Vec::new(),
        label: None,
        base: Some(BaseBackup {
            timeline: TimelineId(1),
            start_lsn: Lsn(2 * SEG + 0x28),
            stop_lsn: Lsn(2 * SEG + 0x120),
            stop_time: at("2026-11-21T02:04:58Z"),
            wal_first: wal(2),
            wal_last: wal(2),
            wal_segment_bytes: SIZE,
            from_standby: false,
            data_checksums: true,
            page_errors: Vec::new(),
            parent: None,
            tablespaces,
            requires: Vec::new(),
        }),
        logical: None,
    }
}

fn located(record: &BackupRecord, stop: bool) -> Located {
    let base = record.base().unwrap();
    let names: Vec<_> = (2..=9)
        .map(|n| WalObjectName::Segment {
            segment: SegmentName::numbered(TimelineId(1), n, SIZE),
            digest: ShortDigest([7; 16]),
        })
        .collect();
    let path = History::without_ancestors(TimelineId(1)).path();
    let end = if stop { Lsn(6 * SEG + 0x1000) } else { Lsn(10 * SEG) };
    Located {
        backup: Candidate {
            id: record.id.clone(),
            system: record.system_identifier,
            timeline: base.timeline,
            start: base.start_lsn,
            stop: base.stop_lsn,
            stop_time: base.stop_time,
            page_errors: 0,
            untrusted: None,
        },
        reach: reach(&listing(&names), SIZE, &path, base.start_lsn),
        stop: stop.then(|| Stop {
            record: end,
            side: Inclusion::Before,
            end,
            xid: Some(Xid(902)),
            at: Some(at("2026-11-21T14:25:01Z")),
            consistent: true,
        }),
        end,
        needed_to: end.plus(if stop { 40 } else { 0 }),
        last_kept: Some(mark(901, "2026-11-21T14:24:59.5Z", 6 * SEG + 0xF00)),
        first_left_out: stop.then(|| mark(902, "2026-11-21T14:25:01Z", 6 * SEG + 0x1000)),
        last_left_out: stop.then(|| mark(950, "2026-11-21T14:40:00Z", 9 * SEG + 0x80)),
        last_record: Some(Lsn(9 * SEG + 0x100)),
        archive_end: Lsn(10 * SEG),
        created: Vec::new(),
        asked: None,
        copies: Vec::new(),
        canary: None,
    }
}

fn place(data: &str, state: DirectoryState) -> PlaceFacts {
    let disk = |path: &str| Disk { path: path.into(), device: 1, available: 50 << 30 };
    PlaceFacts {
        host: "db1".to_owned(),
        owner: "postgres".to_owned(),
        data_directory: data.into(),
        state,
        running: None,
        service: "pg_ctlcluster 18 main".to_owned(),
        wal_directory: None,
        old_tablespaces: Vec::new(),
        version_directories: Vec::new(),
        earlier_incidents: Vec::new(),
        disks: vec![disk(data), disk("/fast/ts")],
        member_bytes: vec![(0, 4 << 30), (16385, 1 << 30)],
    }
}

fn plan(
    request: &Request,
    record: &BackupRecord,
    located: &Located,
    place: &PlaceFacts,
) -> Result<RestorePlan> {
    let path = History::without_ancestors(TimelineId(1)).path();
    let mut recovery = RecoveryPlan::new(
        ClusterName::parse("main").unwrap(),
        record.system_identifier,
        SIZE,
        at("2026-11-21T15:00:00Z"),
        request.target.to_string(),
        &path,
        &located.reach,
        BTreeMap::new(),
        &listing(&[]),
        &BTreeMap::new(),
        vec![RepoName::parse("eu").unwrap()],
    );
    if located.stop.is_some() {
        recovery.end_at(located.needed_to);
    }
    let found = Found {
        id: "20261121T150000Z-1".to_owned(),
        now: at("2026-11-21T15:00:00Z"),
        cluster: ClusterName::parse("main").unwrap(),
        located,
        record,
        repository: RepoName::parse("eu").unwrap(),
        passed_over: Vec::new(),
        place,
        recovery,
        only_in_pg_wal: 0,
        fetch_command: "pgkeep wal fetch %f \"%p\"".to_owned(),
        primary_conninfo: Some("host=primary".to_owned()),
        warnings: Vec::new(),
    };
    make(request, &found)
}

fn cluster() -> DirectoryState {
    DirectoryState::Cluster {
        system: SystemId(7_000_000_000_000_000_001),
        major: PgMajor(18),
        role: Role::Primary,
        bytes: 6 << 30,
    }
}
fn fast() -> Vec<TablespaceEntry> {
    vec![TablespaceEntry { oid: 16385, location: "/fast/ts".to_owned() }]
}
fn settings_of(plan: &RestorePlan) -> String {
    let lines: Vec<String> = plan.server.settings.iter().map(|(n, v)| format!("{n} = {v}")).collect();
    lines.join("\n") + "\n"
}

#[test]
fn a_restore_in_place_to_a_time_says_everything_that_will_happen() {
    let request = Request {
        inclusion: Inclusion::After,
        zone_assumed: true,
        ..request(Target::Time(at("2026-11-21T14:25:00Z")))
    };
    let record = record(fast());
    let mut place = place("/var/lib/postgresql/18/main", cluster());
    place.running = Some("PostgreSQL in /var/lib/postgresql/18/main, process 4711".to_owned());
    place.old_tablespaces = vec![OldTablespace { oid: 16385, location: "/fast/ts".into() }];
    place.version_directories = vec![PathBuf::from("/fast/ts/PG_18_202506291")];
    let plan = plan(&request, &record, &located(&record, true), &place).unwrap();
    insta::assert_snapshot!("in_place_to_a_time", show::text(&plan));
    insta::assert_snapshot!("in_place_to_a_time_settings", settings_of(&plan));
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(
        serde_json::from_str::<RestorePlan>(&json).unwrap(),
        plan,
        "the plan that is shown is the plan that runs"
    );
}

#[test]
fn a_side_instance_moves_nothing_and_keeps_its_tablespaces_inside() {
    let request = Request {
        place: Place::Directory("/srv/side".into()),
        action: Action::Pause,
        port: Some(5499),
        ..request(Target::Latest)
    };
    let record = record(fast());
    let plan = plan(&request, &record, &located(&record, false), &place("/srv/side", DirectoryState::Absent))
        .unwrap();
    insta::assert_snapshot!("side_instance_at_the_latest", show::text(&plan));
    insta::assert_snapshot!("side_instance_at_the_latest_settings", settings_of(&plan));
    assert!(plan.place.moves.is_empty());
}

#[test]
fn overwriting_deletes_instead_of_moving_and_says_so() {
    let request = Request { overwrite: true, ..request(Target::Backup) };
    let record = record(Vec::new());
    let plan = plan(&request, &record, &located(&record, true), &place("/data", cluster())).unwrap();
    let text = show::text(&plan);
    assert!(text.contains("DELETES:          /data\n"), "{text}");
    assert_eq!(plan.server.settings["recovery_target"], "immediate");
    assert!(!plan.server.settings.contains_key("recovery_target_inclusive"));
}

#[test]
fn a_standby_gets_no_plan_and_no_target() {
    let request = Request { standby: true, ..request(Target::Latest) };
    let record = record(Vec::new());
    let plan = plan(&request, &record, &located(&record, true), &place("/data", cluster())).unwrap();
    assert!(plan.recovery.is_none());
    insta::assert_snapshot!(settings_of(&plan), @r#"
    primary_conninfo = host=primary
    recovery_target_timeline = latest
    restore_command = pgkeep wal fetch %f "%p"
    "#);
}

#[test]
fn every_target_sets_exactly_one_of_postgresqls() {
    let record = record(Vec::new());
    let targets = [
        (Target::Backup, "recovery_target"),
        (Target::Time(at("2026-11-21T14:25:00Z")), "recovery_target_time"),
        (Target::Lsn(Lsn(6 * SEG)), "recovery_target_lsn"),
        (Target::Xid(Xid(902)), "recovery_target_xid"),
        (Target::Name("here".to_owned()), "recovery_target_name"),
    ];
    let all = [
        "recovery_target",
        "recovery_target_time",
        "recovery_target_lsn",
        "recovery_target_xid",
        "recovery_target_name",
    ];
    for (target, setting) in targets {
        let plan =
            plan(&request(target.clone()), &record, &located(&record, true), &place("/data", cluster()))
                .unwrap();
        let set: Vec<_> = all.iter().filter(|n| plan.server.settings.contains_key(**n)).collect();
        assert_eq!(set, [&setting], "{target}");
        assert_eq!(plan.server.settings.contains_key("recovery_target_inclusive"), target.has_inclusion());
        assert_eq!(plan.server.settings["recovery_target_timeline"], "1");
    }
    let latest =
        plan(&request(Target::Latest), &record, &located(&record, false), &place("/data", cluster()))
            .unwrap();
    assert!(all.iter().all(|n| !latest.server.settings.contains_key(*n)));
}

#[test]
fn room_is_counted_by_file_system_with_what_overwriting_frees() {
    let record = record(fast());
    let mut place = place("/data", cluster());
    for disk in &mut place.disks {
        disk.available = 1 << 30;
    }
    let located = located(&record, true);
    let short = plan(&request(Target::Backup), &record, &located, &place).unwrap_err();
    assert_eq!(short.code(), crate::error::Code::NoSpace);
    insta::assert_snapshot!(short.what(), @"there is not enough room: 5.3 GiB needed, 1.0 GiB available");
    let frees = Request { overwrite: true, ..request(Target::Backup) };
    plan(&frees, &record, &located, &place).unwrap();
    // The tablespace on a disk of its own is counted there.
    place.disks[0].available = 5 << 30;
    place.disks[1] = Disk { path: "/fast/ts".into(), device: 2, available: 1 << 20 };
    let short = plan(&request(Target::Backup), &record, &located, &place).unwrap_err();
    assert_eq!(short.place(), Some("/fast/ts"));
}

#[test]
fn a_mapped_tablespace_must_exist_and_have_a_place_of_its_own() {
    let record = record(fast());
    let located = located(&record, true);
    let mapped = |oid, dir: &str| {
        let request = Request { map: [(oid, PathBuf::from(dir))].into(), ..request(Target::Backup) };
        plan(&request, &record, &located, &place("/data", cluster()))
    };
    let moved = mapped(16385, "/slow/ts").unwrap();
    assert_eq!(moved.tablespaces[0].becomes, TablespacePlace::Directory("/slow/ts".into()));
    assert_eq!(tablespaces::map_file(&moved.tablespaces), "16385 /slow/ts\n");
    assert!(mapped(7, "/slow/ts").unwrap_err().hint_text().unwrap().contains("16385 (/fast/ts)"));
}

#[test]
fn a_socket_path_that_is_too_long_asks_for_a_short_one() {
    let long = format!("/srv/{}", "x".repeat(90));
    let request = Request { place: Place::Directory(PathBuf::from(&long)), ..request(Target::Latest) };
    let record = record(Vec::new());
    let error =
        plan(&request, &record, &located(&record, false), &place(&long, DirectoryState::Absent)).unwrap_err();
    assert!(error.hint_text().unwrap().contains("--socket-dir"), "{error:?}");
    let short = Request { socket_dir: Some("/tmp/s".into()), ..request };
    plan(&short, &record, &located(&record, false), &place(&long, DirectoryState::Absent)).unwrap();
}
