//! A typed reader over a TOML tree with spans. Each getter takes one key; what nobody took is unknown. Faults are
//! collected, never returned one by one: the person who mends the file sees all of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::secret::{Guarded, Secret};
use super::value;
use crate::error::{Code, Error};
use crate::model::Timestamp;
use crate::util::human::redacted;

/// The faults found so far, by line.
pub(super) struct Faults {
    path: PathBuf,
    /// Byte offset at which each line begins.
    lines: Vec<usize>,
    found: RefCell<BTreeSet<(usize, String)>>,
    /// Where each key that was read stands, by its path.
    places: RefCell<BTreeMap<String, Range<usize>>>,
    /// Every key that was asked for, as `section.key` with names replaced: for the test that all are documented.
    asked: RefCell<BTreeSet<String>>,
}

impl Faults {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self {
            path: path.to_owned(),
            lines: std::iter::once(0).chain(after_breaks).collect(),
            found: RefCell::default(),
            places: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// A fault at a place in the text; without one it concerns the whole file.
    pub(super) fn add(&self, span: Option<Range<usize>>, what: impl Into<String>) {
        let line = span.map_or(0, |span| self.line(&span));
        self.found.borrow_mut().insert((line, redacted(&what.into())));
    }

    /// Counted from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|start| *start <= span.start)
    }

    /// A fault of a key that was read before, named by its path.
    pub(super) fn add_at(&self, path: &str, what: impl std::fmt::Display) {
        let span = self.places.borrow().get(path).cloned();
        self.add(span, format!("{path}: {what}"));
    }

    /// A fault of the file as a whole.
    pub(super) fn add_whole(&self, what: impl Into<String>) {
        self.add(None, what);
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// One error that lists all faults, or None.
    pub(super) fn into_error(self) -> Option<Error> {
        let found = self.found.into_inner();
        if found.is_empty() {
            return None;
        }
        let count = match found.len() {
            1 => "a fault".to_owned(),
            n => format!("{n} faults"),
        };
        let mut what = format!("the configuration has {count}");
        for (line, fault) in found {
            let line = if line == 0 { String::new() } else { format!("{line}:") };
            what.push_str(&format!("\n  {}:{line} {fault}", self.path.display()));
        }
        Some(Error::new(Code::Config, what).hint("`pgkeep config example` shows every key with its meaning"))
    }
}

/// One table of the file.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    span: Range<usize>,
    /// As faults name it: `repository.eu`.
    path: String,
    /// As the reference names it: `repository`.
    kind: String,
    taken: BTreeSet<&'static str>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a Spanned<DeTable<'a>>, faults: &'a Faults) -> Self {
        let (path, kind) = (String::new(), String::new());
        Self { table: table.get_ref(), span: table.span(), path, kind, taken: BTreeSet::new(), faults }
    }

    fn below(&self, value: &'a Spanned<DeValue<'a>>, path: String, kind: String) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => {
                let span = value.span();
                Some(Self { table, span, path, kind, taken: BTreeSet::new(), faults: self.faults })
            }
            other => {
                self.faults
                    .add(Some(value.span()), format!("{path}: expected a table, found {}", found(other)));
                None
            }
        }
    }

    fn dotted(base: &str, key: &str) -> String {
        if base.is_empty() { key.to_owned() } else { format!("{base}.{key}") }
    }

    /// The raw value of a key, which is thereby known.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.taken.insert(key);
        self.faults.asked.borrow_mut().insert(Self::dotted(&self.kind, key));
        let value = self.table.get(key)?;
        self.faults.places.borrow_mut().insert(Self::dotted(&self.path, key), value.span());
        Some(value)
    }

    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.table
            .get(key)
            .and_then(|value| value.get_ref().as_array())
            .is_some_and(|items| items.iter().len() == 0)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A fault of one key of this section; at the section's own line where the key is missing.
    pub(super) fn fault(&self, key: &str, what: impl std::fmt::Display) {
        let span = self.table.get(key).map_or(self.span.clone(), Spanned::span);
        self.faults.add(Some(span), format!("{}: {what}", Self::dotted(&self.path, key)));
    }

    /// A fault of the section itself.
    pub(super) fn fault_here(&self, what: impl std::fmt::Display) {
        self.faults.add(Some(self.span.clone()), format!("{}: {what}", self.path));
    }

    /// From now on faults name the section so.
    pub(super) fn rename(&mut self, path: String) {
        self.faults.places.borrow_mut().insert(path.clone(), self.span.clone());
        self.path = path;
    }

    pub(super) fn table(&mut self, key: &'static str) -> Option<Section<'a>> {
        let value = self.take(key)?;
        self.below(value, Self::dotted(&self.path, key), Self::dotted(&self.kind, key))
    }

    /// `[key.NAME]` tables.
    pub(super) fn named_tables(&mut self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let Some(section) = self.table(key) else { return Vec::new() };
        let each = section.table.iter().filter_map(|(name, value)| {
            let path = Self::dotted(&section.path, name.get_ref());
            Some((name.get_ref().to_string(), section.below(value, path, section.kind.clone())?))
        });
        each.collect()
    }

    /// `[[key]]` tables.
    pub(super) fn list_of_tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let (path, kind) = (Self::dotted(&self.path, key), Self::dotted(&self.kind, key));
        let DeValue::Array(items) = value.get_ref() else {
            self.fault(key, format!("write `[[{path}]]` with double brackets: there may be several"));
            return Vec::new();
        };
        let numbered = items.iter().enumerate();
        numbered
            .filter_map(|(n, item)| self.below(item, format!("{path}[{}]", n + 1), kind.clone()))
            .collect()
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?.get_ref();
        match value {
            DeValue::String(text) if !text.is_empty() => Some(text.to_string()),
            DeValue::String(_) => {
                self.fault(key, "must not be empty");
                None
            }
            other => {
                self.fault(key, format!("expected a text in quotes, found {}", found(other)));
                None
            }
        }
    }

    pub(super) fn required_string(&mut self, key: &'static str) -> Option<String> {
        if !self.has(key) {
            self.take(key);
            self.fault(key, "is missing");
            return None;
        }
        self.string(key)
    }

    /// An absolute path: PostgreSQL runs pgkeep in the data directory, so a relative one would mean another file
    /// each time.
    pub(super) fn absolute_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.string(key)?);
        if path.is_absolute() {
            return Some(path);
        }
        self.fault(key, format!("`{}` is not an absolute path", path.display()));
        None
    }

    fn parsed<T>(&mut self, key: &'static str, form: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.take(key)?.get_ref();
        let DeValue::String(text) = value else {
            self.fault(key, format!("expected {form}, found {}", found(value)));
            return None;
        };
        let parsed = parse(text);
        if parsed.is_none() {
            self.fault(key, format!("`{text}` is not {form}"));
        }
        parsed
    }

    /// A moment, with its offset from UTC.
    pub(super) fn moment(&mut self, key: &'static str) -> Option<Timestamp> {
        self.parsed(key, "a time such as \"2027-03-01T00:00:00Z\"", |text| text.parse().ok())
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, "a duration such as \"30s\", \"5m\" or \"7d\"", value::duration)
    }

    /// A duration that may be none.
    pub(super) fn pause(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, "a duration such as \"0s\", \"30s\" or \"5m\"", value::pause)
    }

    pub(super) fn size(&mut self, key: &'static str) -> Option<u64> {
        self.parsed(key, "a size such as \"64MiB\"", value::size)
    }

    pub(super) fn bandwidth(&mut self, key: &'static str) -> Option<u64> {
        self.parsed(key, "a bandwidth such as \"20MiB/s\"", value::bandwidth)
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let find = |text: &str| choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        self.parsed(key, &format!("one of {}", names.join(", ")), find)
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?.get_ref();
        let DeValue::Boolean(yes) = value else {
            self.fault(key, format!("expected true or false, found {}", found(value)));
            return None;
        };
        Some(*yes)
    }

    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.take(key)?.get_ref();
        let number = match value {
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
            _ => None,
        };
        let fitting = number.and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        if fitting.is_none() {
            let (low, high) = (range.start(), range.end());
            self.fault(key, format!("expected a whole number from {low} to {high}, found {}", found(value)));
        }
        fitting
    }

    /// A list of texts; each is checked by `check`, which says what is wrong with it.
    pub(super) fn strings(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        let value = self.take(key)?.get_ref();
        let DeValue::Array(items) = value else {
            self.fault(key, format!("expected a list of texts, found {}", found(value)));
            return None;
        };
        let mut texts = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let path = format!("{}[{}]", Self::dotted(&self.path, key), n + 1);
            let fault = |what: String| self.faults.add(Some(item.span()), format!("{path}: {what}"));
            match item.get_ref() {
                DeValue::String(text) => match check(text) {
                    Ok(()) if texts.iter().any(|seen| seen == text.as_ref()) => {
                        fault("is there twice".into());
                    }
                    Ok(()) => texts.push(text.to_string()),
                    Err(what) => fault(what),
                },
                other => fault(format!("expected a text in quotes, found {}", found(other))),
            }
        }
        Some(texts)
    }

    /// `{ env = … }`, `{ file = … }` or `{ command = … }`; a text would be the secret itself, in the clear.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let value = self.take(key)?;
        let form = "write { env = \"NAME\" }, { file = \"/path\" } or { command = \"…\" }";
        if matches!(value.get_ref(), DeValue::String(_)) {
            self.fault(key, format!("a secret does not stand in this file; {form}"));
            return None;
        }
        let mut section = self.below(value, Self::dotted(&self.path, key), Self::dotted(&self.kind, key))?;
        let env = section.string("env").map(Secret::Env);
        let file = section.absolute_path("file").map(Secret::File);
        let command = section.string("command").map(Secret::Command);
        let given = section.table.len();
        section.finish();
        if given != 1 {
            self.fault(key, format!("one source, not {given}: {form}"));
            return None;
        }
        env.or(file).or(command)
    }

    /// As `secret`, or a text where knowing it lets nobody in; `fits` says why a text is refused.
    pub(super) fn guarded(
        &mut self,
        key: &'static str,
        fits: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Option<Guarded> {
        let value = self.take(key)?;
        if !matches!(value.get_ref(), DeValue::String(_)) {
            return self.secret(key).map(Guarded::Secret);
        }
        let text = self.string(key)?;
        match fits(&text) {
            Ok(()) => Some(Guarded::Text(text)),
            Err(what) => {
                self.fault(key, what);
                None
            }
        }
    }

    /// Every key that nobody asked for is unknown.
    pub(super) fn finish(self) {
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if self.taken.contains(name) {
                continue;
            }
            let near = self.taken.iter().map(|known| (distance(name, known), *known)).min();
            let hint = match near {
                Some((far, known)) if far <= 2 || (far == 3 && name.len() > 8) => {
                    format!("; did you mean `{known}`?")
                }
                _ => String::new(),
            };
            let path = Self::dotted(&self.path, name);
            self.faults.add(Some(key.span()), format!("{path}: unknown key{hint}"));
        }
    }
}

/// A value's type in words.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(n) => format!("the number {n}"),
        DeValue::Float(n) => format!("the number {n}"),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Levenshtein's distance: how many letters are wrong.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
