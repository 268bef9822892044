//! L4: proof that what is kept can be restored.
//!
//! [`integrity`] looks at every stored byte: is it there, is it what was stored, can it be opened, does it fit together,
//! is no WAL missing. [`drill`] and [`restore_test`] restore in earnest, beside production and without touching it, and say in a
//! report what was proved and how long it took. What was not looked at is called unproved, never whole.

pub mod canary;
pub mod drill;
pub mod inside;
pub mod integrity;
pub mod keep;
pub mod kit;
pub mod report;
pub mod restore_test;
pub mod room;
