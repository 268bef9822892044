//! Where notices go: a file for each kind. A sink sends one notice in one try, bounded by its timeout; queues, order and
//! retries are [`super::delivery`]'s business.
//!
//! Secrets (URLs that let who knows them in, keys, passwords) are read for each try, so that a rotated one is taken up,
//! and stand in no error: a URL is named by its host, and what a receiver answers is cleaned of them.
//!
//! Failure: a sink is prepared when it is first needed and again after each failure, so that a certificate or a secret
//! that is missing is a failure of this receiver alone, and one that was mended is taken up without a reload.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

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
    /// Reads what it will need, so that what is missing is known before there is bad news. Nothing is sent.
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }
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

type Open = Box<dyn Fn() -> Result<Arc<dyn Sink>> + Send + Sync>;

/// A receiver with its name and what it wants to hear of.
pub struct NamedSink {
    pub name: String,
    pub min_severity: Severity,
    open: Open,
    opened: Mutex<Option<Arc<dyn Sink>>>,
}

impl NamedSink {
    pub fn of(config: &SinkConfig) -> Self {
        let (name, min_severity, config) = (config.name.clone(), config.min_severity, config.clone());
        Self::new(name, min_severity, Box::new(move || open(&config)))
    }
    fn new(name: String, min_severity: Severity, open: Open) -> Self {
        Self { name, min_severity, open, opened: Mutex::default() }
    }
    /// A receiver of a test's own making.
    #[cfg(test)]
    pub(super) fn scripted(name: &str, sink: Arc<dyn Sink>) -> Self {
        Self::new(name.to_owned(), Severity::Warning, Box::new(move || Ok(Arc::clone(&sink))))
    }

    /// That a receiver is deaf is no news for itself, once it hears again.
    pub fn wants(&self, alert: &OpenAlert) -> bool {
        let about_itself = alert.rule == "sink-failing" && alert.labels.get("sink") == Some(&self.name);
        alert.severity >= self.min_severity && !about_itself
    }

    /// Finds out whether something could be sent, without sending.
    pub async fn ready(&self) -> Result<(), Refusal> {
        self.sink().await.map(drop)
    }
    /// One try.
    pub async fn send(&self, notice: &Notice) -> Result<(), Refusal> {
        let sent = self.sink().await?.send(notice).await;
        self.keep_if(sent)
    }
    /// None too as long as it could not be prepared.
    pub fn refresh_every(&self) -> Option<Duration> {
        self.kept().and_then(|sink| sink.refresh_every())
    }
    pub async fn refresh(&self, open: &[OpenAlert], host: &str, now: Timestamp) -> Result<(), Refusal> {
        let done = self.sink().await?.refresh(open, host, now).await;
        self.keep_if(done)
    }

    fn kept(&self) -> Option<Arc<dyn Sink>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    async fn sink(&self) -> Result<Arc<dyn Sink>, Refusal> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let fresh = (self.open)().map_err(Refusal::Later)?;
        fresh.prepare().await.map_err(Refusal::Later)?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&fresh));
        Ok(fresh)
    }
    fn keep_if<T>(&self, done: Result<T, Refusal>) -> Result<T, Refusal> {
        if done.is_err() {
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        done
    }
}

fn open(config: &SinkConfig) -> Result<Arc<dyn Sink>> {
    let timeout = config.timeout;
    Ok(match &config.kind {
        SinkKind::Webhook(http) => {
            Arc::new(Posted { http: Http::new(http, timeout)?, document: webhook::document })
        }
        SinkKind::Slack(http) => {
            Arc::new(Posted { http: Http::new(http, timeout)?, document: slack::document })
        }
        SinkKind::PagerDuty { routing_key, http } => Arc::new(pagerduty::PagerDuty {
            http: Http::new(http, timeout)?,
            routing_key: routing_key.clone(),
            timeout,
        }),
        SinkKind::Alertmanager(http) => Arc::new(alertmanager::Alertmanager(Http::new(http, timeout)?)),
        SinkKind::Smtp(smtp) => Arc::new(smtp::Smtp { config: smtp.clone(), timeout }),
        SinkKind::Command(words) => Arc::new(command::Command { words: words.clone(), timeout }),
    })
}

/// A receiver that takes one document for each notice at one URL.
struct Posted {
    http: Http,
    document: fn(&Notice) -> Value,
}

#[async_trait]
impl Sink for Posted {
    async fn prepare(&self) -> Result<()> {
        self.http.prepare().await
    }
    async fn send(&self, notice: &Notice) -> Result<(), Refusal> {
        self.http.post("", &(self.document)(notice)).await
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

/// For subjects and headlines: a line break or a control character in an error's text begins nothing new.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
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
