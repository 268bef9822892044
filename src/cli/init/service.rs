//! The agent's service, where the package (or a person) has installed its unit. It sees the file system read-only, so a
//! repository in a directory needs a line in a drop-in; and it wants to be started once there is a configuration.

use std::path::{Path, PathBuf};

use super::places::Places;
use crate::cli::args::DEFAULT_CONFIG;
use crate::config::Config;
use crate::error::Result;

const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const UNIT: &str = "pgkeep.service";
const DROP_IN: &str = "/etc/systemd/system/pgkeep.service.d/repositories.conf";
/// The unit itself lets the agent write below this one.
const USUAL: &str = "/srv/pgkeep";

/// What a person does next.
pub struct Next {
    /// The unit is there, and this is the configuration that it reads.
    installed: bool,
    /// Directories that it may not write, with a drop-in that is there already and is not changed.
    missing: Vec<PathBuf>,
}

impl Next {
    /// As root the drop-in is made where none is.
    pub fn prepare(config: &Config, places: &mut Places) -> Result<Self> {
        let installed = config.path == Path::new(DEFAULT_CONFIG)
            && UNITS.iter().any(|place| Path::new(place).join(UNIT).exists());
        if !installed {
            return Ok(Self { installed, missing: Vec::new() });
        }
        let there = std::fs::read_to_string(DROP_IN).ok();
        let mut missing = unwritable(config, there.as_deref().unwrap_or_default());
        if there.is_none() && !missing.is_empty() && nix::unistd::geteuid().is_root() {
            places.drop_in(Path::new(DROP_IN), &drop_in(&missing))?;
            missing.clear();
        }
        Ok(Self { installed, missing })
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.missing.is_empty() {
            text = format!(
                "The agent's service may not write there yet. In {DROP_IN}:\n{}",
                drop_in(&self.missing)
            );
        }
        text + if self.installed {
            "Next, as root: `systemctl daemon-reload && systemctl restart pgkeep` starts the agent; `pgkeep check` proves \
             the whole path."
        } else {
            "Next: `pgkeep check` proves the whole path."
        }
    }
}

/// Repositories in directories that neither the unit nor the drop-in names.
fn unwritable(config: &Config, drop_in: &str) -> Vec<PathBuf> {
    let named = |root: &Path| {
        root.starts_with(USUAL)
            || drop_in.lines().any(|there| {
                let paths = there.trim().strip_prefix("ReadWritePaths=").unwrap_or_default();
                there == line(root)
                    || paths.split_whitespace().any(|path| root.starts_with(path.trim_start_matches('-')))
            })
    };
    let roots = config.repositories.iter().filter_map(|repository| repository.store.directory());
    roots.filter(|root| !named(root)).collect()
}

fn drop_in(roots: &[PathBuf]) -> String {
    let lines: Vec<String> = roots.iter().map(|root| line(root)).collect();
    format!("# Repositories in directories that the agent may write.\n[Service]\n{}\n", lines.join("\n"))
}

/// `-`: a disk that is not mounted is no reason not to start.
fn line(root: &Path) -> String {
    let path = root.display().to_string().replace('%', "%%");
    let quote = if path.contains(' ') { "\"" } else { "" };
    format!("ReadWritePaths={quote}-{path}{quote}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(urls: &[&str]) -> Config {
        let mut text =
            "encryption = \"none\"\n[cluster.main]\nconnection = \"host=/run user=u dbname=d\"\n".to_owned();
        for (number, url) in urls.iter().enumerate() {
            text += &format!("[[repository]]\nname = \"r{number}\"\nurl = \"{url}\"\n");
        }
        Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), &text).unwrap()
    }

    #[test]
    fn only_directories_that_the_service_may_not_write_need_a_line() {
        let config =
            config(&["file:///srv/pgkeep/a", "file:///mnt/b", "s3://bucket/prefix", "file:///mnt/c"]);
        let all = unwritable(&config, "");
        assert_eq!(all, [Path::new("/mnt/b"), Path::new("/mnt/c")]);
        assert_eq!(unwritable(&config, "[Service]\nReadWritePaths=-/mnt/b\n"), [Path::new("/mnt/c")]);
        assert_eq!(
            unwritable(&config, &drop_in(&all)),
            Vec::<PathBuf>::new(),
            "what is written is understood"
        );
        let odd = [PathBuf::from("/mnt/100% of my disk")];
        assert!(drop_in(&odd).contains("\nReadWritePaths=\"-/mnt/100%% of my disk\"\n"));
        assert_eq!(
            unwritable(&config, "ReadWritePaths=/mnt"),
            Vec::<PathBuf>::new(),
            "all below is writable"
        );
    }
}
