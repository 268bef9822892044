//! The socket itself: one agent listens on it, and outlives the generations of tasks that answer.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;

use crate::error::{Code, Error, Result};
use crate::util::durable;

/// Everybody may knock; who is answered is decided by the peer's credentials.
const MODE: u32 = 0o666;

/// The bound socket. Cheap to clone; the last one dropped removes the file.
#[derive(Clone)]
pub struct Listener(Arc<Bound>);

struct Bound {
    listener: UnixListener,
    path: PathBuf,
    // Held as long as we listen: two agents that start at once do not replace each other's socket.
    _lock: Flock<std::fs::File>,
}

impl Listener {
    /// Binds the socket, in place of one that a dead agent has left. Refuses where an agent lives.
    pub fn bind(path: &Path) -> Result<Self> {
        let lock = lock(path)?;
        // Under the lock no agent lives here: whatever is left is a dead one's.
        durable::remove_file(path)?;
        let listener = UnixListener::bind(path)
            .map_err(|e| Error::io("cannot listen on the control socket", path, e).hint(no_place(path)))?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(MODE))
            .map_err(|e| Error::io("cannot open the control socket to its users", path, e))?;
        Ok(Self(Arc::new(Bound { listener, path: path.to_owned(), _lock: lock })))
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) async fn accept(&self) -> io::Result<tokio::net::UnixStream> {
        self.0.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Left behind, it is replaced by the next agent.
        let _ = durable::remove_file(&self.path);
    }
}

/// `agent.sock.lock`: the kernel gives it back however its holder ends.
fn lock(socket: &Path) -> Result<Flock<std::fs::File>> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file =
        std::fs::File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| {
            Error::io("cannot make the lock of the control socket", &path, e).hint(no_place(socket))
        })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, cause)| {
        Error::new(Code::Busy, "an agent is running already").at(socket.display()).because(cause).hint(
            "one agent serves all clusters of a configuration; stop that one, or give this one another `socket` and \
             `state_directory`",
        )
    })
}

fn no_place(socket: &Path) -> String {
    let directory = socket.parent().unwrap_or(socket).display();
    format!(
        "{directory} must be a directory that the agent's user may write to (systemd makes it with \
         RuntimeDirectory=pgkeep); or set `socket` under [agent]"
    )
}
