//! Is a repository whole? Asked of its raw objects alone, with FORMAT.md in hand and none of pgkeep's code, so that a
//! mistake of the program cannot hide itself.
//!
//! A fault is whatever makes a published thing worth less than it says: an object that is missing, has another length or
//! digest, a signature that minisign refuses, a segment that a backup needs and nobody has, a file that is not what its name
//! says. Leftovers of a killed run are no faults as long as nothing refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::env::TestEnv;
use super::store::RawStore;

const TEMPORARY: &str = ".pgkeep-tmp-";

/// What a repository holds, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Fsck {
    pub faults: Vec<String>,
    /// Backups with a `backup.json`, oldest first.
    pub published: Vec<String>,
    /// Directories of backups without one: they do not exist for anybody.
    pub leftovers: Vec<String>,
    /// Unfinished writes: temporaries of a directory, multipart uploads of a bucket.
    pub unfinished: Vec<String>,
    /// Names of archived segments (24 digits), each with the keys of its objects.
    pub segments: BTreeMap<String, Vec<String>>,
}

/// How closely to look.
pub struct Look<'a> {
    pub store: &'a RawStore,
    /// Who may have signed: public keys in minisign's files. None: signatures are not looked at.
    pub signers: Option<&'a [PathBuf]>,
    /// With it every WAL object is opened and its content compared with the digest in its name.
    pub identity: Option<&'a Path>,
}

impl TestEnv {
    /// Every check of the first repository that takes no key.
    pub fn fsck(&self) -> Fsck {
        self.fsck_of(self.repo())
    }
    pub fn fsck_of(&self, store: &RawStore) -> Fsck {
        let signers = [self.state.join("keys/host.pub")];
        Look { store, signers: Some(&signers), identity: None }.run()
    }
    /// As `fsck`, and every WAL object is opened.
    pub fn fsck_deep(&self) -> Fsck {
        let signers = [self.state.join("keys/host.pub")];
        Look { store: self.repo(), signers: Some(&signers), identity: Some(&self.identity_file) }.run()
    }
}

impl Fsck {
    #[track_caller]
    pub fn assert_whole(self) -> Self {
        assert!(self.faults.is_empty(), "the repository is not whole:\n{}", self.faults.join("\n"));
        self
    }
    /// Panics unless each segment from `first` to `last` (of one timeline) is archived once.
    #[track_caller]
    pub fn assert_contiguous(&self, first: &str, last: &str, segment_bytes: u64) {
        for name in names_between(first, last, segment_bytes) {
            let objects = self.segments.get(&name).map_or(0, Vec::len);
            assert_eq!(objects, 1, "objects of segment {name} (of {first} to {last})");
        }
    }
}

/// All segment names of one timeline from `first` to `last`.
pub fn names_between(first: &str, last: &str, segment_bytes: u64) -> Vec<String> {
    assert_eq!(first[..8], last[..8], "two timelines");
    let range = number(first, segment_bytes)..=number(last, segment_bytes);
    range.map(|n| name(&first[..8], n, segment_bytes)).collect()
}

/// `XLogSegmentsPerXLogId`: after so many segments the log part of a name goes up by one.
fn per_log(segment_bytes: u64) -> u64 {
    0x1_0000_0000 / segment_bytes
}
fn number(name: &str, segment_bytes: u64) -> u64 {
    let part = |at: usize| u64::from_str_radix(&name[at..at + 8], 16).unwrap();
    part(8) * per_log(segment_bytes) + part(16)
}
fn name(timeline: &str, number: u64, segment_bytes: u64) -> String {
    let per_log = per_log(segment_bytes);
    format!("{timeline}{:08X}{:08X}", number / per_log, number % per_log)
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

impl Look<'_> {
    pub fn run(&self) -> Fsck {
        let mut found = Fsck::default();
        let (temporaries, keys): (Vec<String>, Vec<String>) =
            self.store.list().into_iter().partition(|key| key.contains(TEMPORARY));
        found.unfinished = temporaries;
        if let RawStore::S3 { store, .. } = self.store {
            found.unfinished.extend(store.unfinished_uploads());
        }
        if !keys.iter().any(|key| key == "pgkeep.json") {
            found.faults.push("there is no pgkeep.json".to_owned());
        }
        let keys: BTreeSet<String> = keys.into_iter().collect();
        for key in &keys {
            self.wal_object(key, &mut found);
        }
        let mut backups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in &keys {
            if let Some((directory, rest)) = split_backup(key) {
                backups.entry(directory).or_default().push(rest);
            }
        }
        for (directory, objects) in backups {
            let id = directory.rsplit('/').next().unwrap().to_owned();
            if objects.contains(&"backup.json") {
                if let Err(why) = self.backup(directory, &id, &objects, &mut found) {
                    found.faults.push(format!("{directory}: {why}"));
                }
                found.published.push(id);
            } else {
                found.leftovers.push(id);
            }
        }
        found
    }

    /// Takes note of a WAL object and looks at it.
    fn wal_object(&self, key: &str, found: &mut Fsck) {
        let parts: Vec<&str> = key.split('/').collect();
        let [_, "wal", _, timeline, log, file] = parts[..] else { return };
        let Some((name, rest)) = file.split_once(['-', '.']) else {
            return found.faults.push(format!("{key}: no name of a WAL object"));
        };
        let whole = file.as_bytes().get(24) == Some(&b'-') && !rest.contains(".damaged.json");
        if name.len() != 24 || !name.starts_with(&format!("{timeline}{log}")) {
            found.faults.push(format!("{key}: lies in the wrong directory"));
        }
        if whole {
            found.segments.entry(name.to_owned()).or_default().push(key.to_owned());
        }
        if file.contains(".damaged.json") {
            return;
        }
        let Some(identity) = self.identity else { return };
        let digest = rest.rsplit('-').next().unwrap().split('.').next().unwrap();
        match open(&self.store.read(key), key, identity) {
            Ok(plain) if sha256_hex(&plain)[..32] == *digest => {}
            Ok(plain) => found.faults.push(format!("{key}: {} bytes of another digest", plain.len())),
            Err(e) => found.faults.push(format!("{key}: cannot be opened: {e}")),
        }
    }

    /// Everything that a published backup promises.
    fn backup(&self, directory: &str, id: &str, objects: &[&str], found: &mut Fsck) -> Result<(), String> {
        let record = self.store.read(&format!("{directory}/backup.json"));
        let json: Value = serde_json::from_slice(&record).map_err(|e| format!("backup.json: {e}"))?;
        let mut fault = |why: String| found.faults.push(format!("{directory}: {why}"));
        if json["id"].as_str() != Some(id) {
            fault(format!("backup.json says that it is {}", json["id"]));
        }
        let mut named = BTreeSet::from(["backup.json", "backup.json.minisig"]);
        for object in json["objects"].as_array().ok_or("no objects")? {
            let key = object["key"].as_str().ok_or("an object without a key")?;
            if !named.insert(key) {
                fault(format!("{key} is named twice"));
            }
            if !objects.contains(&key) {
                fault(format!("{key} is named and not there"));
                continue;
            }
            let bytes = self.store.read(&format!("{directory}/{key}"));
            if object["bytes"].as_u64() != Some(bytes.len() as u64) {
                fault(format!("{key} has {} bytes instead of {}", bytes.len(), object["bytes"]));
            }
            if object["sha256"].as_str() != Some(&sha256_hex(&bytes)) {
                fault(format!("{key} has another digest than backup.json says"));
            }
        }
        for stranger in objects.iter().filter(|key| !named.contains(*key)) {
            fault(format!("{stranger} is not named in backup.json"));
        }
        let kind = json["kind"].as_str().ok_or("no kind")?;
        let base = matches!(kind, "full" | "incr");
        for least in least_objects(kind) {
            if !named.iter().any(|key| key.starts_with(least)) {
                fault(format!("only {named:?}: a {kind} without {least}"));
            }
        }
        if let Some(signers) = self.signers
            && !self.is_signed(directory, &record, signers)
        {
            fault(format!("minisign does not accept the signature with any of {signers:?}"));
        }
        let missing = if base { missing_wal(&json, &found.segments)? } else { Vec::new() };
        for missing in missing {
            fault(format!("segment {missing} is needed and not archived"));
        }
        Ok(())
    }

    fn is_signed(&self, directory: &str, record: &[u8], signers: &[PathBuf]) -> bool {
        let key = format!("{directory}/backup.json.minisig");
        if !self.store.exists(&key) {
            return false;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("backup.json"), record).unwrap();
        std::fs::write(dir.path().join("backup.json.minisig"), self.store.read(&key)).unwrap();
        signers.iter().any(|signer| {
            let mut minisign = Command::new("minisign");
            minisign.args(["-V", "-q", "-m", "backup.json", "-p"]).arg(signer).current_dir(dir.path());
            minisign.output().expect("minisign is installed").status.success()
        })
    }
}

/// How the keys begin that a backup of each kind cannot do without.
fn least_objects(kind: &str) -> &'static [&'static str] {
    match kind {
        "full" | "incr" => &["data/", "manifest.json", "index.json"],
        "dump" => &["dump/", "schema/", "globals.sql", "index.json"],
        "schema" => &["schema/", "globals.sql"],
        _ => &["csv/", "schema/", "index.json"],
    }
}

/// `main/backups/20261121T020000Z-full-3f9a` and the rest of the key.
fn split_backup(key: &str) -> Option<(&str, &str)> {
    let (cluster, rest) = key.split_once("/backups/")?;
    let (id, object) = rest.split_once('/')?;
    Some((&key[..cluster.len() + "/backups/".len() + id.len()], object))
}

/// Segments from `wal_first` to `wal_last` that are not there. A backup from a standby may end on another timeline than
/// it began on; then either timeline's copy will do here.
fn missing_wal(json: &Value, segments: &BTreeMap<String, Vec<String>>) -> Result<Vec<String>, String> {
    let text = |field: &str| json[field].as_str().ok_or(format!("no {field}"));
    let bytes = json["wal_segment_bytes"].as_u64().ok_or("no wal_segment_bytes")?;
    let (first, last) = (text("wal_first")?, text("wal_last")?);
    let there = |n: u64| [first, last].iter().any(|end| segments.contains_key(&name(&end[..8], n, bytes)));
    let range = number(first, bytes)..=number(last, bytes);
    if range.is_empty() {
        return Err(format!("wal_first {first} is after wal_last {last}"));
    }
    Ok(range.filter(|n| !there(*n)).map(|n| name(&first[..8], n, bytes)).collect())
}

/// What `age -d | zstd -d` makes of an object.
pub fn open(stored: &[u8], key: &str, identity: &Path) -> Result<Vec<u8>, String> {
    let mut compressed = Vec::new();
    if Path::new(key).extension().is_some_and(|suffix| suffix == "age") {
        let text = std::fs::read_to_string(identity).unwrap();
        let line = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
        let identity: age::x25519::Identity = line.parse().unwrap();
        let decryptor = age::Decryptor::new(stored).map_err(|e| e.to_string())?;
        let mut reader =
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).map_err(|e| e.to_string())?;
        reader.read_to_end(&mut compressed).map_err(|e| e.to_string())?;
    } else {
        compressed.extend_from_slice(stored);
    }
    zstd::decode_all(&compressed[..]).map_err(|e| e.to_string())
}
