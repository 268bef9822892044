//! Is the file there already, is it the same? Pure, from one listing of its name in one repository.

use crate::model::{ShortDigest, WalFileName};
use crate::repository::wal_listing::{WalListing, WalObject};

/// What a repository holds under the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Nothing that stands in the way.
    Absent,
    /// These very bytes. `others`: sound contents besides, written by another server.
    Present { others: Vec<ShortDigest> },
    /// Only other contents: two servers archive into one place.
    Conflict { others: Vec<ShortDigest> },
}

/// `damaged`: our file's records are not sound. Such a file is shipped with its mark whatever else is there: a name with a
/// sound object stays recoverable, and PostgreSQL is not held up by a file that will never get better (promise 11).
pub fn presence(listing: &WalListing, file: WalFileName, digest: ShortDigest, damaged: bool) -> Presence {
    let other = |o: &&WalObject| o.digest != digest && !o.damaged;
    let others: Vec<_> = listing.objects(file).iter().filter(other).map(|o| o.digest).collect();
    if listing.object(file, digest).is_some() {
        Presence::Present { others }
    } else if others.is_empty() || damaged {
        Presence::Absent
    } else {
        Presence::Conflict { others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SegmentName;
    use crate::repository::keys::wal::WalObjectName;
    use crate::repository::wal_listing::tests::listing;

    const OURS: ShortDigest = ShortDigest([1; 16]);
    const THEIRS: ShortDigest = ShortDigest([2; 16]);

    #[test]
    fn what_is_there_decides_what_is_done() {
        let segment = SegmentName::parse("000000010000000000000007").unwrap();
        let file = WalFileName::Segment(segment);
        let whole = |digest| WalObjectName::Segment { segment, digest };
        let mark = |digest| WalObjectName::Damaged { segment, digest };
        let head = WalObjectName::Head { segment, from: 0, to: 8, digest: THEIRS };
        let partial = WalObjectName::Partial { segment, digest: THEIRS };
        let present = |others: &[ShortDigest]| Presence::Present { others: others.to_vec() };
        let conflict = Presence::Conflict { others: vec![THEIRS] };
        for (names, damaged, expected) in [
            (vec![], false, Presence::Absent),
            (vec![head, partial], false, Presence::Absent),
            (vec![whole(OURS)], false, present(&[])),
            (vec![whole(OURS), whole(THEIRS)], false, present(&[THEIRS])),
            (vec![whole(THEIRS)], false, conflict),
            // What is there is known to be damaged: the sound file is shipped.
            (vec![whole(THEIRS), mark(THEIRS)], false, Presence::Absent),
            (vec![mark(OURS)], true, Presence::Absent),
            (vec![mark(OURS), whole(OURS)], true, present(&[])),
            (vec![whole(THEIRS)], true, Presence::Absent),
        ] {
            assert_eq!(presence(&listing(&names), file, OURS, damaged), expected, "{names:?}");
        }
    }
}
