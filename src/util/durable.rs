//! The only place that renames and fsyncs: files and directories that survive a power cut.
//!
//! Order for a new file: write under a temporary name beside the destination → fsync the file → rename without
//! overwriting → fsync the directory. A crash leaves the complete file, or nothing but a temporary
//! ([`TEMP_PREFIX`]), which a later run may remove ([`remove_stale_temporaries`]).
//!
//! Failure: a full disk shows up at the write, at the fsync or at the close; each is reported as `Io` with a hint,
//! and the temporary is gone. After a failed fsync the file is never published: the kernel may have dropped its
//! pages, so that a second fsync would lie. File systems that cannot fsync a directory (NFS, CIFS: `EINVAL`,
//! `ENOTSUP`) are tolerated; nothing better exists there.
//!
//! Cancellation: every function blocks; async callers use `spawn_blocking`, and a `NewFile` that is dropped
//! removes its temporary.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::Timestamp;

mod direct;
mod rename;

/// How every temporary's name begins. Nothing else may be called so.
pub const TEMP_PREFIX: &str = ".pgkeep-tmp-";

/// True for the names that unfinished writes use.
pub fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes())
}

/// A file being written under a temporary name. Nothing is visible until [`NewFile::publish`] or
/// [`NewFile::replace`]; dropping it removes the temporary.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    temporary: PathBuf,
    destination: PathBuf,
    published: bool,
}

impl NewFile {
    /// Starts a file that will be `destination`; its directory must exist. `mode` (for example 0o600) is set
    /// exactly, whatever the umask.
    pub fn create(destination: &Path, mode: u32) -> Result<Self> {
        Self::create_io(destination, mode).map_err(|e| Error::io("cannot create the file", destination, e))
    }

    /// Like [`NewFile::create`], for callers that look at the cause (a directory removed in between).
    pub fn create_io(destination: &Path, mode: u32) -> io::Result<Self> {
        let directory = parent(destination);
        loop {
            let temporary = directory.join(format!("{TEMP_PREFIX}{:032x}", rand::random::<u128>()));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&temporary) {
                Ok(file) => {
                    let new =
                        Self { file, temporary, destination: destination.to_path_buf(), published: false };
                    new.file.set_permissions(fs::Permissions::from_mode(mode))?;
                    return Ok(new);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Where it is written now, for callers that hand the path to another program.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io("cannot write the file", &self.destination, e))
    }

    /// For large pieces that nobody will read soon: past the page cache, where the memory is aligned
    /// ([`crate::util::buffers`]), all pieces before it were whole blocks, and the file system can. That saves the copy
    /// and the kernel's writing back, a tenth of what it takes to archive a segment, and leaves the database's pages in
    /// the cache.
    pub fn write_past_cache(&mut self, bytes: &[u8]) -> Result<()> {
        let written = direct::write(&mut self.file, bytes);
        let written = written.map_err(|e| Error::io("cannot write the file", &self.destination, e))?;
        self.write_all(&bytes[written..])
    }

    /// For long files: starts writing these bytes to the disk now and without waiting, so that the fsync at the end
    /// finds little left, and lets go of those that are already there (a backup must not push the database out of
    /// the page cache). A hint: nothing depends on it, and file systems that do not know it ignore it.
    pub fn begin_writeback(&self, bytes: std::ops::Range<u64>) {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        if let (Ok(from), Ok(length)) = (i64::try_from(bytes.start), i64::try_from(bytes.end - bytes.start)) {
            let _ = posix_fadvise(&self.file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    /// Makes the file durable under its name. `ObjectExists` when that name is taken: nothing is overwritten.
    pub fn publish(mut self) -> Result<()> {
        self.sync()?;
        rename::no_replace(&self.temporary, &self.destination)
            .map_err(|e| exists_or_io(&self.destination, e))?;
        self.published = true;
        sync_dir(parent(&self.destination))
    }

    /// Makes the file durable under its name in place of what was there: readers see the old or the new, whole.
    pub fn replace(mut self) -> Result<()> {
        self.sync()?;
        fs::rename(&self.temporary, &self.destination)
            .map_err(|e| Error::io("cannot replace the file", &self.destination, e))?;
        self.published = true;
        sync_dir(parent(&self.destination))
    }

    /// Gives the file its name in place of what was there, without making it durable: for a file that its reader
    /// takes at once and can ask for again.
    pub fn hand_over(mut self) -> Result<()> {
        hand_over(&self.temporary, &self.destination)
            .map_err(|e| Error::io("cannot give the file its name", &self.destination, e))?;
        self.published = true;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io("cannot make the file durable", &self.destination, e))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed stays invisible, and is swept as stale later.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a whole small file that must not exist yet.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = NewFile::create(path, mode)?;
    file.write_all(bytes)?;
    file.publish()
}

/// Replaces a small file (configuration, state) by a new content in one step, or makes it.
pub fn atomic_replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = NewFile::create(path, mode)?;
    file.write_all(bytes)?;
    file.replace()
}

/// Moves a file or directory within one file system to a name that is free, durably (both directories are
/// synced). `ObjectExists` when the name is taken.
pub fn rename_new(from: &Path, to: &Path) -> Result<()> {
    rename::no_replace(from, to).map_err(|e| exists_or_io(to, e))?;
    sync_moved(from, to)
}

/// Like [`rename_new`], over what is there.
pub fn rename_over(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("cannot move to this name", to, e))?;
    sync_moved(from, to)
}

/// Moves a file over what is there without making it durable, for readers that can ask again. The bare error, for
/// callers that look at it (another file system).
pub fn hand_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

fn sync_moved(from: &Path, to: &Path) -> Result<()> {
    sync_dir(parent(to))?;
    if parent(from) == parent(to) { Ok(()) } else { sync_dir(parent(from)) }
}

/// Removes a file durably; one that is not there is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path).and_then(|()| sync_dir_io(parent(path))) {
        // Never there, or its directory has gone since, and the name with it.
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove the file", path, e)),
        _ => Ok(()),
    }
}

/// Makes a directory and its missing parents with `mode` (as the umask allows), each entry durable.
pub fn make_dirs(path: &Path, mode: u32) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    make_dirs(parent(path), mode)?;
    make_dir_io(path, mode).map_err(|e| Error::io("cannot make the directory", path, e))
}

/// Makes one directory, whose parent exists, and its entry durable. One that is there already is fine, but its
/// entry may be another's work in progress: it is made durable all the same.
pub fn make_dir_io(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path) {
            // Somebody has removed it in between: who makes directories where others remove them tries again.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Err(gone),
            _ if path.is_dir() => {}
            _ => return Err(e),
        },
        made => made?,
    }
    sync_dir_io(parent(path))
}

/// Makes the content of a file durable that somebody else wrote.
pub fn sync_file(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(|e| Error::io("cannot make the file durable", path, e))
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    sync_dir_io(path).map_err(|e| Error::io("cannot make the directory durable", path, e))
}

fn sync_dir_io(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(e) if !cannot_sync_directories(&e) => Err(e),
        _ => Ok(()),
    }
}

/// Makes everything below `root` durable, contents first, names after them: regular files and directories, in
/// this file system or another; symbolic links are not followed (their own entry belongs to their directory).
pub fn sync_tree(root: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry
            .map_err(|e| Error::new(Code::Io, "cannot walk the directory").at(root.display()).because(e))?;
        if entry.file_type().is_file() {
            sync_file(entry.path())?;
        } else if entry.file_type().is_dir() {
            sync_dir(entry.path())?;
        }
    }
    Ok(())
}

/// Makes everything durable that was written to the file system that `path` is on (`syncfs`): for many files at once.
pub fn sync_file_system(path: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot make the file system durable", path, e);
    let directory = File::open(path).map_err(failed)?;
    nix::unistd::syncfs(&directory).map_err(|e| failed(e.into()))
}

/// Removes temporaries below `root` that nobody has written to since `now - older_than`; says how many. Only
/// names that begin with [`TEMP_PREFIX`] are touched, and links are not followed.
pub fn remove_stale_temporaries(root: &Path, older_than: Duration, now: Timestamp) -> Result<u64> {
    let mut removed = 0;
    for entry in walkdir::WalkDir::new(root) {
        let entry = match entry {
            Ok(entry) => entry,
            // Somebody finished or removed it while we looked.
            Err(e) if e.io_error().is_some_and(|io| io.kind() == io::ErrorKind::NotFound) => continue,
            Err(e) => {
                return Err(Error::new(Code::Io, "cannot walk the directory").at(root.display()).because(e));
            }
        };
        if !entry.file_type().is_file() || !is_temporary(entry.file_name()) {
            continue;
        }
        let Some(modified) = entry.metadata().ok().and_then(|m| m.modified().ok()) else { continue };
        if now.since(Timestamp(modified.into())) >= older_than {
            remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The directory that a path is in, also where it names none.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ if path.has_root() => path,
        _ => Path::new("."),
    }
}

fn cannot_sync_directories(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error().map(nix::errno::Errno::from_raw),
        Some(nix::errno::Errno::EINVAL | nix::errno::Errno::EOPNOTSUPP)
    )
}

fn exists_or_io(destination: &Path, e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::AlreadyExists {
        return Error::new(Code::ObjectExists, "this name is taken, and nothing is overwritten")
            .at(destination.display());
    }
    Error::io("cannot give the file its name", destination, e)
}

#[cfg(test)]
mod tests;
