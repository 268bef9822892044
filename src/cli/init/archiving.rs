//! What PostgreSQL's settings must say for archiving, and what they say now. Pure; `init` applies it, `check` judges
//! by it.

use std::path::Path;

use crate::model::ClusterName;
use crate::postgres::facts::ServerFacts;
use crate::postgres::instance::shell_quote;

/// Seconds after which even a quiet server closes a segment.
pub const ARCHIVE_TIMEOUT: u64 = 300;

/// One setting that must change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    pub name: &'static str,
    pub value: String,
    pub now: String,
    /// PostgreSQL must be restarted, not only reloaded.
    pub restart: bool,
}

/// The text of `archive_command`: absolute, so that it means the same whatever the environment.
pub fn archive_command(program: &Path, config: &Path, cluster: &ClusterName) -> String {
    let word = |path: &Path| {
        let text = path.display().to_string();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
        let word = if text.bytes().all(plain) { text } else { shell_quote(&text) };
        // A percent sign is PostgreSQL's escape here.
        word.replace('%', "%%")
    };
    format!("{} --config {} --cluster {cluster} wal push %p", word(program), word(config))
}

/// Another tool that archives now.
pub fn other_archiver(facts: &ServerFacts) -> Option<String> {
    if !facts.archive_library().is_empty() {
        return Some(format!("archive_library = '{}'", facts.archive_library()));
    }
    let command = facts.archive_command();
    let idle = command.is_empty() || matches!(command, "true" | "false" | "/bin/true" | "/bin/false");
    (!idle && !is_ours(command)).then(|| format!("archive_command = '{command}'"))
}

/// A command of pgkeep's, perhaps of another path or configuration.
pub fn is_ours(command: &str) -> bool {
    command.contains("pgkeep") && command.contains("wal push")
}

/// What must change, in the order in which it is safe to: the command before the mode that uses it.
pub fn changes(facts: &ServerFacts, command: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut change = |name, value: String, now: &str, restart| {
        changes.push(Change { name, value, now: now.to_owned(), restart });
    };
    if !facts.archive_library().is_empty() {
        change("archive_library", String::new(), facts.archive_library(), false);
    }
    if facts.archive_command() != command {
        change("archive_command", command.to_owned(), facts.archive_command(), false);
    }
    if !(1..=ARCHIVE_TIMEOUT).contains(&facts.archive_timeout_seconds()) {
        let now = facts.archive_timeout_seconds().to_string();
        change("archive_timeout", ARCHIVE_TIMEOUT.to_string(), &now, false);
    }
    if facts.wal_level() == "minimal" {
        change("wal_level", "replica".to_owned(), facts.wal_level(), true);
    }
    if !matches!(facts.archive_mode(), "on" | "always") {
        change("archive_mode", "on".to_owned(), facts.archive_mode(), true);
    }
    changes
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::{PgMajor, SegmentSize, SystemId, TimelineId};
    use std::collections::BTreeMap;

    /// A server with these settings.
    pub fn facts(settings: &[(&str, &str)]) -> ServerFacts {
        let settings: BTreeMap<String, String> =
            settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ServerFacts {
            version_num: 180_006,
            major: PgMajor(18),
            version_text: "18.6".into(),
            system_identifier: SystemId(7),
            catalog_version: 1,
            data_directory: "/data".into(),
            config_file: "/data/postgresql.conf".into(),
            hba_file: "/data/pg_hba.conf".into(),
            ident_file: "/data/pg_ident.conf".into(),
            port: 5432,
            socket_dirs: vec!["/tmp".into()],
            in_recovery: false,
            timeline: TimelineId(1),
            wal_segment_size: SegmentSize::DEFAULT,
            block_bytes: 8192,
            blocks_per_segment: 131_072,
            wal_block_bytes: 8192,
            data_checksums: true,
            tablespaces: Vec::new(),
            is_superuser: true,
            user: "postgres".into(),
            backend_pid: 1,
            server_address: None,
            settings,
        }
    }

    fn names(settings: &[(&str, &str)]) -> Vec<(&'static str, bool)> {
        changes(&facts(settings), "x wal push %p").into_iter().map(|c| (c.name, c.restart)).collect()
    }

    #[test]
    fn the_archive_command_survives_the_shell_and_postgresql() {
        let main = ClusterName::parse("main").unwrap();
        assert_eq!(
            archive_command(Path::new("/usr/bin/pgkeep"), Path::new("/etc/pgkeep/pgkeep.toml"), &main),
            "/usr/bin/pgkeep --config /etc/pgkeep/pgkeep.toml --cluster main wal push %p"
        );
        assert_eq!(
            archive_command(Path::new("/opt/my tools/pgkeep"), Path::new("/etc/100%.toml"), &main),
            "'/opt/my tools/pgkeep' --config '/etc/100%%.toml' --cluster main wal push %p"
        );
    }

    #[test]
    fn a_fresh_server_needs_everything_and_a_restart() {
        let fresh = [
            ("archive_mode", "off"),
            ("archive_command", "(disabled)"),
            ("archive_timeout", "0"),
            ("wal_level", "replica"),
        ];
        assert_eq!(
            names(&fresh),
            [("archive_command", false), ("archive_timeout", false), ("archive_mode", true)]
        );
    }

    #[test]
    fn a_server_that_is_set_up_needs_nothing() {
        for mode in ["on", "always"] {
            let done = [
                ("archive_mode", mode),
                ("archive_command", "x wal push %p"),
                ("archive_timeout", "60"),
                ("wal_level", "logical"),
            ];
            assert_eq!(names(&done), []);
        }
    }

    #[test]
    fn another_tool_that_archives_is_noticed() {
        let command = |text| other_archiver(&facts(&[("archive_command", text)]));
        assert!(command("pgbackrest archive-push %p").is_some());
        for ours in ["", "(disabled)", "/bin/true", "/usr/bin/pgkeep --config /x wal push %p"] {
            assert_eq!(command(ours), None, "{ours}");
        }
        let library =
            [("archive_library", "basic_archive"), ("archive_mode", "on"), ("wal_level", "replica")];
        assert!(other_archiver(&facts(&library)).is_some());
        assert_eq!(names(&library)[0], ("archive_library", false));
    }
}
