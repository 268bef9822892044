//! TLS to the server, with libpq's meanings of `sslmode`: without a root certificate nothing is verified up to
//! `require`, with one `require` means `verify-ca`; only `verify-full` compares the host's name.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::{ConnInfo, RootCert, SslMode};
use crate::error::{Code, Error, Result};

/// A connector for this connection.
pub(super) fn connector(info: &ConnInfo) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Code::Internal, "cannot set up TLS").because(e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(info, provider)?);
    let mut config = match &info.client_cert {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|e| {
                Error::new(Code::Key, "the client certificate and its key cannot be used")
                    .at(cert.display())
                    .because(e)
            })?
        }
    };
    // Servers since 17 ask for it when TLS comes without negotiation; older ones do not mind.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn verifier(info: &ConnInfo, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let roots = match (&info.sslrootcert, info.sslmode) {
        (None, _) | (_, SslMode::Disable | SslMode::Allow | SslMode::Prefer) => None,
        (Some(RootCert::System), _) => Some(system_roots()?),
        (Some(RootCert::File(path)), _) => Some(file_roots(path)?),
    };
    let Some(roots) = roots else { return Ok(Arc::new(Lenient { provider, chain: None })) };
    let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| Error::new(Code::Config, "the root certificates cannot be used").because(e))?;
    if info.sslmode == SslMode::VerifyFull {
        Ok(web)
    } else {
        Ok(Arc::new(Lenient { provider, chain: Some(web) }))
    }
}

fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(Error::new(Code::Config, "this host has no certificate store")
            .hint("install ca-certificates, or give `sslrootcert=/path/of/ca.crt`"));
    }
    Ok(roots)
}

fn file_roots(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(path)? {
        roots.add(cert).map_err(|e| {
            Error::new(Code::Config, "a root certificate cannot be used").at(path.display()).because(e)
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable =
        |e| Error::new(Code::Config, "cannot read the certificates").at(path.display()).because(e);
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certs.is_empty() {
        return Err(Error::new(Code::Config, "the file has no certificate").at(path.display()));
    }
    Ok(certs)
}

/// libpq refuses a key that others may read; so does pgkeep.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).map_err(|e| Error::io("cannot look at the client key", path, e))?;
    let forbidden = if meta.uid() == 0 { 0o027 } else { 0o077 };
    if meta.mode() & forbidden != 0 {
        return Err(Error::new(Code::Key, "the client key can be read by others")
            .at(path.display())
            .hint(format!("chmod 600 {}", path.display())));
    }
    PrivateKeyDer::from_pem_file(path)
        .map_err(|e| Error::new(Code::Key, "cannot read the client key").at(path.display()).because(e))
}

/// What libpq's weaker modes believe of a certificate. That the server has its key is always checked.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// `verify-ca`: the chain must lead to a root, whatever name is in it. None encrypts to whoever answers: `sslmode`
    /// up to `require` without a root certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The chain is verified before the name is compared, so these two mean that the chain is good.
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
