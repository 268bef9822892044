//! As whom the work is done. PostgreSQL's tools refuse root, and files made by root are of no use to the server: as
//! root, pgkeep works as the owner of the data directory, and becomes root again only to call the service manager.
//!
//! [`become_owner_of`] changes the effective ids of the whole process (all threads) and keeps root as the saved id.
//! A child is either fully the owner ([`as_owner`]) or fully root ([`as_root`]), in all of its ids, for PostgreSQL
//! compares the real with the effective one.
//!
//! `unsafe` lives here and nowhere else: two closures that run between `fork` and `exec`.
#![allow(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setegid, seteuid, setgroups};

use crate::error::{Code, Error, Result};

/// Whose files these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub uid: Uid,
    pub gid: Gid,
    /// None for an id without a name.
    pub name: Option<String>,
    home: Option<PathBuf>,
    groups: Vec<Gid>,
}

/// How this process stands to the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is the owner.
    Owner,
    /// It was root and works as the owner now.
    RootAsOwner,
    /// Somebody else: reading may work through the group, stopping and starting will not.
    Other,
}

static BECAME: OnceLock<Owner> = OnceLock::new();

impl Owner {
    /// The owner of a file or directory.
    pub fn of(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io("cannot see whose this is", path, e))?;
        Self::from_ids(Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()))
    }
    /// A user by name, with its own group.
    pub fn named(name: &str) -> Result<Self> {
        let user = User::from_name(name)
            .ok()
            .flatten()
            .ok_or_else(|| Error::new(Code::NotReady, format!("there is no user `{name}` on this host")))?;
        Self::from_ids(user.uid, user.gid)
    }
    /// The user that this process works as now.
    pub fn current() -> Result<Self> {
        Self::from_ids(geteuid(), nix::unistd::getegid())
    }
    fn from_ids(uid: Uid, gid: Gid) -> Result<Self> {
        let user = User::from_uid(uid).ok().flatten();
        // A group-readable data directory may belong to another group than the user's own.
        let gid = user.as_ref().map_or(gid, |u| u.gid);
        let home = user.as_ref().map(|u| u.dir.clone());
        let name = user.map(|u| u.name);
        let groups = match name.as_deref().map(std::ffi::CString::new) {
            Some(Ok(name)) => getgrouplist(&name, gid)
                .map_err(|e| Error::new(Code::Io, "cannot list the groups of the user").because(e))?,
            _ => vec![gid],
        };
        Ok(Self { uid, gid, name, home, groups })
    }
    /// For messages.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }
}

/// As root: from now on the process works as the owner of `path` (files made, sockets opened, signals sent). As the
/// owner, or as anybody else, nothing changes. A second call must mean the same owner.
pub fn become_owner_of(path: &Path) -> Result<Standing> {
    become_owner(Owner::of(path)?)
}

/// Like [`become_owner_of`], for an owner found in another way (a data directory that does not exist yet).
pub fn become_owner(owner: Owner) -> Result<Standing> {
    let now = geteuid();
    if now == owner.uid {
        let standing = if BECAME.get().is_some() { Standing::RootAsOwner } else { Standing::Owner };
        return if owner.uid.is_root() { Err(root_owned()) } else { Ok(standing) };
    }
    if !now.is_root() {
        return Ok(Standing::Other);
    }
    if owner.uid.is_root() {
        return Err(root_owned());
    }
    let denied = |e| Error::new(Code::Io, format!("cannot work as the user {}", owner.label())).because(e);
    // Groups first: once the user id has changed, there is no right to change them.
    setgroups(&owner.groups).map_err(denied)?;
    setegid(owner.gid).map_err(denied)?;
    seteuid(owner.uid).map_err(denied)?;
    // Whoever came first meant the same process-wide identity; the check above keeps it so.
    let _ = BECAME.set(owner);
    Ok(Standing::RootAsOwner)
}

/// As root: becomes the owner in all ids, with no way back; for a process that lives long and never needs root again.
/// As anybody else nothing changes.
pub fn become_owner_for_good(owner: &Owner) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    if owner.uid.is_root() {
        return Err(root_owned());
    }
    let denied = |e| Error::new(Code::Io, format!("cannot become the user {}", owner.label())).because(e);
    setgroups(&owner.groups).map_err(denied)?;
    nix::unistd::setresgid(owner.gid, owner.gid, owner.gid).map_err(denied)?;
    nix::unistd::setresuid(owner.uid, owner.uid, owner.uid).map_err(denied)?;
    let _ = BECAME.set(owner.clone());
    Ok(())
}

fn root_owned() -> Error {
    Error::new(Code::NotReady, "the data directory belongs to root, and PostgreSQL does not run as root")
        .hint("give it to the server's user: chown -R postgres: DIRECTORY")
}

/// True when this process works as another user than it was started as: what the environment says about its user,
/// `HOME` above all, is then about root.
pub fn has_changed_user() -> bool {
    BECAME.get().is_some()
}

/// True when the process was started as root, whatever it works as now.
pub fn started_as_root() -> bool {
    nix::unistd::getuid().is_root()
}

/// Makes the child run as `owner` in all its ids, when this process has the right to; otherwise it runs as we do.
pub fn as_owner(command: &mut Command, owner: &Owner) {
    if !started_as_root() {
        return;
    }
    // libpq looks for passwords and certificates in HOME: a standby's must not be root's.
    if let (Some(home), Some(name)) = (&owner.home, &owner.name) {
        command.env("HOME", home).env("USER", name).env("LOGNAME", name);
    }
    let (uid, gid, groups) = (owner.uid, owner.gid, owner.groups.clone());
    // SAFETY: between fork and exec only system calls that are async-signal-safe are made, on values owned by the
    // closure; nothing is allocated, locked or dropped there.
    unsafe {
        command.pre_exec(move || {
            let root = Uid::from_raw(0);
            // The saved id is still root; without it the real one cannot be given away.
            let _ = seteuid(root);
            setgroups(&groups)?;
            nix::unistd::setresgid(gid, gid, gid)?;
            nix::unistd::setresuid(uid, uid, uid)?;
            Ok(())
        });
    }
}

/// Makes the child root again in all its ids when this process was started so: service managers want that.
pub fn as_root(command: &mut Command) {
    if !started_as_root() {
        return;
    }
    // SAFETY: as above.
    unsafe {
        command.pre_exec(|| {
            let root = Uid::from_raw(0);
            let group = Gid::from_raw(0);
            seteuid(root)?;
            setgroups(&[group])?;
            nix::unistd::setresgid(group, group, group)?;
            nix::unistd::setresuid(root, root, root)?;
            Ok(())
        });
    }
}

/// Gives the child a session of its own: no signal of our terminal reaches it, and it lives on after us.
pub fn detach(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and nothing else is done.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids_of(command: &mut Command) -> String {
        let out = command.arg("-c").arg("grep -E '^(Uid|Gid|Groups)' /proc/self/status").output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn a_child_as_owner_has_no_id_of_root_left() {
        if !started_as_root() {
            return;
        }
        let owner = Owner::named("nobody").unwrap();
        let mut command = Command::new("/bin/sh");
        as_owner(&mut command, &owner);
        let (uid, gid) = (owner.uid, owner.gid);
        let said = ids_of(&mut command);
        assert!(said.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{said}");
        assert!(said.contains(&format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}")), "{said}");
        assert!(
            !said.lines().any(|l| l.starts_with("Groups:") && l.split_whitespace().any(|w| w == "0")),
            "{said}"
        );
    }

    #[test]
    fn a_data_directory_of_root_is_refused() {
        if !started_as_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(become_owner_of(dir.path()).unwrap_err().code(), Code::NotReady);
    }
}
