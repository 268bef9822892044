//! A disk that fails at the n-th call, and a death in the middle of one: `strace` injects both into the real program.

use std::path::{Path, PathBuf};

use super::pgkeep::Pgkeep;
use super::root::Root;

/// What happens instead of, or during, a system call.
pub struct Injection {
    wrapper: Vec<String>,
    log: PathBuf,
}

impl Injection {
    /// For example `of(&root, "fsync", "error=EIO:when=3")`. Calls are counted in each thread by itself.
    pub fn of(root: &Root, syscalls: &str, what: &str) -> Self {
        Self::limited(root, syscalls, what, None)
    }
    /// Only calls on this path.
    pub fn on_path(root: &Root, syscalls: &str, what: &str, path: &Path) -> Self {
        Self::limited(root, syscalls, what, Some(path))
    }
    fn limited(root: &Root, syscalls: &str, what: &str, path: Option<&Path>) -> Self {
        let log = root.file("strace.log", 0o666, "");
        let mut words = vec!["strace", "-f", "-q", "-o", log.to_str().unwrap(), "-e"];
        let (trace, inject) = (format!("trace={syscalls}"), format!("inject={syscalls}:{what}"));
        words.extend([trace.as_str(), "-e", &inject]);
        if let Some(path) = path {
            words.extend(["-P", path.to_str().unwrap()]);
        }
        let wrapper = words.into_iter().map(str::to_owned).collect();
        Self { wrapper, log }
    }
    /// The program with its disk.
    pub fn wrap(&self, pgkeep: &Pgkeep) -> Pgkeep {
        pgkeep.clone().under(&self.wrapper)
    }
    /// How often it happened.
    pub fn count(&self) -> usize {
        std::fs::read_to_string(&self.log).unwrap().matches("(INJECTED)").count()
    }
}
