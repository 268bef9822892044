//! Options that several kinds of restore have, with one meaning and one text.

use clap::Args;

use crate::error::Result;
use crate::model::{Inclusion, TargetTimeline, TimelineId};
use crate::repository::signature::PublicHostKey;

// No doc comment on these: clap would take it for the command's own description.
#[derive(Debug, Args)]
pub(super) struct Moment {
    /// Keep the target itself (the default); for a time, xid: and lsn:.
    #[arg(long, conflicts_with = "before")]
    after: bool,
    /// Stop just before the target; for a time, xid: and lsn:.
    #[arg(long)]
    before: bool,
    /// Along this timeline instead of the newest.
    #[arg(long, value_name = "N")]
    timeline: Option<u32>,
}

impl Moment {
    pub(super) fn inclusion(&self) -> Inclusion {
        if self.before { Inclusion::Before } else { Inclusion::After }
    }
    /// Whether the inclusion was asked for.
    pub(super) fn is_explicit(&self) -> bool {
        self.before || self.after
    }
    pub(super) fn timeline(&self) -> TargetTimeline {
        self.timeline.map_or(TargetTimeline::Highest, |n| TargetTimeline::Id(TimelineId(n)))
    }
}

#[derive(Debug, Args)]
pub(super) struct Consent {
    /// Believe backups signed with this key (RW…), for this once.
    #[arg(long, value_name = "KEY")]
    trust: Vec<String>,
    /// Show the plan and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

impl Consent {
    pub(super) fn trusted(&self) -> Result<Vec<PublicHostKey>> {
        self.trust.iter().map(|key| PublicHostKey::parse(key)).collect()
    }
}
