use super::*;
use crate::model::{Lsn, TimelineId};

const SIZE: SegmentSize = match SegmentSize::new(1 << 20) {
    Some(size) => size,
    None => SegmentSize::DEFAULT,
};
const SYSTEM: SystemId = SystemId(42);

fn segment(number: u64) -> SegmentName {
    SegmentName::numbered(TimelineId(1), number, SIZE)
}

/// A segment's file as far as its first page says so.
fn bytes(start: Lsn, system: SystemId) -> Vec<u8> {
    let mut bytes = vec![0x18, 0xD1, 2, 0, 1, 0, 0, 0];
    bytes.extend(start.0.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(system.0.to_le_bytes());
    bytes.extend(u32::try_from(SIZE.bytes()).unwrap().to_le_bytes());
    bytes.extend(8192_u32.to_le_bytes());
    bytes.resize(1 << 20, 7);
    bytes
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    fn spooled(&self, content: &[u8]) -> Spooled {
        let path = self.dir.path().join(segment(5).to_string());
        std::fs::write(&path, content).unwrap();
        let fingerprint = Fingerprint::of(&std::fs::metadata(&path).unwrap());
        Spooled { path, fingerprint }
    }
    fn take(&self, spooled: &Spooled, wanted: u64) -> bool {
        let destination = self.dir.path().join("RECOVERYXLOG");
        let taken = spooled.take_over(segment(wanted), SIZE, SYSTEM, &destination, 0o600);
        assert_eq!(taken, destination.exists());
        taken
    }
}

#[test]
fn what_the_agent_told_of_is_moved_to_where_postgres_wants_it() {
    let place = Place::new();
    let content = bytes(segment(5).start(SIZE), SYSTEM);
    let spooled = place.spooled(&content);
    assert!(place.take(&spooled, 5));
    assert!(!spooled.path.exists());
    assert_eq!(std::fs::read(place.dir.path().join("RECOVERYXLOG")).unwrap(), content);
}

#[test]
fn a_spooled_file_of_other_content_is_never_taken() {
    let right = bytes(segment(5).start(SIZE), SYSTEM);
    let place = Place::new();
    // Replaced, shortened, gone since it was told of.
    let spooled = place.spooled(&right);
    std::fs::rename(&spooled.path, place.dir.path().join("old")).unwrap();
    std::fs::write(&spooled.path, &right).unwrap();
    assert!(!place.take(&spooled, 5), "another file of the same bytes and name");
    let spooled = place.spooled(&right);
    File::options().write(true).open(&spooled.path).unwrap().set_len(100).unwrap();
    assert!(!place.take(&spooled, 5));
    std::fs::remove_file(&spooled.path).unwrap();
    assert!(!place.take(&spooled, 5));
    // As it was told of, and not what its name says.
    for wrong in [
        bytes(segment(6).start(SIZE), SYSTEM),
        bytes(segment(5).start(SIZE), SystemId(43)),
        right[..8192].to_vec(),
        vec![0; 1 << 20],
    ] {
        assert!(!place.take(&place.spooled(&wrong), 5));
    }
    assert!(!place.take(&place.spooled(&right), 6), "another segment was asked for");
    let (link, spooled) = (place.dir.path().join("link"), place.spooled(&right));
    std::os::unix::fs::symlink(&spooled.path, &link).unwrap();
    let fingerprint = Fingerprint::of(&std::fs::metadata(&link).unwrap());
    assert!(!place.take(&Spooled { path: link, fingerprint }, 5), "a link");
}

#[test]
fn a_spool_in_pg_wal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = |spool: &Path| Settings {
        system: SYSTEM,
        size: SIZE,
        data_directory: dir.path().to_owned(),
        spool: spool.to_owned(),
        spool_bytes: 1,
        deadline: Duration::from_secs(1),
    };
    let (elsewhere, pg_wal) = (dir.path().join("elsewhere"), dir.path().join("pg_wal"));
    std::fs::create_dir_all(elsewhere.join("spool")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &pg_wal).unwrap();
    for inside in [pg_wal.join("spool"), elsewhere.join("spool"), pg_wal.clone()] {
        assert_eq!(refuse_in_pg_wal(&settings(&inside)).unwrap_err().code(), Code::Refused, "{inside:?}");
    }
    assert!(refuse_in_pg_wal(&settings(&dir.path().join("spool"))).is_ok());
}
