//! The one error of pgkeep: a stable code, what went wrong, where, what to do next, and the cause.
//!
//! An error is returned, never logged on the way; the program prints it once, at the edge
//! (`cli::report`), as `error[CODE]: what, where`, `hint: what to do`, `see: runbook`.
//! Exit statuses: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused for safety, 4 a check
//! found something wrong. (`wal fetch` has its own three, see `archive::fetch`.)

use std::error::Error as StdError;
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;
type Cause = Box<dyn StdError + Send + Sync + 'static>;

/// What the process says to its caller when it ends with this error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitClass {
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Finding = 4,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $exit:ident, $runbook:expr;)*) => {
        /// Stable codes; the text after the dot never changes once released. Grouped by area.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }
        impl Code {
            /// Every code, for the generated error list.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];
            /// The stable text between the brackets of `error[…]`.
            pub const fn as_str(self) -> &'static str { match self { $(Code::$name => $text,)* } }
            /// What it means, for the generated error list.
            pub const fn meaning(self) -> &'static str { match self { $(Code::$name => concat!($($doc),*),)* } }
            /// The exit status that goes with it.
            pub const fn exit(self) -> ExitClass { match self { $(Code::$name => ExitClass::$exit,)* } }
            /// The page in `runbooks/` that helps, if there is one.
            pub const fn runbook(self) -> Option<&'static str> { match self { $(Code::$name => $runbook,)* } }
        }
    };
}

codes! {
    /// The command line makes no sense.
    Usage = "usage", Usage, None;
    /// The configuration file is missing, unreadable or wrong.
    Config = "config", Usage, None;
    /// A key file is missing, unreadable, malformed or readable by others.
    Key = "key", Usage, None;
    /// No recipients and no `encryption = "none"`: nothing is written in the clear by accident.
    EncryptionUnset = "encryption-unset", Usage, None;
    /// The local file system said no (full disk, permission, I/O error).
    Io = "io", Failed, None;
    /// A lock that another process holds.
    Busy = "busy", Failed, None;
    /// The user or a signal ended the work.
    Cancelled = "cancelled", Failed, None;
    /// A job that the agent ran did not succeed.
    JobFailed = "job-failed", Failed, None;
    /// No agent answers on its control socket.
    NoAgent = "no-agent", Failed, None;
    /// A bug in pgkeep: an invariant did not hold.
    Internal = "internal", Failed, None;

    /// The store did not answer, or answered with an error that may pass.
    StoreUnavailable = "store-unavailable", Failed, None;
    /// The store refuses us: credentials, clock, bucket policy.
    StoreDenied = "store-denied", Failed, None;
    /// The store answered something that cannot be true (short body, other length).
    StoreLied = "store-lied", Failed, None;
    /// An object that must exist is not there.
    ObjectMissing = "object-missing", Failed, None;
    /// An object of this name exists already; nothing is overwritten.
    ObjectExists = "object-exists", Failed, None;
    /// A root without `pgkeep.json`: an unmounted disk or the wrong bucket.
    NotARepository = "not-a-repository", Failed, Some("complete-loss.md");
    /// The repository was written by a newer pgkeep.
    FormatTooNew = "format-too-new", Failed, None;
    /// Bytes that fail their digest, their authentication, or their syntax.
    Damaged = "damaged", Failed, None;
    /// The identity does not open this object.
    WrongKey = "wrong-key", Failed, Some("key-lost.md");
    /// `backup.json` or a mark without a trusted signature.
    Untrusted = "untrusted", Refused, None;

    /// PostgreSQL cannot be reached or refused the connection.
    Connect = "connect", Failed, None;
    /// PostgreSQL has no free connection for us.
    ServerFull = "server-full", Failed, None;
    /// A table that is not, or no longer, there.
    NoTable = "no-table", Failed, None;
    /// PostgreSQL answered a statement with an error.
    Sql = "sql", Failed, None;
    /// Settings or rights that the work needs are not there.
    NotReady = "not-ready", Failed, None;
    /// No tool of the right major version.
    Tools = "tools", Failed, None;
    /// PostgreSQL could not be started or stopped.
    Service = "service", Failed, None;
    /// `pg_control` cannot be read or fails its CRC.
    ControlFile = "control-file", Failed, None;

    /// A WAL file that is not what its name says; refused.
    WalMismatch = "wal-mismatch", Failed, None;
    /// The archive holds this name with other content: two servers archive into one place.
    WalConflict = "wal-conflict", Failed, None;
    /// WAL of a system identifier that the repository does not list.
    UnknownSystem = "unknown-system", Failed, None;
    /// WAL between two points is not in the archive.
    WalHole = "wal-hole", Failed, None;
    /// WAL that cannot be read.
    WalDamaged = "wal-damaged", Failed, None;

    /// The backup did not become whole; nothing was published.
    BackupFailed = "backup-failed", Failed, None;
    /// The backup was published, and has damaged pages.
    PagesDamaged = "pages-damaged", Finding, None;
    /// An alert could not be sent to one of its receivers.
    AlertUndelivered = "alert-undelivered", Failed, Some("agent-in-trouble.md");
    /// The dump was published, and PostgreSQL's programs warned that something is not in it.
    LeftOut = "left-out", Finding, None;
    /// `verify` found something wrong with what is stored.
    RepositoryDamaged = "repository-damaged", Finding, Some("repository-damaged.md");
    /// `check` found something wrong.
    CheckFailed = "check-failed", Finding, None;

    /// A recovery target outside what can be reached.
    TargetUnreachable = "target-unreachable", Refused, Some("restore-to-a-moment.md");
    /// There is no backup to restore from.
    NoBackup = "no-backup", Refused, Some("complete-loss.md");
    /// The place to restore into is not empty.
    NotEmpty = "not-empty", Refused, Some("restore-to-a-moment.md");
    /// The data directory belongs to another cluster.
    ForeignCluster = "foreign-cluster", Refused, Some("restore-to-a-moment.md");
    /// A server is running (or would be started again) where none may.
    ServerRunning = "server-running", Refused, Some("restore-to-a-moment.md");
    /// Not enough room.
    NoSpace = "no-space", Refused, Some("restore-to-a-moment.md");
    /// A tablespace that would reach outside the side instance.
    TablespaceOutside = "tablespace-outside", Refused, Some("restore-to-a-moment.md");
    /// The person did not confirm.
    NotConfirmed = "not-confirmed", Refused, None;
    /// Refused for safety for a reason of its own.
    Refused = "refused", Refused, None;
    /// A database did not become whole; nothing was left or changed.
    RestoreFailed = "restore-failed", Failed, Some("restore-a-dump.md");
    /// Tables came back with another number of rows than were dumped.
    RowsDiffer = "rows-differ", Finding, Some("restore-a-dump.md");
    /// PostgreSQL's recovery ended elsewhere than planned, or not at all.
    RecoveryFailed = "recovery-failed", Failed, Some("restore-to-a-moment.md");
}

/// A failure: what, where, what to do next, and why. Cheap to move.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    what: String,
    place: Option<String>,
    hint: Option<String>,
    runbook: Option<&'static str>,
    cause: Option<Cause>,
}

impl Error {
    /// `what` is a short clause without a full stop: "cannot read the configuration".
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            what: what.into(),
            place: None,
            hint: None,
            runbook: code.runbook(),
            cause: None,
        }))
    }
    /// Where: a path, an object's key with its repository, a host, a line.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.place = Some(place.to_string());
        self
    }
    /// What the reader does next, as a command or a sentence.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
    pub fn see(mut self, runbook: &'static str) -> Self {
        self.0.runbook = Some(runbook);
        self
    }
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }
    /// The same failure seen from further out: `what` becomes the message, self becomes the cause, and
    /// code, hint and runbook stay.
    pub fn while_doing(self, what: impl Into<String>) -> Self {
        let (code, hint, runbook) = (self.0.code, self.0.hint.clone(), self.0.runbook);
        Self(Box::new(Inner {
            code,
            what: what.into(),
            place: None,
            hint,
            runbook,
            cause: Some(Box::new(self)),
        }))
    }
    /// The same failure for another who meets it: what it says of its causes is text from here on.
    pub fn again(&self) -> Self {
        Self(Box::new(Inner {
            code: self.0.code,
            what: self.to_string(),
            place: None,
            hint: self.0.hint.clone(),
            runbook: self.0.runbook,
            cause: None,
        }))
    }
    /// A local file operation that failed.
    pub fn io(what: impl Into<String>, place: impl AsRef<std::path::Path>, cause: std::io::Error) -> Self {
        let kind = cause.kind();
        let error = Self::new(Code::Io, what).at(place.as_ref().display()).because(cause);
        match kind {
            std::io::ErrorKind::StorageFull => {
                error.hint("the disk is full: free some space there and try again")
            }
            std::io::ErrorKind::ReadOnlyFilesystem => error.hint(
                "the file system is read-only, or the agent's service may not write there: `systemctl edit pgkeep`, \
                 [Service] ReadWritePaths=-/that/directory, `systemctl restart pgkeep`",
            ),
            _ => error,
        }
    }
    /// A broken invariant.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Code::Internal, what).hint("this is a bug in pgkeep; please report it with the log")
    }

    pub fn code(&self) -> Code {
        self.0.code
    }
    pub fn what(&self) -> &str {
        &self.0.what
    }
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
    /// What, where and what to do, for where there is one text for all.
    pub fn with_hint(&self) -> String {
        match self.hint_text() {
            Some(hint) => format!("{self} ({hint})"),
            None => self.to_string(),
        }
    }
    pub fn runbook(&self) -> Option<&'static str> {
        self.0.runbook
    }
}

/// `what, where: cause: cause`, one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if let Some(place) = &self.0.place {
            write!(f, ", {place}")?;
        }
        let mut cause = self.source();
        while let Some(c) = cause {
            // An `Error` among the causes prints its own chain; stop there.
            write!(f, ": {c}")?;
            cause = if c.is::<Error>() { None } else { c.source() };
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {self}", self.0.code.as_str())?;
        if let Some(hint) = &self.0.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|c| c as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_spelt_alike() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            let text = code.as_str();
            assert!(seen.insert(text), "{text} twice");
            assert!(text.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{text}");
        }
    }

    #[test]
    fn the_cause_chain_is_said_once() {
        let inner =
            Error::io("cannot open the file", "/x", std::io::Error::from_raw_os_error(2)).hint("look");
        let outer = inner.while_doing("cannot take the backup");
        assert_eq!(outer.code(), Code::Io);
        assert_eq!(outer.hint_text(), Some("look"));
        assert_eq!(
            outer.to_string(),
            "cannot take the backup: cannot open the file, /x: No such file or directory (os error 2)"
        );
        assert_eq!(outer.with_hint(), format!("{outer} (look)"));
        let again = outer.again();
        assert_eq!(again.to_string(), outer.to_string());
        assert_eq!((again.code(), again.hint_text()), (Code::Io, Some("look")));
    }
}
