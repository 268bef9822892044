//! Every key of the format, spelt and parsed here and nowhere else.

pub mod wal;
