//! Files with secrets: whoever may read one has what is in it, so one that others may read is refused and not used.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Code, Error, Result};

/// Refuses a file that group or others may read or write. `what` is the secret's name for people.
pub fn refuse_shared(what: &str, path: &Path, meta: &Metadata) -> Result<()> {
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::new(Code::Key, format!("the {what} may be read by others (mode {mode:04o})"))
            .at(path.display())
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_the_owner_alone_is_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let judged = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            refuse_shared("key", file.path(), &file.path().metadata().unwrap())
        };
        assert!(judged(0o600).is_ok() && judged(0o400).is_ok());
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let refused = judged(mode).unwrap_err();
            assert_eq!(refused.code(), Code::Key);
            assert!(refused.to_string().contains(&format!("{mode:04o}")), "{refused}");
        }
    }
}
