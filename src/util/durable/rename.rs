//! Rename that never overwrites, on every file system: `renameat2(RENAME_NOREPLACE)` where the kernel and the
//! file system know it; else a hard link and an unlink, which is just as exact; else (CIFS, FAT) a look and a
//! plain rename, whose gap of microseconds nothing there can close.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

/// `AlreadyExists` when `to` is taken. Blocks; nothing is synced here.
pub(super) fn no_replace(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(from, to) {
        Err(e) if unsupported(&e) => link_then_unlink(from, to),
        done => done,
    }
}

#[cfg(target_env = "gnu")]
fn renameat2(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags};
    nix::fcntl::renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)
        .map_err(io::Error::from)
}

#[cfg(not(target_env = "gnu"))]
fn renameat2(_: &Path, _: &Path) -> io::Result<()> {
    Err(Errno::ENOSYS.into())
}

pub(super) fn link_then_unlink(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(from) {
        // Directories have no hard links; a rename onto an existing non-empty directory fails by itself.
        Ok(m) if m.is_dir() => return look_then_rename(from, to),
        Ok(_) => {}
        Err(e) => return Err(e),
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(e) if unsupported(&e) || e.raw_os_error() == Some(Errno::EPERM as i32) => {
            look_then_rename(from, to)
        }
        Err(e) => Err(e),
    }
}

pub(super) fn look_then_rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(e) => Err(e),
    }
}

fn unsupported(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error().map(Errno::from_raw),
        Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EMLINK)
    )
}
