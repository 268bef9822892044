//! The only place that reads the wall clock. Decisions take `now` as an argument; what waits or measures uses
//! the monotonic `Instant`s of std and tokio, which no time service moves.

use crate::model::Timestamp;

/// This moment by the host's clock, in UTC.
pub fn now() -> Timestamp {
    Timestamp(chrono::Utc::now())
}
