//! The text of `postgresql.conf` and `postgresql.auto.conf`: reading values, finding included files, taking
//! settings out and adding ours. Pure, on the text, but for the functions that say they read or write files.
//!
//! PostgreSQL takes the last of several lines for a name; names are compared without regard to case. Source of the
//! syntax: `guc-file.l`.

use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::util::durable;

/// Settings that say where a recovery ends and where WAL comes from: stale ones break the next recovery.
pub const RECOVERY_SETTINGS: [&str; 14] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
];

/// How deep PostgreSQL follows includes (`CONF_FILE_MAX_DEPTH`).
const INCLUDE_DEPTH: usize = 10;

/// One meaningful line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Lower case.
    pub name: String,
    /// Unquoted.
    pub value: String,
}

/// The lines of a configuration text that mean something; a line that PostgreSQL would refuse is passed over.
pub fn parse(text: &str) -> Vec<Line> {
    text.lines().filter_map(parse_line).collect()
}

/// The value in force if this text were all there is.
pub fn value(text: &str, name: &str) -> Option<String> {
    parse(text).into_iter().rfind(|line| line.name == name.to_ascii_lowercase()).map(|line| line.value)
}

/// `'it''s'`: quoted as PostgreSQL reads it.
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

/// The text without the lines that set one of `remove`, and with a line for each of `add` (which also take out
/// earlier lines of their names) under a comment. Everything else stays byte for byte, UTF-8 or not.
pub fn edit(text: &[u8], remove: &[&str], add: &[(&str, String)], comment: &str) -> Vec<u8> {
    let goes = |line: &[u8]| {
        parse_line(&String::from_utf8_lossy(line)).is_some_and(|l| {
            let same = |name: &&str| name.eq_ignore_ascii_case(&l.name);
            remove.iter().any(same) || add.iter().any(|(n, _)| same(n))
        })
    };
    let ours = format!("# pgkeep: {comment}\n");
    let lines = text.split_inclusive(|b| *b == b'\n').filter(|line| !goes(line) && *line != ours.as_bytes());
    let mut result = lines.flatten().copied().collect::<Vec<u8>>();
    if add.is_empty() {
        return result;
    }
    if !result.is_empty() && !result.ends_with(b"\n") {
        result.push(b'\n');
    }
    result.extend_from_slice(ours.as_bytes());
    for (name, value) in add {
        result.extend_from_slice(format!("{name} = {}\n", quote(value)).as_bytes());
    }
    result
}

/// The text without the lines that [`edit`] added last under `comment`, which stand at its end.
pub fn without_added(text: &[u8], comment: &str) -> Vec<u8> {
    let ours = format!("# pgkeep: {comment}\n");
    let lines = text.split_inclusive(|b| *b == b'\n');
    lines.take_while(|line| *line != ours.as_bytes()).flatten().copied().collect()
}

/// Takes out of a file what [`edit_file`] added under `comment`, and every line that sets one of `remove`.
pub fn clear_file(path: &Path, remove: &[&str], comment: &str) -> Result<()> {
    let Ok(text) = std::fs::read(path) else { return Ok(()) };
    let cleared = without_added(&text, comment);
    if cleared != text {
        use std::os::unix::fs::PermissionsExt;
        let meta = std::fs::metadata(path).map_err(|e| Error::io("cannot look at the settings", path, e))?;
        durable::atomic_replace(path, &cleared, meta.permissions().mode() & 0o7777)?;
    }
    edit_file(path, remove, &[], comment)
}

/// Edits a file durably, keeping its mode; one that does not exist is made (0600).
pub fn edit_file(path: &Path, remove: &[&str], add: &[(&str, String)], comment: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let (text, mode) = match std::fs::read(path) {
        Ok(text) => {
            let meta =
                std::fs::metadata(path).map_err(|e| Error::io("cannot look at the settings", path, e))?;
            (text, meta.permissions().mode() & 0o7777)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Vec::new(), 0o600),
        Err(e) => return Err(Error::io("cannot read the settings", path, e)),
    };
    let edited = edit(&text, remove, add, comment);
    if edited == text { Ok(()) } else { durable::atomic_replace(path, &edited, mode) }
}

/// Every configuration file that `main` leads to, itself first, in the order of reading. A missing `include_if_exists`
/// is nothing; any other missing file is an error.
pub fn files(main: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    follow(main, 0, &mut found)?;
    Ok(found)
}

fn follow(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if depth > INCLUDE_DEPTH {
        return Err(Error::new(Code::NotReady, "the configuration includes itself").at(path.display()));
    }
    let bytes =
        std::fs::read(path).map_err(|e| Error::io("cannot read the configuration of PostgreSQL", path, e))?;
    if !found.contains(&path.to_path_buf()) {
        found.push(path.to_path_buf());
    }
    let beside = path.parent().unwrap_or(Path::new("/"));
    for line in parse(&String::from_utf8_lossy(&bytes)) {
        let target = beside.join(&line.value);
        match line.name.as_str() {
            "include" => follow(&target, depth + 1, found)?,
            "include_if_exists" if target.exists() => follow(&target, depth + 1, found)?,
            "include_dir" => {
                for file in conf_files(&target)? {
                    follow(&file, depth + 1, found)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `*.conf` of a directory, in the order of their names, hidden ones left out, as PostgreSQL does.
fn conf_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |e| Error::io("cannot read an included directory", directory, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let conf = path.extension().is_some_and(|e| e == "conf");
        if conf && !name.starts_with('.') && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `name = value`, `name value`, `name 'value'  # comment`.
fn parse_line(line: &str) -> Option<Line> {
    let line = line.trim();
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '-')) && c.is_ascii())?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => rest.split(|c: char| c == '#' || c.is_whitespace()).next()?.to_owned(),
    };
    (rest.starts_with('\'') || !value.is_empty()).then(|| Line { name: name.to_ascii_lowercase(), value })
}

/// What follows the opening quote, up to the closing one (`DeescapeQuotedString`).
fn unquote(text: &str) -> Option<String> {
    let mut value = Vec::new();
    let mut bytes = text.bytes().peekable();
    while let Some(b) = bytes.next() {
        match b {
            b'\'' if bytes.next_if_eq(&b'\'').is_some() => value.push(b'\''),
            b'\'' => return String::from_utf8(value).ok(),
            b'\\' => match bytes.next()? {
                b'b' => value.push(8),
                b'f' => value.push(12),
                b'n' => value.push(b'\n'),
                b'r' => value.push(b'\r'),
                b't' => value.push(b'\t'),
                digit @ b'0'..=b'7' => {
                    let mut octal = digit - b'0';
                    for _ in 0..2 {
                        let Some(next) = bytes.next_if(|b| (b'0'..=b'7').contains(b)) else { break };
                        octal = octal.wrapping_mul(8).wrapping_add(next - b'0');
                    }
                    value.push(octal);
                }
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests;
