//! Taking backups. [`full()`] takes a base backup of one cluster into every repository at once; [`mod@logical`] takes
//! dumps, schemas and exports of tables. What follows is about base backups.
//!
//! Promises kept here: a published backup is whole, with every WAL segment from start to stop beside it (3); nothing
//! is overwritten (4); nothing leaves in the clear by accident (5); a kill at any instant leaves nothing published
//! that is not whole (9).
//!
//! Order, and why:
//! 1. [`preflight`]: keys, repositories, server, data directory; archiving is **proved** before hours of copying.
//! 2. The lock on the primary: one base backup of a cluster at a time.
//! 3. Start, on a session that lives until the stop; then the scan, then the copy, in which each file is read once,
//!    its pages checked, digested, compressed, encrypted and sent to all repositories.
//! 4. `pg_control` after the last data file and before the stop: on a standby it says where the copy is consistent.
//! 5. Stop; the last pack with label, tablespace map and `pg_control`; manifest; index.
//! 6. The wait until each required repository holds the WAL from start to stop.
//! 7. Signature, then `backup.json`: from then on the backup exists.
//!
//! Failure and cancellation: the session's end makes PostgreSQL forget the backup, dropped uploads are aborted, and
//! objects already stored are leftovers without a record, which the next run reports. An optional repository that
//! fails or lags is dropped from the run and reported; it never fails the backup.
//!
//! Memory is bounded by workers and repositories, not by the size of anything: see [`copy`].

mod archiving;
mod copy;
mod epilogue;
mod file;
mod finish;
mod full;
mod lock;
mod logical;
mod outside;
mod pages;
mod preflight;
mod publish;
mod targets;
mod walrange;

pub use full::{FullRequest, StillWanted, full};
pub use logical::{LogicalReport, LogicalRequest, LogicalWork, logical};
pub use publish::{FullReport, RepositoryResult};

pub use logical::TablesWork;
