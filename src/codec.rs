//! Bytes on their way into a repository and back: plain → zstd → age → digest and count, and the reverse.
//!
//! Promises kept here:
//! * No plaintext leaves (promise 5): what is written goes through a [`Protection`] that was decided before.
//! * Unfinished output cannot be published: only [`SealWriter::finish`] yields the [`Sealed`] value that records
//!   are made of; a writer that is dropped leaves a stream that no reader accepts.
//! * A reader gets the very bytes that were written or an error: age authenticates every byte and its end, zstd's
//!   content checksum covers each frame, and without age an end mark stands for the authenticated end.
//! * It can be read without pgkeep: `age -d | zstd -d` opens every sealed object. Headers and the end mark are
//!   zstd skippable frames, which `zstd -d` passes over.
//!
//! Everything is synchronous and meant for blocking threads; the repository layer connects it to the store.

mod header;
mod keys;
mod open;
mod passphrase;
mod protection;
mod seal;
#[cfg(test)]
mod tests;
mod zstd_frames;

pub use header::WalObjectHeader;
pub use keys::{GeneratedIdentity, Identities};
pub use open::{Opened, SeekableSource, open_frame, open_sealed, open_wal_object, unlocks};
pub use passphrase::{LOCKED_IDENTITY, Passphrase, lock, unlock};
pub use protection::{Protection, Recipients};
pub use seal::{SealWriter, Sealed};
pub use zstd_frames::FRAME_BYTES;

use std::io;
use std::path::Path;

use crate::error::{Code, Error};

/// zstd's level unless configured otherwise: on realistic rows levels 1 to 5 store the same within 3 %, and 2 is
/// the fastest of those that beat 1.
pub const DEFAULT_LEVEL: i32 = 2;

/// An [`Error`] in the only clothes in which it may pass through `io::Read` and `io::Write`.
pub fn into_io(error: Error) -> io::Error {
    io::Error::other(error)
}

/// The error inside an I/O error of a sealed stream: ours when it carries one, else the system's (`Io`), else a
/// fault of the bytes (`Damaged`).
pub fn from_io(what: &str, place: &str, error: io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io(what, Path::new(place), error);
    }
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::new(Code::Damaged, what).at(place).because(error),
    }
}
