//! Small powers with one owner each, used by every layer: durable files, the clock.

pub mod clock;
pub mod durable;
