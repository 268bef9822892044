//! Connection strings as libpq reads them: `key=value` pairs or a `postgres://` URI, completed from a service file,
//! the `PG…` environment, defaults and a password file, in that order of precedence.
//!
//! [`ConnInfo::resolve`] reads files and the environment once; what it returns is complete and says what a message
//! may show ([`ConnInfo::place`]) without the password. Sources: libpq's `fe-connect.c`, manual "Database
//! Connection Control Functions".

mod pass_file;
mod service_file;
mod syntax;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

/// Where Debian's and where PostgreSQL's own builds put the socket.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What libpq knows and pgkeep uses, with the environment variable that stands in for it.
const KEYS: &[(&str, Option<&str>)] = &[
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("port", Some("PGPORT")),
    ("dbname", Some("PGDATABASE")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("options", Some("PGOPTIONS")),
    ("application_name", Some("PGAPPNAME")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
];

/// Known to libpq and without effect here: each only tunes what pgkeep does not use.
const IGNORED: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "load_balance_hosts",
    "replication",
    // rustls knows nothing below TLS 1.2, which is libpq's own default.
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslsni",
];

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// In the clear, and with TLS if the server refuses that.
    Allow,
    /// With TLS if the server has it, unverified unless a root certificate is there.
    Prefer,
    /// TLS; verified like `verify-ca` when a root certificate is there.
    Require,
    VerifyCa,
    VerifyFull,
}

/// One place to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// A name, an address, or a socket directory (begins with `/` or, abstract, `@`).
    pub host: String,
    pub hostaddr: Option<String>,
    pub port: u16,
}

impl HostSpec {
    pub fn is_socket(&self) -> bool {
        self.hostaddr.is_none() && self.host.starts_with(['/', '@'])
    }
    /// The file of the socket, if it is one in the file system.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        let file = format!(".s.PGSQL.{}", self.port);
        (self.is_socket() && self.host.starts_with('/')).then(|| Path::new(&self.host).join(file))
    }
}

impl fmt::Display for HostSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {} port {}", self.hostaddr.as_deref().unwrap_or(&self.host), self.port)
    }
}

/// A complete description of a connection. `Debug` and [`ConnInfo::place`] never show the password.
#[derive(Clone)]
pub struct ConnInfo {
    pub hosts: Vec<HostSpec>,
    pub user: String,
    pub dbname: String,
    password: Option<String>,
    pub sslmode: SslMode,
    pub sslrootcert: Option<RootCert>,
    pub client_cert: Option<(PathBuf, PathBuf)>,
    values: BTreeMap<String, String>,
    /// Set when a password file was passed over, with the reason; part of a refused connection's hint.
    pub pass_file_note: Option<String>,
}

/// `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// `sslrootcert=system`: the host's own store; implies `verify-full`.
    System,
    File(PathBuf),
}

/// The world outside the connection string; a test gives its own.
pub struct Surroundings<'a> {
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub home: Option<PathBuf>,
    pub os_user: Option<String>,
}

impl ConnInfo {
    /// Reads `text` with the process's environment, home and effective user.
    pub fn resolve(text: &str) -> Result<Self> {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let surroundings = Surroundings {
            env: &|name| std::env::var(name).ok().filter(|v| !v.is_empty()),
            // As root working for another user, HOME would lead to root's files.
            home: if super::privilege::has_changed_user() {
                user.as_ref().map(|u| u.dir.clone())
            } else {
                std::env::home_dir()
            },
            os_user: user.map(|u| u.name),
        };
        Self::resolve_in(text, &surroundings)
    }

    pub fn resolve_in(text: &str, around: &Surroundings<'_>) -> Result<Self> {
        let mut values = syntax::parse(text)?;
        check_names(&values)?;
        if let Some(service) = values.remove("service").or_else(|| (around.env)("PGSERVICE")) {
            let file = values.remove("servicefile").map(PathBuf::from);
            for (key, value) in service_file::look_up(&service, file, around)? {
                values.entry(key).or_insert(value);
            }
            check_names(&values)?;
        }
        values.remove("servicefile");
        for (key, variable) in KEYS {
            if let Some(value) = variable.and_then(|v| (around.env)(v)) {
                values.entry((*key).to_owned()).or_insert(value);
            }
        }
        values.retain(|_, value| !value.is_empty());
        Self::complete(values, around)
    }

    fn complete(mut values: BTreeMap<String, String>, around: &Surroundings<'_>) -> Result<Self> {
        let user = values.remove("user").or_else(|| around.os_user.clone()).ok_or_else(|| {
            wrong("the connection names no user, and the effective user has no name").hint("add `user=…`")
        })?;
        let dbname = values.remove("dbname").unwrap_or_else(|| user.clone());
        let hosts = hosts(values.remove("host"), values.remove("hostaddr"), values.remove("port"))?;
        let (sslmode, sslrootcert) = ssl(&mut values, around)?;
        let client_cert = client_cert(&mut values, around)?;
        let mut info = Self {
            hosts,
            user,
            dbname,
            password: values.remove("password"),
            sslmode,
            sslrootcert,
            client_cert,
            values,
            pass_file_note: None,
        };
        if info.password.is_none() {
            let file = info.values.get("passfile").map(PathBuf::from);
            let file = file.or_else(|| around.home.as_ref().map(|h| h.join(".pgpass")));
            if let Some(file) = file {
                let found = pass_file::look_up(&file, &info.hosts, &info.dbname, &info.user)?;
                info.password = found.password;
                info.pass_file_note = found.note;
            }
        }
        Ok(info)
    }

    /// The same server as seen by another role or database: for messages and side connections.
    pub fn with_dbname(mut self, dbname: &str) -> Self {
        dbname.clone_into(&mut self.dbname);
        self
    }
    /// The same with settings for its sessions, as `options` has them.
    pub fn with_options(mut self, options: &str) -> Self {
        self.values.insert("options".to_owned(), options.to_owned());
        self
    }
    /// A server on a socket of this host, as a side instance offers it.
    pub fn socket(directory: &Path, port: u16, user: &str, dbname: &str) -> Self {
        Self {
            hosts: vec![HostSpec { host: directory.display().to_string(), hostaddr: None, port }],
            user: user.to_owned(),
            dbname: dbname.to_owned(),
            password: None,
            sslmode: SslMode::Disable,
            sslrootcert: None,
            client_cert: None,
            values: BTreeMap::new(),
            pass_file_note: None,
        }
    }
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }
    /// A value without a field of its own (`options`, `connect_timeout`, `keepalives…`).
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }
    /// A numeric value; nonsense is an error.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        self.value(key)
            .map(|v| v.trim().parse().map_err(|_| wrong(format!("`{key}={v}` is not a number"))))
            .transpose()
    }
    /// Where it leads, for messages.
    pub fn place(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        format!("{} user {} database {}", hosts.join(" or "), self.user, self.dbname)
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_some() { ", password set" } else { "" };
        write!(f, "ConnInfo({}, sslmode {:?}{password})", self.place(), self.sslmode)
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(Code::Config, what)
}

fn check_names(values: &BTreeMap<String, String>) -> Result<()> {
    let known = |name: &str| {
        KEYS.iter().any(|(key, _)| *key == name)
            || IGNORED.contains(&name)
            || matches!(name, "service" | "servicefile")
    };
    match values.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(wrong(format!("the connection has an option that pgkeep does not know: `{name}`"))
            .hint("see \"Parameter Key Words\" in PostgreSQL's manual of libpq; GSSAPI, CRLs and OAuth are not supported")),
    }
}

fn hosts(host: Option<String>, hostaddr: Option<String>, port: Option<String>) -> Result<Vec<HostSpec>> {
    let list = |text: Option<String>| -> Vec<String> {
        text.map(|t| t.split(',').map(|s| s.trim().to_owned()).collect()).unwrap_or_default()
    };
    let (names, addresses, ports) = (list(host), list(hostaddr), list(port));
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(wrong("the connection lists another number of `hostaddr` than of `host`"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(wrong("the connection lists another number of `port` than of `host`"));
    }
    (0..count)
        .map(|i| {
            let text = ports.get(i).or_else(|| ports.first()).map_or("", String::as_str);
            let port = match text {
                "" => 5432,
                text => text
                    .parse()
                    .ok()
                    .filter(|p| *p > 0)
                    .ok_or_else(|| wrong(format!("`{text}` is not a port")))?,
            };
            let hostaddr = addresses.get(i).filter(|a| !a.is_empty()).cloned();
            let host = names.get(i).filter(|h| !h.is_empty()).cloned();
            let host = host.or_else(|| hostaddr.clone()).unwrap_or_else(|| default_socket(port));
            Ok(HostSpec { host, hostaddr, port })
        })
        .collect()
}

/// The directory where a server listens on this port, else Debian's when it exists, else `/tmp`.
fn default_socket(port: u16) -> String {
    let listens = |dir: &&str| Path::new(dir).join(format!(".s.PGSQL.{port}")).exists();
    let [debian, own] = SOCKET_DIRECTORIES;
    let found = SOCKET_DIRECTORIES.iter().copied().find(|dir| listens(dir));
    found.unwrap_or(if Path::new(debian).is_dir() { debian } else { own }).to_owned()
}

fn ssl(
    values: &mut BTreeMap<String, String>,
    around: &Surroundings<'_>,
) -> Result<(SslMode, Option<RootCert>)> {
    let root = match values.remove("sslrootcert") {
        Some(text) if text == "system" => Some(RootCert::System),
        Some(text) => Some(RootCert::File(PathBuf::from(text))),
        None => {
            let usual = around.home.as_ref().map(|h| h.join(".postgresql/root.crt"));
            usual.filter(|p| p.exists()).map(RootCert::File)
        }
    };
    let mode = match values.remove("sslmode").as_deref() {
        None if root == Some(RootCert::System) => SslMode::VerifyFull,
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(other) => {
            return Err(wrong(format!("`sslmode={other}` is not known"))
                .hint("use disable, allow, prefer, require, verify-ca or verify-full"));
        }
    };
    if root == Some(RootCert::System) && mode != SslMode::VerifyFull {
        return Err(wrong("`sslrootcert=system` goes with `sslmode=verify-full` only"));
    }
    if root.is_none() && matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) {
        return Err(wrong(
            "the connection wants the server's certificate verified, but there is no root certificate",
        )
        .hint("add `sslrootcert=/path/of/ca.crt`, or `sslrootcert=system`"));
    }
    Ok((mode, root))
}

fn client_cert(
    values: &mut BTreeMap<String, String>,
    around: &Surroundings<'_>,
) -> Result<Option<(PathBuf, PathBuf)>> {
    let usual = |name: &str| around.home.as_ref().map(|h| h.join(".postgresql").join(name));
    let given = values.remove("sslcert").map(PathBuf::from);
    let key = values.remove("sslkey").map(PathBuf::from);
    let cert = given.or_else(|| usual("postgresql.crt").filter(|p| p.exists()));
    match (cert, key.or_else(|| usual("postgresql.key"))) {
        (None, _) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (Some(cert), None) => Err(wrong("`sslcert` is given without `sslkey`").at(cert.display())),
    }
}

#[cfg(test)]
mod tests;
