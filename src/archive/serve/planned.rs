//! What a plan supplies: its segments with their patches, and history files.

use std::path::PathBuf;

use async_trait::async_trait;

use super::Settings;
use crate::archive::fetch::planned::{self, Wanted};
use crate::archive::prefetch::Supply;
use crate::archive::source::Source;
use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, WalFileName};
use crate::repository::recovery_plan::RecoveryPlan;
use crate::repository::wal_listing::WalListing;

/// What the downloads share.
pub(super) struct Planned {
    plan: RecoveryPlan,
    listing: WalListing,
    source: Source,
    mode: u32,
}

impl Planned {
    pub(super) fn new(settings: Settings, mode: u32) -> Self {
        let Settings { plan, listing, source, .. } = settings;
        Self { plan, listing, source, mode }
    }
    /// The plan's first segment.
    pub(super) fn first(&self) -> Option<SegmentName> {
        self.plan.timelines.iter().find_map(|t| t.first)
    }
}

#[async_trait]
impl Supply for Planned {
    type Got = ();

    fn following(&self, segment: SegmentName) -> Option<SegmentName> {
        self.plan.following(segment)
    }

    async fn receive(&self, file: WalFileName, destination: PathBuf) -> Result<()> {
        let Some(wanted) = Wanted::of(self.plan.decide(file)) else {
            return Err(Error::new(Code::Refused, format!("{file} is not in the plan of this recovery")));
        };
        let needed = wanted.file().unwrap_or(file);
        let listed = match needed {
            WalFileName::Segment(s) => !self.listing.heads(s).is_empty() || self.listing.has_segment(s),
            other => !self.listing.objects(other).is_empty(),
        };
        let later = if listed { None } else { Some(self.source.find(needed).await.listing) };
        let listing = later.as_ref().unwrap_or(&self.listing);
        planned::receive(&self.source, &self.plan, listing, &wanted, &destination, self.mode)
            .await?
            .hand_over()
    }
}
