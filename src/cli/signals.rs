//! Ctrl-C, SIGTERM and SIGHUP: the first cancels the work's token, so that it can stop its backup session, its
//! servers and its uploads in order; the second ends the process at once.
//!
//! Commands that PostgreSQL calls (`wal push`, `wal fetch`) do not listen here: a signal must end them as that signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::report::to_stderr;
use crate::error::{Code, Error, Result};

/// 128 + SIGINT, as a shell would report it.
const INTERRUPTED: u8 = 130;

/// Listens on a thread of its own until the process ends. `exit` is `main`'s power to end the process at once.
pub fn listen(cancel: CancellationToken, exit: fn(u8) -> !) -> Result<()> {
    let failed = |e| Error::new(Code::Io, "cannot listen for signals").because(e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(failed)?,
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::hangup()).map_err(failed)?,
        )
    };
    let watch = move || {
        runtime.block_on(async {
            for round in 1.. {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if round > 1 {
                    exit(INTERRUPTED);
                }
                cancel.cancel();
                to_stderr("stopping; once more to stop at once");
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
    Ok(())
}
