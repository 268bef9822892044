//! pgkeep: backup and point-in-time recovery for PostgreSQL.
//!
//! Layers import downward only (`tests/tidy.rs`):
//! L5 `cli` `agent` · L4 `verify` · L3 `backup` `restore` `archive` · L2 `repository` · L1 `storage` `codec` `postgres` `wal` `config` ·
//! L0 `model` `util` `error`. `ARCHITECTURE.md` has the map.

pub mod agent;
pub mod archive;
pub mod backup;
pub mod cli;
pub mod codec;
pub mod config;
pub mod error;
pub mod model;
pub mod postgres;
pub mod repository;
pub mod restore;
pub mod storage;
pub mod util;
pub mod verify;
pub mod wal;
