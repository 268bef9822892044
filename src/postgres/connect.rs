//! From a connection string to a [`Session`]: hosts in their order, TLS as `sslmode` says, and the settings under
//! which pgkeep works.
//!
//! A pooler in transaction mode gives every statement another server process, and a base backup needs one: the
//! session carries a mark that [`Session::ping`] looks for, so that a backup through such a pooler fails with a
//! clear word instead of half-way.

use std::time::Duration;

use tokio_postgres::NoTls;
use tokio_postgres::config::{ChannelBinding, SslMode as TokioSslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::{ConnInfo, HostSpec, SslMode};
use super::session::{Local, Session};
use super::tls;
use crate::error::{Code, Error, Result};

/// 53300, of the server as a whole or of the limit of one role or database.
pub(super) const FULL_HINT: &str = "sessions of others have all connections: `SELECT * FROM pg_stat_activity` shows them; max_connections and the \
     CONNECTION LIMIT of role and database say how many there may be";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Connects to the server that `conninfo` (libpq's syntax) describes.
pub async fn connect(conninfo: &str) -> Result<Session> {
    connect_to(&ConnInfo::resolve(conninfo)?).await
}

/// Tries the hosts in their order; the error is the last one's.
pub async fn connect_to(info: &ConnInfo) -> Result<Session> {
    let tls = tls::connector(info)?;
    let mut failure = None;
    for host in &info.hosts {
        match connect_host(info, host, &tls).await {
            Ok(session) => return Ok(session),
            Err(e) => failure = Some(e),
        }
    }
    Err(failure.unwrap_or_else(|| Error::internal("a connection without hosts")))
}

async fn connect_host(info: &ConnInfo, host: &HostSpec, tls: &MakeRustlsConnect) -> Result<Session> {
    // libpq's `allow` is "in the clear first", `prefer` "with TLS first"; a server may refuse either one.
    let order: &[TokioSslMode] = match info.sslmode {
        _ if host.is_socket() => &[TokioSslMode::Disable],
        SslMode::Disable => &[TokioSslMode::Disable],
        SslMode::Allow => &[TokioSslMode::Disable, TokioSslMode::Require],
        SslMode::Prefer => &[TokioSslMode::Prefer, TokioSslMode::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[TokioSslMode::Require],
    };
    let mut failure = None;
    for mode in order {
        let config = config(info, host, *mode)?;
        let within =
            info.number("connect_timeout")?.filter(|s| *s > 0).map_or(CONNECT_TIMEOUT, Duration::from_secs);
        match tokio::time::timeout(within, open(&config, host, tls)).await {
            Ok(Ok(session)) => return session,
            Ok(Err(e)) => {
                let decided = e.code().is_some_and(|code| code.code() != "28000");
                failure.get_or_insert_with(|| refused(info, host, &e));
                if decided {
                    break;
                }
            }
            Err(_) => {
                let what = format!("PostgreSQL did not answer within {} s", within.as_secs());
                return Err(Error::new(Code::Connect, what).at(place(info, host)));
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::internal("a connection that was not tried")))
}

/// Over a local socket with a way of its own for rows (`session/tap.rs`), otherwise as the driver does it. Which kind of
/// server it must be is asked by the driver alone.
async fn open(
    config: &tokio_postgres::Config,
    host: &HostSpec,
    tls: &MakeRustlsConnect,
) -> Result<Result<Session>, tokio_postgres::Error> {
    let any = config.get_target_session_attrs() == TargetSessionAttrs::Any;
    if let Some(socket) = host.socket().filter(|_| any)
        && let Some((stream, local)) = Local::open(socket).await
    {
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        return Ok(Session::begin(client, connection, tls.clone(), Some(local), host.to_string()).await);
    }
    let (client, connection) = config.connect(tls.clone()).await?;
    Ok(Session::begin(client, connection, tls.clone(), None, host.to_string()).await)
}

fn config(info: &ConnInfo, host: &HostSpec, mode: TokioSslMode) -> Result<tokio_postgres::Config> {
    let wrong = |key: &str| {
        let value = info.value(key).unwrap_or_default();
        Error::new(Code::Config, format!("`{key}={value}` is not known")).at("the connection")
    };
    let mut config = tokio_postgres::Config::new();
    config.host(&host.host).port(host.port).user(&info.user).dbname(&info.dbname).ssl_mode(mode);
    if let Some(address) = &host.hostaddr {
        config.hostaddr(address.parse().map_err(|e| {
            Error::new(Code::Config, format!("`hostaddr={address}` is not an address")).because(e)
        })?);
    }
    if let Some(password) = info.password() {
        config.password(password);
    }
    if let Some(options) = info.value("options") {
        config.options(options);
    }
    config.application_name(info.value("application_name").unwrap_or("pgkeep"));
    config.channel_binding(match info.value("channel_binding") {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("disable") => ChannelBinding::Disable,
        Some("require") => ChannelBinding::Require,
        Some(_) => return Err(wrong("channel_binding")),
    });
    config.ssl_negotiation(match info.value("sslnegotiation") {
        None | Some("postgres") => SslNegotiation::Postgres,
        Some("direct") => SslNegotiation::Direct,
        Some(_) => return Err(wrong("sslnegotiation")),
    });
    config.target_session_attrs(match info.value("target_session_attrs") {
        None | Some("any") => TargetSessionAttrs::Any,
        Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
        Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
        Some(_) => return Err(wrong("target_session_attrs")),
    });
    keepalives(info, &mut config)?;
    Ok(config)
}

fn keepalives(info: &ConnInfo, config: &mut tokio_postgres::Config) -> Result<()> {
    let seconds = |n: Option<u64>, usual| n.filter(|n| *n > 0).map_or(usual, Duration::from_secs);
    config.keepalives(info.number("keepalives")? != Some(0));
    config.keepalives_idle(seconds(info.number("keepalives_idle")?, KEEPALIVE_IDLE));
    config.keepalives_interval(seconds(info.number("keepalives_interval")?, KEEPALIVE_INTERVAL));
    let count = info.number("keepalives_count")?.filter(|n| *n > 0).unwrap_or(4);
    config.keepalives_retries(u32::try_from(count).unwrap_or(u32::MAX));
    if let Some(millis) = info.number("tcp_user_timeout")?.filter(|n| *n > 0) {
        config.tcp_user_timeout(Duration::from_millis(millis));
    }
    Ok(())
}

fn place(info: &ConnInfo, host: &HostSpec) -> String {
    format!("{host} user {} database {}", info.user, info.dbname)
}

fn refused(info: &ConnInfo, host: &HostSpec, e: &tokio_postgres::Error) -> Error {
    let what = match e.as_db_error() {
        Some(db) => format!("PostgreSQL refused the connection: {}", db.message()),
        None => format!("cannot connect to PostgreSQL: {}", super::session::chain(e)),
    };
    let full = e.code().is_some_and(|code| code.code() == "53300");
    let error = Error::new(if full { Code::ServerFull } else { Code::Connect }, what).at(place(info, host));
    match (e.code().map(tokio_postgres::error::SqlState::code), &info.pass_file_note) {
        (Some("53300"), _) => error.hint(FULL_HINT),
        (_, Some(note)) => error.hint(note.clone()),
        (Some("28P01" | "28000"), None) => error
            .hint("look at pg_hba.conf, and give the password in ~/.pgpass of the user that pgkeep runs as"),
        (Some("57P03"), None) => error.hint("the server is starting up or shutting down: try again"),
        (Some(_), None) => error,
        (None, None) if info.password().is_none() && e.to_string().contains("password missing") => error
            .hint(
                "the server asks for a password: put one line into ~/.pgpass of the user that pgkeep runs as",
            ),
        (None, None) => error.hint("is the server running, and is this its host, socket directory and port?"),
    }
}
