//! The moments that a cluster can be brought back to, along the path that a restore would take: what a drill chooses from.
//!
//! A stretch begins when its oldest backup was consistent and ends with the last commit before WAL ends or has its hole.
//! Reads the listings and the last segments of each stretch; writes nothing.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::choose;
use super::gather::Archive;
use super::place::DirectoryState;
use super::prepare::{self, Task};
use super::scan;
use super::wal_source::Files;
use crate::error::Result;
use crate::model::{BackupId, Timestamp};
use std::time::Duration;

/// Every moment from `from` on and before `until` can be recovered to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stretch {
    pub from: Timestamp,
    /// The last commit.
    pub until: Timestamp,
    pub oldest_backup: BackupId,
    /// When the newest of its backups was consistent. Reports of earlier versions lack it.
    #[serde(default)]
    pub newest_backup_at: Option<Timestamp>,
}

/// The stretches, oldest first. None may be there: nothing was committed since the last backup.
pub async fn stretches(task: &Task<'_>) -> Result<Vec<Stretch>> {
    task.progress.phase("looking what can be recovered");
    let archive = Archive::load(task.config, &task.cluster.name, task.only, &task.trusted).await?;
    let system = prepare::which_system(task, &archive, &DirectoryState::Absent)?;
    let size = prepare::segment_size(&archive, system)?;
    let wal = archive.wal(system, task.identities.clone()).await?;
    let all = archive.candidates();
    let of_system: Vec<_> = all.iter().filter(|c| c.system == system).cloned().collect();
    let path = choose::path(task.request.timeline, &wal.histories, &wal.listing, &of_system)?;
    let usable = choose::usable(&all, system, &path, &wal.listing, size);
    let chosen = prepare::choose_contents(task, &archive, &wal, &path, &usable.fitting, system, size).await?;
    let source = Files { wal: &wal, local: &[], chosen: &chosen, size };
    let mut found: Vec<Stretch> = Vec::new();
    let mut newest = None;
    // The newest first: of those that reach equally far the last one is the oldest.
    let mut fitting = usable.fitting.iter().peekable();
    while let Some((backup, reach)) = fitting.next() {
        let newest_backup_at = *newest.get_or_insert(backup.stop_time);
        if fitting.peek().is_some_and(|(_, older)| older.end == reach.end) {
            continue;
        }
        newest = None;
        let tail = scan::tail(&source, &scan::way(reach, size), size, system).await?;
        if let Some(last) = tail.and_then(|tail| tail.last_commit)
            && last.at > backup.stop_time
        {
            found.push(Stretch {
                from: backup.stop_time,
                until: last.at,
                oldest_backup: backup.id.clone(),
                newest_backup_at: Some(newest_backup_at),
            });
        }
    }
    found.reverse();
    Ok(found)
}

/// A random second of them, each as likely as any other, always the same for one seed. Those before `since` do not count,
/// unless there are no others. None: there is none to choose from.
pub fn random_second(stretches: &[Stretch], since: Option<Timestamp>, seed: u64) -> Option<Timestamp> {
    let newer: Vec<Stretch> = stretches
        .iter()
        .filter(|s| since.is_none_or(|since| s.until > since))
        .map(|s| Stretch { from: since.map_or(s.from, |since| s.from.max(since)), ..s.clone() })
        .collect();
    let chosen = if newer.is_empty() { stretches } else { &newer };
    let micros = |s: &Stretch| u64::try_from(s.until.since(s.from).as_micros()).unwrap_or(u64::MAX);
    let whole = chosen.iter().fold(0u64, |sum, s| sum.saturating_add(micros(s)));
    if whole == 0 {
        return None;
    }
    let mut at = StdRng::seed_from_u64(seed).random_range(0..whole);
    for stretch in chosen {
        if at < micros(stretch) {
            let exact = stretch.from.plus(Duration::from_micros(at));
            let second = exact.minus(Duration::from_micros(u64::from(exact.0.timestamp_subsec_micros())));
            return Some(if second >= stretch.from { second } else { exact });
        }
        at -= micros(stretch);
    }
    None
}

/// The same of the latest backup alone, which nobody else has tried yet; of its seconds those that were not proved before,
/// if there are any. None: nothing was committed since.
pub fn second_of_the_latest(
    stretches: &[Stretch],
    proved: Option<Timestamp>,
    seed: u64,
) -> Option<Timestamp> {
    let last = stretches.last()?;
    let latest = Stretch { from: last.newest_backup_at.unwrap_or(last.from), ..last.clone() };
    (latest.until > latest.from).then(|| random_second(&[latest], proved, seed)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-21T{text}Z").parse().unwrap()
    }
    fn stretch(from: &str, until: &str) -> Stretch {
        let oldest_backup = BackupId::parse("20261121T020000Z-full-3f9a").unwrap();
        Stretch { from: at(from), until: at(until), oldest_backup, newest_backup_at: Some(at(from)) }
    }

    #[test]
    fn a_seed_says_which_second_and_every_stretch_has_its_share() {
        let all = [stretch("02:00:00.5", "03:00:00.5"), stretch("06:00:00", "09:00:00")];
        let (mut early, rounds) = (0, 2000);
        for seed in 0..rounds {
            let chosen = random_second(&all, None, seed).unwrap();
            assert_eq!(chosen, random_second(&all, None, seed).unwrap());
            assert!(all.iter().any(|s| chosen >= s.from && chosen < s.until), "{chosen}");
            assert!(chosen.0.timestamp_subsec_micros() == 0 || chosen < at("02:00:01"));
            early += u64::from(chosen < at("04:00:00"));
        }
        assert!((rounds / 5..rounds / 3).contains(&early), "{early} of {rounds}");
    }

    #[test]
    fn what_was_proved_before_is_left_out_if_there_is_anything_newer() {
        let all = [stretch("02:00:00", "03:00:00"), stretch("06:00:00", "09:00:00")];
        for seed in 0..100 {
            assert!(random_second(&all, Some(at("08:00:00")), seed).unwrap() >= at("08:00:00"));
            assert!(random_second(&all, Some(at("10:00:00")), seed).unwrap() < at("09:00:00"));
        }
    }

    #[test]
    fn a_test_tries_the_latest_backup_and_what_was_not_proved_with_it() {
        let mut all = [stretch("02:00:00", "03:00:00"), stretch("06:00:00", "09:00:00")];
        all[1].newest_backup_at = Some(at("08:00:00"));
        for seed in 0..100 {
            for (proved, first) in
                [(None, "08:00:00"), (Some("07:00:00"), "08:00:00"), (Some("08:30:00"), "08:30:00")]
            {
                let chosen = second_of_the_latest(&all, proved.map(at), seed).unwrap();
                assert!(chosen >= at(first) && chosen < at("09:00:00"), "{chosen}");
            }
            assert!(second_of_the_latest(&all, Some(at("10:00:00")), seed).unwrap() >= at("08:00:00"));
        }
        all[1].newest_backup_at = Some(at("09:00:00"));
        assert_eq!(second_of_the_latest(&all, None, 1), None, "to the end of WAL, which is the backup's own");
        assert_eq!(second_of_the_latest(&[], None, 1), None);
    }

    #[test]
    fn a_stretch_shorter_than_a_second_has_moments_too_and_none_has_none() {
        let short = [stretch("02:00:00.2", "02:00:00.7")];
        let chosen = random_second(&short, None, 1).unwrap();
        assert!(chosen >= short[0].from && chosen < short[0].until);
        assert_eq!(random_second(&[], None, 1), None);
    }
}
