//! Who wrote a backup: minisign signatures by the host's key, prehashed, as `minisign -V -p host.pub -m FILE` checks
//! them.
//!
//! The secret lies in the state directory (`keys/host.key`, 0600, without a password: the host signs by itself);
//! `keys/host.pub` beside it is for people. Accepted signers are the host itself and `[trust] hosts`.

use std::io::Cursor;
use std::path::Path;

use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::util::human::redacted;
use crate::util::private;

/// The host's signing key.
pub struct HostKey {
    secret: SecretKey,
    public: PublicHostKey,
}

/// A signer's public key, `RW…` in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicHostKey(PublicKey);

impl std::fmt::Debug for PublicHostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line())
    }
}

/// The two files of a fresh host key.
pub struct HostKeyFiles {
    pub secret: Zeroizing<String>,
    pub public: String,
}

impl HostKey {
    pub fn generate() -> Result<Self> {
        let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair()
            .map_err(|e| Error::new(Code::Key, "cannot make a host key").because(e))?;
        Ok(Self { secret: sk, public: PublicHostKey(pk) })
    }

    /// The text of `host.key` and `host.pub`, in minisign's form.
    pub fn files(&self) -> Result<HostKeyFiles> {
        let cannot = |e: minisign::PError| Error::internal("cannot print the host key").because(e);
        let secret = self.secret.to_box(Some("pgkeep host key")).map_err(cannot)?;
        Ok(HostKeyFiles {
            secret: Zeroizing::new(secret.into_string()),
            public: self.public.0.to_box().map_err(cannot)?.into_string(),
        })
    }

    /// From the text of `host.key`; `place` is for messages.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let wrong = |e: minisign::PError| {
            Error::new(Code::Key, "the host key cannot be read")
                .at(place)
                .because(e)
                .hint("`pgkeep init` makes one where none is")
        };
        let secret = SecretKeyBox::from_string(text).map_err(wrong)?;
        let secret = secret.into_unencrypted_secret_key().map_err(wrong)?;
        let public = PublicHostKey(PublicKey::from_secret_key(&secret).map_err(wrong)?);
        Ok(Self { secret, public })
    }

    /// From a file; one that group or others may read is refused.
    pub fn load(path: &Path) -> Result<Self> {
        let unreadable = |e: std::io::Error| {
            Error::new(Code::Key, "cannot read the host key")
                .at(path.display())
                .because(e)
                .hint("`pgkeep init` makes one where none is")
        };
        private::refuse_shared("host key", path, &std::fs::metadata(path).map_err(unreadable)?)?;
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
        Self::parse(&text, &path.display().to_string())
    }

    pub fn public(&self) -> &PublicHostKey {
        &self.public
    }

    /// The text of a `.minisig` for these bytes. `what` and the time go into the trusted comment.
    pub fn sign(&self, bytes: &[u8], what: &str, at: Timestamp) -> Result<String> {
        let comment = format!("timestamp:{}\tfile:{what}\thashed", at.0.timestamp());
        let signed = minisign::sign(
            Some(&self.public.0),
            &self.secret,
            Cursor::new(bytes),
            Some(&comment),
            Some("signature by a pgkeep host"),
        );
        signed
            .map(SignatureBox::into_string)
            .map_err(|e| Error::new(Code::Key, "cannot sign with the host key").because(e))
    }
}

impl PublicHostKey {
    /// `RW…`, or the text of a `.pub` file.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let parsed = if text.contains('\n') {
            PublicKeyBox::from_string(text).and_then(PublicKeyBox::into_public_key)
        } else {
            PublicKey::from_base64(text)
        };
        parsed.map(Self).map_err(|e| {
            Error::new(Code::Key, format!("`{}` is not a host's public key", redacted(text)))
                .because(e)
                .hint("it looks like RW…; `pgkeep init` and `pgkeep key show` print it on the other host")
        })
    }
    /// The one-line form for `[trust] hosts`.
    pub fn line(&self) -> String {
        self.0.to_base64()
    }
}

/// The signers whose records are believed.
#[derive(Debug, Clone, Default)]
pub struct Trust(Vec<PublicHostKey>);

/// Whether a record is believed, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Trusted,
    Untrusted(String),
}

impl Trust {
    pub fn new(keys: impl IntoIterator<Item = PublicHostKey>) -> Self {
        Self(keys.into_iter().collect())
    }
    pub fn and(mut self, key: PublicHostKey) -> Self {
        self.0.push(key);
        self
    }
    /// Checks the text of a `.minisig` (None: there is none) over `bytes`.
    pub fn verify(&self, bytes: &[u8], signature: Option<&str>) -> Verdict {
        let Some(signature) = signature else {
            return Verdict::Untrusted("it is not signed".into());
        };
        let parsed = if is_whole(signature) { SignatureBox::from_string(signature).ok() } else { None };
        let Some(signature) = parsed else {
            return Verdict::Untrusted("its signature cannot be read".into());
        };
        let Some(signer) = self.0.iter().find(|k| k.0.keynum() == signature.keynum()) else {
            return Verdict::Untrusted("its signer is not among the trusted hosts".into());
        };
        match minisign::verify(&signer.0, &signature, Cursor::new(bytes), true, false, false) {
            Ok(()) => Verdict::Trusted,
            Err(_) => Verdict::Untrusted("its signature does not fit its content".into()),
        }
    }
}

/// Whether the text of a `.minisig` has both of its signatures in full (a comment, 2 + 8 + 64 bytes in base64, a comment, 64
/// bytes in base64): the crate that reads it takes that for granted, and panics where one is cut.
fn is_whole(signature: &str) -> bool {
    let ends = |line: Option<&str>, length: usize, padding: &str| {
        line.and_then(|line| line.trim_end().strip_suffix(padding))
            .is_some_and(|digits| digits.len() + padding.len() == length && !digits.ends_with('='))
    };
    let mut lines = signature.lines();
    ends(lines.nth(1), 100, "=") && ends(lines.nth(1), 88, "==")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        "2026-11-21T02:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_record_is_believed_only_with_a_trusted_hosts_signature_over_its_very_bytes() {
        let host = HostKey::generate().unwrap();
        let stranger = HostKey::generate().unwrap();
        let signature = host.sign(b"record", "backup.json", at()).unwrap();
        let trust = Trust::new([host.public().clone()]);
        assert_eq!(trust.verify(b"record", Some(&signature)), Verdict::Trusted);
        let doubts = [
            trust.verify(b"recorD", Some(&signature)),
            trust.verify(b"record", None),
            trust.verify(b"record", Some("x")),
            trust.verify(b"record", Some(&stranger.sign(b"record", "backup.json", at()).unwrap())),
            Trust::default().verify(b"record", Some(&signature)),
            trust.verify(b"record", Some(&signature.replace("file:backup", "file:other"))),
        ];
        for doubt in doubts {
            assert!(matches!(doubt, Verdict::Untrusted(_)), "{doubt:?}");
        }
    }

    #[test]
    fn a_signature_that_is_cut_or_changed_anywhere_is_doubted_and_never_panics() {
        let host = HostKey::generate().unwrap();
        let signature = host.sign(b"record", "backup.json", at()).unwrap();
        let trust = Trust::new([host.public().clone()]);
        let text = signature.trim_end();
        for length in 0..text.len() {
            let verdict = trust.verify(b"record", Some(&text[..length]));
            assert!(matches!(verdict, Verdict::Untrusted(_)), "cut to {length}: {verdict:?}");
        }
        let first_line = text.find('\n').unwrap();
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            let verdict = trust.verify(b"record", Some(&changed));
            // The first line is a comment that nobody signs.
            assert!(at <= first_line || verdict != Verdict::Trusted, "changed at {at}");
        }
    }

    #[test]
    fn a_host_key_reads_back_from_its_files() {
        let host = HostKey::generate().unwrap();
        let files = host.files().unwrap();
        let again = HostKey::parse(&files.secret, "host.key").unwrap();
        let public = PublicHostKey::parse(&files.public).unwrap();
        assert_eq!(&public, again.public());
        assert_eq!(PublicHostKey::parse(&public.line()).unwrap(), public);
        let signature = again.sign(b"x", "x", at()).unwrap();
        assert_eq!(Trust::new([public]).verify(b"x", Some(&signature)), Verdict::Trusted);
        assert_eq!(HostKey::parse("nonsense", "host.key").err().unwrap().code(), Code::Key);
    }
}
