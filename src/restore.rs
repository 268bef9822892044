//! `restore --to`: a cluster brought back to a moment.
//!
//! skeleton, filled below
pub mod choose;
pub mod request;
