//! Which keys a store takes. The same for every driver, so that a repository can move between them.

use crate::error::{Code, Error, Result};
use crate::util::durable::TEMP_PREFIX;

/// S3's own limit; a component's limit is that of file systems.
const MAX_KEY_BYTES: usize = 1024;
const MAX_COMPONENT_BYTES: usize = 255;

/// Refuses a key that could leave the root, hide, or mean different things to different stores.
pub fn check(key: &str) -> Result<()> {
    if key.len() > MAX_KEY_BYTES || !key.split('/').all(component) {
        return Err(bad(key));
    }
    Ok(())
}

/// A listing's prefix: the beginning of a key, whose last component may be unfinished or empty.
pub fn check_prefix(prefix: &str) -> Result<()> {
    let whole = prefix.rsplit_once('/').map_or("", |(whole, _)| whole);
    let begins =
        prefix.len() <= MAX_KEY_BYTES && !prefix.starts_with('/') && !prefix.contains(char::is_control);
    if !begins || !(whole.is_empty() || whole.split('/').all(component)) {
        return Err(bad(prefix));
    }
    Ok(())
}

fn component(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_COMPONENT_BYTES
        && !name.contains(|c: char| c.is_control() || c == '\\')
        && !name.starts_with(TEMP_PREFIX)
}

fn bad(key: &str) -> Error {
    let shown: String = key.chars().take(80).flat_map(char::escape_debug).collect();
    Error::new(Code::Damaged, "this is no key of an object").at(format!("`{shown}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_leave_the_root_or_hide_are_refused() {
        for good in ["pgkeep.json", "a/b-c_d~e.f", "a/..b", "a/b..", "é"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "a/..",
            "../a",
            "a/./b",
            "a\0b",
            "a\nb",
            "a\\b",
            "a/.pgkeep-tmp-1",
            &long,
        ] {
            assert_eq!(check(bad).unwrap_err().code(), Code::Damaged, "{bad}");
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere() {
        for good in ["", "a", "a/", "a/b", "a/.", "a/b/"] {
            assert!(check_prefix(good).is_ok(), "{good}");
        }
        for bad in ["/", "/a", "a//", "../", "a/../b", "a\n"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
