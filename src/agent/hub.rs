//! What every task of the agent is given. Cheap to clone.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pulse::Pulse;
use super::{Board, State};
use crate::config::Config;
use crate::util::clock::Clock;

/// A reload ends the tasks and starts them with a new hub; board and state stay.
#[derive(Clone)]
pub struct Hub {
    pub config: Arc<Config>,
    /// Replaced in tests; decisions take `clock.now()` as an argument.
    pub clock: Clock,
    /// Cancelled when this generation of tasks ends: by SIGTERM or a reload.
    pub shutdown: CancellationToken,
    /// Cancelled when the whole process ends.
    pub end: CancellationToken,
    /// Work that a reload must not cut off, such as a base backup: spawned here, watching [`Hub::end`], it goes on
    /// under the configuration that it began with. At the end it is waited for like the tasks.
    pub lasting: TaskTracker,
    pub board: Board,
    pub state: State,
    /// Where loops show that they do not hang.
    pub pulse: Pulse,
}
