//! Heads of one segment that contradict each other: two servers of one identity and timeline write it, a clone that was
//! started with production's configuration, or a machine that was set back to a snapshot.
//!
//! One server's heads agree wherever they overlap: below the flush position WAL never changes, also not by a crash, and a
//! promoted standby goes on under another timeline's names. Where they do not, a restore would take one or the other by how
//! far each reaches, and end where they part. So every head of a segment that is there only as heads is compared with what
//! a reader makes of it, those that the reader would pass over, too: they may be the right ones.
//!
//! Not compared: heads of a segment that is there as a whole. No restore reads them, and had another server finished
//! the segment, production's own push of it fails and is an alert.

use super::finding::Kind;
use super::records::{About, Wrong};
use super::run::Run;
use super::wal::{Content, WalHoldings};
use crate::error::{Code, Result};
use crate::model::SegmentName;
use crate::repository::wal_listing::HeadObject;
use crate::repository::wal_object::{WalObjects, blocking, contradictions};

impl Run<'_> {
    pub(super) async fn compare_heads(&mut self) -> Result<()> {
        let cx = self.cx;
        if !cx.scope.has_wal() {
            return Ok(());
        }
        let objects = WalObjects::new(std::slice::from_ref(cx.repository), cx.keys.data.as_deref().cloned());
        for wal in &self.wal {
            for (segment, heads) in contested(wal) {
                cx.cancelled()?;
                if !heads.iter().flat_map(|head| &head.copies).all(|copy| cx.keys.opens_data(&copy.key)) {
                    continue;
                }
                let (objects, known) = (objects.clone(), heads.clone());
                let found = match blocking(move || contradictions(&objects, &known)).await {
                    Ok(found) => found,
                    Err(e) if matches!(e.code(), Code::StoreUnavailable | Code::StoreDenied | Code::Io) => {
                        return Err(e);
                    }
                    // A head on the reader's way is damaged, which is told when that object is read.
                    Err(_) => continue,
                };
                for range in found {
                    let (from, to, digest) = (range.from, range.to, range.digest);
                    let content = Content::Head { segment, from, to, digest };
                    let copies = content.copies(&wal.listing);
                    self.wrong.push(Wrong {
                        kind: Kind::Conflict,
                        key: copies.first().map_or_else(String::new, |copy| copy.key.clone()),
                        about: About::Wal(wal.root.system, content),
                        what: format!(
                            "its bytes {from} to {to} contradict another head of {segment}: two servers write it"
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Segments that are there only as heads, of which some overlap.
fn contested(wal: &WalHoldings) -> Vec<(SegmentName, Vec<HeadObject>)> {
    let listing = &wal.listing;
    let unfinished = listing.all_headed().filter(|segment| !listing.has_segment(*segment));
    let heads = unfinished.map(|segment| (segment, listing.heads(segment).to_vec()));
    heads.filter(|(_, heads)| overlap(heads)).collect()
}

fn overlap(heads: &[HeadObject]) -> bool {
    let mut ranges: Vec<(u32, u32)> = heads.iter().map(|head| (head.from, head.to)).collect();
    ranges.sort_unstable();
    let mut end = 0;
    ranges.into_iter().any(|(from, to)| {
        let overlaps = from < end;
        end = end.max(to);
        overlaps
    })
}
