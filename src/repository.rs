//! The repository: immutable objects under a root (FORMAT.md). Keys, listings, and what can be said from them without
//! reading an object.

pub mod continuity;
pub mod keys;
pub mod wal_listing;
