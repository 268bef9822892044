//! Files on their way to PostgreSQL: written under a temporary name in the directory where they are wanted, and renamed
//! once they are whole. No name of theirs looks like a segment before.

use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::repository::wal_object::Sink;
use crate::util::durable::{self, NewFile};

/// Where a running restore keeps fetched segments ready, below the data directory and never in pg_wal.
pub const DIRECTORY: &str = "pgkeep.spool";

/// No fetch runs this long.
const ABANDONED: Duration = Duration::from_mins(15);

/// A file being received.
pub struct Incoming(NewFile);

impl Incoming {
    /// `destination` may exist; it is replaced in one step at the end.
    pub fn create(destination: &Path, mode: u32) -> Result<Self> {
        NewFile::create(destination, mode).map(Self)
    }
    pub fn file(&self) -> &std::fs::File {
        self.0.file()
    }
    /// Zeros the file from `offset` to `length`.
    pub fn zero_from(&self, offset: u64, length: u64) -> Result<()> {
        let sized = self.file().set_len(offset).and_then(|()| self.file().set_len(length));
        sized.map_err(|e| Error::new(Code::Io, "cannot size the fetched file").because(e))
    }
    /// The reader gets it. Not made durable: PostgreSQL reads it at once, and asks again after a crash.
    pub fn hand_over(self) -> Result<()> {
        self.0.hand_over()
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Incoming {
    fn restart(&mut self) -> io::Result<()> {
        self.file().rewind()?;
        self.file().set_len(0)
    }
}

/// The mode of files that PostgreSQL takes over: its own, as the data directory's mode says (`pg_dir_create_mode`).
pub fn file_mode(data_directory: &Path) -> u32 {
    let group = std::fs::metadata(data_directory).is_ok_and(|m| m.permissions().mode() & 0o040 != 0);
    if group { 0o640 } else { 0o600 }
}

/// Moves a file from the spool to where PostgreSQL wants it; copies it where pg_wal is on another file system.
pub fn take_over(spooled: &Path, destination: &Path, mode: u32) -> Result<()> {
    match durable::hand_over(spooled, destination) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            let cannot = |e| Error::io("cannot copy the fetched file", spooled, e);
            let mut incoming = Incoming::create(destination, mode)?;
            let mut from = std::fs::File::open(spooled).map_err(cannot)?;
            io::copy(&mut from, &mut incoming).map_err(cannot)?;
            incoming.hand_over()?;
            durable::remove_file(spooled)
        }
        Err(e) => Err(Error::io("cannot give the fetched file its name", destination, e)),
    }
}

/// Removes what killed fetches left beside `destination`. A younger file may belong to one that still runs.
pub fn sweep(destination: &Path, now: Timestamp) -> Result<()> {
    let Some(directory) = destination.parent() else { return Ok(()) };
    let cannot = |e| Error::io("cannot look through the directory", directory, e);
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if !durable::is_temporary(&entry.file_name()) {
            continue;
        }
        // It may be gone already: whoever made it has renamed it.
        let Some(modified) = entry.metadata().ok().and_then(|m| m.modified().ok()) else { continue };
        if now.since(Timestamp(modified.into())) > ABANDONED {
            durable::remove_file(&entry.path())?;
        }
    }
    Ok(())
}
