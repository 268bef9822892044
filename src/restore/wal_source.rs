//! The plain bytes of a recovery's files, from the archive and from a `pg_wal` that holds what it lacks.

use async_trait::async_trait;

use super::gather::Wal;
use super::local_wal::{self, LocalFile};
use super::scan::{WalSource, WayFile};
use crate::archive::fork::Chosen;
use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, SegmentSize, ShortDigest, WalFileName};
use crate::repository::continuity::{Ending, HeadRange};
use crate::repository::wal_listing::{StoredCopy, WalObject};

pub struct Files<'a> {
    pub wal: &'a Wal,
    pub local: &'a [LocalFile],
    /// Which content counts, where a name has several.
    pub chosen: &'a Chosen,
    pub size: SegmentSize,
}

#[async_trait]
impl WalSource for Files<'_> {
    async fn read(&self, file: &WayFile) -> Result<Vec<u8>> {
        let name = match &file.ending {
            None | Some(Ending::Truncated { .. }) => WalFileName::Segment(file.segment),
            Some(Ending::Partial { .. }) => WalFileName::Partial(file.segment),
            Some(Ending::Heads { heads, .. }) => return self.heads(file.segment, heads).await,
        };
        let content = self.content(name)?;
        let mut bytes = self.copies(&content.copies, content.digest).await?;
        if let Some(ending) = &file.ending {
            // What follows the switch position belongs to another life of the timeline.
            let until = usize::try_from(ending.until()).unwrap_or(usize::MAX);
            bytes.iter_mut().skip(until).for_each(|byte| *byte = 0);
        }
        Ok(bytes)
    }
}

impl Files<'_> {
    fn content(&self, name: WalFileName) -> Result<&WalObject> {
        let missing = || Error::new(Code::ObjectMissing, "the file has left the archive meanwhile").at(name);
        if let Some(digest) = self.chosen.get(&name) {
            return self.wal.listing.object(name, *digest).ok_or_else(missing);
        }
        let mut sound = self.wal.listing.sound(name);
        match (sound.next(), sound.next()) {
            (Some(content), None) => Ok(content),
            (Some(_), Some(_)) => {
                Err(Error::new(Code::WalConflict, "the archive holds several contents of this file").at(name))
            }
            (None, _) => Err(missing()),
        }
    }

    async fn copies(&self, copies: &[StoredCopy], digest: ShortDigest) -> Result<Vec<u8>> {
        if let Some(copy) = copies.iter().find(|c| local_wal::is_local(c)) {
            let file = local_wal::find(self.local, copy, &self.wal.root)?.clone();
            return tokio::task::spawn_blocking(move || file.read())
                .await
                .map_err(|e| Error::internal("a reader died").because(e))?;
        }
        Ok(self.wal.objects.bytes(copies, digest).await?.0)
    }

    /// Joined and zero-padded. Heads that contradict each other end the join; the plan was made with that known.
    async fn heads(&self, segment: SegmentName, heads: &[HeadRange]) -> Result<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::new();
        for range in heads {
            let object =
                self.wal.listing.heads(segment).iter().find(|h| HeadRange::from(*h) == *range).ok_or_else(
                    || Error::new(Code::ObjectMissing, "a head has left the archive").at(segment),
                )?;
            let head = self.copies(&object.copies, object.digest).await?;
            let from = usize::try_from(range.from).unwrap_or(usize::MAX);
            let known = bytes.len().saturating_sub(from).min(head.len());
            if from > bytes.len() || bytes[from..from + known] != head[..known] {
                break;
            }
            bytes.extend_from_slice(&head[known..]);
        }
        bytes.resize(usize::try_from(self.size.bytes()).unwrap_or(usize::MAX), 0);
        Ok(bytes)
    }
}
