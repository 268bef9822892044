//! The plan of a restore that may be one of a part.

use super::{Part, Parts, Room, choose};
use crate::error::{Code, Error, Result};
use crate::repository::index::BackupIndex;
use crate::restore::plan::{self, Found, RestorePlan};
use crate::restore::request::Request;

/// The plan of the whole where there is room for it, or where only the whole will do; else that of as much as fits. Where
/// nothing fits it is what the whole comes to.
pub(in crate::restore) fn plan(
    request: &Request,
    parts: Option<Parts>,
    index: &BackupIndex,
    found: Found<'_>,
) -> Result<(RestorePlan, Option<Part>)> {
    let whole = plan::make(request, &found);
    let Some(parts) = parts.filter(|parts| is_too_big(&whole, parts.reserve)) else {
        return Ok((whole?, None));
    };
    let base = found.record.base()?;
    let home = &found.place.data_directory;
    let disk = found.place.disks.iter().find(|disk| disk.path == *home);
    let room = Room {
        available: disk.ok_or_else(|| Error::internal("a data directory on no disk"))?.available,
        wal: found.recovery.segments() * base.wal_segment_bytes.bytes(),
        segment: base.wal_segment_bytes,
        copies: &found.located.copies,
    };
    let Some(part) = choose(index, room, parts) else { return Ok((whole?, None)) };
    let mut place = found.place.clone();
    place.member_bytes = part.member_bytes();
    let found = Found { place: &place, ..found };
    Ok((plan::make(request, &found)?, Some(part)))
}

fn is_too_big(whole: &Result<RestorePlan>, reserve: u64) -> bool {
    match whole {
        Ok(plan) => plan.space.iter().any(|need| need.needed.saturating_add(reserve) > need.available),
        Err(e) => e.code() == Code::NoSpace,
    }
}
