//! The SDK's client from settings: TLS with ring, credentials from the usual places, no retries of its own.

use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider, SharedHttpClient,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{Code, Error, Result, StoreSettings};
use crate::storage::Checksum;

/// The address of the instance's metadata service answers at once or is not there.
const INSTANCE_TIMEOUT: Duration = Duration::from_secs(1);
const FALLBACK_REGION: &str = "us-east-1";

pub(super) async fn build(settings: &StoreSettings, location: &str) -> Result<Client> {
    let http = http_client(settings)?;
    let region = region(settings).await;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .operation_attempt_timeout(settings.attempt_timeout)
        .build();
    let shared = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .region(region.clone())
        .credentials_provider(credentials(settings, &http, region, location).await?)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        // Its clock runs on while a slow reader lets the body wait; pieces have a timeout of ours.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await;
    let (request, response) = match settings.checksum {
        Checksum::WhenRequired => {
            (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
        }
        Checksum::WhenSupported => {
            (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
        }
    };
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .request_checksum_calculation(request)
        .response_checksum_validation(response)
        .force_path_style(settings.path_style.unwrap_or(settings.endpoint.is_some()));
    if let Some(endpoint) = &settings.endpoint {
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(
                Error::new(Code::Config, "the endpoint must begin with https:// or http://").at(endpoint)
            );
        }
        config = config.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(config.build()))
}

async fn region(settings: &StoreSettings) -> Region {
    if let Some(region) = &settings.region {
        return Region::new(region.clone());
    }
    if settings.endpoint.is_some() || settings.credentials_file.is_some() || settings.credentials.is_some() {
        return Region::from_static(FALLBACK_REGION);
    }
    let profile = ProfileFileRegionProvider::builder();
    let profile = match &settings.profile {
        Some(name) => profile.profile_name(name),
        None => profile,
    };
    let chain =
        RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build());
    chain.region().await.unwrap_or(Region::from_static(FALLBACK_REGION))
}

async fn credentials(
    settings: &StoreSettings,
    http: &SharedHttpClient,
    region: Region,
    location: &str,
) -> Result<SharedCredentialsProvider> {
    let config =
        ProviderConfig::without_region().with_http_client(http.clone()).with_region(Some(region.clone()));
    if let Some(given) = &settings.credentials {
        let token = given.session_token.as_ref().map(|t| t.to_string());
        let secret = given.secret_access_key.to_string();
        let credentials =
            Credentials::new(given.access_key_id.clone(), secret, token, None, "the configuration");
        return Ok(SharedCredentialsProvider::new(credentials));
    }
    if let Some(file) = &settings.credentials_file {
        std::fs::metadata(file).map_err(|e| {
            Error::new(Code::Config, "cannot read the credentials of the store")
                .at(format!("{} of {location}", file.display()))
                .because(e)
        })?;
        let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build();
        let provider = ProfileFileCredentialsProvider::builder().configure(&config).profile_files(files);
        let provider = provider.profile_name(settings.profile.as_deref().unwrap_or("default"));
        return Ok(SharedCredentialsProvider::new(provider.build()));
    }
    // Outside of the clouds nobody answers at the metadata service's address; that must not take its minute.
    let instance = imds::Client::builder()
        .configure(&config)
        .connect_timeout(INSTANCE_TIMEOUT)
        .read_timeout(INSTANCE_TIMEOUT)
        .max_attempts(1)
        .build();
    let chain = DefaultCredentialsChain::builder().configure(config).region(region).imds_client(instance);
    let chain = match &settings.profile {
        Some(profile) => chain.profile_name(profile),
        None => chain,
    };
    Ok(SharedCredentialsProvider::new(chain.build().await))
}

fn http_client(settings: &StoreSettings) -> Result<SharedHttpClient> {
    let plain = settings.endpoint.as_deref().is_some_and(|e| e.starts_with("http://"));
    // The connector asserts that there are system certificates once it is told to use them.
    let system = !plain && !rustls_native_certs::load_native_certs().certs.is_empty();
    let mut trusted = TrustStore::empty().with_native_roots(system);
    if let Some(file) = &settings.ca_file {
        trusted.add_pem_certificate(certificates(file)?);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|e| Error::new(Code::Config, "cannot prepare TLS").because(e))?;
    Ok(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
}

/// The file's bytes, once every certificate in it was understood: the connector would panic on others.
fn certificates(file: &std::path::Path) -> Result<Vec<u8>> {
    let wrong = |what: &str| {
        Error::new(Code::Config, what)
            .at(file.display())
            .hint("ca_file holds the certificates of the authority in PEM form")
    };
    let pem = std::fs::read(file).map_err(|e| wrong("cannot read the CA file").because(e))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| wrong("the CA file is not PEM").because(e))?;
        roots
            .add(certificate)
            .map_err(|e| wrong("a certificate of the CA file makes no sense").because(e))?;
    }
    if roots.is_empty() {
        return Err(wrong("the CA file holds no certificate"));
    }
    Ok(pem)
}
