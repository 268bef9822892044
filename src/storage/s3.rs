//! A repository in a bucket of S3, or of one of the many that speak its language.
//!
//! What differs between stores is a setting, off unless it was seen to work (`probe`): conditional writes, the
//! SDK's checksum headers. With the defaults it works on stores of many years: signed bodies (the signature
//! carries their SHA-256), no checksum trailers (Ceph 16 answers 400), no `Expect: 100-continue` (after an early
//! 400 the next request of that connection hangs there), path style with an own endpoint, parts of one size up to
//! 62 GiB.
//!
//! * **Missing is not an error, an error is not missing**: a 404 counts as a missing object only where the bucket
//!   was seen; an absent bucket, a denied or a failed request are errors with their own words.
//! * **Nothing is overwritten**: `If-None-Match: *` where it works, else a look before each write.
//! * **A finished upload is confirmed** by a `HEAD`: completing a multipart upload can answer 200 with an error
//!   inside, and stores have acknowledged what they did not keep.
//! * **Who retries**: the SDK never does. The `Retry` decorator does, and each part of an upload with the same
//!   policy, since nobody else has its bytes.
//!
//! Memory: an upload holds `parts_in_flight + 1` parts. Cancellation: a dropped request closes its connection; a
//! dropped upload aborts its multipart from a task of its own, and what a killed process left is found by
//! `sweep_unfinished`.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::StorageClass;
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use super::retry::RetryPolicy;
use super::{Body, Key, ObjectInfo, Storage, StoreSettings, Stored, Upload, key};
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::util::clock;

mod body;
mod client;
mod errors;
mod listing;
mod multipart;
mod upload;

use errors::{Asked, says_missing};

/// How long the sight of the bucket vouches for it.
const BUCKET_SEEN: Duration = Duration::from_mins(1);
/// Bytes per second below which a request counts as hanging.
const SLOWEST: u64 = 128 << 10;

/// The driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct S3(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    client: Client,
    name: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    location: String,
    storage_class: Option<StorageClass>,
    conditional_writes: bool,
    part_size: usize,
    parts_in_flight: usize,
    connect_timeout: Duration,
    attempt_timeout: Duration,
    policy: RetryPolicy,
    seen: Mutex<Option<Instant>>,
}

impl S3 {
    /// Reads the CA file and prepares the client; the store is not asked anything.
    pub async fn open(settings: &StoreSettings, bucket: &str, prefix: &str) -> Result<Self> {
        let (location, prefix) = match prefix.trim_matches('/') {
            "" => (format!("s3://{bucket}"), String::new()),
            prefix => (format!("s3://{bucket}/{prefix}"), format!("{prefix}/")),
        };
        Ok(Self(Arc::new(Bucket {
            client: client::build(settings, &location).await?,
            name: bucket.to_owned(),
            prefix,
            location,
            storage_class: settings.storage_class.as_deref().map(StorageClass::from),
            conditional_writes: settings.conditional_writes,
            part_size: usize::try_from(settings.part_size)
                .map_err(|e| Error::new(Code::Config, "part_size is too large").because(e))?,
            parts_in_flight: settings.parts_in_flight,
            connect_timeout: settings.connect_timeout,
            attempt_timeout: settings.attempt_timeout,
            policy: RetryPolicy::within(settings.operation_deadline),
            seen: Mutex::new(None),
        })))
    }

    fn full(&self, key: &Key) -> Result<String> {
        key::check(key)?;
        Ok(format!("{}{key}", self.0.prefix))
    }

    fn asked<'a>(&'a self, what: &'a str, key: &'a str) -> Asked<'a> {
        Asked { what, location: &self.0.location, key }
    }

    /// Timeouts of a request that carries so many bytes.
    fn patience(&self, bytes: u64) -> aws_sdk_s3::config::Builder {
        let attempt = self.0.attempt_timeout + Duration::from_secs(bytes / SLOWEST);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.0.connect_timeout)
            .operation_attempt_timeout(attempt)
            .build();
        aws_sdk_s3::config::Builder::new().timeout_config(timeouts)
    }

    fn bucket_was_seen(&self) {
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A `HEAD` that says 404 does not say of what: an error unless the bucket is there.
    async fn bucket_must_exist(&self) -> Result<()> {
        let seen = *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_some_and(|at| at.elapsed() < BUCKET_SEEN) {
            return Ok(());
        }
        let bucket = &self.0;
        let request = bucket.client.list_objects_v2().bucket(&bucket.name).prefix(&bucket.prefix).max_keys(1);
        request.send().await.map_err(|e| self.asked("cannot look at the bucket", "").error(e))?;
        self.bucket_was_seen();
        Ok(())
    }

    async fn look(&self, key: &Key) -> Result<Option<HeadObjectOutput>> {
        let full = self.full(key)?;
        match self.0.client.head_object().bucket(&self.0.name).key(full).send().await {
            Ok(found) => {
                self.bucket_was_seen();
                Ok(Some(found))
            }
            Err(e) if says_missing(&e) => self.bucket_must_exist().await.map(|()| None),
            Err(e) => Err(self.asked("cannot look at the object", key).error(e)),
        }
    }

    /// The look before a write, where the store cannot refuse by itself.
    async fn must_be_free(&self, key: &Key) -> Result<()> {
        if !self.0.conditional_writes && self.look(key).await?.is_some() {
            return Err(self.exists(key));
        }
        Ok(())
    }

    /// Whatever is there, where the store takes no condition.
    async fn write(&self, key: &Key, body: Bytes) -> Result<Stored> {
        let stored = Stored { bytes: body.len() as u64 };
        let bucket = &self.0;
        let request = bucket.client.put_object().bucket(&bucket.name).key(self.full(key)?);
        let request = request
            .set_storage_class(bucket.storage_class.clone())
            .set_if_none_match(self.if_none_match())
            .body(ByteStream::from(body))
            .customize()
            .config_override(self.patience(stored.bytes));
        request.send().await.map_err(|e| self.asked("cannot write the object", key).error(e))?;
        Ok(stored)
    }

    fn exists(&self, key: &Key) -> Error {
        Error::new(Code::ObjectExists, "the object exists, and nothing is overwritten")
            .at(format!("{}/{key}", self.0.location))
    }

    fn if_none_match(&self) -> Option<String> {
        self.0.conditional_writes.then(|| "*".to_owned())
    }
}

fn moment(at: Option<&aws_sdk_s3::primitives::DateTime>) -> Option<Timestamp> {
    let at = at?;
    chrono::DateTime::from_timestamp(at.secs(), at.subsec_nanos()).map(Timestamp)
}

fn info(key: &Key, found: &HeadObjectOutput) -> Result<ObjectInfo> {
    let bytes = found.content_length().and_then(|n| u64::try_from(n).ok());
    let bytes = bytes.ok_or_else(|| Error::new(Code::StoreLied, "an object without a length").at(key))?;
    Ok(ObjectInfo { key: key.to_owned(), bytes, modified: moment(found.last_modified()) })
}

#[async_trait]
impl Storage for S3 {
    fn location(&self) -> &str {
        &self.0.location
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectInfo>> {
        self.look(key).await?.map(|found| info(key, &found)).transpose()
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Body> {
        if range.as_ref().is_some_and(Range::is_empty) {
            // HTTP has no empty ranges.
            return match self.head(key).await? {
                Some(found) if range.is_some_and(|r| r.start == r.end && r.end <= found.bytes) => {
                    Ok(futures::stream::empty().boxed())
                }
                Some(_) => Err(Error::new(Code::StoreLied, "bytes asked that the object has not").at(key)),
                None => Err(self.asked("", key).missing()),
            };
        }
        let asked_for = range.as_ref().map(|r| format!("bytes={}-{}", r.start, r.end - 1));
        let request =
            self.0.client.get_object().bucket(&self.0.name).key(self.full(key)?).set_range(asked_for);
        match request.send().await {
            Ok(answer) => {
                self.bucket_was_seen();
                body::checked(answer, range, self.0.attempt_timeout, format!("{}/{key}", self.0.location))
            }
            Err(e) => Err(self.asked("cannot read the object", key).error(e)),
        }
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Stored> {
        self.must_be_free(key).await?;
        self.write(key, body).await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.full(key)?;
        // Told early rather than after hours; told again, exactly, at the end.
        if self.look(key).await?.is_some() {
            return Err(self.exists(key));
        }
        Ok(Box::new(upload::S3Upload::new(self.clone(), key)))
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        key::check_prefix(prefix)?;
        self.list_all(prefix, start_after).await
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        key::check_prefix(prefix)?;
        self.list_common(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let request = self.0.client.delete_object().bucket(&self.0.name).key(self.full(key)?);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(e) if says_missing(&e) => self.bucket_must_exist().await,
            Err(e) => Err(self.asked("cannot delete the object", key).error(e)),
        }
    }

    async fn sweep_unfinished(&self, older_than: Duration) -> Result<u64> {
        multipart::sweep(self, clock::now().minus(older_than)).await
    }
}

/// The service's own code of an error, if the store gave one.
fn service_code<E, R>(error: &SdkError<E, R>) -> Option<&str>
where
    E: aws_sdk_s3::error::ProvideErrorMetadata,
{
    error.as_service_error().and_then(aws_sdk_s3::error::ProvideErrorMetadata::code)
}
