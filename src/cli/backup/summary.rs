//! What was made, for people: a line for each fact, the same for every kind of backup.

use std::fmt::Write as _;
use std::time::Duration;

use crate::backup::RepositoryResult;
use crate::repository::record::BackupRecord;
use crate::util::human;

pub(super) struct Summary<'a> {
    record: &'a BackupRecord,
    text: String,
}

impl<'a> Summary<'a> {
    /// Begins with the id and the label.
    pub(super) fn of(record: &'a BackupRecord) -> Self {
        let mut this = Self { record, text: format!("{}\n", record.id) };
        if let Some(label) = &record.label {
            this.line("label", label);
        }
        this
    }

    pub(super) fn line(&mut self, name: &str, value: impl AsRef<str>) {
        let _ = writeln!(self.text, "  {name:<10} {}", value.as_ref());
    }

    /// `what`: what else the raw bytes are, as " in 7 files".
    pub(super) fn size(&mut self, what: &str) {
        let record = self.record;
        let ratio = record.bytes_raw as f64 / record.bytes_stored.max(1) as f64;
        let (raw, stored) = (human::size(record.bytes_raw), human::size(record.bytes_stored));
        self.line("size", format!("{raw}{what}, {stored} stored ({ratio:.1}:1)"));
    }

    pub(super) fn time(&mut self, took: Duration) {
        let seconds = took.as_secs_f64().max(0.001);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive and far below 2^64
        let rate = (self.record.bytes_raw as f64 / seconds) as u64;
        self.line("time", format!("{} ({}/s)", human::span(took), human::size(rate)));
    }

    pub(super) fn repositories(&mut self, repositories: &[RepositoryResult]) {
        for repository in repositories {
            let what = match &repository.published {
                Ok(()) => "published".to_owned(),
                Err(e) => format!("not published: {e}"),
            };
            self.line(repository.name.as_str(), what);
        }
    }

    /// One line each, under one name.
    pub(super) fn each(&mut self, name: &str, lines: &[String]) {
        for line in lines {
            self.line(name, line);
        }
    }

    pub(super) fn text(self) -> String {
        self.text
    }
}
