//! When a job runs: five fields as in crontab(5) and a time zone.
//!
//! The `cron` crate walks the calendar. It counts the days of the week from 1 and takes the day only if **both** day
//! fields fit; crontab(5) counts from 0, calls Sunday 7 as well, and takes the day if **either** fits when both are
//! restricted. [`fields`] translates; two of the crate's schedules stand for one of ours then.
//!
//! The calendar is walked in local time without offsets, and local times become moments here:
//! * a local time that is skipped (clocks go forward) is the next valid minute, and several such are one;
//! * a local time that is doubled (clocks go back) is the first of the two. A schedule of every hour (`*`) means the
//!   passing of time and not a place of the clock's hands: it counts in both, or there would be an hour without a run.
//!
//! Pure: what comes after a moment depends on nothing but the schedule, the zone and that moment.

use std::fmt;
use std::time::Duration;

use chrono::offset::LocalResult;
use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use crate::model::Timestamp;

mod fields;

/// No zone has ever put its clocks back by more than this, but for those that crossed the date line.
const LONGEST_FOLD: TimeDelta = TimeDelta::hours(4);
/// The longest skip: an island that crosses the date line loses a day.
const LONGEST_GAP_MINUTES: i64 = 26 * 60;

/// A schedule in its zone, known to come at least once.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    /// As written.
    text: String,
    zone: Tz,
    /// The day fits if it fits one of these.
    either: Vec<cron::Schedule>,
    every_hour: bool,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({self})")
    }
}

/// `0 2 * * * Europe/Berlin`
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.zone.name())
    }
}

impl Schedule {
    /// Reads five fields (or `@daily` and its like); the error says what is wrong with which of them.
    pub fn parse(text: &str, zone: Tz) -> Result<Self, String> {
        let translated = fields::translate(text)?;
        let mut either = Vec::with_capacity(translated.expressions.len());
        for expression in &translated.expressions {
            let schedule = expression
                .parse::<cron::Schedule>()
                .map_err(|e| format!("`{text}` cannot be understood: {e}"))?;
            either.push(schedule);
        }
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let schedule = Self { text, zone, either, every_hour: translated.every_hour };
        // Eight years hold every day of the calendar on every weekday that it can have soon, a leap day among them.
        let begin = DateTime::<Utc>::UNIX_EPOCH.naive_utc();
        if schedule.local_after(begin).is_none() {
            return Err(format!("`{}` never comes: no month has that day", schedule.text));
        }
        Ok(schedule)
    }

    /// As written, in single spaces.
    pub fn text(&self) -> &str {
        &self.text
    }
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first moment after `after`; None when the calendar (which ends in 2100) has no more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let local = after.0.with_timezone(&self.zone).naive_local();
        // Where clocks change nearby, a local time that is past may come again.
        let near_change = self.offset(after.0 - LONGEST_FOLD) != self.offset(after.0 + LONGEST_FOLD);
        let mut from = if near_change { local - LONGEST_FOLD } else { local };
        let mut best: Option<DateTime<Utc>> = None;
        while let Some(next) = self.local_after(from) {
            if best.is_some() && (!near_change || next > local + LONGEST_FOLD) {
                break;
            }
            for moment in self.moments(next) {
                if moment > after.0 && best.is_none_or(|best| moment < best) {
                    best = Some(moment);
                }
            }
            from = next;
        }
        best.map(Timestamp)
    }

    /// The last moment at or before `now` and after `since`; None when there was none.
    pub fn last_between(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let comes = |from: Timestamp| self.next_after(from).filter(|next| *next <= now);
        let mut last = comes(since)?;
        // Of two moments, what comes after the later one is never earlier: the place where it passes `now` is bisected.
        let (mut low, mut high) = (last.0.timestamp(), now.0.timestamp() + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match Timestamp::from_unix_seconds(middle).and_then(comes) {
                Some(next) => {
                    last = next;
                    low = next.0.timestamp();
                }
                None => high = middle,
            }
        }
        Some(last)
    }

    /// The longest span between two moments among those after `now`: a weekend, for business hours. None where there
    /// are not two.
    pub fn longest_interval(&self, now: Timestamp) -> Option<Duration> {
        /// A year of days, weeks of hours.
        const MOMENTS: usize = 400;
        let moments = std::iter::successors(self.next_after(now), |at| self.next_after(*at)).take(MOMENTS);
        let moments: Vec<Timestamp> = moments.collect();
        moments.windows(2).map(|two| two[1].since(two[0])).max()
    }

    fn offset(&self, at: DateTime<Utc>) -> chrono::FixedOffset {
        use chrono::Offset;
        self.zone.offset_from_utc_datetime(&at.naive_utc()).fix()
    }

    fn local_after(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let nexts = self.either.iter().filter_map(|schedule| schedule.after(&local.and_utc()).next());
        nexts.min().map(|next| next.naive_utc())
    }

    /// When a local time is.
    fn moments(&self, local: NaiveDateTime) -> Vec<DateTime<Utc>> {
        match self.zone.from_local_datetime(&local) {
            LocalResult::Single(moment) => vec![moment.to_utc()],
            LocalResult::Ambiguous(first, second) if self.every_hour => {
                vec![first.to_utc(), second.to_utc()]
            }
            LocalResult::Ambiguous(first, _) => vec![first.to_utc()],
            LocalResult::None => {
                let later = (1..=LONGEST_GAP_MINUTES).map(|minutes| local + TimeDelta::minutes(minutes));
                let valid = later.filter_map(|local| self.zone.from_local_datetime(&local).earliest());
                valid.map(|moment| moment.to_utc()).take(1).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
