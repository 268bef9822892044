//! `pg_control` and page checksums against PostgreSQL's own tools and files, on every major.

use std::collections::HashMap;
use std::path::Path;

use pgkeep::model::{PgMajor, TimelineId};
use pgkeep::postgres::checksum::{PAGE_BYTES, PageState, verify_page};
use pgkeep::postgres::control_file::ControlFile;

use crate::support::{Build, Pg, PgOptions, Root, Stop};

fn controldata(pg: &Pg) -> HashMap<String, String> {
    let text = pg.build.run_tool("pg_controldata", ["-D", pg.data.to_str().unwrap()]);
    let pairs = text.lines().filter_map(|l| l.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

fn agrees(pg: &Pg) {
    let theirs = controldata(pg);
    let c = ControlFile::read(&pg.data).unwrap();
    let copy = c.checkpoint_copy;
    let on = |b: bool| if b { "on" } else { "off" }.to_owned();
    let time = |t: Option<pgkeep::model::Timestamp>| t.unwrap().0.format("%a %b %e %H:%M:%S %Y").to_string();
    let ours = [
        ("pg_control version number", c.control_version.to_string()),
        ("Catalog version number", c.catalog_version.to_string()),
        ("Database system identifier", c.system.to_string()),
        ("Database cluster state", c.state.to_string()),
        ("pg_control last modified", time(c.written_at)),
        ("Latest checkpoint location", c.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", copy.redo.to_string()),
        ("Latest checkpoint's TimeLineID", copy.timeline.to_string()),
        ("Latest checkpoint's PrevTimeLineID", copy.previous_timeline.to_string()),
        ("Latest checkpoint's full_page_writes", on(copy.full_page_writes)),
        ("Latest checkpoint's NextXID", format!("{}:{}", copy.next_xid_epoch, copy.next_xid)),
        ("Latest checkpoint's oldestXID", copy.oldest_xid.to_string()),
        ("Time of latest checkpoint", time(copy.at)),
        ("Minimum recovery ending location", c.min_recovery_point.to_string()),
        ("Min recovery ending loc's timeline", c.min_recovery_timeline.map_or(0, |t| t.0).to_string()),
        ("Backup start location", c.backup_start_point.to_string()),
        ("Backup end location", c.backup_end_point.to_string()),
        ("End-of-backup record required", if c.backup_end_required { "yes" } else { "no" }.to_owned()),
        ("wal_level setting", c.settings.wal_level.to_string()),
        ("wal_log_hints setting", on(c.wal_log_hints)),
        ("max_connections setting", c.settings.max_connections.to_string()),
        ("max_worker_processes setting", c.settings.max_worker_processes.to_string()),
        ("max_wal_senders setting", c.settings.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", c.settings.max_prepared_transactions.to_string()),
        ("max_locks_per_xact setting", c.settings.max_locks_per_transaction.to_string()),
        ("track_commit_timestamp setting", on(c.track_commit_timestamp)),
        ("Maximum data alignment", c.max_align.to_string()),
        ("Database block size", c.block_bytes.to_string()),
        ("Blocks per segment of large relation", c.relation_segment_blocks.to_string()),
        ("WAL block size", c.wal_block_bytes.to_string()),
        ("Bytes per WAL segment", c.wal_segment_size.bytes().to_string()),
        ("Data page checksum version", c.data_checksum_version.to_string()),
    ];
    for (key, value) in ours {
        assert_eq!(theirs.get(key), Some(&value), "{key}");
    }
    assert_eq!(c.major(), Some(PgMajor(pg.build.major)));
}

#[test]
fn the_control_file_of_every_major_is_read_as_pg_controldata_reads_it() {
    for major in Build::MAJORS {
        let root = Root::new();
        let pg = PgOptions::new(Build::of(major))
            .segment_mib(1)
            .checksums(major % 2 == 0)
            .conf("max_connections = 37\nmax_prepared_transactions = 3\nwal_log_hints = on")
            .create(&root);
        agrees(&pg);
        pg.start();
        pg.sql("create table t as select generate_series(1, 30000) i");
        pg.stop(Stop::Immediate);
        agrees(&pg);
        assert_eq!(ControlFile::read(&pg.data).unwrap().state.to_string(), "in production");
        assert_eq!(ControlFile::read(&pg.data).unwrap().data_checksums(), major % 2 == 0);
    }
}

#[test]
fn the_control_file_of_a_standby_names_its_minimum_recovery_point() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(18)).create(&root);
    pg.start();
    let standby = Pg::standby_of(&pg, "standby");
    standby.start();
    pg.sql("create table t as select generate_series(1, 3000) i");
    pg.sql("checkpoint");
    standby.stop(Stop::Fast);
    agrees(&standby);
    let control = ControlFile::read(&standby.data).unwrap();
    assert_eq!(control.min_recovery_timeline, Some(TimelineId(1)));
    assert!(control.state.is_stopped() && !control.min_recovery_point.is_zero());
}

/// Every page of every relation file below `base` and `global`: how many are good, new, bad.
fn pages(data: &Path) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for entry in ["base", "global"].iter().flat_map(|d| walkdir::WalkDir::new(data.join(d))) {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy();
        if !entry.file_type().is_file() || !name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        for (block, page) in bytes.as_chunks::<PAGE_BYTES>().0.iter().enumerate() {
            match verify_page(page, u32::try_from(block).unwrap(), true) {
                PageState::Good { .. } => counts.0 += 1,
                PageState::New => counts.1 += 1,
                _ => counts.2 += 1,
            }
        }
    }
    counts
}

#[test]
fn every_page_of_a_real_cluster_passes_its_checksum_and_a_changed_one_does_not() {
    for major in [14, 18] {
        let root = Root::new();
        let pg = PgOptions::new(Build::of(major)).create(&root);
        pg.start();
        pg.sql("create table t as select i, md5(i::text) from generate_series(1, 20000) i");
        pg.sql("vacuum t");
        let file = pg.data.join(pg.one("select pg_relation_filepath('t')"));
        pg.stop(Stop::Fast);
        let (good, _, bad) = pages(&pg.data);
        assert!(good > 1500 && bad == 0, "{good} good, {bad} bad");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[20_000] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(pages(&pg.data).2, 1);
    }
}
