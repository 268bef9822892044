//! `pg_service.conf`: named sets of connection options. Source: libpq's `parseServiceFile`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Surroundings, wrong};
use crate::error::{Error, Result};

/// The options of `service`: from the file given, else `PGSERVICEFILE`, else `~/.pg_service.conf`; and where that
/// one does not have it, `pg_service.conf` of `PGSYSCONFDIR` (Debian: `/etc/postgresql-common`).
pub(super) fn look_up(
    service: &str,
    given: Option<PathBuf>,
    around: &Surroundings<'_>,
) -> Result<BTreeMap<String, String>> {
    let own = given.or_else(|| (around.env)("PGSERVICEFILE").map(PathBuf::from));
    let must_exist = own.is_some();
    let own = own.or_else(|| around.home.as_ref().map(|h| h.join(".pg_service.conf")));
    let system = (around.env)("PGSYSCONFDIR").map_or_else(|| "/etc/postgresql-common".into(), PathBuf::from);
    let mut read_from = Vec::new();
    for (path, required) in
        own.map(|p| (p, must_exist)).into_iter().chain([(system.join("pg_service.conf"), false)])
    {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => continue,
            Err(e) => return Err(Error::io("cannot read the service file", &path, e)),
        };
        if let Some(values) = section(&text, service).map_err(|e| e.at(path.display()))? {
            return Ok(values);
        }
        read_from.push(path.display().to_string());
    }
    let places =
        if read_from.is_empty() { "there is no service file".to_owned() } else { read_from.join(", ") };
    Err(wrong(format!("the service `{service}` is not defined"))
        .at(places)
        .hint("set PGSERVICEFILE, or write the options into the connection itself"))
}

/// The `key=value` lines of `[service]`; the first of several sections of that name counts.
pub(super) fn section(text: &str, service: &str) -> Result<Option<BTreeMap<String, String>>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if name.strip_suffix(']') == Some(service) {
                found = Some(BTreeMap::new());
            }
            continue;
        }
        let Some(values) = &mut found else { continue };
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| wrong(format!("a line of the service `{service}` has no `=`")))?;
        if key.trim() == "service" {
            return Err(wrong(format!(
                "the service `{service}` names another service, which is not supported"
            )));
        }
        values.entry(key.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
    }
    Ok(found)
}
