//! From the tree to the configuration, a function per section. Values that are faulty get a stand-in, so that the
//! walk goes on and finds the rest; the faults then keep the stand-ins from ever being used.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::jobs;
use super::reader::{Faults, Section};
use super::{
    ArchiveConfig, BackupConfig, ChecksumMode, ClusterConfig, Config, CredentialsConfig, EncryptionConfig,
    RepositoryConfig, RestoreConfig, ServiceCommands, StoreConfig,
};
use crate::model::{ClusterName, RepoName};

pub(super) const NAME_RULE: &str = "1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit";

/// None only when there were faults.
pub(super) fn read(path: &Path, text: &str, faults: &Faults) -> Option<Config> {
    let (tree, mut errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // The parser resumes after a fault, and what it finds on the same line is an echo.
        let mut lines = std::collections::HashSet::new();
        errors.sort_by_key(|error| error.span().map(|span| span.start));
        for error in errors {
            let at = error.span().map(|span| faults.line(&span));
            if !lines.insert(at) {
                continue;
            }
            faults.add(error.span(), format!("this is not TOML: {}", error.message()));
        }
        return None;
    }
    let mut root = Section::root(&tree, faults);
    let state_directory =
        root.absolute_path("state_directory").unwrap_or_else(|| PathBuf::from("/var/lib/pgkeep"));
    let clusters = clusters(&mut root, faults);
    let repositories = repositories(&mut root, faults);
    let encryption = encryption(&mut root);
    let trust_hosts = root.table("trust").map(trust).unwrap_or_default();
    let backup = backup(root.table("backup"));
    let archive = archive(root.table("archive"));
    let restore = restore(root.table("restore"));
    let tail = super::tail::read(root.table("tail"));
    let prefetch = super::prefetch::read(root.table("prefetch"));
    let verify = super::verify::read(root.table("verify"));
    let dump = super::dump::read(root.table("dump"));
    let proof = super::proof::read(root.table("proof"));
    let canary = super::canary::read(root.table("canary"));
    let assertions = super::proof::assertions(&mut root, &clusters);
    let alerts = super::alerts::thresholds(root.table("alerts"));
    let alert_sinks = super::alerts::sinks(&mut root);
    let heartbeat = root.table("heartbeat").and_then(super::alerts::heartbeat);
    let agent = super::agent::read(root.table("agent"));
    let jobs = jobs::read(&mut root, &clusters);
    root.finish();
    Some(Config {
        path: path.to_owned(),
        clusters,
        repositories,
        encryption,
        trust_hosts,
        state_directory,
        backup,
        archive,
        restore,
        tail,
        prefetch,
        verify,
        dump,
        proof,
        canary,
        assertions,
        alerts,
        alert_sinks,
        heartbeat,
        agent,
        jobs,
    })
}

fn clusters(root: &mut Section<'_>, faults: &Faults) -> Vec<ClusterConfig> {
    if !root.has("cluster") {
        faults.add_whole("no cluster: there is no [cluster.NAME]");
    }
    let tables = root.named_tables("cluster");
    tables.into_iter().filter_map(|(name, section)| cluster(&name, section)).collect()
}

fn cluster(name: &str, mut section: Section<'_>) -> Option<ClusterConfig> {
    let parsed = ClusterName::parse(name);
    if parsed.is_none() {
        section.fault_here(format!("`{name}` is not a valid name: {NAME_RULE}"));
    }
    let connection = section.required_string("connection");
    let dump_connection = section.string("dump_connection");
    let primary = section.string("primary");
    let strings = [("connection", &connection), ("dump_connection", &dump_connection), ("primary", &primary)];
    for (key, text) in strings {
        if text.as_deref().is_some_and(has_password) {
            section.fault(
                key,
                "a password does not stand in this file; use a pass file (~/.pgpass, passfile=…)",
            );
        }
    }
    let data_directory = section.absolute_path("data_directory");
    let bin_directory = section.absolute_path("bin_directory");
    let service = section.table("service").map(service).unwrap_or_default();
    section.finish();
    let connection = connection.unwrap_or_default();
    let name = parsed?;
    Some(ClusterConfig { name, connection, dump_connection, data_directory, bin_directory, primary, service })
}

/// `password=…` in a keyword string, or `user:password@` in a URL.
fn has_password(text: &str) -> bool {
    let url = text.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or(rest));
    match url {
        Some(authority) => {
            authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
                || text.contains("password=")
        }
        None => text
            .split(|c: char| c.is_whitespace())
            .any(|word| word == "password" || word.starts_with("password=")),
    }
}

fn service(mut section: Section<'_>) -> ServiceCommands {
    let commands = ServiceCommands {
        stop: section.string("stop"),
        start: section.string("start"),
        status: section.string("status"),
    };
    if commands.stop.is_some() != commands.start.is_some() {
        section.fault_here("`stop` and `start` go together");
    }
    section.finish();
    commands
}

fn repositories(root: &mut Section<'_>, faults: &Faults) -> Vec<RepositoryConfig> {
    if !root.has("repository") {
        faults.add_whole("no repository: there is no [[repository]]");
    }
    root.list_of_tables("repository").into_iter().filter_map(repository).collect()
}

fn repository(mut section: Section<'_>) -> Option<RepositoryConfig> {
    let name = section.required_string("name");
    let parsed = name.as_deref().and_then(RepoName::parse);
    match (&name, &parsed) {
        (Some(name), None) => section.fault("name", format!("`{name}` is not a valid name: {NAME_RULE}")),
        (_, Some(name)) => section.rename(format!("repository.{name}")),
        (None, None) => {}
    }
    let required = section.boolean("required").unwrap_or(true);
    let store = store(&mut section);
    section.finish();
    Some(RepositoryConfig { name: parsed?, required, store })
}

/// Keys that mean something only for S3.
const S3_KEYS: [&str; 11] = [
    "region",
    "endpoint",
    "path_style",
    "ca_file",
    "storage_class",
    "checksum",
    "conditional_writes",
    "profile",
    "credentials",
    "part_size",
    "connect_timeout",
];

fn store(section: &mut Section<'_>) -> StoreConfig {
    let url = section.required_string("url").unwrap_or_default();
    let s3 = url.starts_with("s3://");
    if !url.is_empty() {
        if let Err(what) = check_url(&url) {
            section.fault("url", what);
        } else if !s3 {
            for key in S3_KEYS.iter().filter(|key| section.has(key)) {
                section.fault(key, "is only for `s3://…`");
            }
        }
    }
    let endpoint = section.string("endpoint");
    if let Some(text) = &endpoint
        && !(text.starts_with("https://") || text.starts_with("http://"))
    {
        section.fault("endpoint", format!("`{text}` is not a URL such as \"https://s3.example.com\""));
    }
    for (key, text) in [("url", Some(&url)), ("endpoint", endpoint.as_ref())] {
        if text.is_some_and(|text| has_user(text)) {
            section
                .fault(key, "credentials do not stand in a URL: use [repository.credentials] or a profile");
        }
    }
    let part_size = section.size("part_size");
    if part_size.is_some_and(|bytes| !(5 << 20..=1 << 30).contains(&bytes)) {
        section.fault("part_size", "must be from 5MiB to 1GiB");
    }
    if section.has("profile") && section.has("credentials") {
        section.fault("profile", "either a profile or [repository.credentials], not both");
    }
    let checksums =
        [("when_required", ChecksumMode::WhenRequired), ("when_supported", ChecksumMode::WhenSupported)];
    StoreConfig {
        url,
        region: section.string("region"),
        endpoint,
        path_style: section.boolean("path_style"),
        ca_file: section.absolute_path("ca_file"),
        storage_class: section.string("storage_class"),
        checksum: section.choice("checksum", &checksums).unwrap_or_default(),
        conditional_writes: section.boolean("conditional_writes").unwrap_or(false),
        profile: section.string("profile"),
        credentials: section.table("credentials").and_then(credentials),
        upload_bandwidth: section.bandwidth("upload_bandwidth"),
        download_bandwidth: section.bandwidth("download_bandwidth"),
        concurrency: section.integer("concurrency", 1..=256).map(|n| n as usize),
        part_size,
        connect_timeout: section.duration("connect_timeout"),
        operation_deadline: section.duration("operation_deadline"),
        capacity: section.size("capacity"),
    }
}

/// `scheme://user:password@host/…` of a store that is no directory.
fn has_user(url: &str) -> bool {
    let (scheme, rest) = url.split_once("://").unwrap_or(("file", ""));
    scheme != "file" && rest.split('/').next().is_some_and(|authority| authority.contains('@'))
}

/// The form of a store's URL; whether the store is there is found out by who opens it.
fn check_url(url: &str) -> Result<(), &'static str> {
    const FORM: &str = "expected \"file:///srv/pgkeep\" for a directory or \"s3://bucket/prefix\"";
    if let Some(path) = url.strip_prefix("file://") {
        let whole = path.starts_with('/') && !path.trim_matches('/').is_empty();
        let plain = !path.split('/').any(|part| part == "." || part == "..");
        return if whole && plain { Ok(()) } else { Err(FORM) };
    }
    let Some(rest) = url.strip_prefix("s3://") else { return Err(FORM) };
    let bucket = rest.split('/').next().unwrap_or_default();
    if bucket.is_empty() || rest.contains("//") || rest.contains(char::is_whitespace) {
        Err(FORM)
    } else {
        Ok(())
    }
}

fn credentials(mut section: Section<'_>) -> Option<CredentialsConfig> {
    for key in ["access_key_id", "secret_access_key"] {
        if !section.has(key) {
            section.fault(key, "is missing");
        }
    }
    let id = section.secret("access_key_id");
    let key = section.secret("secret_access_key");
    let session_token = section.secret("session_token");
    let expire_at = section.moment("expire_at");
    section.finish();
    Some(CredentialsConfig { access_key_id: id?, secret_access_key: key?, session_token, expire_at })
}

/// `encryption = "none"` or `[encryption]`.
fn encryption(root: &mut Section<'_>) -> EncryptionConfig {
    let Some(value) = root.take("encryption") else { return EncryptionConfig::Unset };
    if let DeValue::String(text) = value.get_ref() {
        if text != "none" {
            root.fault("encryption", "write [encryption] with `recipients`, or encryption = \"none\"");
        }
        return EncryptionConfig::None;
    }
    let Some(mut section) = root.table("encryption") else { return EncryptionConfig::Unset };
    if !section.has("recipients") {
        section.fault("recipients", "is missing; `pgkeep key new` makes a key and prints its recipient");
    }
    let given = section.strings("recipients", check_recipient);
    if section.is_empty_list("recipients") {
        section.fault("recipients", "the list is empty: nobody could read the backups");
    }
    let identity_file = section.absolute_path("identity_file");
    section.finish();
    EncryptionConfig::Recipients { recipients: given.unwrap_or_default(), identity_file }
}

fn check_recipient(text: &str) -> Result<(), String> {
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err(
            "this is a secret identity; it belongs into `identity_file`, and here its public key `age1…`"
                .to_owned(),
        );
    }
    age::x25519::Recipient::from_str(text)
        .map(|_| ())
        .map_err(|cause| format!("`{text}` is not an age recipient (`age1…`): {cause}"))
}

fn trust(mut section: Section<'_>) -> Vec<String> {
    let check = |text: &str| {
        minisign::PublicKey::from_base64(text)
            .map(|_| ())
            .map_err(|_| format!("`{text}` is not a minisign public key (`RW…`)"))
    };
    let hosts = section.strings("hosts", check);
    section.finish();
    hosts.unwrap_or_default()
}

/// Work that uses every core, within reason, when nobody said otherwise.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 8))
}

/// The levels that store within 3 % of the higher ones at twice their speed. WAL is no smaller at 2, which takes a tenth
/// longer.
const COMPRESSION: i32 = 2;
const WAL_COMPRESSION: i32 = 1;

pub(super) fn level(section: &mut Section<'_>) -> Option<i32> {
    section.integer("compression", 1..=19).and_then(|n| i32::try_from(n).ok())
}

fn backup(section: Option<Section<'_>>) -> BackupConfig {
    let defaults = BackupConfig { workers: default_workers(), compression: COMPRESSION, after_damage: true };
    let Some(mut section) = section else { return defaults };
    let config = BackupConfig {
        workers: section.integer("workers", 1..=64).map_or(defaults.workers, |n| n as usize),
        compression: level(&mut section).unwrap_or(defaults.compression),
        after_damage: section.boolean("after_damage").unwrap_or(defaults.after_damage),
    };
    section.finish();
    config
}

fn archive(section: Option<Section<'_>>) -> ArchiveConfig {
    let defaults = ArchiveConfig {
        push_deadline: Duration::from_mins(1),
        fetch_deadline: Duration::from_mins(1),
        optional_grace: Duration::from_secs(1),
        compression: WAL_COMPRESSION,
        workers: 3,
    };
    let Some(mut section) = section else { return defaults };
    let config = ArchiveConfig {
        push_deadline: section.duration("push_deadline").unwrap_or(defaults.push_deadline),
        fetch_deadline: section.duration("fetch_deadline").unwrap_or(defaults.fetch_deadline),
        optional_grace: section.duration("optional_grace").unwrap_or(defaults.optional_grace),
        compression: level(&mut section).unwrap_or(defaults.compression),
        workers: section.integer("workers", 1..=16).map_or(defaults.workers, |n| n as usize),
    };
    section.finish();
    config
}

fn restore(section: Option<Section<'_>>) -> RestoreConfig {
    let defaults = RestoreConfig { workers: default_workers(), look_ahead: 8, scratch_directory: None };
    let Some(mut section) = section else { return defaults };
    let config = RestoreConfig {
        workers: section.integer("workers", 1..=64).map_or(defaults.workers, |n| n as usize),
        look_ahead: section.integer("look_ahead", 1..=256).map_or(defaults.look_ahead, |n| n as usize),
        scratch_directory: section.absolute_path("scratch_directory"),
    };
    section.finish();
    config
}
