//! age identities: the secret side. Never printed; a file that others may read is refused.

use std::fmt;
use std::path::Path;

use age::secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::util::private;

/// What opens encrypted objects: one or more age identities (X25519).
#[derive(Clone, Default)]
pub struct Identities(Vec<age::x25519::Identity>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({} secret)", self.0.len())
    }
}

impl Identities {
    /// From a file as `age-keygen` writes it. One that group or others may read is refused.
    pub fn load(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| unreadable(path, e))?;
        private::refuse_shared("identity file", path, &meta)?;
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| unreadable(path, e))?);
        Self::parse(&text, &path.display().to_string())
    }

    /// From the text of an identity file; `place` is for messages.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let mut found = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line itself is a secret: only its number is told.
            found.push(line.parse().map_err(|why: &str| {
                Error::new(Code::Key, "not an age identity")
                    .at(format!("{place}:{}", number + 1))
                    .because(why)
            })?);
        }
        if found.is_empty() {
            return Err(Error::new(Code::Key, "the file holds no identity")
                .at(place)
                .hint("an identity is a line AGE-SECRET-KEY-1…; `pgkeep key new` makes one"));
        }
        Ok(Self(found))
    }

    /// Both sets together.
    pub fn and(mut self, others: &Self) -> Self {
        self.0.extend(others.0.iter().cloned());
        self
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The public keys that these identities open.
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(|i| i.to_public().to_string()).collect()
    }
    /// The text of an identity file that holds these.
    pub fn file_text(&self) -> Zeroizing<String> {
        let lines = self.0.iter().map(|identity| {
            let secret = identity.to_string();
            Zeroizing::new(format!("# public key: {}\n{}\n", identity.to_public(), secret.expose_secret()))
        });
        lines.fold(Zeroizing::new(String::new()), |mut text, line| {
            text.push_str(&line);
            text
        })
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|i| i as &dyn age::Identity)
    }
}

fn unreadable(path: &Path, cause: std::io::Error) -> Error {
    Error::new(Code::Key, "cannot read the identity file").at(path.display()).because(cause).hint(
        "put the identity there, readable by the user that runs pgkeep alone, or correct identity_file in [encryption]",
    )
}

/// A fresh identity, before it is written to a file.
pub struct GeneratedIdentity {
    secret: Zeroizing<String>,
    recipient: String,
}

impl GeneratedIdentity {
    #[allow(clippy::new_without_default)] // a key is never a default
    pub fn new() -> Self {
        let identity = age::x25519::Identity::generate();
        Self {
            secret: Zeroizing::new(identity.to_string().expose_secret().to_owned()),
            recipient: identity.to_public().to_string(),
        }
    }
    /// The public key, `age1…`.
    pub fn recipient(&self) -> &str {
        &self.recipient
    }
    /// The file's text, as `age-keygen` would write it.
    pub fn file_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("# public key: {}\n{}\n", self.recipient, self.secret.as_str()))
    }
    pub fn identities(&self) -> Result<Identities> {
        Identities::parse(&self.secret, "generated identity")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.txt");
        let key = GeneratedIdentity::new();
        std::fs::write(&path, key.file_text().as_bytes()).unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match Identities::load(&path) {
                Ok(ids) => assert!(good && ids.recipients() == [key.recipient()], "{mode:o}"),
                Err(e) => assert!(!good && e.code() == Code::Key && e.hint_text().is_some(), "{mode:o} {e}"),
            }
        }
    }

    #[test]
    fn a_malformed_identity_is_named_by_line_and_never_quoted() {
        let error = Identities::parse("# x\n\nAGE-SECRET-KEY-1GARBAGE\n", "id.txt").unwrap_err();
        assert!(error.to_string().contains("id.txt:3"), "{error}");
        assert!(!error.to_string().contains("GARBAGE"), "{error}");
    }
}
