use std::os::unix::fs::MetadataExt;

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_new_file_is_invisible_until_published_and_has_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut file = NewFile::create(&path, 0o640).unwrap();
    file.write_all(b"whole").unwrap();
    assert!(names(dir.path()).iter().all(|n| is_temporary(OsStr::new(n))));
    file.publish().unwrap();
    assert_eq!(names(dir.path()), ["a"]);
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn a_dropped_file_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(NewFile::create(&dir.path().join("a"), 0o600).unwrap());
    assert!(names(dir.path()).is_empty());
}

#[test]
fn publishing_never_overwrites_and_replacing_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    write_new(&path, b"first", 0o600).unwrap();
    assert_eq!(write_new(&path, b"second", 0o600).unwrap_err().code(), Code::ObjectExists);
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(names(dir.path()), ["a"]);
    atomic_replace(&path, b"second", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
}

#[test]
fn no_way_of_renaming_overwrites() {
    let ways: [fn(&Path, &Path) -> io::Result<()>; 3] =
        [rename::no_replace, rename::link_then_unlink, rename::look_then_rename];
    for way in ways {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, b"new").unwrap();
        fs::write(&to, b"old").unwrap();
        assert_eq!(way(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"old");
        fs::remove_file(&to).unwrap();
        way(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["to"]);
    }
}

#[test]
fn directories_are_moved_whole_and_never_onto_another() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("x/to"));
    make_dirs(&from.join("deep/er"), 0o700).unwrap();
    make_dirs(&to, 0o700).unwrap();
    assert_eq!(rename_new(&from, &to).unwrap_err().code(), Code::ObjectExists);
    rename_new(&from, &dir.path().join("x/other")).unwrap();
    assert!(dir.path().join("x/other/deep/er").is_dir());
    assert_eq!(fs::metadata(dir.path().join("x/other/deep")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    // /dev/full answers ENOSPC to every write.
    let dir = tempfile::tempdir().unwrap();
    let mut file = NewFile::create(&dir.path().join("a"), 0o600).unwrap();
    file.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error =
        Write::write_all(&mut file, b"x").map_err(|e| Error::io("cannot write", "/a", e)).unwrap_err();
    assert_eq!(error.code(), Code::Io);
    assert!(error.hint_text().unwrap().contains("disk is full"));
    drop(file);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn only_old_temporaries_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/.pgkeep-tmp-1"), b"x").unwrap();
    fs::write(dir.path().join("sub/object"), b"x").unwrap();
    let now = crate::util::clock::now();
    let day = Duration::from_hours(24);
    assert_eq!(remove_stale_temporaries(dir.path(), day, now).unwrap(), 0);
    assert_eq!(remove_stale_temporaries(dir.path(), day, now.plus(2 * day)).unwrap(), 1);
    assert_eq!(names(&dir.path().join("sub")), ["object"]);
}

#[test]
fn a_tree_is_synced_past_links_and_odd_entries() {
    let dir = tempfile::tempdir().unwrap();
    make_dirs(&dir.path().join("a/b"), 0o700).unwrap();
    fs::write(dir.path().join("a/b/f"), b"x").unwrap();
    std::os::unix::fs::symlink("/nonexistent", dir.path().join("a/dangling")).unwrap();
    sync_tree(dir.path()).unwrap();
    assert!(sync_tree(&dir.path().join("missing")).is_err());
}

#[test]
fn what_is_written_past_the_cache_is_whole_whatever_its_length_its_place_in_memory_and_the_file_system() {
    use std::io::Write as _;

    use crate::util::buffers::{ALIGNMENT, Buffers};
    let disk = tempfile::tempdir().unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    for directory in [disk.path(), memory.path()] {
        for length in
            [0, 1, ALIGNMENT, (256 << 10) - 1, 256 << 10, (1 << 20) + 1, (1 << 20) + ALIGNMENT + 511]
        {
            let content: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut aligned = Buffers::default().with_room(length);
            aligned.write_all(&content).unwrap();
            for (n, bytes) in
                [aligned.as_ref(), content.as_slice(), &content[length.min(1)..]].iter().enumerate()
            {
                let path = directory.join(format!("{length}-{n}"));
                let mut file = NewFile::create(&path, 0o600).unwrap();
                file.write_past_cache(bytes).unwrap();
                file.publish().unwrap();
                assert!(fs::read(&path).unwrap() == *bytes, "{}", path.display());
            }
        }
    }
}

#[test]
fn a_disk_that_fills_while_it_is_written_past_the_cache_is_an_error() {
    use std::io::Write as _;
    let mut bytes = crate::util::buffers::Buffers::default().with_room(1 << 20);
    bytes.write_all(&vec![7; 1 << 20]).unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut file = full;
    let written = direct::write(&mut file, bytes.as_ref());
    // The device knows no such mode, or says that it is full: never that it wrote.
    assert!(matches!(written, Ok(0)) || written.is_err());
}
