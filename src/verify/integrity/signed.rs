//! Small signed documents, where one that no trusted host signed is a finding.

use bytes::Bytes;

use super::finding::{Checked, Kind};
use super::reading::Trouble;
use crate::repository::signature::{Trust, Verdict};
use crate::repository::{Repository, signed};

/// Reads one whose signature, beside it, is a trusted host's.
pub(super) async fn read(repository: &Repository, key: &str, trust: &Trust) -> Checked<Bytes> {
    match signed::read(repository, key, trust).await? {
        (bytes, Verdict::Trusted) => Ok(bytes),
        (_, Verdict::Untrusted(why)) => Err(Trouble::wrong(Kind::Untrusted, why)),
    }
}
