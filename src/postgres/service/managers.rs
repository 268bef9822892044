//! Cluster managers that start a server again on their own: found by what they leave in the data directory, and by
//! who is the server's parent.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::settings;
use super::running::{processes, running_server};
use crate::error::Result;

/// A manager that is at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherManager {
    pub name: &'static str,
    pub hint: String,
}

struct Known {
    name: &'static str,
    /// Words of its command line.
    program: &'static str,
    hint: &'static str,
}

const KNOWN: [Known; 4] = [
    Known {
        name: "Patroni",
        program: "patroni",
        hint: "run `patronictl pause --wait`, stop patroni on this host (systemctl stop patroni), and try again",
    },
    Known {
        name: "pg_auto_failover",
        program: "pg_autoctl",
        hint: "run `pg_autoctl enable maintenance`, then stop pg_autoctl on this host, and try again",
    },
    Known {
        name: "repmgr",
        program: "repmgrd",
        hint: "run `repmgr service pause`, then stop repmgrd on this host, and try again",
    },
    Known {
        name: "Stolon",
        program: "stolon-keeper",
        hint: "stop stolon-keeper on this host, and try again",
    },
];

/// The manager of this data directory's server, if one is running on this host.
pub fn other_manager(data_directory: &Path) -> Result<Option<OtherManager>> {
    let commands: Vec<(i32, Vec<u8>)> = processes()?
        .into_iter()
        .filter_map(|pid| Some((pid, std::fs::read(format!("/proc/{pid}/cmdline")).ok()?)))
        .collect();
    let parent = running_server(data_directory)?.and_then(|s| s.pid).and_then(parent_of);
    let leftovers = [("patroni.dynamic.json", "Patroni")];
    let found = KNOWN.iter().find(|known| {
        let mut runs = commands.iter().filter(|(_, command)| is_program(command, known.program));
        // A server that is some other process's child is none of this manager's business, unless its files say so.
        let parent_is = parent.is_some_and(|p| runs.clone().any(|(pid, _)| *pid == p));
        let mark = leftovers.iter().any(|(file, of)| *of == known.name && data_directory.join(file).exists());
        let mentions = runs.any(|(_, command)| known.name != "Patroni" && mentions(command, data_directory));
        parent_is || mentions || mark && commands.iter().any(|(_, c)| is_program(c, known.program))
    });
    Ok(found.map(|known| OtherManager { name: known.name, hint: known.hint.to_owned() }))
}

/// One of the first words (an interpreter may stand before) is this program's file.
fn is_program(command: &[u8], program: &str) -> bool {
    command.split(|b| *b == 0).take(3).any(|word| {
        let file = word.rsplit(|b| *b == b'/').next().unwrap_or_default();
        file == program.as_bytes()
    })
}

/// repmgrd and pg_autoctl are taken for ours unless their arguments, or the configuration file that these name,
/// say another directory.
fn mentions(command: &[u8], data_directory: &Path) -> bool {
    let after = |names: [&[u8]; 2]| {
        let mut words = command.split(|b| *b == 0);
        words.any(|w| names.contains(&w)).then(|| words.next()).flatten().map(OsStr::from_bytes)
    };
    let configured = || {
        let text = std::fs::read(Path::new(after([b"-f", b"--config-file"])?)).ok()?;
        settings::value(&String::from_utf8_lossy(&text), "data_directory").map(OsString::from)
    };
    let directory = after([b"-D", b"--pgdata"]).map(OsStr::to_owned).or_else(configured);
    directory.is_none_or(|directory| Path::new(&directory) == data_directory)
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field may hold spaces and parentheses; the parent is the second one after its end.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_known_by_its_program_also_behind_an_interpreter() {
        assert!(is_program(b"/usr/bin/python3\0/usr/bin/patroni\0/etc/patroni.yml\0", "patroni"));
        assert!(is_program(b"repmgrd\0", "repmgrd"));
        assert!(!is_program(b"vi\0/etc/patroni.yml\0", "patroni"));
        assert!(!is_program(b"", "patroni"));
    }

    #[test]
    fn a_manager_that_names_another_directory_is_not_ours() {
        let dir = Path::new("/srv/pg");
        assert!(mentions(b"pg_autoctl\0run\0", dir));
        assert!(mentions(b"pg_autoctl\0run\0--pgdata\0/srv/pg\0", dir));
        assert!(!mentions(b"pg_autoctl\0run\0--pgdata\0/srv/other\0", dir));
        let conf = tempfile::NamedTempFile::new().unwrap();
        let command = format!("repmgrd\0-f\0{}\0-d\0", conf.path().display());
        for (directory, ours) in [("/srv/pg", true), ("/srv/other", false)] {
            std::fs::write(conf.path(), format!("node_id=1\ndata_directory='{directory}'\n")).unwrap();
            assert_eq!(mentions(command.as_bytes(), dir), ours, "{directory}");
        }
    }
}
