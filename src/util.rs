//! What every layer may use and nobody else may do: read the clock, start processes, be stopped by a test at a
//! named step, make files durable. Nothing here knows PostgreSQL, keys or stores.

pub mod buffers;
pub mod clock;
pub mod durable;
pub mod failpoint;
pub mod heap;
pub mod host;
pub mod human;
pub mod priority;
pub mod private;
pub mod process;
pub mod progress;
