//! A kit as files: in memory, as a directory or as a tar file. A kit on disk is whole, or not there: it is written under a
//! temporary name, read again, and only then gets its name. What reads one checks every digest before anything is used.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{CHECKSUMS, CONTENTS, Contents, IDENTITY};
use crate::codec::{self, Identities, Passphrase};
use crate::error::{Code, Error, Result};
use crate::model::Digest;
use crate::repository::documents;
use crate::util::{durable, failpoint};

/// No honest kit is larger.
const LARGEST: u64 = 16 << 20;
/// The directory inside a tar file.
const INSIDE: &str = "pgkeep-recovery-kit";

/// All of a kit, by name relative to its directory.
#[derive(Debug)]
pub struct Kit {
    pub contents: Contents,
    files: BTreeMap<String, Vec<u8>>,
    /// For messages.
    place: String,
}

impl Kit {
    /// Of these files; contents and checksums are added.
    pub fn new(contents: Contents, mut files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        files.insert(CONTENTS.to_owned(), documents::to_bytes(&contents)?);
        let mut sums = String::new();
        for (name, bytes) in &files {
            sums.push_str(&format!("{}  {name}\n", Digest::of(bytes)));
        }
        files.insert(CHECKSUMS.to_owned(), sums.into_bytes());
        // Nothing above lets one in; what would be worst is looked for all the same.
        if files.values().any(|bytes| has_secret_key(bytes)) {
            return Err(Error::internal("a secret key stands in the clear in the recovery kit"));
        }
        Ok(Self { contents, files, place: "the kit".to_owned() })
    }

    /// A directory, or a tar file. Every digest is checked.
    pub fn read(place: &Path) -> Result<Self> {
        let files = if place.is_dir() { of_directory(place)? } else { of_tar(place)? };
        let place = place.display().to_string();
        check(&files, &place)?;
        let contents: Contents = match files.get(CONTENTS) {
            Some(bytes) => documents::parse_versioned(bytes, &format!("{place}/{CONTENTS}"))?,
            None => return Err(damaged(&place, format!("{CONTENTS} is missing"))),
        };
        Ok(Self { contents, files, place })
    }

    pub fn text(&self, name: &str) -> Result<&str> {
        let bytes = self.files.get(name).ok_or_else(|| damaged(&self.place, format!("{name} is missing")))?;
        std::str::from_utf8(bytes).map_err(|_| damaged(&self.place, format!("{name} is no text")))
    }

    /// The identity, decrypted in memory; None where nothing is encrypted. A kit without one cannot restore, and says so.
    pub fn identities(&self, passphrase: impl FnOnce() -> Result<Passphrase>) -> Result<Option<Identities>> {
        if self.contents.recipients.is_empty() {
            return Ok(None);
        }
        if !self.contents.is_complete() {
            return Err(Error::new(Code::Key, "this kit was made without an identity and cannot restore")
                .at(&self.place)
                .hint("make a whole one where the identity is: pgkeep key kit --identity FILE --out …")
                .see("key-lost.md"));
        }
        let place = format!("{}/{IDENTITY}", self.place);
        let text = codec::unlock(self.text(IDENTITY)?.as_bytes(), &passphrase()?, &place)?;
        let identities = Identities::parse(&text, &place)?;
        if identities.recipients() != self.contents.opens {
            return Err(damaged(
                &self.place,
                format!("{IDENTITY} holds another identity than {CONTENTS} says"),
            ));
        }
        Ok(Some(identities))
    }

    /// Writes it to a name that is free: a tar file where the name ends so, else a directory.
    pub fn write(&self, target: &Path) -> Result<()> {
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(taken(target));
        }
        let written = if is_tar(target) { self.write_tar(target) } else { self.write_directory(target) };
        written.map_err(|e| if e.code() == Code::ObjectExists { taken(target) } else { e })
    }

    fn write_directory(&self, target: &Path) -> Result<()> {
        let parent = durable::parent(target);
        // Removed again wherever this ends early.
        let temporary = tempfile::Builder::new()
            .prefix(durable::TEMP_PREFIX)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(|e| Error::io("cannot make the kit's directory", parent, e))?;
        for (name, bytes) in &self.files {
            let path = temporary.path().join(name);
            durable::make_dirs(path.parent().unwrap_or(temporary.path()), 0o700)?;
            durable::write_new(&path, bytes, 0o600)?;
        }
        self.refuse_other(&Self::read(temporary.path())?.files, temporary.path())?;
        durable::rename_new(temporary.path(), target)?;
        let _ = temporary.keep();
        Ok(())
    }

    fn write_tar(&self, target: &Path) -> Result<()> {
        let failed = |e| Error::io("cannot write the kit", target, e);
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(self.contents.made_at.0.timestamp()).unwrap_or(0));
            tar.append_data(&mut header, format!("{INSIDE}/{name}"), bytes.as_slice()).map_err(failed)?;
        }
        let bytes = tar.into_inner().map_err(failed)?;
        let mut file = durable::NewFile::create(target, 0o600)?;
        file.write_all(&bytes)?;
        self.refuse_other(&of_tar(file.temporary())?, target)?;
        file.publish()
    }

    /// What was written must read back as what was meant.
    fn refuse_other(&self, read: &BTreeMap<String, Vec<u8>>, place: &Path) -> Result<()> {
        if *read != self.files {
            let what = "the kit does not read back as it was written";
            return Err(Error::new(Code::Io, what).at(place.display()));
        }
        failpoint::reach("kit-before-name")
    }

    /// For people: name and size.
    pub fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.len()))
    }
}

/// An identity as `age-keygen` writes it; pages speak of `AGE-SECRET-KEY-1…`.
fn has_secret_key(bytes: &[u8]) -> bool {
    const HEAD: &[u8] = b"AGE-SECRET-KEY-1";
    memchr::memmem::find_iter(bytes, HEAD).any(|at| {
        let digits = bytes[at + HEAD.len()..].iter().take_while(|byte| byte.is_ascii_alphanumeric());
        digits.count() > 20
    })
}

fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

/// Nothing is overwritten.
pub fn taken(target: &Path) -> Error {
    Error::new(Code::NotEmpty, "there is something of this name, and a kit overwrites nothing")
        .at(target.display())
        .hint("give another name, and keep the older kit as long as backups need its identity")
        .see("key-lost.md")
}

fn damaged(place: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Code::Damaged, format!("the recovery kit is not as it was made: {what}"))
        .at(place)
        .hint("take another copy of it, or make a new one: pgkeep key kit --out …")
        .see("key-lost.md")
}

/// Every file is as it was, none is missing, and none has come.
fn check(files: &BTreeMap<String, Vec<u8>>, place: &str) -> Result<()> {
    let sums = files.get(CHECKSUMS).ok_or_else(|| damaged(place, format!("{CHECKSUMS} is missing")))?;
    let sums = std::str::from_utf8(sums).map_err(|_| damaged(place, format!("{CHECKSUMS} is no text")))?;
    let mut listed = BTreeMap::new();
    for line in sums.lines() {
        let (sum, name) = line
            .split_once("  ")
            .and_then(|(sum, name)| Some((Digest::parse(sum)?, name)))
            .ok_or_else(|| damaged(place, format!("{CHECKSUMS} has a line that is none")))?;
        listed.insert(name, sum);
    }
    for (name, sum) in &listed {
        match files.get(*name) {
            None => return Err(damaged(place, format!("{name} is missing"))),
            Some(bytes) if Digest::of(bytes) != *sum => {
                return Err(damaged(place, format!("{name} was changed")));
            }
            Some(_) => {}
        }
    }
    match files.keys().find(|name| *name != CHECKSUMS && !listed.contains_key(name.as_str())) {
        Some(name) => Err(damaged(place, format!("{name} does not belong to it"))),
        None => Ok(()),
    }
}

fn of_directory(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut left = LARGEST;
    for entry in walkdir::WalkDir::new(root).follow_links(false) {
        let entry =
            entry.map_err(|e| Error::new(Code::Io, "cannot read the kit").at(root.display()).because(e))?;
        if entry.file_type().is_dir() {
            continue;
        }
        let name = entry.path().strip_prefix(root).unwrap_or(entry.path()).display().to_string();
        let file = std::fs::File::open(entry.path());
        let file = file.map_err(|e| Error::io("cannot read the kit", entry.path(), e))?;
        files.insert(name, limited(file, &mut left, root)?);
    }
    Ok(files)
}

fn of_tar(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let failed = |e| Error::io("cannot read the kit", path, e);
    let torn = || damaged(&path.display().to_string(), "it is no whole tar file");
    let mut archive = tar::Archive::new(std::fs::File::open(path).map_err(failed)?);
    let (mut files, mut left) = (BTreeMap::new(), LARGEST);
    for entry in archive.entries().map_err(|_| torn())? {
        let entry = entry.map_err(|_| torn())?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let name = entry.path().map_err(|_| torn())?.display().to_string();
        // Repacked by hand it may have another directory.
        let name = name.split_once('/').map_or(name.as_str(), |(_, rest)| rest).to_owned();
        let length = entry.size();
        let bytes = limited(entry, &mut left, path)?;
        if bytes.len() as u64 != length {
            return Err(torn());
        }
        files.insert(name, bytes);
    }
    Ok(files)
}

fn limited(from: impl Read, left: &mut u64, place: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(*left + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("cannot read the kit", place, e))?;
    *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
        Error::new(Code::Damaged, "this is no recovery kit: it is too large").at(place.display())
    })?;
    Ok(bytes)
}

/// The identity as it lies in a kit.
pub fn locked(identities: &Identities, passphrase: &Passphrase) -> Result<Vec<u8>> {
    let text = identities.file_text();
    let locked = codec::lock(text.as_bytes(), passphrase)?;
    // The way back is walked before anybody relies on it.
    let back: Zeroizing<String> = codec::unlock(&locked, passphrase, IDENTITY)?;
    if back == text { Ok(locked) } else { Err(Error::internal("the locked identity does not open")) }
}

#[cfg(test)]
mod tests;
