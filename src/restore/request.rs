//! What was asked for, and whether it makes sense in itself. Nothing here looks at a disk or a store.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::model::{BackupId, Inclusion, Target, TargetTimeline};

/// Where the cluster is restored to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The cluster's own data directory; what is there is moved aside.
    InPlace,
    /// A side instance in a directory of its own, which must not exist or be empty.
    Directory(PathBuf),
}

/// What PostgreSQL does when the target is reached (`recovery_target_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Open for writing, on a new timeline.
    Promote,
    /// Stay in recovery, open for reading, until `restore promote` or `restore discard`.
    Pause,
    /// Stop the server at the target.
    Shutdown,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
        }
    }
}

/// `restore --to …`, parsed.
// One flag per option of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct Request {
    pub target: Target,
    /// The time carried no zone and was read as UTC.
    pub zone_assumed: bool,
    pub inclusion: Inclusion,
    pub timeline: TargetTimeline,
    /// None: the newest that fits.
    pub backup: Option<BackupId>,
    pub place: Place,
    pub action: Action,
    /// Tablespaces that go elsewhere than where they were, by oid.
    pub map: BTreeMap<u32, PathBuf>,
    /// Delete what is in the way instead of moving it aside.
    pub overwrite: bool,
    /// Make a standby that follows its primary, instead of ending at a target.
    pub standby: bool,
    /// Prepare everything, and let somebody else start the server.
    pub no_start: bool,
    /// Of a side instance.
    pub port: Option<u16>,
    pub socket_dir: Option<PathBuf>,
}

impl Request {
    /// Refuses combinations that mean nothing, before anything is read.
    pub fn check(&self, inclusion_given: bool) -> Result<()> {
        if inclusion_given && !self.target.has_inclusion() {
            return Err(usage("`--before` and `--after` mean nothing for this target")
                .at(format!("--to {}", self.target))
                .hint("they are for times, xid: and lsn: only"));
        }
        let side = matches!(self.place, Place::Directory(_));
        if !side && (self.port.is_some() || self.socket_dir.is_some()) {
            return Err(usage("`--port` and `--socket-dir` are for a side instance").hint(
                "a restore in place keeps its own settings; leave them out, or add `--target-dir DIR`",
            ));
        }
        if side && self.overwrite {
            return Err(usage("`--overwrite` is for a restore in place")
                .hint("give `--target-dir` a directory that is empty or does not exist"));
        }
        self.check_standby()?;
        if let Place::Directory(dir) = &self.place {
            plain_absolute("--target-dir", dir)?;
        }
        if let Some(dir) = &self.socket_dir {
            plain_absolute("--socket-dir", dir)?;
        }
        self.map.values().try_for_each(|dir| plain_absolute("--map", dir))
    }

    fn check_standby(&self) -> Result<()> {
        if !self.standby {
            return Ok(());
        }
        if self.place != Place::InPlace {
            return Err(usage("a standby is restored in place").at("--standby --target-dir").hint(
                "it follows every CREATE TABLESPACE of its primary to the same path, so it needs a host of its own; there, \
                 set data_directory and leave out --target-dir",
            ));
        }
        if self.target != Target::Latest {
            return Err(usage("a standby follows its primary and ends at no target")
                .at(format!("--to {} --standby", self.target))
                .hint("use `--to latest --standby`, or leave out `--standby`"));
        }
        if self.action != Action::Promote {
            return Err(usage("`--action` means nothing for a standby").hint("leave out `--action`"));
        }
        if let TargetTimeline::Id(id) = self.timeline {
            return Err(usage("a standby follows its primary's timeline")
                .at(format!("--timeline {id}"))
                .hint("leave out `--timeline`"));
        }
        Ok(())
    }
}

fn usage(what: &str) -> Error {
    Error::new(Code::Usage, what)
}

/// A path that means the same from every working directory, and that can be quoted into settings and line-based
/// files of PostgreSQL (`tablespace_map` escapes line ends, settings do not).
fn plain_absolute(option: &str, path: &Path) -> Result<()> {
    let text = path.to_str();
    let plain = text.is_some_and(|t| !t.contains(['\n', '\r', '\0']));
    let absolute = path.is_absolute()
        && !path.components().any(|c| matches!(c, Component::ParentDir | Component::CurDir));
    if plain && absolute {
        return Ok(());
    }
    Err(usage(&format!("`{option}` needs an absolute path without `..` and line ends"))
        .at(path.display())
        .hint("write the path from the root on, such as /srv/restore"))
}

/// `OID=DIR`.
pub fn parse_map(text: &str) -> Result<(u32, PathBuf)> {
    let parsed = text.split_once('=').and_then(|(oid, dir)| Some((oid.parse::<u32>().ok()?, dir)));
    match parsed {
        Some((oid, dir)) if oid > 0 && !dir.is_empty() => Ok((oid, PathBuf::from(dir))),
        _ => Err(usage("`--map` needs OID=DIR")
            .at(text)
            .hint("the tablespaces' oids are in `pgkeep show ID`; for example --map 16385=/srv/fast")),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::{Lsn, TimelineId};

    /// A plain in-place restore to `target`.
    pub fn request(target: Target) -> Request {
        Request {
            target,
            zone_assumed: false,
            inclusion: Inclusion::After,
            timeline: TargetTimeline::Highest,
            backup: None,
            place: Place::InPlace,
            action: Action::Promote,
            map: BTreeMap::new(),
            overwrite: false,
            standby: false,
            no_start: false,
            port: None,
            socket_dir: None,
        }
    }

    fn refused(request: &Request, inclusion_given: bool) {
        let error = request.check(inclusion_given).unwrap_err();
        assert_eq!(error.code(), Code::Usage);
        assert!(error.hint_text().is_some(), "{error:?}");
    }

    #[test]
    fn before_and_after_are_refused_where_they_mean_nothing() {
        for target in [Target::Latest, Target::Backup, Target::Name("x".into())] {
            refused(&request(target), true);
        }
        request(Target::Lsn(Lsn(7))).check(true).unwrap();
    }

    #[test]
    fn options_of_the_other_mode_are_refused() {
        refused(&Request { port: Some(6000), ..request(Target::Latest) }, false);
        let side = Request { place: Place::Directory("/srv/x".into()), ..request(Target::Latest) };
        side.check(false).unwrap();
        refused(&Request { overwrite: true, ..side }, false);
    }

    #[test]
    fn a_standby_takes_no_target_action_or_timeline() {
        let standby = Request { standby: true, ..request(Target::Latest) };
        standby.check(false).unwrap();
        refused(&Request { target: Target::Backup, ..standby.clone() }, false);
        refused(&Request { place: Place::Directory("/srv/x".into()), ..standby.clone() }, false);
        refused(&Request { action: Action::Pause, ..standby.clone() }, false);
        refused(&Request { timeline: TargetTimeline::Id(TimelineId(2)), ..standby }, false);
    }

    #[test]
    fn a_path_that_depends_on_where_one_stands_is_refused() {
        for dir in ["x", "./x", "/srv/../etc", "/srv/a\nb", ""] {
            refused(&Request { place: Place::Directory(dir.into()), ..request(Target::Latest) }, false);
        }
    }

    #[test]
    fn a_mapping_is_an_oid_and_a_directory() {
        assert_eq!(parse_map("16385=/srv/a=b").unwrap(), (16385, PathBuf::from("/srv/a=b")));
        for text in ["", "16385", "16385=", "x=/srv", "0=/srv", "-1=/srv"] {
            assert!(parse_map(text).is_err(), "{text:?}");
        }
    }
}
