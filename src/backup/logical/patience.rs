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

/// Counts the tries of one piece of work:
/// `loop { match attempt().await { Err(e) => tries.again(e).await?, Ok(done) => break done } }`.
pub(super) struct Tries<'a> {
    config: &'a DumpConfig,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
    /// Completes "cannot …".
    doing: &'a str,
    left: u32,
    pause: Duration,
}

impl<'a> Tries<'a> {
    pub(super) fn new(
        config: &'a DumpConfig,
        progress: &'a dyn Progress,
        cancel: &'a CancellationToken,
        doing: &'a str,
    ) -> Self {
        Self { config, progress, cancel, doing, left: config.retries, pause: config.retry_after }
    }

    /// Waits until the next try; the error itself when it does not pass, or when the tries are used up.
    pub(super) async fn again(&mut self, error: Error) -> Result<()> {
        if !may_pass(&error) {
            return Err(error);
        }
        let Some(left) = self.left.checked_sub(1) else {
            // Another code: `busy` would say that somebody else does this work.
            let hint = error.hint_text().unwrap_or("try again when it is quieter").to_owned();
            let code = if error.code() == Code::Busy { Code::NotReady } else { error.code() };
            let what = format!("cannot {}, after {} tries", self.doing, self.config.retries + 1);
            return Err(Error::new(code, what).hint(hint).because(error));
        };
        self.left = left;
        self.progress.note(&format!("{}: {error}; tried again in {}", self.doing, human::span(self.pause)));
        tokio::select! {
            () = tokio::time::sleep(self.pause) => {}
            () = self.cancel.cancelled() => return Err(cancelled()),
        }
        self.pause = (self.pause * 2).min(LONGEST);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::progress::Silent;

    async fn tries(retries: u32, code: Code, good_at: u32) -> (u32, Result<()>) {
        let config = DumpConfig { retries, retry_after: Duration::from_millis(1), ..DumpConfig::default() };
        let cancel = CancellationToken::new();
        let mut tries = Tries::new(&config, &Silent, &cancel, "dump app");
        for n in 1..good_at {
            if let Err(error) = tries.again(Error::new(code, "locked").hint("wait")).await {
                return (n, Err(error));
            }
        }
        (good_at, Ok(()))
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_in_the_end_is_no_longer_called_busy() {
        assert_eq!(tries(2, Code::Busy, 3).await.0, 3);
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
        let mut tries = Tries::new(&config, &Silent, &cancel, "x");
        let error = tries.again(Error::new(Code::ServerFull, "full")).await.unwrap_err();
        assert_eq!(error.code(), Code::Cancelled);
    }
}
