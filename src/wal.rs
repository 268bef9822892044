//! PostgreSQL's write-ahead log as bytes: pages, records, what they mean, and whether a segment is sound.
//!
//! Everything here is pure: bytes go in, values come out, nothing is read, written or logged. That is why the same
//! code serves `wal push` (is this file what its name says?), `window` (which commits are in it?), `restore` (where
//! does this target stop?) and the wal index.
//!
//! Promises:
//! * **No input makes it panic** and none makes it allocate more than a bounded amount: a record's length is only a
//!   claim until its bytes have come, and a record longer than [`record::KEPT_BYTES`] is checked, not kept.
//! * **Damage is told from an end**: [`reader::End`] says whether WAL stopped at zeros, at a recycled page, in the
//!   middle of a record, or at something that PostgreSQL can never have written.
//! * **What cannot be judged is not judged**: a record that began before the first byte or goes on after the last one
//!   has no verdict; what PostgreSQL writes legally (an overwritten continuation record, the rest after a switch, pages
//!   of the parent timeline) is never damage.
//!
//! Order: [`page`] and [`record`] know the formats, [`reader`] makes records from pages, [`facts`] reads the few records
//! that a recovery depends on, [`target`], [`canary`], [`check`] and [`summary`] draw the conclusions.
//!
//! All formats are those of little-endian 64-bit servers with 8 KiB WAL blocks (PostgreSQL 14–18); anything else is
//! refused by the header checks. Sources: `xlog_internal.h`, `xlogrecord.h`, `xlogreader.c`, `xlogrecovery.c`.

pub mod canary;
pub mod check;
pub mod checkpoint;
pub mod end;
pub mod facts;
pub mod fields;
pub mod page;
pub mod reader;
pub mod record;
pub mod redirect;
pub mod summary;
pub mod target;
pub mod transaction;

pub use canary::{Canary, CanaryWatch};
pub use check::{SegmentChecker, SegmentVerdict, check_segment};
pub use checkpoint::WalSettings;
pub use facts::Fact;
pub use page::{PAGE_BYTES, PageHeader};
pub use reader::{End, EndReason, Flow, WalReader};
pub use record::{Record, Rmgr};
pub use summary::{SegmentScan, SegmentSummary};
pub use target::{Consistency, Outcome, Stop, TargetScanner};
pub use transaction::{TransactionEnd, TransactionMark};

// Synthetic WAL is a few MiB: no offset in it is cut by a cast.
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod check_tests;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod reader_tests;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
pub(crate) mod synth;
#[cfg(test)]
mod target_tests;
