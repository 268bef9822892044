//! Directories that only root may make or move. pgkeep works as the owner of the data directory; where that is not
//! enough and it was started as root, the host's own tools do it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::postgres::privilege::{self, Owner};
use crate::util::durable;
use crate::util::process::Run;

const WITHIN: Duration = Duration::from_mins(1);

/// Makes a directory of the owner's, with its missing parents; one that is there becomes the owner's.
pub async fn make_directory(path: &Path, owner: &Owner) -> Result<()> {
    if path.is_dir() && Owner::of(path).is_ok_and(|found| found.uid == owner.uid) {
        return Ok(());
    }
    let plain = if path.is_dir() { Err(not_ours(path)) } else { durable::make_dirs(path, 0o700) };
    let Err(error) = plain else { return Ok(()) };
    if !privilege::started_as_root() {
        return Err(error);
    }
    let mut command = Command::new("install");
    command.args(["-d", "-m", "0700", "-o"]).arg(owner.uid.to_string()).arg("-g").arg(owner.gid.to_string());
    command.arg("--").arg(path);
    as_root(command).await
}

fn not_ours(path: &Path) -> Error {
    Error::new(Code::NotReady, "the directory belongs to somebody else")
        .at(path.display())
        .hint("give it to the server's user, or run pgkeep as root")
}

/// Gives a directory another, free name.
pub async fn move_directory(from: &Path, to: &Path) -> Result<()> {
    let Err(error) = durable::rename_new(from, to) else { return Ok(()) };
    if error.code() != Code::Io || !privilege::started_as_root() || to.exists() {
        return Err(error.hint(
            "it must be possible to rename it: a mount point cannot be moved aside, mount it one level higher or use \
             --overwrite",
        ));
    }
    let mut command = Command::new("mv");
    command.args(["-T", "-n", "--"]).arg(from).arg(to);
    as_root(command).await?;
    if from.exists() || !to.exists() {
        return Err(error);
    }
    durable::sync_dir(to.parent().unwrap_or(Path::new("/")))
}

async fn as_root(mut command: Command) -> Result<()> {
    privilege::as_root(&mut command);
    Run::from_command(command, WITHIN).run().await?.success()?;
    Ok(())
}
