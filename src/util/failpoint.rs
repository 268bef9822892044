//! Named steps at which a test kills, stops, delays or fails the process: the only honest way to ask "what is on
//! disk if we stop here?" of every step.
//!
//! Without the feature `failpoints` [`reach`] is nothing at all. With it, the variable `FAILPOINTS` says what
//! happens where, in the language of the crate `fail`, names separated by `;`:
//!
//! * `name=return(kill)`: SIGKILL to this process, there and then
//! * `name=return(stop)`: SIGSTOP to this process; it goes on after SIGCONT
//! * `name=return(error)`: the step fails with an internal error that names it
//! * `name=panic`, `name=sleep(250)`, and counts: `name=2*off->return(kill)` strikes the third time
//!
//! Every name is listed in [`NAMES`], so that the crash tests can visit them all, and is reached at one place in the
//! code (`tests/tidy.rs` proves both).

use crate::error::Result;

/// Every step, as `area-step` (`backup-before-publish`), one to a line, in alphabetical order.
#[rustfmt::skip]
pub const NAMES: &[&str] = &[
    "backup-after-first-pack",
    "backup-after-publish",
    "backup-after-start",
    "backup-after-stop",
    "backup-before-manifest",
    "backup-before-publish",
    "backup-before-signature",
    "backup-before-stop",
    "database-after-create",
    "database-after-definitions",
    "database-after-globals",
    "database-after-indexes",
    "database-after-publish",
    "database-after-rows",
    "database-before-publish",
    "drill-after-place",
    "drill-after-proofs",
    "drill-after-restore",
    "dump-after-database",
    "dump-before-seal",
    "fetch-panic",
    "job-begun",
    "job-ended",
    "kit-before-name",
    "push-after-upload",
    "push-before-answer",
    "push-before-upload",
    "restore-after-aside",
    "restore-after-control",
    "restore-after-first-move",
    "restore-after-first-pack",
    "restore-after-packs",
    "restore-after-promote",
    "restore-after-save",
    "restore-after-start",
    "restore-after-stop",
    "restore-before-control",
    "ship-after-upload",
    "ship-before-answer",
    "ship-before-upload",
    "table-after-begin",
    "table-after-build",
    "table-after-definitions",
    "table-after-rows",
    "table-after-side",
    "table-before-commit",
    "tables-before-copy",
    "tail-after-upload",
    "test-after-cluster",
    "test-after-dump",
    "test-after-exports",
    "verify-after-object",
    "verify-before-report",
];

/// Reads `FAILPOINTS`. `main` calls it first; a fault in the variable is an error, for a test that injects nothing
/// proves nothing.
#[cfg(feature = "failpoints")]
pub fn setup() -> Result<()> {
    use crate::error::{Code, Error};
    let text = std::env::var("FAILPOINTS").unwrap_or_default();
    for entry in text.split(';').map(str::trim).filter(|e| !e.is_empty()) {
        let wrong = |why: String| Error::new(Code::Usage, "cannot read FAILPOINTS").at(why);
        let (name, actions) = entry.split_once('=').ok_or_else(|| wrong(entry.to_owned()))?;
        fail::cfg(name.trim(), actions.trim()).map_err(|e| wrong(format!("{entry}: {e}")))?;
    }
    Ok(())
}

#[cfg(not(feature = "failpoints"))]
pub fn setup() -> Result<()> {
    Ok(())
}

/// The work has come to the step `name`.
#[cfg(feature = "failpoints")]
pub fn reach(name: &'static str) -> Result<()> {
    fail::fail_point!(name, |action| act(name, action.as_deref()));
    Ok(())
}

#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach(_name: &'static str) -> Result<()> {
    Ok(())
}

/// A limit that a test may lower, so that what happens beyond it can be seen with little data: `name=return(65536)`.
/// Not a step, and not in [`NAMES`].
#[cfg(feature = "failpoints")]
pub fn limit(name: &'static str, usual: u64) -> u64 {
    fail::fail_point!(name, |value| value.and_then(|v| v.parse().ok()).unwrap_or(usual));
    usual
}

#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn limit(_name: &'static str, usual: u64) -> u64 {
    usual
}

#[cfg(feature = "failpoints")]
fn act(name: &'static str, action: Option<&str>) -> Result<()> {
    use crate::error::Error;
    use nix::sys::signal::{Signal, raise};
    let signal = match action {
        Some("kill") => Signal::SIGKILL,
        Some("stop") => Signal::SIGSTOP,
        Some("error") => return Err(Error::internal("injected failure").at(name)),
        other => return Err(Error::internal(format!("unknown failpoint action {other:?}")).at(name)),
    };
    raise(signal).map_err(|e| Error::internal("cannot signal this process").at(name).because(e))
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    #[test]
    fn a_step_fails_only_where_and_as_often_as_configured() {
        fail::cfg("test.counted", "1*off->1*return(error)->off").unwrap();
        assert!(reach("test.counted").is_ok());
        let error = reach("test.counted").unwrap_err();
        assert_eq!(error.place(), Some("test.counted"));
        assert!(reach("test.counted").is_ok());
        assert!(reach("test.elsewhere").is_ok());
    }

    #[test]
    fn an_unknown_action_is_an_error_not_nothing() {
        fail::cfg("test.misspelt", "return(kil)").unwrap();
        assert!(reach("test.misspelt").is_err());
    }
}
