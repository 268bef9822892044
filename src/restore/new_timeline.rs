//! The first files of a timeline that a promotion in place made: they must be in every required repository before success
//! is reported. Until then the loss of this host would lead back to the old timeline.

use std::path::Path;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::postgres::session::Session;
use crate::repository::Repository;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::WalListing;
use crate::util::clock::Deadline;
use crate::util::progress::Progress;

/// How long the archive may take to hold them.
const ARCHIVED_WITHIN: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A promoted cluster and its archive.
pub struct NewTimeline<'a> {
    pub data_directory: &'a Path,
    pub repositories: &'a [Repository],
    pub root: &'a WalRoot,
    pub size: SegmentSize,
    pub timeline: TimelineId,
    /// Where it begins.
    pub fork: Lsn,
    pub progress: &'a dyn Progress,
}

impl NewTimeline<'_> {
    /// `pg_switch_wal()` at once, then waits for the history file and the switched segment. A note where nothing is
    /// archived on purpose.
    pub async fn archive(&self, session: Option<Session>) -> Result<Option<String>> {
        let Some(session) = session else {
            return Err(self.not_archived("no role is let in that could switch WAL"));
        };
        if session.setting("archive_mode").await?.as_deref() == Some("off") {
            return Ok(Some(
                "archive_mode is off: the new timeline is not archived, and this cluster has no recovery from now on"
                    .to_owned(),
            ));
        }
        self.progress.phase("archiving the new timeline");
        session.switch_wal().await?;
        let deadline = Deadline::after(ARCHIVED_WITHIN);
        loop {
            match self.missing().await? {
                None => return Ok(None),
                Some(what) if deadline.passed() => {
                    return Err(self.not_archived(&format!("{what} has not come within 10 minutes")));
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn missing(&self) -> Result<Option<String>> {
        let first = SegmentName::containing(self.timeline, self.fork, self.size);
        for repository in self.repositories.iter().filter(|r| r.required) {
            for file in [WalFileName::History(self.timeline), WalFileName::Segment(first)] {
                let found =
                    WalListing::load_file(&repository.name, &*repository.storage, self.root, file).await?;
                if found.objects(file).is_empty() {
                    return Ok(Some(format!("{file} in {}", repository.name)));
                }
            }
        }
        Ok(None)
    }

    fn not_archived(&self, why: &str) -> Error {
        let what = format!("the cluster is open, but its new timeline is not archived: {why}");
        Error::new(Code::NotReady, what).at(self.data_directory.display()).hint(
            "look at archive_command and pg_stat_archiver, run SELECT pg_switch_wal(), and check with `pgkeep window` that \
             the new timeline is there: until then the loss of this host loses what is written now",
        )
    }
}
