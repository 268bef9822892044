//! A small secret that a passphrase protects: an armored age file with scrypt's one recipient, which `age -d` opens too.

use std::fmt;
use std::io::{Read, Write};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};

/// scrypt's cost, 2^18: what `age -p` takes, about a second of a core and 256 MiB for each guess.
const WORK_FACTOR: u8 = 18;
/// A file that wants more than this is no work of ours: it would keep a host busy for minutes.
const LARGEST_WORK_FACTOR: u8 = 22;
/// Fewer characters are refused: whoever finds the file can guess for as long as he likes.
const SHORTEST: usize = 12;
/// Fewer than this are taken with a warning.
const SHORT: usize = 20;
/// Fewer different ones are a pattern.
const DIFFERENT: usize = 6;
const LARGEST: u64 = 1 << 20;

/// What the file of a locked identity is called.
pub const LOCKED_IDENTITY: &str = "identity.age";

/// What a person types. Wiped from memory, printed nowhere.
#[derive(Clone)]
pub struct Passphrase(SecretString, usize, usize);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(secret)")
    }
}

impl Passphrase {
    pub fn new(text: &Zeroizing<String>) -> Self {
        let different: std::collections::BTreeSet<char> = text.chars().collect();
        Self(SecretString::from(text.as_str().to_owned()), text.chars().count(), different.len())
    }

    /// Refuses one that is guessed sooner or later; a word of warning for one that may be.
    pub fn judge(&self) -> Result<Option<&'static str>> {
        const HINT: &str = "take six or more words at random, and write them down where the file is not";
        if self.1 < SHORTEST {
            let what = format!("the passphrase is too short: at least {SHORTEST} characters");
            return Err(Error::new(Code::Key, what).hint(HINT));
        }
        if self.2 < DIFFERENT {
            return Err(Error::new(Code::Key, "the passphrase repeats the same few characters").hint(HINT));
        }
        Ok((self.1 < SHORT).then_some(
            "the passphrase is short for a file that anybody may find; six random words are better",
        ))
    }
}

/// Encrypts to the passphrase; the result is text.
pub fn lock(plain: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::internal("age cannot encrypt to a passphrase").because(e);
    let mut recipient = age::scrypt::Recipient::new(passphrase.0.clone());
    recipient.set_work_factor(WORK_FACTOR);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        .map_err(|e| Error::internal("age refused a passphrase").because(e))?;
    let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor).map_err(failed)?;
    let mut writer = encryptor.wrap_output(armor).map_err(failed)?;
    writer.write_all(plain).map_err(failed)?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(failed)
}

/// The way back; `place` is for messages.
pub fn unlock(stored: &[u8], passphrase: &Passphrase, place: &str) -> Result<Zeroizing<String>> {
    let damaged = |why: &'static str| {
        Error::new(Code::Damaged, format!("the encrypted identity cannot be read: {why}")).at(place)
    };
    let decryptor =
        age::Decryptor::new_buffered(ArmoredReader::new(stored)).map_err(|_| damaged("it is no age file"))?;
    let mut identity = age::scrypt::Identity::new(passphrase.0.clone());
    identity.set_max_work_factor(LARGEST_WORK_FACTOR);
    let opened = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity));
    let stream = opened.map_err(|e| match e {
        age::DecryptError::NoMatchingKeys
        | age::DecryptError::DecryptionFailed
        | age::DecryptError::KeyDecryptionFailed => Error::new(Code::Key, "the passphrase is wrong")
            .at(place)
            .hint("try again; blanks and case count"),
        age::DecryptError::ExcessiveWork { .. } => damaged("it asks for more work than any of ours does"),
        _ => damaged("its header is damaged"),
    })?;
    let mut text = Zeroizing::new(String::new());
    stream.take(LARGEST).read_to_string(&mut text).map_err(|_| damaged("its content is damaged"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(&Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn only_the_passphrase_opens_what_it_protects_and_a_changed_file_opens_to_nobody() {
        let right = passphrase("six words that nobody guesses");
        let locked = lock(b"a secret", &right).unwrap();
        assert!(locked.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----"));
        assert_eq!(unlock(&locked, &right, "x").unwrap().as_str(), "a secret");
        let wrong = unlock(&locked, &passphrase("Six words that nobody guesses"), "x").unwrap_err();
        assert!(wrong.code() == Code::Key && wrong.to_string().contains("passphrase is wrong"), "{wrong}");
        let cut = unlock(&locked[..locked.len() / 2], &right, "x").unwrap_err();
        assert_eq!(cut.code(), Code::Damaged);
    }

    #[test]
    fn a_passphrase_that_is_soon_guessed_is_refused() {
        for weak in ["", "short", "elevenchars", "aaaaaaaaaaaaaaaaaaaaaaaa", "ababababababab"] {
            assert_eq!(passphrase(weak).judge().unwrap_err().code(), Code::Key, "{weak}");
        }
        assert!(passphrase("Tr0ub4dor&3x").judge().unwrap().is_some());
        assert_eq!(passphrase("correct horse battery staple").judge().unwrap(), None);
        assert!(!format!("{:?}", passphrase("correct horse battery staple")).contains("horse"));
    }
}
