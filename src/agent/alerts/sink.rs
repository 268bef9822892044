//! Where notices go: a file for each kind. A sink sends one notice in one try, bounded by its timeout; queues, order and
//! retries are [`super::delivery`]'s business.
//!
//! Secrets (URLs that let who knows them in, keys, passwords) are read for each try, so that a rotated one is taken up,
//! and stand in no error: a URL is named by its host, and what a receiver answers is cleaned of them.

use std::time::Duration;

use async_trait::async_trait;

use super::machine::{Event, Notice};
use crate::agent::board::{OpenAlert, Severity};
use crate::config::SinkConfig;
use crate::config::alerts::SinkKind;
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;

mod alertmanager;
mod command;
mod http;
mod pagerduty;
mod slack;
mod smtp;
mod webhook;

pub use http::Http;

/// Why a notice was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// It may be taken later.
    Later(Error),
    /// It will not be taken however often it is sent: it is malformed for this receiver, or we are not let in.
    Never(Error),
}

impl Refusal {
    pub fn error(&self) -> &Error {
        let (Self::Later(error) | Self::Never(error)) = self;
        error
    }
    pub fn into_error(self) -> Error {
        let (Self::Later(error) | Self::Never(error)) = self;
        error
    }
}

/// A receiver.
#[async_trait]
pub trait Sink: Send + Sync {
    /// One try.
    async fn send(&self, notice: &Notice) -> Result<(), Refusal>;
    /// Of a receiver that forgets what it is not told again: how often, all that is open.
    fn refresh_every(&self) -> Option<Duration> {
        None
    }
    async fn refresh(&self, _open: &[OpenAlert], _host: &str, _now: Timestamp) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A receiver with its name and what it wants to hear of.
pub struct NamedSink {
    pub name: String,
    pub min_severity: Severity,
    pub sink: Box<dyn Sink>,
}

impl NamedSink {
    /// Prepares it; nothing is sent.
    pub fn open(config: &SinkConfig) -> Result<Self> {
        let timeout = config.timeout;
        let sink: Box<dyn Sink> = match &config.kind {
            SinkKind::Webhook(http) => Box::new(webhook::Webhook(Http::new(http, timeout)?)),
            SinkKind::Slack(http) => Box::new(slack::Slack(Http::new(http, timeout)?)),
            SinkKind::PagerDuty { routing_key, http } => Box::new(pagerduty::PagerDuty {
                http: Http::new(http, timeout)?,
                routing_key: routing_key.clone(),
                timeout,
            }),
            SinkKind::Alertmanager(http) => Box::new(alertmanager::Alertmanager(Http::new(http, timeout)?)),
            SinkKind::Smtp(smtp) => Box::new(smtp::Smtp { config: smtp.clone(), timeout }),
            SinkKind::Command(words) => Box::new(command::Command { words: words.clone(), timeout }),
        };
        Ok(Self { name: config.name.clone(), min_severity: config.min_severity, sink })
    }

    pub fn wants(&self, alert: &OpenAlert) -> bool {
        alert.severity >= self.min_severity
    }
}

fn undelivered(what: impl Into<String>) -> Error {
    Error::new(Code::AlertUndelivered, what)
}

/// One line for people: "CRITICAL db1: …", "resolved db1: …", "TEST …".
fn headline(notice: &Notice) -> String {
    let test = if notice.test { "TEST " } else { "" };
    let word = match notice.event {
        Event::Opened => notice.alert.severity.as_str().to_uppercase(),
        Event::Repeated => format!("{} (still)", notice.alert.severity.as_str().to_uppercase()),
        Event::Resolved => "resolved".to_owned(),
    };
    format!("{test}{word} {}: {}", notice.host, one_line(&notice.alert.summary))
}

/// For subjects and headlines: a line break in an error's text begins nothing new.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// The page as it is installed beside the program, and in the sources.
fn page(alert: &OpenAlert) -> Option<String> {
    alert.runbook.as_ref().map(|page| format!("runbooks/{page}"))
}

#[cfg(test)]
mod tests;
