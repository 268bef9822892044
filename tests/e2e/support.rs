//! What the end-to-end tests are built from: servers, the program, repositories seen from outside, a ledger whose
//! every commit is known, a network that misbehaves on demand.

// Every test uses some of these; a helper for the next test is not dead.
#![allow(dead_code, unused_imports)]

pub mod agent;
pub mod env;
pub mod forge;
pub mod fsck;
pub mod heads;
pub mod ledger;
pub mod load;
pub mod pg;
pub mod pgkeep;
pub mod proxy;

pub mod receivers;
pub mod root;
pub mod runbook;
pub mod s3;
pub mod sql;
pub mod store;
pub mod strace;
pub mod wait;

pub use agent::Agent;
pub use env::{EnvOptions, TestEnv};
pub use fsck::Fsck;
pub use ledger::Ledger;
pub use load::Load;
pub use pg::{Build, Pg, PgOptions, Stop};
pub use pgkeep::{Pgkeep, Ran, Running, User};

pub use proxy::{Fault, FaultProxy, Rule};
pub use root::Root;
pub use s3::S3;
pub use store::RawStore;
pub use strace::Injection;
pub use wait::{eventually, eventually_some};
