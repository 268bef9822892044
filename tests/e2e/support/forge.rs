//! Objects that are stored, named and signed as they should be, and say something wrong: what only a look at the contents
//! finds. Made with the keys of the host and its recipients.

use std::io::{Read as _, Write as _};

use pgkeep::codec::{Identities, Protection, Recipients, SealWriter, Sealed, open_sealed, open_wal_object};
use pgkeep::repository::signature::HostKey;
use serde_json::Value;

use super::env::TestEnv;

/// What was there before, by key.
pub struct Undo<'e> {
    env: &'e TestEnv,
    before: Vec<(String, Vec<u8>)>,
    added: Vec<String>,
}

impl Undo<'_> {
    pub fn undo(self) {
        for key in &self.added {
            self.env.repo().delete(key);
        }
        for (key, bytes) in &self.before {
            self.env.repo().write(key, bytes);
        }
    }
}

fn identities(env: &TestEnv) -> Identities {
    Identities::load(&env.identity_file).unwrap()
}

fn seal(recipient: &str, plain: &[u8], header: Option<&pgkeep::codec::WalObjectHeader>) -> (Vec<u8>, Sealed) {
    let protection = Protection::Age(Recipients::parse(&[recipient]).unwrap());
    let mut writer = SealWriter::new(Vec::new(), &protection, 1, header).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

/// The plain bytes of an object of a backup.
pub fn plain(env: &TestEnv, key: &str) -> Vec<u8> {
    let stored = env.repo().read(key);
    let mut plain = Vec::new();
    open_sealed(stored.as_slice(), key, Some(&identities(env))).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

/// An object of a backup with other contents; the record has its length and digest, and the host's signature.
pub fn object<'e>(env: &'e TestEnv, key: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Undo<'e> {
    let (directory, relative) = {
        let mut parts = key.splitn(4, '/');
        let directory: Vec<&str> = parts.by_ref().take(3).collect();
        (directory.join("/"), parts.next().unwrap())
    };
    let record = format!("{directory}/backup.json");
    let signature = format!("{record}.minisig");
    let before = [key, &record, &signature].map(|key| (key.to_owned(), env.repo().read(key)));
    let changed = change(plain(env, key));
    let (stored, sealed) = seal(&env.recipient, &changed, None);
    let mut document: Value = serde_json::from_slice(&env.repo().read(&record)).unwrap();
    let objects = document["objects"].as_array_mut().unwrap();
    let entry = objects.iter_mut().find(|object| object["key"] == relative).unwrap();
    entry["bytes"] = sealed.stored_bytes.into();
    entry["sha256"] = sealed.stored_sha256.to_string().into();
    let text = serde_json::to_vec_pretty(&document).unwrap();
    let signer = HostKey::load(&env.state.join("keys/host.key")).unwrap();
    let signed = signer.sign(&text, "backup.json", pgkeep::util::clock::now()).unwrap();
    env.repo().write(key, &stored);
    env.repo().write(&record, &text);
    env.repo().write(&signature, signed.as_bytes());
    Undo { env, before: before.into(), added: Vec::new() }
}

/// A WAL segment with other contents under the name that belongs to them; its key.
pub fn segment<'e>(env: &'e TestEnv, key: &str, change: impl FnOnce(&mut [u8])) -> (String, Undo<'e>) {
    let stored = env.repo().read(key);
    let (header, mut opened) = open_wal_object(stored.as_slice(), key, Some(&identities(env))).unwrap();
    let mut plain = Vec::new();
    opened.read_to_end(&mut plain).unwrap();
    change(&mut plain);
    let (sealed_bytes, sealed) = seal(&env.recipient, &plain, header.as_ref());
    let (head, file) = key.rsplit_once('/').unwrap();
    let forged = format!("{head}/{}-{}.zst.age", &file[..24], sealed.plain_sha256.short());
    env.repo().delete(key);
    env.repo().write(&forged, &sealed_bytes);
    (forged.clone(), Undo { env, before: vec![(key.to_owned(), stored)], added: vec![forged] })
}

/// The same contents for somebody else's identity, as another cluster's object would be.
pub fn for_others<'e>(env: &'e TestEnv, key: &str) -> Undo<'e> {
    let stored = env.repo().read(key);
    let (header, mut opened) = open_wal_object(stored.as_slice(), key, Some(&identities(env))).unwrap();
    let mut plain = Vec::new();
    opened.read_to_end(&mut plain).unwrap();
    let other = age::x25519::Identity::generate().to_public().to_string();
    env.repo().write(key, &seal(&other, &plain, header.as_ref()).0);
    Undo { env, before: vec![(key.to_owned(), stored)], added: Vec::new() }
}

/// A mark of a backup, of now, as a host with this key writes it; its key.
pub fn mark_by(env: &TestEnv, signer: &HostKey, id: &str, word: &str) -> String {
    let at = pgkeep::util::clock::now();
    let key = format!("main/marks/{id}/{}-{word}.json", at.compact_micros());
    let document = serde_json::json!({
        "format": 1, "mark": word, "backup": id, "at": at, "host": "test", "reason": "the policy says so",
    });
    let text = serde_json::to_vec_pretty(&document).unwrap();
    let signed = signer.sign(&text, key.rsplit('/').next().unwrap(), at).unwrap();
    env.repo().write(&format!("{key}.minisig"), signed.as_bytes());
    env.repo().write(&key, &text);
    key
}

/// A mark that this host signs.
pub fn mark(env: &TestEnv, id: &str, word: &str) -> String {
    mark_by(env, &HostKey::load(&env.state.join("keys/host.key")).unwrap(), id, word)
}

/// A head of a segment with these bytes at `from`; its key.
pub fn head(env: &TestEnv, segment: &str, from: usize, bytes: &[u8]) -> String {
    wal_object(env, segment, &format!(".head-{from:08x}-{:08x}", from + bytes.len()), bytes)
}

/// A whole segment with these bytes.
pub fn whole(env: &TestEnv, segment: &str, bytes: &[u8]) -> String {
    wal_object(env, segment, "", bytes)
}

fn wal_object(env: &TestEnv, segment: &str, range: &str, bytes: &[u8]) -> String {
    let header = pgkeep::codec::WalObjectHeader {
        host: "test".to_owned(),
        pgkeep_version: "0".to_owned(),
        archived_at: pgkeep::util::clock::now(),
    };
    let (stored, sealed) = seal(&env.recipient, bytes, Some(&header));
    let (system, digest) = (env.pg.system_id(), sealed.plain_sha256.short());
    let directory = format!("main/wal/{system}/{}/{}", &segment[..8], &segment[8..16]);
    let key = format!("{directory}/{segment}{range}-{digest}.zst.age");
    env.repo().write(&key, &stored);
    key
}
