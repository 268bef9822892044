//! Logical backups as what a restore reads: which one is meant, what its index says, its streams.
//!
//! Nothing is written here. A stream is read from one repository; whether that one holds all of it, by length, is asked
//! before anything else happens.

pub mod choose;
mod stored;

pub use choose::{PassedOver, Wanted};
pub use stored::StoredStream;
