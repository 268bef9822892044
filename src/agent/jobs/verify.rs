//! The kind `verify`: a look at what is stored, in this process. A finding of the run names the first thing that is wrong
//! and what it means; all of them are in the report that lies in the repository, and on the board as numbers.

use async_trait::async_trait;

use super::kind::{JobContext, JobKind, JobReport};
use crate::agent::board::VerifyFacts;
use crate::config::VerifyWork;
use crate::error::{Error, Result};
use crate::util::human;
use crate::verify::integrity::{Keys, Report, Request, Scope, verify};

pub(super) struct Verify(pub(super) VerifyWork);

#[async_trait]
impl JobKind for Verify {
    async fn run(&self, cx: &JobContext) -> Result<JobReport> {
        let request = Request {
            config: &cx.config,
            keys: Keys::load(&cx.config)?,
            cluster: &cx.cluster.name,
            only: self.0.repository.as_ref(),
            scope: Scope::All,
            deep: self.0.deep,
            heal: self.0.heal,
            budget: self.0.budget,
            label: Some(cx.label.clone()),
            clock: cx.clock.clone(),
            progress: cx.progress.clone(),
            cancel: cx.cancel.clone(),
        };
        let done = Box::pin(verify(&request)).await?;
        for finding in done.findings() {
            tracing::error!(job = %cx.job.name, "{finding}");
        }
        tell_board(cx, &done);
        report(done)
    }
}

/// What each repository's look came to.
fn tell_board(cx: &JobContext, done: &Report) {
    for repository in done.repositories.iter().filter(|repository| repository.interrupted.is_none()) {
        let facts = VerifyFacts {
            at: cx.clock.now(),
            findings: repository.findings.len() as u64,
            healed: repository.healed.len() as u64,
            unproved: repository.unproved.len() as u64,
            bytes: repository.counts.bytes,
            left_bytes: repository.left.1,
            oldest_check_at: repository.oldest,
        };
        cx.board.cluster(&cx.cluster.name, |cluster| {
            cluster.verified.insert(repository.name.clone(), facts);
        });
    }
}

/// A repository that could not be looked at to its end is a failure, unless something was found: that is told first.
fn report(done: Report) -> Result<JobReport> {
    let finding = done.findings().next().map(|first| match done.findings().count() {
        1 => first.to_string(),
        n => format!("{n} findings; the first: {first}"),
    });
    let text = text(&done);
    let bytes = done.repositories.iter().map(|r| r.counts.bytes).sum();
    if finding.is_none() {
        let broken = done.repositories.into_iter().find_map(|r| Some((r.name, r.interrupted?)));
        let down = done.unavailable.into_iter().find(|(_, required, _)| *required);
        if let Some((name, error)) = broken.or_else(|| down.map(|(name, _, error)| (name, error))) {
            return Err(Error::while_doing(error, format!("the look at {name} did not come to its end")));
        }
    }
    Ok(JobReport { finding, text, backup: None, bytes_raw: None, bytes_stored: Some(bytes) })
}

fn text(done: &Report) -> String {
    let each = done.repositories.iter().map(|r| {
        let mut text = format!("{}: {} read", r.name, human::size(r.counts.bytes));
        if r.left.0 > 0 {
            text.push_str(&format!(", {} left for the next time", human::size(r.left.1)));
        }
        if r.expiring > 0 {
            text.push_str(&format!(", {} expiring", r.expiring));
        }
        if !r.healed.is_empty() {
            text.push_str(&format!(", {} healed", r.healed.len()));
        }
        for unproved in &r.unproved {
            text.push_str(&format!(", unproved: {unproved}"));
        }
        text
    });
    let down = done.unavailable.iter().map(|(name, _, error)| format!("{name} was not looked at: {error}"));
    each.chain(down).collect::<Vec<_>>().join("; ")
}
