//! An HTTP client that tells nobody where it goes: TLS with ring and the system's roots, no proxy but a configured one,
//! no redirects (a POST would arrive as a GET, a secret at another host), a bound on everything.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Proxy, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Refusal, cut, one_line, undelivered};
use crate::config::alerts::HttpConfig;
use crate::error::{Code, Error, Result};

const CONNECT: Duration = Duration::from_secs(5);
/// Of what a receiver says when it refuses.
const ANSWER: usize = 4096;

pub struct Http {
    client: Client,
    config: HttpConfig,
    timeout: Duration,
}

impl Http {
    pub fn new(config: &HttpConfig, timeout: Duration) -> Result<Self> {
        let wrong = |what: &str| Error::new(Code::Config, what);
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT.min(timeout))
            .timeout(timeout)
            // Notices are rare; a connection kept open for hours is one that a firewall has forgotten.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &config.proxy {
            let proxy = Proxy::all(proxy)
                .map_err(|e| wrong("the proxy of an alert sink makes no sense").because(e))?;
            builder = builder.proxy(proxy);
        }
        let client =
            builder.build().map_err(|e| wrong("cannot prepare an HTTP client").because(e.without_url()))?;
        Ok(Self { client, config: config.clone(), timeout })
    }

    /// Whether address and authorization can be read.
    pub async fn prepare(&self) -> Result<()> {
        address(self.config.url.resolve_within(self.timeout).await?.trim(), "")?;
        if let Some(secret) = &self.config.authorization {
            secret.resolve_within(self.timeout).await?;
        }
        Ok(())
    }

    pub async fn get(&self) -> Result<(), Refusal> {
        self.ask(Method::GET, "", None, Vec::new()).await
    }

    /// To the URL with `path` appended to its own.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(), Refusal> {
        self.ask(Method::POST, path, Some(body), Vec::new()).await
    }

    /// To the URL; what the receiver says is cleaned of the secret that the body holds.
    pub async fn post_secret(&self, body: &Value, secret: Zeroizing<String>) -> Result<(), Refusal> {
        self.ask(Method::POST, "", Some(body), vec![secret]).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        mut secrets: Vec<Zeroizing<String>>,
    ) -> Result<(), Refusal> {
        let told = self.config.url.resolve_within(self.timeout).await.map_err(Refusal::Later)?;
        let url = address(told.trim(), path).map_err(Refusal::Later)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut request = self.client.request(method, url);
        secrets.push(told);
        if let Some(secret) = &self.config.authorization {
            let value = secret.resolve_within(self.timeout).await.map_err(Refusal::Later)?;
            let mut header = HeaderValue::from_str(&value).map_err(|_| {
                Refusal::Later(undelivered("the authorization of an alert sink is no header value"))
            })?;
            header.set_sensitive(true);
            request = request.header(AUTHORIZATION, header);
            secrets.push(value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |e: reqwest::Error| {
            let what = if e.is_timeout() {
                "the receiver of alerts does not answer"
            } else {
                "cannot reach the receiver of alerts"
            };
            Refusal::Later(undelivered(what).at(&host).because(e.without_url()))
        };
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let mut said = Vec::new();
        while let Ok(Some(piece)) = answer.chunk().await {
            said.extend_from_slice(&piece);
            if said.len() > ANSWER {
                break;
            }
        }
        Err(refusal(status, &said, &host, &secrets))
    }
}

fn refusal(status: StatusCode, said: &[u8], host: &str, secrets: &[Zeroizing<String>]) -> Refusal {
    let mut said = String::from_utf8_lossy(said).into_owned();
    for secret in secrets {
        said = said.replace(secret.trim(), "…");
        // A receiver's error page quotes the path without the host.
        if let Some(path) =
            secret.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path)
            && path.len() > 3
        {
            said = said.replace(path.trim(), "…");
        }
    }
    let what = format!("the receiver of alerts answered {status}: {}", cut(&one_line(&said), 200));
    let error = undelivered(what).at(host);
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_client_error() && !passing.contains(&status) {
        Refusal::Never(error)
    } else {
        Refusal::Later(error)
    }
}

/// The parse error of a URL quotes nothing, and neither do we.
fn address(told: &str, path: &str) -> Result<Url> {
    let joined =
        if path.is_empty() { told.to_owned() } else { format!("{}{path}", told.trim_end_matches('/')) };
    let url =
        Url::parse(&joined).map_err(|e| undelivered("the URL of an alert sink makes no sense").because(e))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(undelivered("the URL of an alert sink is neither http nor https"))
    }
}

fn tls(config: &HttpConfig) -> Result<ClientConfig> {
    let wrong = |what: &str| Error::new(Code::Config, what);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &config.ca_file {
        let pem = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| wrong("cannot read the CA file of an alert sink").at(file.display()).because(e))?;
        for certificate in pem {
            let added = roots.add(certificate);
            added.map_err(|e| {
                wrong("a certificate of the CA file makes no sense").at(file.display()).because(e)
            })?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("cannot set up TLS").because(e))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
