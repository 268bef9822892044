//! `restore --to`: a cluster brought back to a moment.
//!
//! Order: request → plan → confirm → execute → prove. Planning reads and writes nothing; the plan is a value, and the
//! value that was shown is the one that runs.

pub mod choose;
pub mod locate;
mod refuse;
pub mod request;
pub mod scan;
