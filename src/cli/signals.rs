//! Ctrl-C, SIGTERM and SIGHUP: the first cancels the work's token, so that it can stop its backup session, its
//! servers and its uploads in order; the second ends the process at once. For the agent SIGHUP means "read the
//! configuration again".
//!
//! Commands that PostgreSQL calls (`wal push`, `wal fetch`) do not listen here: a signal must end them as that signal.
//! A thread of its own listens, so that the second signal works however stuck the rest is.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::report::to_stderr;
use crate::error::{Code, Error, Result};

/// 128 + SIGINT, as a shell would report it.
const INTERRUPTED: u8 = 130;

/// Listens until the process ends. `exit` is `main`'s power to end the process at once.
pub fn listen(cancel: CancellationToken, exit: fn(u8) -> !) -> Result<()> {
    start(cancel, None, exit)
}

/// The same for the agent, which SIGHUP makes reload and does not end.
pub fn listen_as_service(cancel: CancellationToken, reload: Arc<Notify>, exit: fn(u8) -> !) -> Result<()> {
    start(cancel, Some(reload), exit)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

fn start(cancel: CancellationToken, reload: Option<Arc<Notify>>, exit: fn(u8) -> !) -> Result<()> {
    let failed = |e| Error::new(Code::Io, "cannot listen for signals").because(e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let signals = {
        let _inside = runtime.enter();
        Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
        }
    };
    let watch = move || runtime.block_on(follow(signals, &cancel, reload.as_deref(), exit));
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
    Ok(())
}

async fn follow(mut on: Signals, cancel: &CancellationToken, reload: Option<&Notify>, exit: fn(u8) -> !) {
    loop {
        tokio::select! {
            _ = on.interrupt.recv() => {}
            _ = on.terminate.recv() => {}
            _ = on.hangup.recv() => if let Some(reload) = reload {
                reload.notify_one();
                continue;
            },
        }
        if cancel.is_cancelled() {
            exit(INTERRUPTED);
        }
        cancel.cancel();
        to_stderr("stopping; once more to stop at once");
    }
}
