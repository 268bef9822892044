//! Scratch work leaves a reserve of every disk alone: it does not begin without, and ends when it is touched, whoever
//! wrote the last byte. Production may live on the same disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::restore::space::Need;
use crate::restore::survey;
use crate::util::human;

const MORE_ROOM: &str = "free some space there, name another directory with --scratch-dir or scratch_directory in [restore], or lower `reserve` in [proof]";
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Bytes free for us on the file system of a path, or of what will be its parent.
pub fn available(path: &Path) -> Result<u64> {
    Ok(survey::disk(path)?.available)
}

/// Refuses to begin where not even the reserve is free.
pub fn refuse_without_reserve(path: &Path, reserve: u64) -> Result<()> {
    let free = available(path)?;
    if free >= reserve {
        return Ok(());
    }
    Err(Error::new(
        Code::NoSpace,
        format!(
            "nothing was begun: {} are free, and {} are to be left free",
            human::size(free),
            human::size(reserve)
        ),
    )
    .at(path.display())
    .hint(MORE_ROOM)
    .see("drill-failed.md"))
}

/// Refuses to begin where what is needed leaves less than the reserve.
pub fn refuse_without(needs: &[Need], reserve: u64) -> Result<()> {
    match needs.iter().find(|need| need.needed.saturating_add(reserve) > need.available) {
        None => Ok(()),
        Some(short) => Err(Error::new(
            Code::NoSpace,
            format!(
                "there is not enough room: {} needed and {} to be left free, {} available",
                human::size(short.needed),
                human::size(reserve),
                human::size(short.available)
            ),
        )
        .at(short.path.display())
        .hint(MORE_ROOM)
        .see("drill-failed.md")),
    }
}

/// Ends with an error when the reserve of one of the disks is touched; else it never ends.
pub async fn watch(paths: Vec<PathBuf>, reserve: u64) -> Error {
    loop {
        for path in &paths {
            // What cannot be asked now is asked again; the work itself would meet a broken disk.
            if let Ok(free) = available(path)
                && free < reserve
            {
                return Error::new(
                    Code::NoSpace,
                    format!("the disk has {} left, and {} are to be left free", human::size(free), human::size(reserve)),
                )
                .at(path.display())
                .hint("it was ended so that nobody else runs out of room; `reserve` in [proof] says how much that is")
                .see("drill-failed.md");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_the_reserve_must_both_fit() {
        let need = |needed, available| Need { path: PathBuf::from("/scratch"), needed, available };
        assert!(refuse_without(&[need(10, 30), need(5, 25)], 20).is_ok());
        assert_eq!(refuse_without(&[need(10, 30), need(6, 25)], 20).unwrap_err().code(), Code::NoSpace);
        assert!(refuse_without(&[need(u64::MAX, 1)], u64::MAX).is_err());
        assert!(refuse_without_reserve(Path::new("/tmp"), 1).is_ok());
        assert_eq!(refuse_without_reserve(Path::new("/tmp"), u64::MAX).unwrap_err().code(), Code::NoSpace);
    }

    #[tokio::test]
    async fn a_touched_reserve_ends_the_work_and_an_untouched_one_does_not() {
        let here = vec![PathBuf::from("/tmp/not/yet/there")];
        assert_eq!(watch(here.clone(), u64::MAX).await.code(), Code::NoSpace);
        tokio::select! {
            _ = watch(here, 0) => panic!("nothing is left free"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}
