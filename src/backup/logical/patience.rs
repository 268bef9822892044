//! Tries that let go of everything in between.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backup::full::cancelled;
use crate::config::DumpConfig;
use crate::error::{Code, Error, Result};
use crate::util::human;
use crate::util::progress::Progress;

/// No pause is longer.
const LONGEST: Duration = Duration::from_mins(10);

/// It may pass: a lock, a server without a free connection, a table dropped just now.
fn may_pass(error: &Error) -> bool {
    matches!(error.code(), Code::Busy | Code::ServerFull | Code::NoTable)
}

/// Calls `attempt` again after what may pass, as `[dump]` says.
pub(super) async fn patiently<T>(
    config: &DumpConfig,
    progress: &dyn Progress,
    cancel: &CancellationToken,
    doing: &str,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let mut pause = config.retry_after;
    for left in (0..=config.retries).rev() {
        let error = match attempt().await {
            Err(error) if may_pass(&error) => error,
            done => return done,
        };
        if left == 0 {
            // Another code: `busy` would say that somebody else does this work.
            let hint = error.hint_text().unwrap_or("try again when it is quieter").to_owned();
            let code = if error.code() == Code::Busy { Code::NotReady } else { error.code() };
            let what = format!("cannot {doing}, after {} tries", config.retries + 1);
            return Err(Error::new(code, what).hint(hint).because(error));
        }
        progress.note(&format!("{doing}: {error}; tried again in {}", human::span(pause)));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return Err(cancelled()),
        }
        pause = (pause * 2).min(LONGEST);
    }
    Err(Error::internal("a try that was none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::progress::Silent;

    async fn tries(retries: u32, code: Code, good_at: u32) -> (u32, Result<u32>) {
        let config = DumpConfig { retries, retry_after: Duration::from_millis(1), ..DumpConfig::default() };
        let mut n = 0;
        let done = patiently(&config, &Silent, &CancellationToken::new(), "dump app", async || {
            n += 1;
            if n == good_at { Ok(n) } else { Err(Error::new(code, "locked").hint("wait")) }
        })
        .await;
        (n, done)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_in_the_end_is_no_longer_called_busy() {
        assert_eq!(tries(2, Code::Busy, 3).await.1.unwrap(), 3);
        let (n, done) = tries(2, Code::Busy, 4).await;
        let error = done.unwrap_err();
        assert_eq!((n, error.code(), error.hint_text()), (3, Code::NotReady, Some("wait")));
        assert_eq!(tries(2, Code::BackupFailed, 2).await.0, 1);
    }

    #[tokio::test]
    async fn a_pause_ends_when_somebody_cancels() {
        let config = DumpConfig { retry_after: Duration::from_mins(5), ..DumpConfig::default() };
        let cancel = CancellationToken::new();
        cancel.cancel();
        let done = patiently(&config, &Silent, &cancel, "x", async || {
            Err::<(), _>(Error::new(Code::ServerFull, "full"))
        });
        assert_eq!(done.await.unwrap_err().code(), Code::Cancelled);
    }
}
