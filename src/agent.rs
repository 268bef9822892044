//! L5: the service. Supervised tasks that ship WAL before PostgreSQL asks, keep what a lost host loses under ten
//! seconds, run the jobs, and say loudly when something is wrong or silent.
//!
//! Order: configuration → state → control socket → tasks → "ready". One token ends everything: SIGTERM cancels it, every
//! task finishes or abandons its step within [`supervisor::GRACE`], and what it leaves unfinished is found by the next
//! start (promise 9). A task that fails or panics is started again, each time a little later; the others go on.
//!
//! What the agent knows is on its [`Board`]: tasks write their part, and metrics, alerts and `pgkeep status` read it.
//! What it remembers across restarts is in [`State`], a cache and a diary: deleted state costs time, never data.
//!
//! Promises kept here: archiving goes on without the agent, for `wal push` then works by itself (11).

pub mod alerts;
pub mod archiver;
pub mod board;
pub mod canary;
pub mod catalog_facts;
pub mod control;
#[cfg(test)]
pub mod example;
pub mod exposure;
pub mod http;
pub mod hub;
pub mod identity;
pub mod jobs;
pub mod memory;
pub mod metrics;
pub mod prefetch;
pub mod proof_facts;
pub mod pulse;
pub mod readiness;
pub mod run;
pub mod scheduler;
pub mod server_facts;
pub mod service_manager;
pub mod services;
pub mod state;
pub mod status;
pub mod store_facts;
pub mod stores;
pub mod supervisor;
pub mod tail;
pub mod usage;

pub use board::Board;
pub use hub::Hub;
pub use state::State;
