use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const VERSION: &str = "PG_18_202506291";

struct Tree(tempfile::TempDir);

impl Tree {
    /// A data directory with nothing but what every one has.
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for directory in
            ["data/global", "data/base/5", "data/pg_tblspc", "data/pg_wal/archive_status", "data/pg_stat_tmp"]
        {
            tree.dir(directory);
        }
        tree.file("data/global/pg_control");
        tree
    }
    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }
    fn dir(&self, name: &str) {
        std::fs::create_dir_all(self.path(name)).unwrap();
    }
    fn file(&self, name: impl AsRef<Path>) {
        std::fs::write(self.path(name), "x").unwrap();
    }
    fn link(&self, name: &str, target: impl AsRef<Path>) {
        symlink(target, self.path(name)).unwrap();
    }
    fn scan(&self) -> Scan {
        scan(&self.path("data"), VERSION).unwrap()
    }
    /// Files only.
    fn files(&self) -> Vec<String> {
        self.scan().files().map(|e| e.path.display().to_string()).collect()
    }
    fn names(&self) -> Vec<String> {
        self.scan().entries.iter().map(|e| e.path.display().to_string()).collect()
    }
}

#[test]
fn directories_that_must_exist_are_there_and_their_useless_content_is_not() {
    let tree = Tree::new();
    for file in [
        "data/pg_wal/000000010000000000000001",
        "data/pg_wal/archive_status/x.ready",
        "data/pg_stat_tmp/global.stat",
        "data/postmaster.pid",
        "data/backup_label.old",
        "data/base/5/pg_internal.init",
        "data/pgkeep.recovery.json",
    ] {
        tree.file(file);
    }
    tree.dir("data/base/pgsql_tmp");
    tree.file("data/base/pgsql_tmp/pgsql_tmp7.0");
    assert_eq!(
        tree.names(),
        [
            "base",
            "base/5",
            "global",
            "global/pg_control",
            "pg_stat_tmp",
            "pg_tblspc",
            "pg_wal",
            "pg_wal/archive_status"
        ]
    );
    assert!(tree.scan().skipped.is_empty());
}

#[test]
fn temporary_and_unlogged_relations_are_left_out_in_databases_and_nowhere_else() {
    let tree = Tree::new();
    for name in ["t3_16400", "16385", "16385.1", "16385_fsm", "16385_init", "16386", "16386_vm", "PG_VERSION"]
    {
        tree.file(format!("data/base/5/{name}"));
    }
    tree.dir("data/other");
    tree.file("data/other/t3_16400");
    assert_eq!(
        tree.files(),
        [
            "base/5/16385_init",
            "base/5/16386",
            "base/5/16386_vm",
            "base/5/PG_VERSION",
            "global/pg_control",
            "other/t3_16400"
        ]
    );
    let pages: Vec<_> = tree
        .scan()
        .entries
        .into_iter()
        .filter(ScanEntry::has_pages)
        .map(|e| e.path.display().to_string())
        .collect();
    assert_eq!(pages, ["base/5/16385_init", "base/5/16386", "base/5/16386_vm"]);
}

#[test]
fn of_a_tablespace_only_this_servers_directory_is_taken() {
    let tree = Tree::new();
    tree.dir(&format!("space/{VERSION}/5"));
    tree.dir("space/PG_14_202107181/5");
    tree.file(format!("space/{VERSION}/5/16390"));
    tree.file("space/PG_14_202107181/5/1");
    tree.file("space/foreign");
    tree.link("data/pg_tblspc/16389", tree.path("space"));
    tree.link("data/pg_tblspc/16999", tree.path("gone"));
    let scan = tree.scan();
    assert_eq!(scan.tablespaces().collect::<Vec<_>>(), [(16389, tree.path("space").as_path())]);
    assert_eq!(tree.files(), ["global/pg_control".to_owned(), format!("pg_tblspc/16389/{VERSION}/5/16390")]);
    assert_eq!(scan.skipped[0].why, SkipReason::DanglingTablespace);
}

#[test]
fn a_tablespace_inside_the_data_directory_is_taken_once() {
    let tree = Tree::new();
    tree.dir(&format!("data/inner/{VERSION}/5"));
    tree.file(format!("data/inner/{VERSION}/5/16390"));
    tree.link("data/pg_tblspc/16389", tree.path("data/inner"));
    tree.dir(&format!("data/pg_tblspc/16391/{VERSION}/5"));
    tree.file(format!("data/pg_tblspc/16391/{VERSION}/5/16392"));
    assert_eq!(
        tree.files(),
        [
            "global/pg_control".to_owned(),
            format!("pg_tblspc/16389/{VERSION}/5/16390"),
            format!("pg_tblspc/16391/{VERSION}/5/16392")
        ]
    );
    assert!(tree.names().contains(&"inner".to_owned()), "the directory itself must exist again");
}

#[test]
fn links_sockets_and_names_that_are_not_utf8_are_handled_as_pg_basebackup_does() {
    let tree = Tree::new();
    std::fs::remove_dir_all(tree.path("data/pg_wal")).unwrap();
    tree.dir("wal/archive_status");
    tree.dir("wal/summaries");
    tree.file("wal/000000010000000000000001");
    tree.link("data/pg_wal", tree.path("wal"));
    tree.link("data/postgresql.conf", "/etc/postgresql.conf");
    let _socket = std::os::unix::net::UnixListener::bind(tree.path("data/sock")).unwrap();
    let odd = OsStr::from_bytes(b"data/caf\xe9");
    tree.file(odd);
    let scan = tree.scan();
    let kinds: Vec<_> = scan.skipped.iter().map(|s| (s.path.to_str().unwrap(), s.why)).collect();
    assert_eq!(kinds, [("postgresql.conf", SkipReason::Link), ("sock", SkipReason::Special)]);
    assert!(scan.entries.iter().any(|e| e.path.as_os_str().as_bytes() == b"caf\xe9" && e.is_file()));
    let wal: Vec<_> = scan.entries.iter().filter(|e| e.path.starts_with("pg_wal")).collect();
    assert_eq!(
        wal.iter().map(|e| e.path.to_str().unwrap()).collect::<Vec<_>>(),
        ["pg_wal", "pg_wal/archive_status", "pg_wal/summaries"]
    );
    assert!(wal.iter().all(|e| e.kind == EntryKind::Directory));
}

#[test]
fn modes_and_sizes_are_kept() {
    let tree = Tree::new();
    std::fs::set_permissions(tree.path("data/base"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::fs::set_permissions(tree.path("data/global/pg_control"), std::fs::Permissions::from_mode(0o640))
        .unwrap();
    let scan = tree.scan();
    let of = |name: &str| scan.entries.iter().find(|e| e.path == Path::new(name)).unwrap();
    assert_eq!(
        (of("base").mode, of("global/pg_control").mode, of("global/pg_control").size),
        (0o750, 0o640, 1)
    );
    assert_eq!(of("global/pg_control").kind, EntryKind::ControlFile);
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(scan(dir.path(), VERSION).unwrap_err().code(), Code::NotReady);
    assert_eq!(scan(&dir.path().join("absent"), VERSION).unwrap_err().code(), Code::Io);
}
