//! How an error reaches a person or a program: once, at the edge.
//!
//! ```text
//! error[config]: the configuration has 2 faults, /etc/pgkeep/pgkeep.toml
//! hint: …
//! see: runbooks/restore-to-a-moment.md
//! ```
//! With `--json` the same is one document on standard output: `{"error": {"code": …, "message": …, "hint": …}}`.

use std::io::Write;

use serde_json::json;

use super::context::Outcome;
use crate::error::{Error, ExitClass, Result};

/// Where the pages of `runbooks/` are found by someone who has only the binary.
const RUNBOOKS: &str = "runbooks/";

/// The text for people.
pub fn error_text(error: &Error) -> String {
    let mut text = format!("error[{}]: {error}", error.code().as_str());
    for (label, value) in [
        ("hint", error.hint_text().map(str::to_owned)),
        ("see", error.runbook().map(|page| format!("{RUNBOOKS}{page}"))),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("\n{label}: {}", value.replace('\n', "\n      ")));
        }
    }
    text
}

/// The document for programs.
pub fn error_json(error: &Error) -> serde_json::Value {
    json!({ "error": {
        "code": error.code().as_str(),
        "message": error.to_string(),
        "hint": error.hint_text(),
        "runbook": error.runbook().map(|page| format!("{RUNBOOKS}{page}")),
    }})
}

/// Prints what is to be said about the end and gives the exit status.
pub fn conclude(result: Result<Outcome>, json: bool) -> u8 {
    match result {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Finding) => ExitClass::Finding as u8,
        Err(error) => {
            if json {
                let text = format!("{:#}\n", error_json(&error));
                let _ = std::io::stdout().write_all(text.as_bytes());
            }
            to_stderr(&error_text(&error));
            error.code().exit() as u8
        }
    }
}

/// A line (or several) on standard error. If nobody can read it there is nobody to tell.
pub fn to_stderr(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.write_all(b"\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn an_error_says_what_where_why_and_what_next() {
        let error = Error::new(Code::NotEmpty, "the directory is not empty")
            .at("/srv/data")
            .because(std::io::Error::from_raw_os_error(39))
            .hint("choose another directory,\nor remove it");
        assert_eq!(
            error_text(&error),
            "error[not-empty]: the directory is not empty, /srv/data: Directory not empty (os error 39)\n\
             hint: choose another directory,\n      or remove it\n\
             see: runbooks/restore-to-a-moment.md"
        );
        assert_eq!(error_json(&error)["error"]["code"], "not-empty");
    }

    #[test]
    fn the_exit_status_follows_the_code() {
        assert_eq!(conclude(Ok(Outcome::Done), false), 0);
        assert_eq!(conclude(Ok(Outcome::Finding), false), 4);
        assert_eq!(conclude(Err(Error::new(Code::Config, "x")), false), 2);
        assert_eq!(conclude(Err(Error::new(Code::NotEmpty, "x")), false), 3);
    }
}
