//! A program of the user's, run without a shell, with the webhook's JSON on its standard input. Exit status 0 means that
//! the notice was taken; it is killed with its children when the timeout passes.

use std::time::Duration;

use async_trait::async_trait;

use super::{Refusal, Sink, cut, undelivered, webhook};
use crate::agent::alerts::machine::Notice;
use crate::util::process::Run;

pub struct Command {
    /// The program, then its arguments.
    pub words: Vec<String>,
    pub timeout: Duration,
}

#[async_trait]
impl Sink for Command {
    async fn send(&self, notice: &Notice) -> Result<(), Refusal> {
        let (program, arguments) = self
            .words
            .split_first()
            .ok_or_else(|| Refusal::Never(undelivered("an alert command without a program")))?;
        let document = webhook::document(notice).to_string();
        let run = Run::new(program, self.timeout).args(arguments).stdin(document);
        let done = run.run().await.map_err(|e| Refusal::Later(failed().at(program).because(e)))?;
        if done.status.success() {
            return Ok(());
        }
        let said = done.stderr_text();
        let cause = std::io::Error::other(format!("{}: {}", done.status, cut(said.trim(), 200)));
        Err(Refusal::Later(failed().at(program).because(cause)))
    }
}

fn failed() -> crate::error::Error {
    undelivered("the command for alerts failed")
}
