//! Gathers what `window` shows: the listings of all repositories together, the histories, and the last commit of each
//! range where WAL can be opened. Reads the last segments of a range only.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use async_trait::async_trait;

use super::catalogs::{self, Holdings};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{PgMajor, SegmentSize, SystemId, TimelineId, WalFileName};
use crate::postgres::history::History;
use crate::repository::continuity::{self, Ending};
use crate::repository::documents::SystemDocument;
use crate::repository::keys::wal::WalRoot;
use crate::repository::open;
use crate::repository::signature::Verdict;
use crate::repository::wal_listing::{WalListing, WalObject};
use crate::repository::wal_object::{self, WalObjects};
use crate::repository::window::{BackupPoint, Window, window};
use crate::restore::scan::{self, WalSource, WayFile};

/// One system identifier's window.
pub struct SystemWindow {
    pub system: SystemId,
    pub major: PgMajor,
    /// True where WAL could be opened, so that times of commits are exact.
    pub commit_times: bool,
    pub window: Window,
    pub notes: Vec<String>,
}

/// Of every listed system identifier, in the order of their identifiers.
pub async fn windows(config: &Config, holdings: &Holdings) -> Result<Vec<SystemWindow>> {
    let mut systems: BTreeMap<SystemId, SystemDocument> = BTreeMap::new();
    for repository in &holdings.opened {
        for document in open::systems(repository, &holdings.cluster).await? {
            systems.insert(document.system_identifier, document);
        }
    }
    let (identities, readable) = catalogs::keys(config)?;
    let objects = WalObjects::new(&holdings.opened, identities);
    let mut windows = Vec::new();
    for document in systems.into_values() {
        windows.push(one(holdings, &document, &objects, readable).await?);
    }
    Ok(windows)
}

async fn one(
    holdings: &Holdings,
    document: &SystemDocument,
    objects: &WalObjects,
    readable: bool,
) -> Result<SystemWindow> {
    let (system, size) = (document.system_identifier, document.wal_segment_bytes);
    let root = WalRoot::new(&holdings.cluster, system);
    let mut listing = WalListing::default();
    for repository in &holdings.opened {
        listing.merge(WalListing::load(&repository.name, &*repository.storage, &root).await?);
    }
    let mut notes = Vec::new();
    let mut histories = BTreeMap::new();
    if readable {
        match wal_object::settle_heads(objects, &mut listing).await {
            Ok(said) => notes.extend(said),
            Err(error) => notes.push(format!("the heads of an unfinished segment cannot be read: {error}")),
        }
        for (timeline, contents) in listing.histories() {
            match history(objects, timeline, contents).await {
                Ok(history) => _ = histories.insert(timeline, history),
                Err(error) => notes.push(format!("{}.history cannot be read: {error}", timeline.hex())),
            }
        }
    }
    let backups = points(holdings, system);
    let mut found = window(&listing, size, &backups, &histories);
    if readable {
        let archive = Archive { objects, listing: &listing, size };
        for timeline in &mut found.timelines {
            let history = histories
                .get(&timeline.timeline)
                .cloned()
                .unwrap_or_else(|| History::without_ancestors(timeline.timeline));
            for range in &mut timeline.ranges {
                let Some(backup) = backups.iter().find(|b| b.id == range.from_backup) else { continue };
                let reach = continuity::reach(&listing, size, &history.path(), backup.start_lsn);
                match scan::tail(&archive, &scan::way(&reach, size), size, system).await {
                    Ok(tail) => range.last_commit = tail.and_then(|t| t.last_commit).map(|c| c.at),
                    Err(error) => notes.push(format!("the last WAL cannot be read: {error}")),
                }
            }
        }
    }
    Ok(SystemWindow { system, major: document.pg_major, commit_times: readable, window: found, notes })
}

/// Backups that may be chosen: trusted and undamaged.
fn points(holdings: &Holdings, system: SystemId) -> Vec<BackupPoint> {
    let good = holdings.backups.iter().filter(|held| {
        held.trust == Verdict::Trusted && !held.record.is_damaged() && held.record.system_identifier == system
    });
    let point = good.filter_map(|held| {
        let base = held.record.base.as_ref()?;
        Some(BackupPoint {
            id: held.record.id.clone(),
            timeline: base.timeline,
            start_lsn: base.start_lsn,
            stop_lsn: base.stop_lsn,
            stop_time: base.stop_time,
        })
    });
    point.collect()
}

async fn history(objects: &WalObjects, timeline: TimelineId, contents: &[WalObject]) -> Result<History> {
    let [content] = contents else {
        return Err(Error::new(Code::WalConflict, format!("it has {} contents", contents.len())));
    };
    let (bytes, _) = objects.bytes(&content.copies, content.digest).await?;
    History::parse(timeline, &bytes)
}

/// Plain bytes of the archive's files.
struct Archive<'a> {
    objects: &'a WalObjects,
    listing: &'a WalListing,
    size: SegmentSize,
}

impl Archive<'_> {
    /// The file's one sound content; of several, which one is right cannot be told from a listing.
    async fn file(&self, name: WalFileName) -> Result<Vec<u8>> {
        let mut sound = self.listing.sound(name);
        let (first, second) = (sound.next(), sound.next());
        let content = match (first, second) {
            (Some(content), None) => content,
            (Some(_), Some(_)) => {
                return Err(Error::new(Code::WalConflict, "it has several contents").at(name));
            }
            (None, _) => return Err(Error::new(Code::ObjectMissing, "it is not in the archive").at(name)),
        };
        Ok(self.objects.bytes(&content.copies, content.digest).await?.0)
    }

    async fn heads(&self, segment: crate::model::SegmentName) -> Result<Vec<u8>> {
        let (objects, heads, size) = (self.objects.clone(), self.listing.heads(segment).to_vec(), self.size);
        let join = move || {
            let temporary = |e| Error::new(Code::Io, "cannot use a temporary file").because(e);
            let mut file = tempfile::tempfile().map_err(temporary)?;
            wal_object::join_heads(&objects, &heads, size, &file)?;
            file.rewind().map_err(temporary)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(temporary)?;
            Ok(bytes)
        };
        tokio::task::spawn_blocking(join).await.map_err(|e| Error::internal("a reader died").because(e))?
    }
}

#[async_trait]
impl WalSource for Archive<'_> {
    async fn read(&self, file: &WayFile) -> Result<Vec<u8>> {
        let until = match &file.ending {
            None => return self.file(WalFileName::Segment(file.segment)).await,
            Some(Ending::Heads { .. }) => return self.heads(file.segment).await,
            Some(ending) => usize::try_from(ending.until()).unwrap_or(usize::MAX),
        };
        let partial = matches!(file.ending, Some(Ending::Partial { .. }));
        let name =
            if partial { WalFileName::Partial(file.segment) } else { WalFileName::Segment(file.segment) };
        let mut bytes = self.file(name).await?;
        // What follows the switch position belongs to another life of the timeline.
        bytes.iter_mut().skip(until).for_each(|byte| *byte = 0);
        Ok(bytes)
    }
}
