//! Who manages the server of a data directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::{privilege, settings};
use super::{Manager, running_server};
use crate::error::Result;
use crate::util::process::Run;

const ASK: Duration = Duration::from_secs(10);
const CLUSTERS: &str = "/etc/postgresql";

pub(super) async fn manager(data_directory: &Path) -> Result<Manager> {
    let wrapped = Path::new("/usr/bin/pg_ctlcluster").exists();
    if let (true, Some((version, name))) = (wrapped, debian_cluster(data_directory, Path::new(CLUSTERS))) {
        return Ok(Manager::PgCtlCluster { version, name });
    }
    if let Some(unit) = systemd_unit(data_directory).await? {
        return Ok(Manager::Systemctl { unit });
    }
    let options = std::fs::read(data_directory.join("postmaster.opts")).unwrap_or_default();
    Ok(Manager::PgCtl { options: start_options(&String::from_utf8_lossy(&options)) })
}

/// `/etc/postgresql/<version>/<name>` whose `data_directory` is this one. The directory need not exist: after a
/// complete loss the configuration may be all that is left.
fn debian_cluster(data_directory: &Path, clusters: &Path) -> Option<(String, String)> {
    let wanted = resolved(data_directory);
    for version in subdirectories(clusters) {
        for cluster in subdirectories(&version) {
            let text = std::fs::read(cluster.join("postgresql.conf")).unwrap_or_default();
            let Some(directory) = settings::value(&String::from_utf8_lossy(&text), "data_directory") else {
                continue;
            };
            if resolved(Path::new(&directory)) == wanted {
                let last = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
                return Some((last(&version)?, last(&cluster)?));
            }
        }
    }
    None
}

fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.components().collect())
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut found: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}

/// The unit that the running server belongs to, else a PostgreSQL unit whose `PGDATA` is this directory.
async fn systemd_unit(data_directory: &Path) -> Result<Option<String>> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(None);
    }
    if let Some(pid) = running_server(data_directory)?.and_then(|s| s.pid) {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        return Ok(unit_of(&cgroup));
    }
    let list = systemctl(["list-unit-files", "--no-legend", "--plain", "postgresql*.service"]).await;
    let Ok(list) = list else { return Ok(None) };
    for unit in list.lines().filter_map(|l| l.split_whitespace().next()).filter(|u| !u.contains("@.")) {
        let Ok(environment) = systemctl(["show", "--property=Environment", "--value", unit]).await else {
            continue;
        };
        let ours = environment
            .split_whitespace()
            .filter_map(|pair| pair.strip_prefix("PGDATA="))
            .any(|dir| resolved(Path::new(dir)) == resolved(data_directory));
        if ours {
            return Ok(Some(unit.to_owned()));
        }
    }
    Ok(None)
}

async fn systemctl<const N: usize>(arguments: [&str; N]) -> Result<String> {
    let mut command = Command::new("systemctl");
    privilege::as_root(&mut command);
    let done = Run::from_command(command, ASK).args(arguments).run().await?.success()?;
    Ok(done.stdout_text().into_owned())
}

/// The system service of a process (`man systemd.unit`); a login session or a user's own manager is none.
fn unit_of(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        let mut parts = path.split('/').filter(|p| !p.is_empty());
        if parts.clone().any(|p| p == "user.slice") {
            return None;
        }
        let unit = parts.rfind(|p| p.ends_with(".service"))?;
        let known = unit.starts_with("postgres") || unit.starts_with("pgsql");
        known.then(|| unit.to_owned())
    })
}

/// The arguments of `postmaster.opts` without the program and `-D`: `/bin/postgres "-D" "/srv/pg" "-c" "a=b"`.
fn start_options(line: &str) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut rest = line.trim();
    while let Some(at) = rest.find(" \"") {
        let Some(end) = rest[at + 2..].find('"').map(|e| at + 2 + e) else { break };
        // An argument may hold quotes itself; one is closed only before the next or the end of the line.
        let mut end = end;
        while !(rest[end + 1..].is_empty() || rest[end + 1..].starts_with(" \"")) {
            let Some(next) = rest[end + 1..].find('"') else { break };
            end += 1 + next;
        }
        arguments.push(rest[at + 2..end].to_owned());
        rest = &rest[end + 1..];
    }
    let mut kept = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "-D" {
            arguments.next();
        } else if !argument.starts_with("-D") {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_cluster_is_known_by_its_data_directory() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let other = root.path().join("etc/14/main");
        let ours = root.path().join("etc/15/shop");
        for (dir, directory) in [(&other, "/nowhere".to_owned()), (&ours, data.display().to_string())] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::write(
                dir.join("postgresql.conf"),
                format!("data_directory = '{directory}' # it is here\n"),
            )
            .unwrap();
        }
        let found = debian_cluster(&data, &root.path().join("etc"));
        assert_eq!(found, Some(("15".to_owned(), "shop".to_owned())), "though the directory is gone");
        assert_eq!(debian_cluster(Path::new("/elsewhere"), &root.path().join("etc")), None);
    }

    #[test]
    fn the_unit_of_a_server_is_read_from_its_cgroup() {
        assert_eq!(
            unit_of("0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n").as_deref(),
            Some("postgresql@15-main.service")
        );
        assert_eq!(
            unit_of("0::/system.slice/postgresql-18.service"),
            Some("postgresql-18.service".to_owned())
        );
        for none in [
            "",
            "0::/",
            "0::/user.slice/user-0.slice/session-1.scope",
            "0::/system.slice/ssh.service",
            "0::/user.slice/user-1000.slice/user@1000.service/postgresql.service",
        ] {
            assert_eq!(unit_of(none), None, "{none}");
        }
    }

    #[test]
    fn the_options_of_the_last_start_come_back_without_the_directory() {
        let line = r#"/usr/lib/postgresql/15/bin/postgres "-D" "/srv/p g" "-c" "config_file=/etc/a "b" c" "-p" "5433""#;
        assert_eq!(start_options(line), ["-c", "config_file=/etc/a \"b\" c", "-p", "5433"]);
        assert_eq!(start_options("/bin/postgres"), Vec::<String>::new());
        assert_eq!(start_options("/bin/postgres \"-D\" \"/x"), Vec::<String>::new());
    }
}
