//! Connecting as the right user of the operating system. Debian lets `peer` users in by their name, and as root we
//! are nobody there: so root becomes the owner of the server's files first, found by the data directory, by the
//! server's socket, or by the usual user's name.

use std::path::{Path, PathBuf};

use super::connect::connect_to;
use super::conninfo::ConnInfo;
use super::privilege::{self, Owner};
use super::session::Session;
use crate::error::{Code, Error, Result};

/// The user that packages make for servers.
const USUAL: &str = "postgres";

/// Whose server this is, as far as it can be known without connecting.
pub fn owner(connection: &str, data_directory: Option<&Path>) -> Result<Owner> {
    if let Some(directory) = data_directory.filter(|d| d.exists()) {
        return Owner::of(directory);
    }
    let info = ConnInfo::resolve(connection)?;
    let sockets = info.hosts.iter().filter(|host| host.is_socket());
    let socket =
        sockets.map(|h| Path::new(&h.host).join(format!(".s.PGSQL.{}", h.port))).find(|s| s.exists());
    if let Some(socket) = socket {
        return Owner::of(&socket);
    }
    Owner::named(USUAL).map_err(|e| {
        Error::new(Code::NotReady, "cannot tell as which user PostgreSQL runs")
            .because(e)
            .hint("set data_directory of the cluster in the configuration")
    })
}

/// The socket of a connection to this host, where there is one.
fn socket(connection: &str) -> Result<Option<PathBuf>> {
    let info = ConnInfo::resolve(connection)?;
    let mut sockets = info.hosts.iter().filter(|host| host.is_socket());
    Ok(sockets.find_map(|h| {
        let path = Path::new(&h.host).join(format!(".s.PGSQL.{}", h.port));
        path.exists().then_some(path)
    }))
}

/// The data directory of the server behind a socket of this host, as its lock file says (miscinit.c,
/// `CreateSocketLockFile`: process, data directory, …). None where that cannot be read.
pub fn data_directory(connection: &str) -> Result<Option<PathBuf>> {
    let Some(socket) = socket(connection)? else { return Ok(None) };
    let mut lock = socket.into_os_string();
    lock.push(".lock");
    let text = std::fs::read_to_string(lock).unwrap_or_default();
    Ok(text.lines().nth(1).map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir()))
}

/// As root, becomes the owner of the server's files for the rest of this process; as anybody else, nothing changes.
pub fn become_owner(connection: &str, data_directory: Option<&Path>) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        privilege::become_owner(owner(connection, data_directory)?)?;
    }
    Ok(())
}

/// Becomes the owner and connects.
pub async fn connect_as_owner(connection: &str, data_directory: Option<&Path>) -> Result<Session> {
    become_owner(connection, data_directory)?;
    // Only now: the user's own name, home and pass file are the owner's.
    connect_to(&ConnInfo::resolve(connection)?).await
}
