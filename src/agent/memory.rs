//! Keeps the agent small when it has nothing to do: memory that a backlog or a backup has used goes back to the system
//! soon after. A look costs a file of `/proc`, and giving back what little is free in a small heap about a millisecond.

use std::time::Duration;

use super::Hub;
use super::metrics::process;
use super::supervisor::Task;
use crate::util::heap;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// What the agent needs anyway; there is nothing to be had below.
const SMALL: u64 = 32 << 20;

pub fn task(hub: &Hub) -> Task {
    let shutdown = hub.shutdown.clone();
    Task::new("memory", move || {
        let shutdown = shutdown.clone();
        async move {
            while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
                if process::facts().resident_bytes.is_some_and(|bytes| bytes > SMALL) {
                    // A large heap takes milliseconds, which the tasks of this thread are not made to wait.
                    let _ = tokio::task::spawn_blocking(heap::give_back).await;
                }
            }
            Ok(())
        }
    })
}
