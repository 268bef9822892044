//! `pg_dump` and `pg_dumpall`: of exactly the server's major version, told all they need, their complaints read.
//!
//! Connection and password go through libpq's environment: a database called `a=b` is then no connection string, and
//! a password is on no command line.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::conninfo::{ConnInfo, RootCert, SslMode};
use super::privilege::Owner;
use super::tools::{Tools, parse_version};
use crate::error::{Code, Error, Result};
use crate::model::{PgMajor, TableName};
use crate::util::process::{Finished, Run};

const ASK: Duration = Duration::from_secs(20);
/// A dump may take days; a job's own deadline is shorter.
pub(super) const LONGEST: Duration = Duration::from_hours(24 * 14);
/// Complaints kept: the last of them.
pub(super) const STDERR: usize = 4 << 20;

/// Limits that a role, a database or the server has for others do not end a dump; not every program sets them all for
/// itself. And a server process whose client was killed must not work on for an hour.
const OPTIONS: &str = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 \
                       -c client_connection_check_interval=10s";

/// PostgreSQL's programs for dumps, checked.
#[derive(Debug, Clone)]
pub struct DumpTool {
    tools: Tools,
    owner: Owner,
    /// `pg_dump (PostgreSQL) 18.6`
    pub version: String,
}

/// What of a database is dumped.
#[derive(Debug, Clone, Default)]
pub struct DumpScope<'a> {
    pub snapshot: &'a str,
    /// How long a lock may be waited for.
    pub lock_timeout: Duration,
    /// Only these; empty for everything.
    pub tables: &'a [TableName],
}

impl DumpTool {
    /// Finds programs of `major`, as [`Tools::find_with`] says; another major is refused before anything starts.
    pub async fn find(major: PgMajor, bin_directory: Option<&Path>, running: Option<&Path>) -> Result<Self> {
        let tools = Tools::find_with("pg_dump", major, bin_directory, running).await?;
        let owner = Owner::current()?;
        let mut version = String::new();
        for program in ["pg_dumpall", "pg_dump"] {
            let run = tools.run(program, &owner, ASK).arg("--version").run().await;
            let said = run.and_then(Finished::success).map_err(|e| {
                Error::new(Code::Tools, format!("`{program}` does not say its version"))
                    .at(tools.path(program).display())
                    .because(e)
            })?;
            said.stdout_text().trim().clone_into(&mut version);
            if parse_version(&version) != Some(major) {
                let what = format!("`{program}` is `{version}`, the server is PostgreSQL {major}");
                return Err(Error::new(Code::Tools, what)
                    .at(tools.path(program).display())
                    .hint(format!("install the client of PostgreSQL {major}, or set bin_directory to it")));
            }
        }
        Ok(Self { tools, owner, version })
    }

    /// Everything, in the custom format without compression of its own, on standard output.
    pub fn archive(&self, info: &ConnInfo, scope: &DumpScope<'_>) -> Run {
        self.dump(info, scope).arg("--format=custom").arg("--compress=0")
    }

    /// The DDL alone, as plain text on standard output.
    pub fn schema(&self, info: &ConnInfo, scope: &DumpScope<'_>) -> Run {
        self.dump(info, scope).arg("--format=plain").arg("--schema-only")
    }

    fn dump(&self, info: &ConnInfo, scope: &DumpScope<'_>) -> Run {
        let tables = scope.tables.iter().map(|t| format!("--table={}", t.quoted()));
        let mut run = self
            .tools
            .run("pg_dump", &self.owner, LONGEST)
            .arg("--no-password")
            .arg(format!("--lock-wait-timeout={}", scope.lock_timeout.as_millis().max(1)));
        if !scope.snapshot.is_empty() {
            run = run.arg(format!("--snapshot={}", scope.snapshot));
        }
        run.args(tables).with_connection(info, "pgkeep dump").limit(STDERR)
    }

    /// Roles and tablespaces, as plain text on standard output.
    pub fn globals(&self, info: &ConnInfo, passwords: bool, lock_timeout: Duration) -> Run {
        let run = self
            .tools
            .run("pg_dumpall", &self.owner, LONGEST)
            .arg("--no-password")
            .arg("--globals-only")
            .arg(format!("--lock-wait-timeout={}", lock_timeout.as_millis().max(1)));
        let run = if passwords { run } else { run.arg("--no-role-passwords") };
        run.with_connection(info, "pgkeep dump").limit(STDERR)
    }
}

/// Everything that tables may need and that is no table, as plain text on standard output: schemas, extensions, types,
/// functions. No table is locked for it.
pub fn definitions_without_tables(tools: &Tools, owner: &Owner, info: &ConnInfo) -> Run {
    let run = tools.run("pg_dump", owner, LONGEST).args(["--no-password", "--encoding=UTF8"]);
    let run =
        run.args(["--section=pre-data", "--exclude-table=*.*", "--no-privileges", "--no-subscriptions"]);
    run.with_connection(info, "pgkeep restore")
}

/// Runs a script from standard input, and goes on behind statements that fail.
pub fn psql(tools: &Tools, owner: &Owner, info: &ConnInfo, within: Duration) -> Run {
    let run = tools.run("psql", owner, within).args([
        "--no-psqlrc",
        "--quiet",
        "--no-password",
        "--set=VERBOSITY=terse",
    ]);
    run.args(["--output=/dev/null", "--file=-"]).with_connection(info, "pgkeep restore")
}

pub(super) trait WithConnection {
    /// `application` is what it calls itself, unless the connection has a name of its own.
    fn with_connection(self, info: &ConnInfo, application: &str) -> Self;
}

impl WithConnection for Run {
    fn with_connection(self, info: &ConnInfo, application: &str) -> Self {
        environment(info, application).into_iter().fold(self, |run, (name, value)| run.env(name, value))
    }
}

/// libpq's variables for this connection.
fn environment(info: &ConnInfo, application: &str) -> Vec<(&'static str, OsString)> {
    let mut variables: Vec<(&'static str, OsString)> = Vec::new();
    let list = |each: &dyn Fn(&super::conninfo::HostSpec) -> String| {
        OsString::from(info.hosts.iter().map(each).collect::<Vec<_>>().join(","))
    };
    variables.push(("PGHOST", list(&|h| h.host.clone())));
    variables.push(("PGPORT", list(&|h| h.port.to_string())));
    if info.hosts.iter().any(|h| h.hostaddr.is_some()) {
        variables.push(("PGHOSTADDR", list(&|h| h.hostaddr.clone().unwrap_or_default())));
    }
    variables.push(("PGUSER", info.user.clone().into()));
    variables.push(("PGDATABASE", info.dbname.clone().into()));
    if let Some(password) = info.password() {
        variables.push(("PGPASSWORD", password.into()));
    }
    let sslmode = match info.sslmode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    };
    variables.push(("PGSSLMODE", sslmode.into()));
    match &info.sslrootcert {
        Some(RootCert::System) => variables.push(("PGSSLROOTCERT", "system".into())),
        Some(RootCert::File(path)) => variables.push(("PGSSLROOTCERT", path.into())),
        None => {}
    }
    if let Some((cert, key)) = &info.client_cert {
        variables.extend([("PGSSLCERT", cert.into()), ("PGSSLKEY", key.into())]);
    }
    for (key, variable) in [
        ("connect_timeout", "PGCONNECT_TIMEOUT"),
        ("channel_binding", "PGCHANNELBINDING"),
        ("target_session_attrs", "PGTARGETSESSIONATTRS"),
        ("sslnegotiation", "PGSSLNEGOTIATION"),
    ] {
        variables.extend(info.value(key).map(|value| (variable, value.into())));
    }
    variables.push(("PGAPPNAME", info.value("application_name").unwrap_or(application).into()));
    let options = format!("{} {OPTIONS}", info.value("options").unwrap_or(""));
    variables.push(("PGOPTIONS", options.trim().into()));
    variables
}

/// What a standby says (in English) when replay needs what a query of ours still looks at.
pub(super) const CONFLICT: &str = "conflict with recovery";
pub(super) const CONFLICT_HINT: &str = "replay needed what was being read: set hot_standby_feedback = on or a longer max_standby_streaming_delay on this \
     standby, or take this backup on the primary";

/// What a program warned of: a line each, with what it added in detail.
pub fn warnings(stderr: &str) -> Vec<String> {
    complaints(stderr, |kind| kind == "warning")
}

/// Why a program failed, as an error with its own words. A lock that was not to be had is [`Code::Busy`].
pub fn failure(finished: &Finished, doing: &str) -> Error {
    let stderr = finished.stderr_text();
    let said = said_error(finished);
    let what = format!("cannot {doing}: {}: {said}", finished.status);
    let denied = said.contains("permission denied");
    // A timeout of `--lock-wait-timeout`, or a table that was dropped before it was locked. The server's own words may
    // be in any language.
    let lock = stderr.contains("LOCK TABLE") && !denied;
    // 53300
    let full = ["too many clients", "too many connections", "remaining connection slots"];
    let full = full.iter().any(|words| said.contains(words));
    let code = match (lock, full) {
        (true, _) => Code::Busy,
        (_, true) => Code::ServerFull,
        _ => Code::BackupFailed,
    };
    let error = Error::new(code, what).at(&finished.program);
    if lock {
        return error
            .hint("another session holds a stronger lock on a table, or waits for one: a migration?");
    }
    if denied || said.contains("row-level security") {
        return error.hint("`pgkeep check` shows which rights the role lacks for dumps");
    }
    if full {
        return error.hint(super::connect::FULL_HINT);
    }
    if said.contains(CONFLICT) {
        return error.hint(CONFLICT_HINT);
    }
    if said.contains("out of shared memory") {
        return error.hint("raise max_locks_per_transaction: a dump locks every table once");
    }
    error
}

/// The errors among a program's words, or the last of them.
pub(super) fn said_error(finished: &Finished) -> String {
    let stderr = finished.stderr_text();
    let errors = complaints(&stderr, |kind| kind == "error" || kind == "fatal");
    if errors.is_empty() { last_lines(&stderr) } else { errors.join("; ") }
}

/// `pg_dump: warning: …` with the `detail:` and `hint:` lines after it (logging.c of src/common).
pub(super) fn complaints(stderr: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in stderr.lines() {
        let Some((kind, text)) = complaint(line) else {
            // A message of several lines goes on.
            if inside && let Some(last) = found.last_mut() {
                last.push(' ');
                last.push_str(line.trim());
            }
            continue;
        };
        match kind {
            "detail" | "hint" => {
                if inside && let Some(last) = found.last_mut() {
                    last.push_str(&format!(" ({text})"));
                }
            }
            kind => {
                inside = wanted(kind);
                if inside {
                    found.push(text.to_owned());
                }
            }
        }
    }
    found
}

/// The kind and the text of a line that begins a complaint.
fn complaint(line: &str) -> Option<(&str, &str)> {
    let (program, rest) = line.split_once(": ")?;
    let known = ["pg_dump", "pg_dumpall", "pg_restore"];
    if !known.iter().any(|name| program.ends_with(name)) {
        return None;
    }
    let kinds = ["warning", "error", "fatal", "detail", "hint"];
    match rest.split_once(": ") {
        Some((kind, text)) if kinds.contains(&kind) => Some((kind, text)),
        // What it does (`--verbose`), and the error of old programs.
        _ => Some(("info", rest)),
    }
}

fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().rev().take(3).collect();
    if lines.is_empty() {
        return "it said nothing".to_owned();
    }
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_come_with_their_details_and_errors_apart() {
        let stderr = "pg_dump: warning: subscriptions not dumped because current user is not a superuser\n\
                      pg_dump: warning: there are circular foreign-key constraints on this table:\n\
                      pg_dump: detail: a\npg_dump: hint: use a full dump\n\
                      pg_dump: error: query failed: ERROR:  gone\nLINE 2\npg_dump: detail: Query was: SELECT 1\n";
        assert_eq!(
            warnings(stderr),
            [
                "subscriptions not dumped because current user is not a superuser",
                "there are circular foreign-key constraints on this table: (a) (use a full dump)"
            ]
        );
        let errors = complaints(stderr, |kind| kind == "error");
        assert_eq!(errors, ["query failed: ERROR:  gone LINE 2 (Query was: SELECT 1)"]);
        assert!(warnings("").is_empty());
    }

    #[test]
    fn the_environment_carries_odd_databases_and_the_password() {
        let around = super::super::conninfo::Surroundings {
            env: &|name| (name == "PGPASSWORD").then(|| "s3cret".to_owned()),
            home: None,
            os_user: None,
        };
        let info =
            ConnInfo::resolve_in("host=/run,db2 port=5433 user=dumper options='-c a=b'", &around).unwrap();
        let variables = environment(&info.with_dbname("host=elsewhere"), "x");
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        assert_eq!(value("PGHOST").unwrap(), "/run,db2");
        assert_eq!(value("PGPORT").unwrap(), "5433,5433");
        assert_eq!(value("PGDATABASE").unwrap(), "host=elsewhere");
        assert_eq!(value("PGPASSWORD").unwrap(), "s3cret");
        let options = value("PGOPTIONS").unwrap();
        assert!(options.starts_with("-c a=b -c statement_timeout=0 -c idle"), "{options}");
        assert_eq!(value("PGHOSTADDR"), None);
    }
}
