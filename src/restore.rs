//! `restore --to`: a cluster brought back to a moment.
//!
//! Order: request → plan → confirm → execute → prove. Planning reads and writes nothing; the plan is a value, and the
//! value that was shown is the one that runs.

pub mod aside;
mod before_fork;
pub mod canary;
pub mod choose;
mod config_files;
pub mod connect;
pub mod database;
pub mod ending;
pub mod estimate;
pub mod execute;
pub mod fetch_packs;
pub mod finish;
pub mod gather;
pub mod index;
pub mod lay_out;
pub mod local_wal;
pub mod locate;
pub mod logical;
pub mod marker;
mod new_timeline;
pub mod part;
pub mod past;
pub mod place;
pub mod plan;
pub mod prepare;
pub mod production;
pub mod reachable;
pub mod recover;
mod refuse;
pub mod report;
pub mod request;
mod rights;
mod save_wal;
pub mod scan;
pub mod scratch;
pub mod settings;
pub mod show;
pub mod space;
pub mod survey;
pub mod table;
pub mod tablespaces;
pub mod wal_source;
