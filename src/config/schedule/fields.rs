//! From crontab(5)'s five fields to the `cron` crate's six. Every field becomes a list of plain numbers, so that
//! nothing is left to what the crate thinks of names, steps or Sundays.

use std::collections::BTreeSet;

/// What the crate is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// One, or two of which either may fit: `second minute hour day month weekday`.
    pub(super) expressions: Vec<String>,
    /// The hour field is `*`, or names all of them.
    pub(super) every_hour: bool,
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// The first stands for `low`, as in crontab(5).
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const MINUTE: Field = Field { name: "minute", low: 0, high: 59, names: &[] };
const HOUR: Field = Field { name: "hour", low: 0, high: 23, names: &[] };
const DAY: Field = Field { name: "day of the month", low: 1, high: 31, names: &[] };
const MONTH: Field = Field { name: "month", low: 1, high: 12, names: MONTHS };
/// 0 and 7 are Sunday.
const WEEKDAY: Field = Field { name: "day of the week", low: 0, high: 7, names: WEEKDAYS };

/// What the nicknames stand for.
const NICKNAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

pub(super) fn translate(text: &str) -> Result<Translated, String> {
    let text = text.trim();
    let spelt_out = match NICKNAMES.iter().find(|(name, _)| *name == text) {
        Some((_, fields)) => fields,
        None if text.starts_with('@') => {
            let names: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!("`{text}` is not one of {}", names.join(", ")));
        }
        None => text,
    };
    let words: Vec<&str> = spelt_out.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = words.as_slice() else {
        return Err(format!(
            "`{text}` has {} fields; a schedule has five: minute, hour, day of the month, month, day of the week",
            words.len()
        ));
    };
    let minutes = MINUTE.read(minute)?;
    let hours = HOUR.read(hour)?;
    let days = DAY.read(day)?;
    let months = MONTH.read(month)?;
    // The crate counts from Sunday = 1.
    let weekdays: BTreeSet<u32> = WEEKDAY.read(weekday)?.into_iter().map(|n| n % 7 + 1).collect();
    let every_hour = hours.len() == 24;
    let head = format!("0 {} {}", list(&minutes), list(&hours));
    let expression = |day: &str, weekday: &str| format!("{head} {day} {} {weekday}", list(&months));
    // crontab(5): restricted is a field that does not contain a star; with both restricted, either may fit.
    let (any_day, any_weekday) = (day.contains('*'), weekday.contains('*'));
    let expressions = if any_day || any_weekday {
        let all_weekdays = weekdays.len() == 7;
        let weekday = if all_weekdays { "*".to_owned() } else { list(&weekdays) };
        vec![expression(&list(&days), &weekday)]
    } else {
        vec![expression(&list(&days), "*"), expression(&list(&(1..=31).collect()), &list(&weekdays))]
    };
    Ok(Translated { expressions, every_hour })
}

fn list(numbers: &BTreeSet<u32>) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

impl Field {
    fn read(&self, text: &str) -> Result<BTreeSet<u32>, String> {
        let mut numbers = BTreeSet::new();
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, Some(self.step(item, step)?)),
                None => (item, None),
            };
            let (from, to) = self.range(item, range)?;
            if step.is_some() && range != "*" && !range.contains('-') {
                return Err(self.fault(item, "a step follows `*` or a range, as in `*/15` or `8-18/2`"));
            }
            let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
            numbers.extend((from..=to).step_by(step));
        }
        Ok(numbers)
    }

    fn step(&self, item: &str, text: &str) -> Result<u32, String> {
        let step = plain_number(text).filter(|step| *step > 0);
        step.ok_or_else(|| self.fault(item, "the step is not a number above 0"))
    }

    fn range(&self, item: &str, text: &str) -> Result<(u32, u32), String> {
        if text == "*" {
            return Ok((self.low, self.high));
        }
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let from = self.number(item, from)?;
        let mut to = self.number(item, to)?;
        // `fri-sun`: the Sunday at the end of the week.
        if self.high == WEEKDAY.high && to == 0 && from > 0 && text.contains('-') {
            to = 7;
        }
        if from > to {
            return Err(self.fault(item, "the range goes backwards"));
        }
        Ok((from, to))
    }

    fn number(&self, item: &str, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|name| *name == lower);
        let number = match named {
            Some(place) => u32::try_from(place).ok().map(|place| self.low + place),
            None => plain_number(text),
        };
        number.filter(|n| (self.low..=self.high).contains(n)).ok_or_else(|| {
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            self.fault(item, &format!("`{text}` is not a number from {} to {}{names}", self.low, self.high))
        })
    }

    fn fault(&self, item: &str, what: &str) -> String {
        format!("{} `{item}`: {what}", self.name)
    }
}

/// Digits alone: no sign, no blanks.
fn plain_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> Vec<String> {
        translate(text).unwrap().expressions
    }

    #[test]
    fn crontabs_fields_become_the_crates() {
        for (ours, theirs) in [
            ("0 2 * * *", "0 0 2 DAYS MONTHS *"),
            ("  5   4  *  *  * ", "0 5 4 DAYS MONTHS *"),
            // 0 and 7 are Sunday, which the crate calls 1.
            ("0 2 * * 0", "0 0 2 DAYS MONTHS 1"),
            ("0 2 * * 7", "0 0 2 DAYS MONTHS 1"),
            ("0 2 * * SUN", "0 0 2 DAYS MONTHS 1"),
            ("0 2 * * 0,7", "0 0 2 DAYS MONTHS 1"),
            ("0 2 * * 1-5", "0 0 2 DAYS MONTHS 2,3,4,5,6"),
            ("0 2 * * mon-fri", "0 0 2 DAYS MONTHS 2,3,4,5,6"),
            ("0 2 * * 5-7", "0 0 2 DAYS MONTHS 1,6,7"),
            ("0 2 * * fri-sun", "0 0 2 DAYS MONTHS 1,6,7"),
            ("0 2 * * 6", "0 0 2 DAYS MONTHS 7"),
            ("0 2 * * 0-7", "0 0 2 DAYS MONTHS *"),
            ("0 2 1 jan,Jul *", "0 0 2 1 1,7 *"),
            ("*/20 8-18/5 * * *", "0 0,20,40 8,13,18 DAYS MONTHS *"),
            ("0,30,30 0 * * *", "0 0,30 0 DAYS MONTHS *"),
            ("7-59/50 0 * * *", "0 7,57 0 DAYS MONTHS *"),
            // A star in one day field, even with a step: both must fit.
            ("0 0 */10 * 1", "0 0 0 1,11,21,31 MONTHS 2"),
            ("0 0 13 * */5", "0 0 0 13 MONTHS 1,6"),
            ("@weekly", "0 0 0 DAYS MONTHS 1"),
            ("@monthly", "0 0 0 1 MONTHS *"),
            ("@yearly", "0 0 0 1 1 *"),
        ] {
            let numbers = |last: u32| list(&(1..=last).collect());
            let theirs = theirs.replace("DAYS", &numbers(31)).replace("MONTHS", &numbers(12));
            assert_eq!(translated(ours), [theirs], "{ours}");
        }
    }

    #[test]
    fn with_both_day_fields_restricted_either_fits() {
        let days: Vec<String> = (1..=31).map(|n| n.to_string()).collect();
        let months: Vec<String> = (1..=12).map(|n| n.to_string()).collect();
        let (days, months) = (days.join(","), months.join(","));
        assert_eq!(
            translated("30 4 1,15 * 5"),
            [format!("0 30 4 1,15 {months} *"), format!("0 30 4 {days} {months} 6")]
        );
    }

    #[test]
    fn a_schedule_of_every_hour_is_known_however_it_is_written() {
        for (text, every) in
            [("0 * * * *", true), ("@hourly", true), ("0 0-23 * * *", true), ("0 */2 * * *", false)]
        {
            assert_eq!(translate(text).unwrap().every_hour, every, "{text}");
        }
    }

    #[test]
    fn what_crontab_does_not_know_is_refused_with_the_field() {
        for (text, said) in [
            ("", "has 0 fields"),
            ("0 2 * *", "has 4 fields"),
            ("0 0 2 * * *", "has 6 fields"),
            ("60 2 * * *", "minute `60`: `60` is not a number from 0 to 59"),
            ("0 24 * * *", "hour `24`: `24` is not a number from 0 to 23"),
            ("0 2 0 * *", "day of the month `0`: `0` is not a number from 1 to 31"),
            ("0 2 * 13 *", "month `13`: `13` is not a number from 1 to 12, or jan to dec"),
            ("0 2 * * 8", "day of the week `8`: `8` is not a number from 0 to 7, or sun to sat"),
            ("0 2 * * monday", "`monday` is not a number"),
            ("-5 2 * * *", "minute `-5`: `` is not a number"),
            ("+5 2 * * *", "`+5` is not a number"),
            ("0 18-8 * * *", "hour `18-8`: the range goes backwards"),
            ("5/15 * * * *", "minute `5/15`: a step follows `*` or a range"),
            ("*/0 * * * *", "minute `*/0`: the step is not a number above 0"),
            ("*/x * * * *", "the step is not a number above 0"),
            ("0 2 L * *", "`L` is not a number"),
            ("0 2 ? * *", "`?` is not a number"),
            ("0 2 * * 5#2", "`5#2` is not a number"),
            ("0,, 2 * * *", "`` is not a number"),
            ("99999999999999999999 2 * * *", "is not a number from 0 to 59"),
            ("@reboot", "`@reboot` is not one of @yearly"),
            ("@Daily", "is not one of"),
            ("é 2 * * *", "`é` is not a number"),
        ] {
            let what = translate(text).unwrap_err();
            assert!(what.contains(said), "{text:?}: {what}");
        }
    }
}
