//! What a store is opened with: a plain value that the configuration fills in, field by field.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};

/// Settings of one store. `Default` is what suits most; `url` has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// `file:///srv/pgkeep` or `s3://bucket/prefix`.
    pub url: String,
    /// S3: None takes the one of the environment or profile, else `us-east-1`.
    pub region: Option<String>,
    /// S3: `https://s3.example.com:9000`; None is AWS.
    pub endpoint: Option<String>,
    /// S3: the bucket in the path instead of the host name. None: yes where an endpoint is given.
    pub path_style: Option<bool>,
    /// S3: certificates (PEM) trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// S3: for example `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// S3: checksum headers on requests.
    pub checksum: Checksum,
    /// S3: `If-None-Match: *` on every write. Only for stores that were seen to obey it (`probe`); without it a
    /// look goes before each write.
    pub conditional_writes: bool,
    /// S3: the profile of the credentials; None: `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
    /// S3: a file in the form of `~/.aws/credentials`, read instead of the usual chain (environment, shared
    /// files, web identity, container, instance).
    pub credentials_file: Option<PathBuf>,
    /// S3: the credentials themselves, instead of everything above.
    pub credentials: Option<StaticCredentials>,
    /// S3: bytes of a part, at least 5 MiB. Grows by itself after part 8,000, so that nothing hits the limit of
    /// 10,000.
    pub part_size: u64,
    /// S3: parts of one upload on their way at once. An upload holds at most one part more than this in memory.
    pub parts_in_flight: usize,
    /// S3: until a connection stands.
    pub connect_timeout: Duration,
    /// S3: until one request is answered (longer for long bodies: 128 KiB/s is the slowest store that counts as
    /// working), and between two pieces of a body.
    pub attempt_timeout: Duration,
    /// An operation with all its retries. For a long upload it counts for each part.
    pub operation_deadline: Duration,
    /// Requests at once, over all users of this store.
    pub concurrency: usize,
    /// Bytes per second, all together.
    pub upload_bandwidth: Option<u64>,
    pub download_bandwidth: Option<u64>,
    /// Directory: permissions of what is made.
    pub file_mode: u32,
    pub dir_mode: u32,
}

/// An access key. Never printed; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticCredentials {
    pub access_key_id: String,
    pub secret_access_key: Zeroizing<String>,
    pub session_token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StaticCredentials({})", self.access_key_id)
    }
}

/// Smallest part that S3 takes, save for the last of an upload.
pub const MIN_PART_SIZE: u64 = 5 << 20;

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            region: None,
            endpoint: None,
            path_style: None,
            ca_file: None,
            storage_class: None,
            checksum: Checksum::default(),
            conditional_writes: false,
            profile: None,
            credentials_file: None,
            credentials: None,
            part_size: 8 << 20,
            parts_in_flight: 4,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_mins(1),
            operation_deadline: Duration::from_mins(5),
            concurrency: 16,
            upload_bandwidth: None,
            download_bandwidth: None,
            file_mode: 0o600,
            dir_mode: 0o700,
        }
    }
}

impl StoreSettings {
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Refuses what could not work, without touching the store.
    pub fn check(&self) -> Result<Location> {
        let wrong = |what: String| Err(Error::new(Code::Config, what).at(&self.url));
        if !(MIN_PART_SIZE..=1 << 30).contains(&self.part_size) {
            return wrong("part_size must be between 5 MiB and 1 GiB".into());
        }
        if self.concurrency == 0 || self.parts_in_flight == 0 {
            return wrong("concurrency and parts_in_flight must be at least 1".into());
        }
        if self.upload_bandwidth == Some(0) || self.download_bandwidth == Some(0) {
            return wrong("a bandwidth of 0 would never end".into());
        }
        Location::parse(&self.url)
    }
}

/// Whether requests carry the SDK's CRC headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Only where S3 demands one. Works with every store; bodies are still covered by the signature's SHA-256.
    #[default]
    WhenRequired,
    /// On every write that can carry one; stores of before 2025 may refuse them.
    WhenSupported,
}

impl Checksum {
    /// `when_required` or `when_supported`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "when_required" => Some(Self::WhenRequired),
            "when_supported" => Some(Self::WhenSupported),
            _ => None,
        }
    }
}

/// A parsed URL of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// An absolute path.
    Directory(PathBuf),
    /// `prefix` without slashes at its ends; empty for the whole bucket.
    S3 { bucket: String, prefix: String },
}

impl Location {
    /// `file:///absolute/path` (percent escapes are undone) or `s3://bucket[/prefix]`.
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(Code::Config, what)
                .at(url)
                .hint("write `file:///srv/pgkeep` for a directory or `s3://bucket/prefix` for S3")
        };
        if let Some(path) = url.strip_prefix("file://") {
            let path = percent_decode_str(path)
                .decode_utf8()
                .map_err(|e| wrong("the path is not UTF-8").because(e))?;
            if !path.starts_with('/') || path.split('/').any(|c| c == "." || c == "..") {
                return Err(wrong("the URL of a directory needs an absolute path without `.` and `..`"));
            }
            let trimmed = path.trim_end_matches('/');
            if trimmed.is_empty() {
                return Err(wrong("the root of the file system is no place for a repository"));
            }
            return Ok(Self::Directory(PathBuf::from(trimmed)));
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(wrong("this is no URL of a store"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if bucket.is_empty() || !bucket.chars().all(plain) {
            return Err(wrong("the bucket's name is missing or has characters that no bucket has"));
        }
        if !prefix.is_empty() && super::key::check(prefix).is_err() {
            return Err(wrong("the prefix has an empty, `.` or `..` component"));
        }
        Ok(Self::S3 { bucket: bucket.into(), prefix: prefix.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_directories_and_buckets_are_understood() {
        let dir = |p: &str| Location::Directory(p.into());
        let s3 = |b: &str, p: &str| Location::S3 { bucket: b.into(), prefix: p.into() };
        assert_eq!(Location::parse("file:///srv/pgkeep/").unwrap(), dir("/srv/pgkeep"));
        assert_eq!(Location::parse("file:///srv/my%20disk").unwrap(), dir("/srv/my disk"));
        assert_eq!(Location::parse("s3://backups/prod/eu/").unwrap(), s3("backups", "prod/eu"));
        assert_eq!(Location::parse("s3://backups").unwrap(), s3("backups", ""));
    }

    #[test]
    fn what_is_no_place_for_a_repository_is_refused_with_a_hint() {
        for url in [
            "",
            "/srv",
            "file://srv/x",
            "file:///",
            "file:///a/../b",
            "s3://",
            "s3:///x",
            "s3://a b",
            "s3://b/a//c",
            "s3://b/../c",
            "ftp://x",
        ] {
            let error = Location::parse(url).unwrap_err();
            assert_eq!(error.code(), Code::Config, "{url}");
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let good = StoreSettings::new("s3://b");
        assert!(good.check().is_ok());
        for bad in [
            StoreSettings { part_size: 1, ..good.clone() },
            StoreSettings { concurrency: 0, ..good.clone() },
            StoreSettings { upload_bandwidth: Some(0), ..good.clone() },
        ] {
            assert_eq!(bad.check().unwrap_err().code(), Code::Config);
        }
    }
}
