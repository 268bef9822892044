//! How long work says how far it is, without knowing who listens: bars on a terminal, plain lines in a log, silence
//! in a test. Work reports plain facts (a phase, its size, what is done); rate and time left are the listener's.
//!
//! Any thread may report. Reporting never fails and never blocks the work for longer than a line takes to write.

/// A listener. Shared as `Arc<dyn Progress>`.
pub trait Progress: Send + Sync {
    /// A new phase begins ("copying the data directory"); the counter starts at zero and its size is unknown.
    fn phase(&self, name: &str);
    /// How many bytes the phase is about; may be corrected while it runs.
    fn total(&self, bytes: u64);
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
    /// A line worth reading whatever the state of the bar.
    fn note(&self, line: &str);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _: &str) {}
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
}
