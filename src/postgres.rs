//! All that knows PostgreSQL.
//!
//! Files of a data directory that are read without a server: [`control_file`], [`history`], [`checksum`].

pub mod checksum;
pub mod control_file;
pub mod history;
