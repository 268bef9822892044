//! What is done to bytes before they leave the host.

use std::fmt;
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::util::human::redacted;

/// The age recipients (`age1…`) that data is encrypted to. Cheap to clone; never empty.
#[derive(Clone)]
pub struct Recipients(Arc<[(String, age::x25519::Recipient)]>);

impl Recipients {
    /// Parses public keys as `age-keygen` prints them. An empty list is refused: it would encrypt to nobody.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        let mut parsed: Vec<(String, age::x25519::Recipient)> = Vec::with_capacity(texts.len());
        for text in texts {
            let text = text.as_ref().trim();
            let recipient = text.parse().map_err(|why: &str| {
                Error::new(Code::Key, format!("`{}` is not an age recipient", redacted(text)))
                    .because(why)
                    .hint("a recipient looks like age1…; `age-keygen -y identity.txt` prints it")
            })?;
            if !parsed.iter().any(|(known, _)| known == text) {
                parsed.push((text.to_owned(), recipient));
            }
        }
        if parsed.is_empty() {
            return Err(Error::new(Code::EncryptionUnset, "there are no recipients to encrypt to").hint(
                "set [encryption] recipients = [\"age1…\"], or encryption = \"none\" to store in the clear",
            ));
        }
        Ok(Self(parsed.into()))
    }

    /// These and one more (the host's metadata key).
    pub fn with(&self, more: &str) -> Result<Self> {
        let mut texts: Vec<&str> = self.names().collect();
        texts.push(more);
        Self::parse(&texts)
    }

    /// The public keys as text, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| text.as_str())
    }

    pub(super) fn encryptor(&self) -> Result<age::Encryptor> {
        age::Encryptor::with_recipients(self.0.iter().map(|(_, r)| r as &dyn age::Recipient))
            .map_err(|e| Error::internal("age refused the recipients").because(e))
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Encrypted or not: decided once from the configuration, before anything is written.
#[derive(Debug, Clone)]
pub enum Protection {
    /// The user wrote `encryption = "none"`.
    Plain,
    Age(Recipients),
}

impl Protection {
    /// The end of an object's key: it says what was done to the bytes.
    pub const fn suffix(&self) -> &'static str {
        match self {
            Self::Plain => ".zst",
            Self::Age(_) => ".zst.age",
        }
    }
    /// The `codec` of `backup.json`.
    pub const fn codec_name(&self) -> &'static str {
        match self {
            Self::Plain => "zstd",
            Self::Age(_) => "zstd+age",
        }
    }
    /// The recipients' public keys; empty without encryption.
    pub fn recipient_names(&self) -> Vec<String> {
        match self {
            Self::Plain => Vec::new(),
            Self::Age(recipients) => recipients.names().map(str::to_owned).collect(),
        }
    }
    /// The same with one more recipient; without encryption nothing changes.
    pub fn with(&self, more: &str) -> Result<Self> {
        Ok(match self {
            Self::Plain => Self::Plain,
            Self::Age(recipients) => Self::Age(recipients.with(more)?),
        })
    }
}

/// True when the key's suffix says that the bytes are encrypted; an error when it names nothing we read.
pub(super) fn is_encrypted(key: &str) -> Result<bool> {
    // A healed object's key has its digest after the suffix, a continued one its part number.
    let stem = key.split_once(".healed-").map_or(key, |(stem, _)| stem);
    let mut suffixes = stem.rsplit('.');
    let last_two = (suffixes.next(), suffixes.next());
    if last_two == (Some("age"), Some("zst")) {
        Ok(true)
    } else if last_two.0 == Some("zst") {
        Ok(false)
    } else {
        Err(Error::new(Code::Damaged, "the object's name does not say how it was stored").at(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::GeneratedIdentity;

    #[test]
    fn nobody_is_not_a_recipient() {
        assert_eq!(Recipients::parse::<&str>(&[]).unwrap_err().code(), Code::EncryptionUnset);
        assert_eq!(Recipients::parse(&["age1nonsense"]).unwrap_err().code(), Code::Key);
    }

    #[test]
    fn a_recipient_named_twice_counts_once() {
        let a = GeneratedIdentity::new();
        let b = GeneratedIdentity::new();
        let list = Recipients::parse(&[a.recipient(), a.recipient()]).unwrap();
        assert_eq!(list.names().collect::<Vec<_>>(), [a.recipient()]);
        assert_eq!(list.with(b.recipient()).unwrap().names().count(), 2);
    }
}
