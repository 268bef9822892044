use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use super::*;
use crate::storage::get_bytes;

fn opened(root: &Path) -> Directory {
    Directory::open(root, 0o600, 0o700).unwrap()
}

#[tokio::test]
async fn an_absent_root_is_an_unmounted_disk_and_never_an_empty_repository() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mnt");
    assert_eq!(Directory::open(&root, 0o600, 0o700).unwrap_err().code(), Code::NotARepository);
    fs::create_dir(&root).unwrap();
    let store = opened(&root);
    store.put("a/b", Bytes::from_static(b"x")).await.unwrap();
    fs::rename(&root, dir.path().join("away")).unwrap();
    let not_there = |e: Error| assert_eq!(e.code(), Code::NotARepository, "{e}");
    not_there(store.head("a/b").await.unwrap_err());
    not_there(store.get("a/b", None).await.err().unwrap());
    not_there(store.list("", None).await.unwrap_err());
    not_there(store.list("a/", None).await.unwrap_err());
    not_there(store.list_dirs("").await.unwrap_err());
    not_there(store.put("a/c", Bytes::new()).await.unwrap_err());
    not_there(store.delete("a/b").await.unwrap_err());
    assert!(!root.exists(), "the root was made anew");
}

#[tokio::test]
async fn the_root_may_be_a_link_and_nothing_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link, outside) =
        (dir.path().join("real"), dir.path().join("link"), dir.path().join("outside"));
    fs::create_dir(&real).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), b"x").unwrap();
    symlink(&real, &link).unwrap();
    let store = opened(&link);
    store.put("a/b", Bytes::from_static(b"x")).await.unwrap();
    symlink(&outside, real.join("out")).unwrap();
    symlink(outside.join("secret"), real.join("a/file")).unwrap();
    for key in ["out/secret", "a/file"] {
        assert_eq!(store.get(key, None).await.err().unwrap().code(), Code::Io, "{key}");
        assert_eq!(store.head(key).await.unwrap_err().code(), Code::Io);
        assert_eq!(store.delete(key).await.unwrap_err().code(), Code::Io);
        assert_eq!(store.put(key, Bytes::new()).await.unwrap_err().code(), Code::Io);
    }
    assert!(store.list("", None).await.is_err() && store.list("out/", None).await.is_err());
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"x");
}

#[tokio::test]
async fn only_the_owner_may_read_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    store.put("a/b", Bytes::from_static(b"x")).await.unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b")), (0o700, 0o600));
}

#[tokio::test]
async fn temporaries_and_the_file_systems_own_entries_are_never_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    store.put("a/b", Bytes::from_static(b"x")).await.unwrap();
    fs::create_dir_all(dir.path().join("lost+found")).unwrap();
    fs::create_dir_all(dir.path().join("c")).unwrap();
    for name in ["a/.pgkeep-tmp-1", "a/.nfs0001", "c/.pgkeep-tmp-2"] {
        fs::write(dir.path().join(name), b"half").unwrap();
    }
    let keys: Vec<_> = store.list("", None).await.unwrap().into_iter().map(|o| o.key).collect();
    assert_eq!(keys, ["a/b"]);
    assert_eq!(store.list_dirs("").await.unwrap(), ["a"]);
    assert_eq!(store.sweep_unfinished(Duration::from_hours(24)).await.unwrap(), 0);
    assert_eq!(store.sweep_unfinished(Duration::ZERO).await.unwrap(), 2);
    assert!(!dir.path().join("c/.pgkeep-tmp-2").exists());
}

#[tokio::test]
async fn a_name_that_cannot_be_a_key_fails_the_listing() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff")), b"x").unwrap();
    assert_eq!(store.list("", None).await.unwrap_err().code(), Code::Io);
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_not_a_shorter_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    store.put("a", vec![1; 3 << 20].into()).await.unwrap();
    let body = store.get("a", None).await.unwrap();
    fs::OpenOptions::new().write(true).open(dir.path().join("a")).unwrap().set_len(2_000_000).unwrap();
    assert_eq!(crate::storage::collect(body, u64::MAX).await.unwrap_err().code(), Code::StoreLied);
}

#[tokio::test]
async fn writers_and_deletes_side_by_side_lose_no_object() {
    // Deletes take empty directories with them while others are about to write there.
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    let tasks: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..40 {
                    let key = format!("deep/er/{writer}-{n}");
                    store.put(&key, Bytes::from_static(b"x")).await.unwrap();
                    assert_eq!(get_bytes(&store, &key, 1).await.unwrap(), "x");
                    store.delete(&key).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A file system of 2 MiB; needs root and a kernel that lets it mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path());
        assert!(mount.status().unwrap().success(), "cannot mount a tmpfs: the tests of full disks need root");
        Self(dir)
    }
}
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_no_object_and_no_temporary() {
    let disk = SmallDisk::mount();
    let store = opened(disk.0.path());
    let full = |e: Error| {
        assert_eq!(e.code(), Code::Io);
        assert!(e.hint_text().unwrap().contains("disk is full"), "{e:?}");
    };
    full(store.put("a", vec![1; 3 << 20].into()).await.unwrap_err());
    let mut upload = store.upload("b").await.unwrap();
    let written = async {
        for _ in 0..3 {
            upload.write(vec![1; 1 << 20].into()).await?;
        }
        upload.finish().await
    };
    full(written.await.unwrap_err());
    assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 0);
    store.put("c", vec![1; 1 << 20].into()).await.unwrap();
}
