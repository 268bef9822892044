//! What an answer of the store means: missing, denied, unavailable, or untrue. Only `StoreUnavailable` and
//! `StoreLied` are tried again.

use std::error::Error as StdError;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::service_code;
use crate::error::{Code, Error};

/// What was asked, for the message.
pub(super) struct Asked<'a> {
    /// "cannot read the object".
    pub what: &'a str,
    pub location: &'a str,
    /// Empty for the bucket as a whole.
    pub key: &'a str,
}

/// The store said that the key (or, of a `HEAD`, perhaps the bucket) does not exist.
pub(super) fn says_missing<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let not_found = error.raw_response().is_some_and(|r| r.status().as_u16() == 404);
    not_found && matches!(service_code(error), None | Some("NotFound" | "NoSuchKey"))
}

impl Asked<'_> {
    fn place(&self) -> String {
        if self.key.is_empty() { self.location.to_owned() } else { format!("{}/{}", self.location, self.key) }
    }

    pub(super) fn missing(&self) -> Error {
        Error::new(Code::ObjectMissing, "the object does not exist").at(self.place())
    }

    /// The error of a request. `ObjectMissing` only for `NoSuchKey`.
    pub(super) fn error<E>(&self, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|r| r.status().as_u16());
        let service = service_code(&error).map(str::to_owned);
        let verdict = match (&error, status) {
            (SdkError::ServiceError(_) | SdkError::ResponseError(_), Some(status)) => {
                of_answer(service.as_deref(), status)
            }
            _ => of_silence(&error),
        };
        let (code, why, hint) = verdict;
        let what = if why.is_empty() { self.what.to_owned() } else { format!("{}: {why}", self.what) };
        let mut built = Error::new(code, what).at(self.place());
        if !hint.is_empty() {
            built = built.hint(hint);
        }
        match error {
            // The wrapper's own text says nothing ("service error"), and its Debug is a page.
            SdkError::ServiceError(context) => built.because(Said::new(context.err(), status)),
            other => built.because(Innermost::of(&other)),
        }
    }
}

type Verdict = (Code, &'static str, &'static str);

/// The store answered with an error.
fn of_answer(service: Option<&str>, status: u16) -> Verdict {
    use Code::{ObjectExists, ObjectMissing, StoreDenied, StoreLied, StoreUnavailable};
    match (service.unwrap_or_default(), status) {
        ("NoSuchKey", _) => (ObjectMissing, "the object does not exist", ""),
        ("NoSuchBucket", _) => (
            StoreDenied,
            "the bucket does not exist",
            "check the bucket's name, the endpoint and the region; pgkeep never makes buckets",
        ),
        ("RequestTimeTooSkewed" | "RequestExpired", _) => (
            StoreDenied,
            "this host's clock and the store's differ too much",
            "set the clock (chrony, systemd-timesyncd) and try again",
        ),
        ("ExpiredToken" | "ExpiredTokenException", _) => {
            (StoreDenied, "the credentials have expired", "renew the session, or give long-lived credentials")
        }
        ("SignatureDoesNotMatch" | "InvalidAccessKeyId" | "InvalidToken", _) => (
            StoreDenied,
            "the store does not accept these credentials",
            "check access key and secret key, and that this host's clock is right",
        ),
        ("QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull", _) | (_, 507) => {
            (StoreDenied, "the store is full or its quota is used up", "make room or raise the quota")
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (_, 301 | 307) => (
            StoreDenied,
            "the bucket lives in another region or at another endpoint",
            "set `region` and `endpoint`",
        ),
        ("ConditionalRequestConflict" | "OperationAborted", _) => {
            (StoreUnavailable, "another write is going on", "")
        }
        ("PreconditionFailed", _) | (_, 412) => (ObjectExists, "it exists, and nothing is overwritten", ""),
        ("BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "IncompleteBody", _) => {
            (
                StoreLied,
                "the bytes arrived damaged",
                "if it happens always, the store does not know checksum headers: set checksum = \"when_required\"",
            )
        }
        ("InvalidRange", _) | (_, 416) => (StoreLied, "the object is shorter than it should be", ""),
        (
            "RequestTimeout"
            | "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequests"
            | "InternalError",
            _,
        )
        | (_, 408 | 429) => (StoreUnavailable, "the store is busy", ""),
        ("NotImplemented", _) | (_, 501) => {
            (StoreDenied, "the store does not know this request", "`pgkeep check` says what it can do")
        }
        (_, 500..) => (StoreUnavailable, "the store is not well", ""),
        // An error inside a 200 (completing a multipart upload): ask again.
        (_, 200..=299) => (StoreUnavailable, "the store answered with an error after all", ""),
        ("AccessDenied", _) | (_, 401 | 403) => (
            StoreDenied,
            "the store denies it",
            "check the rights of these credentials on the bucket (get, put, list, delete, abort of multipart uploads)",
        ),
        _ => (StoreDenied, "the store refuses the request", "`pgkeep check` says what the store can do"),
    }
}

/// There was no answer that could be understood.
fn of_silence<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> Verdict {
    for cause in chain(error) {
        if let Some(credentials) = cause.downcast_ref::<CredentialsError>() {
            return match credentials {
                CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                    (Code::StoreUnavailable, "cannot get credentials now", "look at what hands them out")
                }
                _ => (
                    Code::StoreDenied,
                    "there are no credentials for it",
                    "give them in the environment, in ~/.aws/credentials of the user that runs pgkeep, or in credentials_file",
                ),
            };
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(_) => (
                    Code::StoreDenied,
                    "the store's certificate is not trusted",
                    "give the certificate of its authority in ca_file, and check the endpoint's host name",
                ),
                _ => (Code::StoreUnavailable, "TLS failed", ""),
            };
        }
    }
    match error {
        SdkError::ConstructionFailure(_) => (Code::Config, "the request cannot be built", ""),
        SdkError::TimeoutError(_) => (Code::StoreUnavailable, "no answer in time", ""),
        _ => (Code::StoreUnavailable, "the store cannot be reached", ""),
    }
}

/// The causes, through the errors that io errors hide inside.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| deeper(e)).take(32)
}

fn deeper<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The store's own words.
#[derive(Debug)]
struct Said(String);

impl Said {
    fn new<E: ProvideErrorMetadata>(error: &E, status: Option<u16>) -> Self {
        let code = error.code().unwrap_or("no code");
        let status = status.map_or_else(String::new, |s| format!("HTTP {s} "));
        match error.message() {
            Some(message) if !message.is_empty() => Self(format!("{status}{code}, {message}")),
            _ => Self(format!("{status}{code}")),
        }
    }
}

/// The last cause of a chain whose outer links only say that something failed.
#[derive(Debug)]
struct Innermost(String);

impl Innermost {
    fn of(error: &(dyn StdError + 'static)) -> Self {
        Self(chain(error).last().map_or_else(|| error.to_string(), ToString::to_string))
    }
}

macro_rules! plain_error {
    ($($name:ident),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&self.0) }
        }
        impl StdError for $name {}
    )*};
}
plain_error!(Said, Innermost);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_key_is_missing_and_only_what_may_pass_is_tried_again() {
        let code = |service: &str, status| of_answer(Some(service), status).0;
        assert_eq!(code("NoSuchKey", 404), Code::ObjectMissing);
        assert_eq!(code("NoSuchBucket", 404), Code::StoreDenied);
        assert_eq!(code("NoSuchUpload", 404), Code::StoreDenied);
        assert_eq!(code("AccessDenied", 403), Code::StoreDenied);
        assert_eq!(code("SlowDown", 503), Code::StoreUnavailable);
        assert_eq!(code("InternalError", 200), Code::StoreUnavailable);
        assert_eq!(code("RequestTimeout", 400), Code::StoreUnavailable);
        assert_eq!(code("XAmzContentSHA256Mismatch", 400), Code::StoreLied);
        assert_eq!(code("InvalidArgument", 400), Code::StoreDenied);
        assert_eq!(of_answer(None, 404).0, Code::StoreDenied);
        assert_eq!(of_answer(None, 502).0, Code::StoreUnavailable);
        assert!(of_answer(Some("RequestTimeTooSkewed"), 403).2.contains("clock"));
    }
}
