//! The settings of a recovery and of a side instance. Pure text; `execute` writes it.
//!
//! Recovery settings go to `postgresql.auto.conf`, which wins over every other file and is part of the data directory
//! also where the configuration is not; stale ones there are taken out. A side instance gets a configuration of its
//! own: nothing of the restored one may reach out of its directory (promise 7).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::lay_out::SideFiles;
use super::locate::Located;
use super::place::PlaceFacts;
use super::plan::{RestorePlan, TablespacePlace};
use super::request::{Action, Place, Request};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, Inclusion, RepoName, SegmentSize, Target};
use crate::postgres::control_file::ControlFile;
use crate::postgres::hollow;
use crate::postgres::instance::limits::{self, LIMITS};
use crate::postgres::instance::{SOCKET_DIR_BYTES, shell_quote, socket_fits};
use crate::postgres::settings::quote;
use crate::repository::recovery_plan::RecoveryPlan;

/// `restore_command`: absolute, so that it means the same for PostgreSQL. `%` is PostgreSQL's own sign in it.
pub fn fetch_command(config: &Path, cluster: &ClusterName, only: Option<&RepoName>) -> Result<String> {
    let program = std::env::current_exe()
        .map_err(|e| Error::new(Code::Io, "cannot find this program's own path").because(e))?;
    let word = |path: &Path| shell_quote(&path.display().to_string()).replace('%', "%%");
    let repo = only.map(|name| format!(" --repo {name}")).unwrap_or_default();
    Ok(format!("{} --config {} --cluster {cluster}{repo} wal fetch %f \"%p\"", word(&program), word(config)))
}

/// What `postgresql.auto.conf` says until recovery has ended. Exactly one target at most.
pub fn recovery(
    request: &Request,
    located: &Located,
    plan: &RecoveryPlan,
    fetch_command: &str,
    primary_conninfo: Option<String>,
) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: String| _ = settings.insert(name.to_owned(), value);
    set("restore_command", fetch_command.to_owned());
    if request.standby {
        set("recovery_target_timeline", "latest".to_owned());
        if let Some(primary) = primary_conninfo {
            set("primary_conninfo", primary);
        }
        return settings;
    }
    // A number: `latest` would follow the junk timeline of somebody's test promotion.
    set("recovery_target_timeline", plan.target_timeline().to_string());
    if request.action == Action::Pause {
        set("hot_standby", "on".to_owned());
    }
    // The restored configuration may be older than WAL that asks for more (`CheckRequiredParameterValues`), and
    // recovery would wait at that record for ever. Only a server that lets readers in asks.
    match (&request.place, request.action, located.asked) {
        (Place::InPlace, Action::Pause, Some(asked)) => {
            asked.checked().into_iter().for_each(|(name, value)| set(name, value.to_string()));
        }
        (Place::InPlace, _, Some(_)) => set("hot_standby", "off".to_owned()),
        _ => {}
    }
    let target = match &request.target {
        // PostgreSQL acts at a target only, and `latest` is none: its last record is.
        Target::Latest if request.action == Action::Promote => return settings,
        Target::Latest => ("recovery_target_lsn", located.last_record.unwrap_or(located.end).to_string()),
        Target::Backup => ("recovery_target", "immediate".to_owned()),
        Target::Time(time) => ("recovery_target_time", time.postgres()),
        Target::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
        Target::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        Target::Name(name) => ("recovery_target_name", name.clone()),
    };
    set(target.0, target.1);
    if request.target.has_inclusion() {
        let after = request.inclusion == Inclusion::After;
        set("recovery_target_inclusive", if after { "on" } else { "off" }.to_owned());
    }
    set("recovery_target_action", request.action.as_str().to_owned());
    settings
}

/// Settings of a recovery's end; two of them at once are fatal to PostgreSQL.
pub const TARGET_SETTINGS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Where a side instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideAddress {
    pub port: u16,
    pub socket_dir: PathBuf,
}

const DEFAULT_PORT: u16 = 5432;

impl SideAddress {
    /// None for a restore in place.
    pub fn of(request: &Request, place: &PlaceFacts) -> Result<Option<Self>> {
        if request.place == Place::InPlace {
            return Ok(None);
        }
        let socket_dir = request.socket_dir.clone().unwrap_or_else(|| place.data_directory.clone());
        if !socket_fits(&socket_dir) {
            return Err(Error::new(
                Code::Usage,
                format!("the path is too long for a socket, which may have {SOCKET_DIR_BYTES} bytes"),
            )
            .at(socket_dir.display())
            .hint(
                "give a short directory of your own with --socket-dir, for example --socket-dir /tmp/side",
            ));
        }
        Ok(Some(Self { port: request.port.unwrap_or(DEFAULT_PORT), socket_dir }))
    }
}

/// Libraries that work on their own, outside of any session: in a copy they would run production's jobs a second time
/// or talk to production's peers.
const WORK_ON_THEIR_OWN: [&str; 6] = ["pg_cron", "pglogical", "bdr", "spock", "pg_partman_bgw", "powa"];

/// Which of `shared_preload_libraries` a side instance loads, and which it leaves out with the reason.
pub fn preload(setting: &str, exists: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
    let names = setting.split(',').map(|n| n.trim().trim_matches('"')).filter(|n| !n.is_empty());
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        let stem = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".so");
        if WORK_ON_THEIR_OWN.contains(&stem) {
            left_out.push(format!("{stem} (it would run production's jobs a second time)"));
        } else if exists(stem) {
            kept.push(stem.to_owned());
        } else {
            left_out.push(format!("{stem} (not installed here)"));
        }
    }
    (kept, left_out)
}

/// Whose a side instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideKind {
    /// Somebody asked for it and will work with it, for as long as he likes.
    Kept,
    /// pgkeep's own, for a drill, a restore test or a table; it goes away.
    Scratch,
}

/// `postgresql.conf` of a side instance.
pub fn side_conf(plan: &RestorePlan, control: &ControlFile, side: &SideFiles) -> String {
    let needed = &control.settings;
    let socket_dir = plan.server.socket_dir.clone().unwrap_or_default();
    let text = |value: &str| quote(value);
    let mut lines = vec![
        "# Made by pgkeep for a side instance. Nothing here reaches out of its directory.".to_owned(),
        "# The restored configuration is in postgresql.conf.restored and postgresql.auto.conf.restored."
            .to_owned(),
        "listen_addresses = ''".to_owned(),
        format!("port = {}", plan.server.port.unwrap_or(DEFAULT_PORT)),
        // A list, whose elements are quoted once more (`SplitDirectoriesString`).
        format!(
            "unix_socket_directories = {}",
            text(&format!("\"{}\"", socket_dir.display().to_string().replace('"', "\"\"")))
        ),
        "unix_socket_permissions = 0700".to_owned(),
        "cluster_name = 'pgkeep-side'".to_owned(),
        "archive_mode = off".to_owned(),
        "ssl = off".to_owned(),
        "logging_collector = off".to_owned(),
        "log_timezone = 'UTC'".to_owned(),
        "log_line_prefix = '%m [%p] '".to_owned(),
        "hot_standby = on".to_owned(),
        // Subscriptions would take changes from production's peers that production then lacks.
        "max_logical_replication_workers = 0".to_owned(),
        format!("max_connections = {}", needed.max_connections.max(20)),
        format!("max_worker_processes = {}", needed.max_worker_processes.max(8)),
        format!("max_wal_senders = {}", needed.max_wal_senders),
        format!("max_prepared_transactions = {}", needed.max_prepared_transactions),
        format!("max_locks_per_transaction = {}", needed.max_locks_per_transaction.max(64)),
        format!("shared_preload_libraries = {}", text(&side.preload.join(","))),
    ];
    let set = |(name, value): (&str, String)| format!("{name} = {value}");
    lines.extend(limits_of(side, control.wal_segment_size).into_iter().map(set));
    if plan.tablespaces.iter().any(|t| t.becomes == TablespacePlace::InPlace) {
        // Without it PostgreSQL takes a directory in pg_tblspc for corruption (`CheckTablespaceDirectory`).
        lines.push("allow_in_place_tablespaces = on".to_owned());
    }
    lines.join("\n") + "\n"
}

/// What it takes of the host, and how it reads what is not there.
fn limits_of(side: &SideFiles, segment: SegmentSize) -> Vec<(&'static str, String)> {
    let owned = |(name, value): (&'static str, &str)| (name, value.to_owned());
    let mut all = match side.kind {
        SideKind::Scratch => limits::wal_sizes(segment).into_iter().chain(LIMITS.map(owned)).collect(),
        SideKind::Kept => {
            let mib = segment.bytes() >> 20;
            // PostgreSQL does not start with less than two segments; its defaults are for those of 16 MiB.
            vec![
                ("min_wal_size", format!("{}MB", (2 * mib).max(80))),
                ("max_wal_size", format!("{}MB", (4 * mib).max(1024))),
            ]
        }
    };
    if side.hollow {
        all.extend(hollow::SETTINGS.map(owned));
    }
    all
}

/// `pg_hba.conf` of a side instance: whoever may open its socket (0700) is its owner or root.
pub const SIDE_HBA: &str = "# Made by pgkeep for a side instance; the restored file is pg_hba.conf.restored.\n\
    local all all trust\nlocal replication all trust\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_work_on_their_own_or_are_missing_stay_out_of_a_side_instance() {
        let (kept, left_out) =
            preload("pg_stat_statements, \"$libdir/timescaledb\",pg_cron , lost", |name| name != "lost");
        assert_eq!(kept, ["pg_stat_statements", "timescaledb"]);
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(left_out[0].starts_with("pg_cron (") && left_out[1].starts_with("lost (not installed"));
        assert_eq!(preload("", |_| true), (Vec::new(), Vec::new()));
    }
}
