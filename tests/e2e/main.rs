//! pgkeep as its users meet it: the real program, real PostgreSQL servers of every major, a real S3 server.
//!
//! `scripts/test` installs what is needed and starts the S3 server. A test that finds something missing fails and
//! says so; none is skipped.

// A test that cannot go on panics; that is its way to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod agent_archiver;
mod agent_jobs;
mod agent_life;
mod agent_pressure;
mod agent_server;
mod agent_watched;
mod alerts;
mod backup_full;
mod canary;
mod cli_catalog;
mod cli_setup;
mod control_file;
mod crash_backup;
mod crash_push;
mod crash_restore;
mod csv_by_hand;
mod debian_package;
mod drill;
mod dump;
mod fetch_in_recovery;
mod fork;
mod harness;
mod kit;
mod leaks;
mod neighbours;
mod open_by_hand;
mod oracle;
mod postgres_instance;
mod postgres_scan;
mod postgres_service;
mod postgres_session;
mod prefetch;
mod refusals;
mod restore_crash;
mod restore_database;
mod restore_fork;
mod restore_in_place;
mod restore_modes;
mod restore_refusals;
mod restore_side;
mod restore_table;
mod restore_test;
mod status;
mod storage_conformance;
mod storage_s3;
mod support;
mod systemd_unit;
mod tail;
mod verify;
mod wal_fetch;
mod wal_fetch_heads;
mod wal_place;
mod wal_plan;
mod wal_push;
mod wal_reader;
mod weather;
