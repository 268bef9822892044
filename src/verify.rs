//! L4: proof that what is kept can be restored.
//!
//! [`integrity`] looks at every stored byte: is it there, is it what was stored, can it be opened, does it fit together,
//! is no WAL missing. What was not looked at is called unproved, never whole.

pub mod integrity;
