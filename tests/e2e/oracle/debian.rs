//! Debian's PostgreSQL in Debian's layout: configuration in `/etc`, `pg_ctlcluster`, pgkeep run as root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use pgkeep::model::Target;

use super::{holds_exactly, in_place};
use crate::support::{Build, Ledger, Pg, Pgkeep, Root, User};

/// Dropped at the end.
struct DebianCluster {
    name: String,
    pg: Pg,
    root: Arc<Root>,
}

impl DebianCluster {
    fn create() -> Self {
        let name = format!("pgkeeporacle{}", std::process::id());
        run("pg_createcluster", &["15", &name, "--", "-N"]);
        let root = Root::new();
        let pg = Pg::at(&root, &Path::new("/var/lib/postgresql/15").join(&name), Build::debian());
        Self { name, pg, root }
    }
    fn etc(&self) -> PathBuf {
        Path::new("/etc/postgresql/15").join(&self.name)
    }
    fn port(&self) -> String {
        let conf = std::fs::read_to_string(self.etc().join("postgresql.conf")).unwrap();
        let line = conf.lines().find_map(|l| l.strip_prefix("port = ")).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    }
    fn ctl(&self, action: &str) {
        run("pg_ctlcluster", &["15", &self.name, action]);
    }
    fn configuration(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"].map(|f| self.etc().join(f));
        files.map(|f| (f.clone(), std::fs::read(&f).unwrap())).to_vec()
    }
}

impl Drop for DebianCluster {
    fn drop(&mut self) {
        let _ = Command::new("pg_dropcluster").args(["--stop", "15", &self.name]).output();
        let _ = std::fs::remove_dir_all(&self.pg.data);
        let _ = std::fs::remove_dir_all(self.etc());
        let parent = self.pg.data.parent().unwrap();
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.name) {
                let _ = if entry.path().is_dir() {
                    std::fs::remove_dir_all(entry.path())
                } else {
                    std::fs::remove_file(entry.path())
                };
            }
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let ran = Command::new(program).args(args).current_dir("/").output().unwrap();
    assert!(ran.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Configuration and keys as on a host with one repository in a directory.
fn set_up(cluster: &DebianCluster) -> Pgkeep {
    let root = &cluster.root;
    let identity = age::x25519::Identity::generate();
    let identity_file = root.file("identity.txt", 0o600, identity.to_string().expose_secret());
    let (state, repo) = (root.dir("state", 0o700), root.dir("repo", 0o750));
    let config = format!(
        "state_directory = \"{}\"\n[cluster.main]\n\
         connection = \"host=/var/run/postgresql port={} user=postgres dbname=postgres\"\n\
         data_directory = \"{}\"\n[[repository]]\nname = \"repo\"\nurl = \"file://{}\"\n\
         [encryption]\nrecipients = [\"{}\"]\nidentity_file = \"{}\"\n",
        state.display(),
        cluster.port(),
        cluster.pg.data.display(),
        repo.display(),
        identity.to_public(),
        identity_file.display()
    );
    let pgkeep = Pgkeep::with_config(&root.file("pgkeep.toml", 0o644, &config)).user(User::Caller);
    let push = pgkeep.clone().global("--cluster").global("main").shell_command("wal push %p");
    let conf = cluster.etc().join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).unwrap()
        + &format!(
            "\narchive_mode = on\narchive_command = '{push}'\ntrack_commit_timestamp = on\nautovacuum = off\n\
             fsync = off\nshared_buffers = 16MB\ntimezone = 'UTC'\n"
        );
    std::fs::write(&conf, text).unwrap();
    std::fs::write(cluster.etc().join("pg_hba.conf"), "local all all trust\n").unwrap();
    cluster.ctl("start");
    pgkeep.run(["init"]).ok();
    pgkeep
}

#[test]
fn debians_cluster_is_restored_in_place_and_after_a_complete_loss_and_keeps_its_configuration() {
    let cluster = DebianCluster::create();
    let pgkeep = set_up(&cluster);
    let pg = &cluster.pg;
    let mut ledger = Ledger::create(pg);
    ledger.write(pg, 3);
    pgkeep.run(["backup", "full"]).ok();
    ledger.write(pg, 4);
    let configured = cluster.configuration();

    let fifth = Target::Xid(ledger.entry(5).xid).to_string();
    let report = in_place(&pgkeep, &["--to", &fifth]);
    ledger.rewind_to(5);
    holds_exactly(&ledger, pg, &report, 5);
    assert_eq!(cluster.configuration(), configured);
    ledger.write(pg, 3);
    pg.switch_and_archive();

    // The data directory is gone, the rest of the host is there.
    cluster.ctl("stop");
    std::fs::remove_dir_all(&pg.data).unwrap();
    let report = in_place(&pgkeep, &["--to", "latest"]);
    holds_exactly(&ledger, pg, &report, 8);
    assert_eq!(cluster.configuration(), configured);
    // It is the host's own service again.
    cluster.ctl("restart");
    ledger.write(pg, 1);
    ledger.assert_ends_at(pg, 9);
}
