//! Checksums of data pages (`checksum_impl.h`) and the plausibility of their headers (`bufpage.c`).

use multiversion::multiversion;

use crate::model::Lsn;
use crate::wal::fields::{u16_at, u32_at};

/// `BLCKSZ`.
pub const PAGE_BYTES: usize = 8192;
/// Blocks in one file of a relation: block number = file number × this + block in the file.
pub const BLOCKS_PER_FILE: u32 = 131_072;

const LANES: usize = 32;
const ROW_BYTES: usize = LANES * 4;
const PRIME: u32 = 16_777_619;
/// Where each of the 32 parallel hashes begins; part of the on-disk format.
const SEEDS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// All zeros: PostgreSQL has extended the file and not written here yet.
    New,
    Good {
        lsn: Lsn,
    },
    /// The stored checksum is not that of these bytes at this place.
    Bad {
        found: u16,
        expected: u16,
        lsn: Lsn,
    },
    /// The header's numbers cannot be (checked with or without checksums).
    BadHeader {
        lsn: Lsn,
    },
}

impl PageState {
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Bad { .. } | Self::BadHeader { .. })
    }
    /// The page's own LSN, zero for a new one.
    pub fn lsn(self) -> Lsn {
        match self {
            Self::New => Lsn::ZERO,
            Self::Good { lsn } | Self::Bad { lsn, .. } | Self::BadHeader { lsn } => lsn,
        }
    }
}

/// Judges a page as `PageIsVerified` does. `block` counts from the relation's beginning, not the file's;
/// `checksums`: the cluster has them.
pub fn verify_page(page: &[u8; PAGE_BYTES], block: u32, checksums: bool) -> PageState {
    let lsn = page_lsn(page);
    let upper = field(page, 14);
    if upper == 0 {
        // PostgreSQL takes a page with pd_upper 0 only if every byte of it is zero.
        return if page.iter().all(|b| *b == 0) { PageState::New } else { PageState::BadHeader { lsn } };
    }
    if checksums {
        let (found, expected) = (field(page, 8), page_checksum(page, block));
        if found != expected {
            return PageState::Bad { found, expected, lsn };
        }
    }
    if header_is_sane(page) { PageState::Good { lsn } } else { PageState::BadHeader { lsn } }
}

/// The checksum that belongs into `pd_checksum`; whatever stands there is not counted.
pub fn page_checksum(page: &[u8; PAGE_BYTES], block: u32) -> u16 {
    let mixed = hash(page) ^ block;
    // 1 to 65535: zero stays free to mean "none". The remainder fits.
    u16::try_from(mixed % 65_535 + 1).unwrap_or(u16::MAX)
}

/// `pd_lsn`: two halves, the high one first.
pub fn page_lsn(page: &[u8; PAGE_BYTES]) -> Lsn {
    let half = |offset| u64::from(u32_at(page, offset).unwrap_or_default());
    Lsn(half(0) << 32 | half(4))
}

fn field(page: &[u8; PAGE_BYTES], offset: usize) -> u16 {
    u16_at(page, offset).unwrap_or_default()
}

/// `PageIsVerified` of `bufpage.c`: unknown flags, and the order of the offsets.
fn header_is_sane(page: &[u8; PAGE_BYTES]) -> bool {
    let (flags, lower, upper, special) = (field(page, 10), field(page, 12), field(page, 14), field(page, 16));
    flags & !0x0007 == 0
        && lower <= upper
        && upper <= special
        && usize::from(special) <= PAGE_BYTES
        && special.is_multiple_of(8)
}

fn round(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

/// 32 hashes side by side, so that the compiler can keep them in vector registers.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2", "x86_64+sse4.1", "aarch64+neon"))]
fn hash(page: &[u8; PAGE_BYTES]) -> u32 {
    let mut sums = SEEDS;
    let (rows, _) = page.as_chunks::<ROW_BYTES>();
    for (index, row) in rows.iter().enumerate() {
        let mut values = [0u32; LANES];
        for (value, bytes) in values.iter_mut().zip(row.as_chunks::<4>().0) {
            *value = u32::from_le_bytes(*bytes);
        }
        if index == 0 {
            // pd_checksum is the low half of the third word; it is hashed as zero.
            values[2] &= 0xFFFF_0000;
        }
        for lane in 0..LANES {
            sums[lane] = round(sums[lane], values[lane]);
        }
    }
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = round(*sum, 0);
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A page of noise under a plausible header, not sealed.
    fn page(seed: u8) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        for (index, byte) in page.iter_mut().enumerate() {
            *byte = u8::try_from(index * 31 % 251).unwrap().wrapping_add(seed);
        }
        page[..8].copy_from_slice(&[0x01, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]);
        page[10..18].copy_from_slice(&[4, 0, 40, 0, 0, 31, 0, 32]);
        page[18..20].copy_from_slice(&[4, 32]);
        page
    }
    fn seal(page: &mut [u8; PAGE_BYTES], block: u32) {
        let sum = page_checksum(page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
    }
    /// The definition, word by word and column by column, to hold the vectorised form against.
    fn slow(page: &[u8; PAGE_BYTES], block: u32) -> u16 {
        let mut copy = *page;
        copy[8..10].fill(0);
        let column = |lane: usize| {
            let mut sum = SEEDS[lane];
            for row in 0..PAGE_BYTES / ROW_BYTES {
                sum = round(sum, u32_at(&copy, row * ROW_BYTES + lane * 4).unwrap());
            }
            round(round(sum, 0), 0)
        };
        u16::try_from(((0..LANES).map(column).fold(0, |a, b| a ^ b) ^ block) % 65_535 + 1).unwrap()
    }

    #[test]
    fn a_sealed_page_is_good_in_its_place_only() {
        let mut good = page(1);
        seal(&mut good, 131_072);
        let lsn = Lsn(0x1_1234_5678);
        assert_eq!(verify_page(&good, 131_072, true), PageState::Good { lsn });
        assert!(matches!(verify_page(&good, 0, true), PageState::Bad { .. }));
        good[5000] ^= 1;
        let PageState::Bad { found, expected, lsn: at } = verify_page(&good, 131_072, true) else { panic!() };
        assert!(found != expected && at == lsn);
        assert_eq!(verify_page(&good, 131_072, false), PageState::Good { lsn });
    }

    #[test]
    fn only_an_all_zero_page_is_new() {
        let mut zero = [0; PAGE_BYTES];
        assert_eq!(verify_page(&zero, 7, true), PageState::New);
        zero[PAGE_BYTES - 1] = 1;
        assert!(verify_page(&zero, 7, true).is_bad());
        assert!(verify_page(&zero, 7, false).is_bad());
    }

    #[test]
    fn an_impossible_header_is_bad_with_a_right_checksum_or_none() {
        for (place, value) in [(10, 0x80), (13, 0x7F), (17, 0x40), (16, 1)] {
            let mut page = page(2);
            page[place] = value;
            seal(&mut page, 3);
            assert!(matches!(verify_page(&page, 3, true), PageState::BadHeader { .. }), "{place}");
            assert!(verify_page(&page, 3, false).is_bad(), "{place}");
        }
    }

    proptest! {
        #[test]
        fn the_vectors_compute_what_the_definition_says(seed: u8, block: u32, place in 0..PAGE_BYTES, byte: u8) {
            let mut page = page(seed);
            page[place] = byte;
            prop_assert_eq!(page_checksum(&page, block), slow(&page, block));
        }
    }
}
