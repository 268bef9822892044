//! `.pgpass`: `host:port:database:user:password` lines, `*` for any. Source: libpq's `passwordFromFile`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::HostSpec;
use crate::error::{Error, Result};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) password: Option<String>,
    pub(super) note: Option<String>,
}

/// The password for the first of `hosts` that has a line. A file that others may read is passed over with a note,
/// as libpq does; one that does not exist is nothing.
pub(super) fn look_up(path: &Path, hosts: &[HostSpec], dbname: &str, user: &str) -> Result<Found> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
            return Ok(Found::default());
        }
        Err(e) => return Err(Error::io("cannot look at the password file", path, e)),
    };
    let passed_over = |why: &str| {
        Ok(Found { password: None, note: Some(format!("the password file {} {why}", path.display())) })
    };
    if !meta.is_file() {
        return passed_over("is not a plain file and was passed over");
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return passed_over("can be read by others and was passed over: chmod 600 it");
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => return Err(Error::io("cannot read the password file", path, e)),
    };
    let password = hosts.iter().find_map(|host| password(&text, host, dbname, user));
    Ok(Found { password, note: None })
}

pub(super) fn password(text: &str, host: &HostSpec, dbname: &str, user: &str) -> Option<String> {
    // libpq looks up the default socket directories under the name localhost.
    let standard = super::SOCKET_DIRECTORIES.contains(&host.host.as_str());
    let name = if host.is_socket() && standard { "localhost" } else { host.host.as_str() };
    let port = host.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [h, p, d, u, secret] = <[String; 5]>::try_from(fields).ok()?;
        let fits = |field: &str, value: &str| field == "*" || field == value;
        (fits(&h, name) && fits(&p, &port) && fits(&d, dbname) && fits(&u, user)).then_some(secret)
    })
}

/// Splits at `:`; `\:` and `\\` stand for themselves. What follows the fourth colon up to the next is the password.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.trim_end_matches(['\r', '\n']).chars();
    while let Some(c) = chars.next() {
        match c {
            ':' if fields.len() < 5 => fields.push(String::new()),
            ':' => break,
            c => {
                let c = if c == '\\' { chars.next().unwrap_or('\\') } else { c };
                if let Some(last) = fields.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    fields
}
