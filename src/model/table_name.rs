//! A table's full name, as SQL writes it: `app.users`, `"Odd.Name"."x"`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Code, Error, Result};

/// PostgreSQL cuts longer names (`NAMEDATALEN`, less its end).
const MOST_BYTES: usize = 63;
/// Where a name without a schema is looked for.
const USUAL_SCHEMA: &str = "public";

/// Schema and name, each exactly as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: &str, name: &str) -> Self {
        Self { schema: schema.to_owned(), name: name.to_owned() }
    }
    /// For statements: both parts always quoted.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
    /// Another table of the same schema.
    pub fn sibling(&self, name: &str) -> Self {
        Self { schema: self.schema.clone(), name: name.to_owned() }
    }
}

/// `"a""b"`, always quoted.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quoted where SQL needs it, but for reserved words: for people and for the command line.
fn shown(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { quote(name) }
}

/// `name` with `suffix`, cut so that PostgreSQL takes it as it is.
pub fn with_suffix(name: &str, suffix: &str) -> String {
    let mut end = name.len().min(MOST_BYTES.saturating_sub(suffix.len()));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

/// One identifier of SQL: folded to lower case unless it is quoted.
pub fn parse_identifier(text: &str) -> Result<String> {
    let mut parts = parse_parts(text)?;
    match (parts.pop(), parts.is_empty()) {
        (Some(name), true) => Ok(name),
        _ => Err(unreadable(text)),
    }
}

fn parse_parts(text: &str) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = if let Some(inner) = rest.strip_prefix('"') {
            quoted_part(inner).ok_or_else(|| unreadable(text))?
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let part = &rest[..end];
            if part.contains(|c: char| c == '"' || c.is_whitespace() || c == ';' || c == '*') {
                return Err(unreadable(text));
            }
            // PostgreSQL folds ASCII alone where a character may have several bytes.
            (part.to_ascii_lowercase(), &rest[end..])
        };
        if part.is_empty() || part.len() > MOST_BYTES || part.contains('\0') {
            return Err(unreadable(text));
        }
        parts.push(part);
        if after.is_empty() {
            return Ok(parts);
        }
        rest = after.strip_prefix('.').ok_or_else(|| unreadable(text))?;
    }
}

/// After the opening quote: the name, and what follows the closing one.
fn quoted_part(inner: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = inner;
    loop {
        let at = rest.find('"')?;
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

fn unreadable(text: &str) -> Error {
    Error::new(Code::Usage, "this is no table's name").at(text).hint(
        "write it as in SQL: app.users, or with quotes '\"Odd Name\".\"x\"' (the shell needs its own around them)",
    )
}

impl FromStr for TableName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = parse_parts(text)?;
        match (parts.pop(), parts.pop(), parts.is_empty()) {
            (Some(name), Some(schema), true) => Ok(Self { schema, name }),
            (Some(name), None, _) => Ok(Self { schema: USUAL_SCHEMA.to_owned(), name }),
            _ => Err(unreadable(text)),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", shown(&self.schema), shown(&self.name))
    }
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|e: Error| serde::de::Error::custom(e.what().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sql_reads_them() {
        for (text, schema, name) in [
            ("app.users", "app", "users"),
            ("App.USERS", "app", "users"),
            ("users", "public", "users"),
            (r#""Odd.Name"."x""#, "Odd.Name", "x"),
            (r#""a""b"."ü 🐘""#, "a\"b", "ü 🐘"),
            (r#"app."""""#, "app", "\""),
            ("ÄPFEL.Größe", "ÄpFEL".replace("pFEL", "pfel").as_str(), "größe"),
        ] {
            assert_eq!(text.parse::<TableName>().unwrap(), TableName::new(schema, name), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "x".repeat(64);
        for text in
            ["", ".", "a.", ".a", "a.b.c", "a b", "a\"b", "\"a", "\"\".x", "\"a\"b", "a.*", "a;b", &long]
        {
            assert_eq!(text.parse::<TableName>().unwrap_err().code(), Code::Usage, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_is_shown_reads_back() {
        for name in ["users", "Users", "a.b", "a\"b", "größe", "x y", "1st", "$"] {
            let name = TableName::new("app", name);
            assert_eq!(name.to_string().parse::<TableName>().unwrap(), name);
            assert_eq!(name.quoted().parse::<TableName>().unwrap(), name);
        }
    }

    #[test]
    fn a_suffix_keeps_a_name_within_what_postgresql_takes() {
        assert_eq!(with_suffix("users", "_restored"), "users_restored");
        let long = with_suffix(&"ü".repeat(31), "_restored");
        assert!(long.len() <= 63 && long.ends_with("ü_restored"), "{long}");
    }
}
