//! Mail. TLS from the start or by STARTTLS, which is demanded and not merely tried; a password never travels in the
//! clear (the configuration refuses that).

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::{Refusal, Sink, cut, headline, page, undelivered};
use crate::agent::alerts::machine::{Event, Notice};
use crate::config::alerts::{SmtpConfig, SmtpTls};
use crate::error::{Error, Result};

/// Longer subjects are folded and cut by mail programs.
const SUBJECT: usize = 180;

pub struct Smtp {
    pub config: SmtpConfig,
    pub timeout: Duration,
}

#[async_trait]
impl Sink for Smtp {
    async fn prepare(&self) -> Result<()> {
        self.transport().await.map(drop)
    }
    async fn send(&self, notice: &Notice) -> Result<(), Refusal> {
        let mail = message(&self.config, notice).map_err(Refusal::Never)?;
        let transport = self.transport().await.map_err(Refusal::Later)?;
        // The library's timeout is for each step; a server that dribbles must not hold the queue.
        let sent = tokio::time::timeout(self.timeout, transport.send(mail)).await;
        let place = format!("{}:{}", self.config.server, self.config.port);
        match sent {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) if e.is_permanent() => {
                Err(Refusal::Never(undelivered("the mail server refuses the mail").at(place).because(e)))
            }
            Ok(Err(e)) => Err(Refusal::Later(undelivered("cannot send mail").at(place).because(e))),
            Err(_) => Err(Refusal::Later(undelivered("the mail server does not answer in time").at(place))),
        }
    }
}

impl Smtp {
    async fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
        let config = &self.config;
        let tls = match config.tls {
            SmtpTls::None => Tls::None,
            SmtpTls::Tls => Tls::Wrapper(parameters(config)?),
            SmtpTls::StartTls => Tls::Required(parameters(config)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.server)
            .port(config.port)
            .tls(tls)
            .timeout(Some(self.timeout));
        if let Some((user, secret)) = &config.login {
            let password = secret.resolve_within(self.timeout).await?;
            builder = builder.credentials(Credentials::new(user.clone(), password.to_string()));
        }
        Ok(builder.build())
    }
}

fn parameters(config: &SmtpConfig) -> Result<TlsParameters> {
    let wrong = |e| undelivered("cannot prepare TLS for mail").at(&config.server).because(e);
    let mut builder = TlsParameters::builder(config.server.clone());
    if let Some(file) = &config.ca_file {
        let pem = std::fs::read(file)
            .map_err(|e| Error::io("cannot read the CA file of an alert sink", file, e))?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(wrong)?);
    }
    builder.build().map_err(wrong)
}

pub(super) fn message(config: &SmtpConfig, notice: &Notice) -> Result<Message> {
    let wrong = || undelivered("an address of an alert sink makes no sense");
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|e| wrong().at(text).because(e));
    let mut builder = Message::builder()
        .from(mailbox(&config.from)?)
        .subject(cut(&format!("[pgkeep] {}", headline(notice)), SUBJECT))
        .header(ContentType::TEXT_PLAIN);
    for to in &config.to {
        builder = builder.to(mailbox(to)?);
    }
    builder.body(body(notice)).map_err(|e| undelivered("cannot write a mail").because(e))
}

fn body(notice: &Notice) -> String {
    let alert = &notice.alert;
    let mut text = format!("{}\n\n", alert.summary);
    if notice.test {
        text.push_str("This is a test. Nothing is wrong.\n\n");
    }
    let state = match notice.event {
        Event::Resolved => format!("resolved at {}", notice.at.human()),
        Event::Opened | Event::Repeated => "open".to_owned(),
    };
    let mut line = |label: &str, value: &str| text.push_str(&format!("{label:<10}{value}\n"));
    line("severity", alert.severity.as_str());
    line("state", &state);
    line("since", &alert.since.human());
    line("host", &notice.host);
    line("rule", &alert.rule);
    if notice.event != Event::Resolved {
        line("to do", &alert.mend);
    }
    if let Some(page) = page(alert) {
        line("see", &page);
    }
    text
}
