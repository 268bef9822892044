//! What every task of the agent is given. Cheap to clone.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

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
    pub board: Board,
    pub state: State,
}
