//! A repository's raw objects, in a directory or in a bucket: what a burglar, a bit flip or a careless
//! administrator sees and touches.

use std::path::{Path, PathBuf};

use super::root::Ids;
use super::s3::S3;

/// Keys are relative to the repository's root in both kinds.
pub enum RawStore {
    Dir(PathBuf),
    S3 { store: Box<S3>, prefix: String },
}

impl RawStore {
    /// Every key, sorted. A directory's temporaries are among them.
    pub fn list(&self) -> Vec<String> {
        let mut keys: Vec<String> = match self {
            Self::Dir(root) => walkdir::WalkDir::new(root)
                .into_iter()
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.file_type().is_file())
                .map(|entry| entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned())
                .collect(),
            Self::S3 { store, prefix } => store
                .list(prefix)
                .iter()
                .map(|k| k.strip_prefix(prefix.as_str()).unwrap().to_owned())
                .collect(),
        };
        keys.sort();
        keys
    }
    pub fn list_under(&self, prefix: &str) -> Vec<String> {
        self.list().into_iter().filter(|key| key.starts_with(prefix)).collect()
    }
    /// The only key that contains all of `parts`.
    #[track_caller]
    pub fn find(&self, parts: &[&str]) -> String {
        let all = self.list();
        let mut found: Vec<&String> = all.iter().filter(|k| parts.iter().all(|p| k.contains(p))).collect();
        assert_eq!(found.len(), 1, "{parts:?} among {all:#?}");
        found.remove(0).clone()
    }
    pub fn read(&self, key: &str) -> Vec<u8> {
        match self {
            Self::Dir(root) => std::fs::read(root.join(key)).unwrap(),
            Self::S3 { store, prefix } => store.get(&format!("{prefix}{key}")),
        }
    }
    /// Makes or overwrites an object, whatever its permissions.
    pub fn write(&self, key: &str, bytes: &[u8]) {
        match self {
            Self::Dir(root) => {
                let path = root.join(key);
                make_parents(root, &path);
                let _ = std::fs::remove_file(&path);
                std::fs::write(&path, bytes).unwrap();
                Ids::server().own(&path);
            }
            Self::S3 { store, prefix } => store.put(&format!("{prefix}{key}"), bytes),
        }
    }
    pub fn delete(&self, key: &str) {
        match self {
            Self::Dir(root) => std::fs::remove_file(root.join(key)).unwrap(),
            Self::S3 { store, prefix } => store.delete(&format!("{prefix}{key}")),
        }
    }
    pub fn exists(&self, key: &str) -> bool {
        self.list().iter().any(|k| k == key)
    }
    /// Flips one bit in the middle of an object.
    pub fn flip_a_bit(&self, key: &str) {
        let mut bytes = self.read(key);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        self.write(key, &bytes);
    }
    /// Cuts an object's end off.
    pub fn truncate(&self, key: &str, to: usize) {
        let bytes = self.read(key);
        assert!(to < bytes.len());
        self.write(key, &bytes[..to]);
    }
    /// Keys of all objects that contain `needle` in their stored bytes or in their name.
    pub fn containing(&self, needle: &[u8]) -> Vec<String> {
        let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        // What is being written meanwhile may have got its name, or be gone again.
        let bytes = |key: &str| match self {
            Self::Dir(root) => std::fs::read(root.join(key)).unwrap_or_default(),
            Self::S3 { .. } => self.read(key),
        };
        self.list().into_iter().filter(|k| holds(k.as_bytes()) || holds(&bytes(k))).collect()
    }
    /// Every key with its bytes' digest: two equal snapshots mean that nothing was touched.
    pub fn snapshot(&self) -> std::collections::BTreeMap<String, String> {
        use sha2::{Digest as _, Sha256};
        use std::fmt::Write as _;
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut s, b| {
                write!(s, "{b:02x}").unwrap();
                s
            })
        };
        self.list().into_iter().map(|key| (key.clone(), hex(&Sha256::digest(self.read(&key))))).collect()
    }
    pub fn s3(&self) -> &S3 {
        match self {
            Self::S3 { store, .. } => store,
            Self::Dir(root) => panic!("{} is a directory", root.display()),
        }
    }
    pub fn path(&self) -> &Path {
        match self {
            Self::Dir(root) => root,
            Self::S3 { store, .. } => panic!("{} is a bucket", store.bucket()),
        }
    }
}

fn make_parents(root: &Path, path: &Path) {
    let parent = path.parent().unwrap();
    if parent != root && !parent.exists() {
        make_parents(root, parent);
        std::fs::create_dir(parent).unwrap();
        Ids::server().own(parent);
    }
}
