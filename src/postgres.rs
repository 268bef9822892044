//! Everything that knows a PostgreSQL server: how to reach it, what it is, what lies in its data directory, how a
//! base backup begins and ends, and how servers are stopped, started and made for a while.
//!
//! Promises:
//! * **One session, kept alive**: [`Session`] is one connection without time limits of its own making; a lost one
//!   is an error at the next call, never a silent reconnect ([`BackupSession`] depends on it).
//! * **No search path**: every statement names `pg_catalog`, and the path is empty, so nobody's function is called
//!   in place of PostgreSQL's.
//! * **Least privilege**: what is missing is said with the `GRANT` that gives it ([`roles`]).
//! * **Passwords are never printed**, neither in messages nor in `Debug`.
//! * **Nothing waits for ever**: statements, tools and services have deadlines.
//!
//! Files of a data directory are read without a server by [`control_file`], [`history`] and [`checksum`].
//!
//! Order: [`conninfo`] → [`connect`] → [`facts`] → [`tools`]; [`scan`] and [`backup_session`] serve the backup,
//! [`settings`], [`service`] and [`instance`] the restore. [`privilege`] decides as whom all of it happens: as
//! root, pgkeep works as the owner of the data directory.
//!
//! Cancellation: dropping a future leaves at most a server that was being started (`instance` stops its own on
//! drop) or a backup session that PostgreSQL ends by itself when the connection closes.

mod alter_system;
pub mod archive_format;
pub mod archiver;
pub mod as_owner;
pub mod backup_session;
pub mod canary;
pub mod checksum;
pub mod connect;
pub mod conninfo;
pub mod control_file;
pub mod databases;
pub mod dump_roles;
pub mod dump_tool;
pub mod facts;
pub mod history;
pub mod hollow;
pub mod instance;
pub mod privilege;
pub mod proof;
pub mod relations;
pub mod restore_tool;
pub mod roles;
pub mod scan;
pub mod service;
pub mod session;
pub mod settings;
pub mod snapshot;
pub mod sql_text;
pub mod tables;
mod tls;
pub mod tools;
pub mod user_tables;
pub mod vitals;
pub mod written;

pub use crate::model::TableName;
pub use archiver::ArchiverState;
pub use backup_session::{BackupSession, BackupStart, BackupStop};
pub use connect::{connect, connect_to};
pub use conninfo::ConnInfo;
pub use facts::{ServerFacts, TablespaceFact};
pub use scan::{EntryKind, Fork, RelationFile, Scan, ScanEntry, scan};
pub use session::Session;
pub use snapshot::Snapshot;
pub use tools::Tools;
pub use written::Written;
