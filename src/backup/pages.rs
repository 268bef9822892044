//! Page checksums while reading.
//!
//! A page that fails may just be being written by PostgreSQL: it is read again, several times with small pauses. One
//! that stays bad is kept as a [`Suspect`] with its LSN: if that lies between the backup's start and stop, WAL holds
//! a full image of it and replay repairs it; else it is damage, and the backup says so.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::model::Lsn;
use crate::postgres::RelationFile;
use crate::postgres::checksum::{BLOCKS_PER_FILE, PAGE_BYTES, PageState, verify_page};
use crate::repository::index::MemberName;
use crate::repository::record::PageErrors;

const PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
];
/// After so many bad pages of one file nobody believes in torn reads any more: no more pauses.
const PATIENT_PAGES: usize = 32;

/// A page whose checksum failed and stayed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    /// Counted in the file.
    pub(super) block: u32,
    pub(super) lsn: Lsn,
}

/// Checks the pages of one relation file.
pub(super) struct PageCheck {
    /// The first block of the file, counted in the relation.
    first_block: u32,
    pub(super) suspects: Vec<Suspect>,
}

impl PageCheck {
    /// None for a file whose blocks cannot be counted (beyond PostgreSQL's largest relation).
    pub(super) fn of(relation: &RelationFile) -> Option<Self> {
        let first_block = relation.segment.checked_mul(BLOCKS_PER_FILE)?;
        Some(Self { first_block, suspects: Vec::new() })
    }

    /// Checks the whole pages of `bytes`, which were read at `offset` (a multiple of the page's size). A page that is
    /// good at a later reading replaces the one in `bytes`.
    pub(super) fn check(&mut self, file: &File, offset: u64, bytes: &mut [u8]) {
        let (pages, _) = bytes.as_chunks_mut::<PAGE_BYTES>();
        let first = u32::try_from(offset / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        for (index, page) in pages.iter_mut().enumerate() {
            let block = first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
            let numbered = self.first_block.saturating_add(block);
            let state = verify_page(page, numbered, true);
            if state.is_bad()
                && let Some(lsn) = self.again(file, block, numbered, page, state)
            {
                self.suspects.push(Suspect { block, lsn });
            }
        }
    }

    /// Reads the page again until it is good; its LSN if it never is.
    fn again(
        &self,
        file: &File,
        block: u32,
        numbered: u32,
        page: &mut [u8; PAGE_BYTES],
        first: PageState,
    ) -> Option<Lsn> {
        let mut state = first;
        for pause in PAUSES {
            if self.suspects.len() < PATIENT_PAGES {
                std::thread::sleep(pause);
            }
            let mut fresh = [0; PAGE_BYTES];
            match file.read_exact_at(&mut fresh, u64::from(block) * PAGE_BYTES as u64) {
                Ok(()) => {}
                // A file that shrank meanwhile has no such page any more: what was read stays, and replay, which has
                // the truncation in its WAL, cuts it off again. That is no damage.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return None,
                Err(_) => break,
            }
            *page = fresh;
            state = verify_page(page, numbered, true);
            if !state.is_bad() {
                return None;
            }
        }
        Some(state.lsn())
    }
}

/// The suspects that no WAL of this backup repairs: their LSN is before its start, or beyond its stop and so no LSN
/// at all.
pub(super) fn damage(found: &[(MemberName, Vec<Suspect>)], start: Lsn, stop: Lsn) -> Vec<PageErrors> {
    let mut damage: Vec<PageErrors> = found
        .iter()
        .filter_map(|(name, suspects)| {
            let repaired = |s: &&Suspect| s.lsn >= start && s.lsn <= stop;
            let blocks: Vec<u32> = suspects.iter().filter(|s| !repaired(s)).map(|s| s.block).collect();
            (!blocks.is_empty()).then(|| PageErrors { file: name.lossy(), blocks })
        })
        .collect();
    damage.sort_by(|a, b| a.file.cmp(&b.file));
    damage
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::postgres::Fork;
    use crate::postgres::checksum::page_checksum;

    fn page(lsn: u64, block: u32) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        page[0..4].copy_from_slice(&u32::try_from(lsn >> 32).unwrap().to_le_bytes());
        page[4..8].copy_from_slice(&u32::try_from(lsn & 0xFFFF_FFFF).unwrap().to_le_bytes());
        page[12..14].copy_from_slice(&24u16.to_le_bytes());
        page[14..16].copy_from_slice(&8192u16.to_le_bytes());
        page[16..18].copy_from_slice(&8192u16.to_le_bytes());
        page[18..20].copy_from_slice(&(8192u16 | 4).to_le_bytes());
        let sum = page_checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    fn relation(segment: u32) -> RelationFile {
        RelationFile { relfilenode: 16384, fork: Fork::Main, segment }
    }

    #[test]
    fn only_the_bad_pages_are_suspects_and_blocks_count_across_the_files_of_a_relation() {
        let first = BLOCKS_PER_FILE * 2;
        let mut bytes = page(10, first).to_vec();
        bytes.extend(page(11, first + 1));
        bytes.resize(3 * PAGE_BYTES, 0);
        bytes[PAGE_BYTES + 5000] ^= 1;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut check = PageCheck::of(&relation(2)).unwrap();
        check.check(&file, 0, &mut bytes);
        assert_eq!(check.suspects, [Suspect { block: 1, lsn: Lsn(11) }]);
    }

    #[test]
    fn a_page_that_is_good_at_the_second_look_is_taken_as_it_is_then() {
        let good = page(10, 0);
        let mut torn = good.to_vec();
        torn[6000] ^= 0xFF;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&good).unwrap();
        let mut check = PageCheck::of(&relation(0)).unwrap();
        check.check(&file, 0, &mut torn);
        assert!(check.suspects.is_empty() && torn == good);
    }

    #[test]
    fn a_bad_page_that_was_truncated_away_meanwhile_is_no_damage() {
        let mut bytes = [page(10, 0), page(11, 1)].concat();
        bytes[PAGE_BYTES + 5000] ^= 1;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes[..PAGE_BYTES]).unwrap();
        let mut check = PageCheck::of(&relation(0)).unwrap();
        check.check(&file, 0, &mut bytes);
        assert_eq!(check.suspects, []);
    }

    #[test]
    fn a_bad_page_is_accepted_only_with_an_lsn_of_this_backup() {
        let suspects =
            [9, 10, 20, 21].map(|lsn| Suspect { block: u32::try_from(lsn).unwrap(), lsn: Lsn(lsn) });
        let found = [(MemberName::new(*b"base/5/16384"), suspects.to_vec())];
        let damage = damage(&found, Lsn(10), Lsn(20));
        assert_eq!(damage, [PageErrors { file: "base/5/16384".into(), blocks: vec![9, 21] }]);
    }
}
