//! The two ways to write a connection: `key = 'value'` pairs and `postgres://` URIs. Pure.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use percent_encoding::percent_decode_str;

use super::wrong;
use crate::error::Result;

pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let trimmed = text.trim();
    let rest = trimmed.strip_prefix("postgresql://").or_else(|| trimmed.strip_prefix("postgres://"));
    rest.map_or_else(|| pairs(trimmed), uri)
}

/// `host=/tmp user = 'o\'brien'`: values end at white space unless quoted, a backslash takes the next character
/// as it is.
fn pairs(text: &str) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    let mut chars = text.chars().peekable();
    loop {
        skip_space(&mut chars);
        if chars.peek().is_none() {
            return Ok(values);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        skip_space(&mut chars);
        if key.is_empty() || chars.next() != Some('=') {
            // The text after a bare word may be a password's second half: it is not repeated in the message.
            return Err(wrong("the connection string is not made of `key=value` pairs")
                .hint("a value with spaces is put between single quotes"));
        }
        skip_space(&mut chars);
        let value = if chars.next_if_eq(&'\'').is_some() { quoted(&mut chars)? } else { bare(&mut chars) };
        values.insert(key, value);
    }
}

fn skip_space(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}

fn bare(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
        if c == '\\' {
            value.extend(chars.next());
        } else {
            value.push(c);
        }
    }
    value
}

fn quoted(chars: &mut Peekable<Chars<'_>>) -> Result<String> {
    let mut value = String::new();
    loop {
        match chars.next() {
            Some('\'') => return Ok(value),
            Some('\\') => value.extend(chars.next()),
            Some(c) => value.push(c),
            None => return Err(wrong("a quoted value of the connection string has no end")),
        }
    }
}

/// `//[user[:password]@][host[:port][,…]][/dbname][?key=value&…]`, without the scheme.
fn uri(rest: &str) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A slash inside a socket's directory is written %2F, so the first one begins the database's name.
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            values.insert(key.to_owned(), value);
        }
    };
    put("user", decode(user)?);
    put("password", decode(password)?);
    put("dbname", decode(dbname)?);
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for one in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let (name, port) = host_and_port(one)?;
        names.push(decode(name)?);
        ports.push(port.to_owned());
    }
    put("host", names.join(","));
    if ports.iter().any(|p| !p.is_empty()) {
        put("port", ports.join(","));
    }
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| wrong("the connection URI has a parameter without `=`"))?;
        let (key, value) = (decode(key)?, decode(value)?);
        if key == "ssl" && value == "true" {
            put("sslmode", "require".to_owned());
        } else {
            put(&key, value);
        }
    }
    Ok(values)
}

fn host_and_port(text: &str) -> Result<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) =
            rest.split_once(']').ok_or_else(|| wrong("an IPv6 address in the connection URI has no `]`"))?;
        return Ok((address, after.strip_prefix(':').unwrap_or("")));
    }
    Ok(text.rsplit_once(':').unwrap_or((text, "")))
}

fn decode(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| wrong("the connection URI has a %-sequence that is not UTF-8"))
}
