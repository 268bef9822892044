//! A passphrase, typed without an echo or read from a file; never from the command line, which every user of the host can
//! see.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::codec::Passphrase;
use crate::error::{Code, Error, Result};
use crate::util::private;

const LARGEST: u64 = 64 << 10;

/// For something that is to be opened with it.
pub fn existing(file: Option<&Path>, question: &str) -> Result<Passphrase> {
    match file {
        Some(path) => from_file(path),
        None => typed(question).map(|text| Passphrase::new(&text)),
    }
}

/// For something that will be opened with it one day: typed twice.
pub fn new(file: Option<&Path>, question: &str) -> Result<Passphrase> {
    if let Some(path) = file {
        return from_file(path);
    }
    let first = typed(question)?;
    Passphrase::new(&first).judge()?;
    if *typed("The same again: ")? != *first {
        return Err(Error::new(Code::NotConfirmed, "the two passphrases differ, and nothing was written")
            .hint("run the command again"));
    }
    Ok(Passphrase::new(&first))
}

fn typed(question: &str) -> Result<Zeroizing<String>> {
    let typed = rpassword::prompt_password(question).map(Zeroizing::new);
    typed.map_err(|e| {
        Error::new(Code::NotConfirmed, "nobody can type a passphrase: there is no terminal")
            .because(e)
            .hint("give --passphrase-file FILE (mode 0600)")
    })
}

/// Its first line. A file that others may read is refused; a pipe has no such mode.
fn from_file(path: &Path) -> Result<Passphrase> {
    let failed = |e| Error::new(Code::Key, "cannot read the passphrase").at(path.display()).because(e);
    let file = std::fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_file() {
        private::refuse_shared("passphrase", path, &meta)?;
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LARGEST).read_to_string(&mut text).map_err(failed)?;
    let line = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
    if line.is_empty() {
        return Err(Error::new(Code::Key, "the file of the passphrase is empty").at(path.display()));
    }
    Ok(Passphrase::new(&line))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_passphrase_is_a_files_first_line_and_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, "correct horse battery staple\nmore\n").unwrap();
        let set = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        set(0o640);
        let refused = existing(Some(&path), "?").unwrap_err();
        assert!(refused.code() == Code::Key && refused.hint_text().unwrap().contains("chmod 600"));
        set(0o600);
        let locked = crate::codec::lock(b"x", &existing(Some(&path), "?").unwrap()).unwrap();
        let same = Passphrase::new(&Zeroizing::new("correct horse battery staple".to_owned()));
        assert!(crate::codec::unlock(&locked, &same, "x").is_ok());
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(existing(Some(&path), "?").unwrap_err().code(), Code::Key);
    }
}
