//! What a check found, a line each.

use serde::Serialize;

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Works, and somebody should know.
    Warn,
    /// Backups or restores will not work so.
    Fail,
}

#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Stable, for programs: `settings`, `repository eu`.
    pub check: String,
    pub state: State,
    pub what: String,
    pub hint: Option<String>,
}

/// All of them, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Findings {
    pub list: Vec<Finding>,
}

impl Findings {
    pub fn ok(&mut self, check: impl Into<String>, what: impl Into<String>) {
        self.add(check.into(), State::Ok, what.into(), None);
    }
    pub fn warn(&mut self, check: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) {
        self.add(check.into(), State::Warn, what.into(), Some(hint.into()));
    }
    pub fn fail(&mut self, check: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) {
        self.add(check.into(), State::Fail, what.into(), Some(hint.into()));
    }
    pub fn error(&mut self, check: impl Into<String>, error: &Error) {
        let what = format!("error[{}]: {error}", error.code().as_str());
        self.add(check.into(), State::Fail, what, error.hint_text().map(str::to_owned));
    }
    /// A failure that only warns where the thing is optional.
    pub fn error_if(&mut self, required: bool, check: impl Into<String>, error: &Error) {
        self.error(check, error);
        if let Some(last) = self.list.last_mut().filter(|_| !required) {
            last.state = State::Warn;
        }
    }
    fn add(&mut self, check: String, state: State, what: String, hint: Option<String>) {
        self.list.push(Finding { check, state, what, hint });
    }
    pub fn failed(&self) -> usize {
        self.list.iter().filter(|f| f.state == State::Fail).count()
    }
    pub fn warned(&self) -> usize {
        self.list.iter().filter(|f| f.state == State::Warn).count()
    }
}

impl Finding {
    /// For people.
    pub fn text(&self) -> String {
        let word = match self.state {
            State::Ok => "ok  ",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        let what = self.what.replace('\n', "\n      ");
        let mut text = format!("{word}  {}: {what}", self.check);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n      hint: {}", hint.replace('\n', "\n            ")));
        }
        text
    }
}
