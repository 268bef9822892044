//! Schedules on the calendar: by hand, and where clocks change.

use super::*;

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone.parse().unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The moments after `after`, up to `until`.
fn between(schedule: &Schedule, after: &str, until: &str) -> Vec<String> {
    let mut now = at(after);
    let mut all = Vec::new();
    while let Some(next) = schedule.next_after(now).filter(|next| *next <= at(until)) {
        assert!(next > now, "{schedule} does not go forward at {now}");
        all.push(next.0.format("%m-%d %H:%M").to_string());
        now = next;
    }
    all
}

#[test]
fn moments_in_utc_written_out_by_hand() {
    // 2026-11-21 is a Saturday.
    for (text, after, next) in [
        ("0 2 * * *", "2026-11-21T01:59:59Z", "2026-11-21T02:00:00Z"),
        ("0 2 * * *", "2026-11-21T02:00:00Z", "2026-11-22T02:00:00Z"),
        ("0 2 * * *", "2026-12-31T02:00:00.000001Z", "2027-01-01T02:00:00Z"),
        ("*/15 * * * *", "2026-11-21T10:44:59.999999Z", "2026-11-21T10:45:00Z"),
        ("0 8-18 * * 1-5", "2026-11-20T18:00:00Z", "2026-11-23T08:00:00Z"),
        ("0 3 * * 0", "2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"),
        ("0 3 * * 7", "2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"),
        ("0 3 * * 6", "2026-11-20T04:00:00Z", "2026-11-21T03:00:00Z"),
        // Either day field: Friday the 27th comes before the 1st.
        ("30 4 1,15 * 5", "2026-11-21T00:00:00Z", "2026-11-27T04:30:00Z"),
        ("30 4 1,15 * 5", "2026-11-27T04:30:00Z", "2026-12-01T04:30:00Z"),
        ("0 0 13 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
        // Both must fit where one has a star: a Monday among the 1st, 11th, 21st, 31st.
        ("0 0 */10 * 1", "2026-11-21T00:00:00Z", "2026-12-21T00:00:00Z"),
        ("0 0 31 * *", "2026-11-21T00:00:00Z", "2026-12-31T00:00:00Z"),
        ("0 0 29 2 *", "2026-11-21T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("@yearly", "2026-11-21T00:00:00Z", "2027-01-01T00:00:00Z"),
    ] {
        assert_eq!(schedule(text, "UTC").next_after(at(after)), Some(at(next)), "{text} after {after}");
    }
}

#[test]
fn business_hours_move_with_the_zone() {
    let hours = schedule("0 8-18 * * 1-5", "Europe/Berlin");
    // Winter: UTC+1. Summer: UTC+2.
    assert_eq!(hours.next_after(at("2026-11-23T00:00:00Z")), Some(at("2026-11-23T07:00:00Z")));
    assert_eq!(hours.next_after(at("2026-07-20T00:00:00Z")), Some(at("2026-07-20T06:00:00Z")));
    assert_eq!(hours.next_after(at("2026-07-20T16:00:00Z")), Some(at("2026-07-21T06:00:00Z")));
    assert_eq!(between(&hours, "2026-11-22T00:00:00Z", "2026-11-30T00:00:00Z").len(), 5 * 11);
}

#[test]
fn a_skipped_local_time_runs_once_at_the_next_valid_minute() {
    for (text, zone, day, expected) in [
        // Berlin, 29 March 2026: 02:00 CET is 03:00 CEST (01:00 UTC).
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", vec!["03-29 01:00"]),
        ("*/10 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", vec!["03-29 01:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", vec!["03-29 01:00"]),
        (
            "0 1-4 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            vec!["03-29 00:00", "03-29 01:00", "03-29 02:00"],
        ),
        // New York, 8 March 2026: 02:00 EST is 03:00 EDT (07:00 UTC).
        ("15 2 * * *", "America/New_York", "2026-03-07T20:00:00Z", vec!["03-08 07:00"]),
        // Lord Howe, 4 October 2026: 02:00 (+10:30) is 02:30 (+11), 15:30 UTC of the day before.
        ("0 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", vec!["10-03 15:30"]),
        (
            "0,15,30,45 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            vec!["10-03 15:30", "10-03 15:45"],
        ),
    ] {
        let until = at(day).plus(std::time::Duration::from_hours(20)).to_string();
        assert_eq!(between(&schedule(text, zone), day, &until), expected, "{text} {zone}");
    }
}

#[test]
fn a_doubled_local_time_runs_once_at_its_first() {
    for (text, zone, day, expected) in [
        // Berlin, 25 October 2026: 03:00 CEST is 02:00 CET (01:00 UTC). 02:30 is at 00:30 and 01:30 UTC.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", vec!["10-25 00:30"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", vec!["10-25 00:00", "10-25 00:30"]),
        (
            "0 1-3 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            vec!["10-24 23:00", "10-25 00:00", "10-25 02:00"],
        ),
        // New York, 1 November 2026: 01:30 is at 05:30 and 06:30 UTC.
        ("30 1 * * *", "America/New_York", "2026-10-31T20:00:00Z", vec!["11-01 05:30"]),
        // Lord Howe, 5 April 2026: 02:00 (+11) is 01:30 (+10:30), 15:00 UTC of the day before.
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", vec!["04-04 14:45"]),
    ] {
        let until = at(day).plus(std::time::Duration::from_hours(20)).to_string();
        assert_eq!(between(&schedule(text, zone), day, &until), expected, "{text} {zone}");
    }
}

#[test]
fn between_the_two_of_a_doubled_time_the_second_is_not_next() {
    let daily = schedule("30 2 * * *", "Europe/Berlin");
    assert_eq!(daily.next_after(at("2026-10-25T00:31:00Z")), Some(at("2026-10-26T01:30:00Z")));
    assert_eq!(daily.next_after(at("2026-10-25T01:29:00Z")), Some(at("2026-10-26T01:30:00Z")));
}

#[test]
fn a_schedule_of_every_hour_leaves_no_hour_out_when_clocks_go_back() {
    let hourly = schedule("20 * * * *", "Europe/Berlin");
    assert_eq!(
        between(&hourly, "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z"),
        ["10-24 23:20", "10-25 00:20", "10-25 01:20", "10-25 02:20"]
    );
    let quarters = schedule("*/15 * * * *", "Australia/Lord_Howe");
    assert_eq!(between(&quarters, "2026-04-04T14:00:00Z", "2026-04-04T16:00:00Z").len(), 8);
    let minutes = schedule("* * * * *", "America/New_York");
    assert_eq!(between(&minutes, "2026-11-01T03:00:00Z", "2026-11-01T09:00:00Z").len(), 6 * 60);
    assert_eq!(between(&minutes, "2026-03-08T03:00:00Z", "2026-03-08T09:00:00Z").len(), 6 * 60);
}

#[test]
fn a_day_that_an_island_never_had_runs_at_the_beginning_of_the_next() {
    // Samoa went from 29 to 31 December 2011 (from -10 to +14).
    let daily = schedule("0 12 * * *", "Pacific/Apia");
    assert_eq!(
        between(&daily, "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z"),
        // Noon of the 29th, midnight after the day that was not, noon of the 31st, noon of the 1st of January.
        ["12-29 22:00", "12-30 10:00", "12-30 22:00", "12-31 22:00"]
    );
}

#[test]
fn a_schedule_that_never_comes_is_refused() {
    for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30,31 feb *"] {
        let what = Schedule::parse(text, Tz::UTC).unwrap_err();
        assert!(what.contains("never comes"), "{text}: {what}");
    }
    // With a weekday beside it, the weekday comes.
    assert!(Schedule::parse("0 0 30 2 1", Tz::UTC).is_ok());
}

#[test]
fn the_calendar_ends() {
    assert_eq!(schedule("@yearly", "UTC").next_after(at("2100-06-01T00:00:00Z")), None);
}

#[test]
fn the_last_moment_before_now_is_found_however_long_ago_the_one_before_was() {
    let minutes = schedule("* * * * *", "Europe/Berlin");
    assert_eq!(
        minutes.last_between(at("2016-01-01T00:00:00Z"), at("2026-11-21T10:44:59Z")),
        Some(at("2026-11-21T10:44:00Z"))
    );
    let daily = schedule("0 2 * * *", "UTC");
    let since = at("2026-11-18T02:00:00Z");
    assert_eq!(daily.last_between(since, at("2026-11-21T02:00:00Z")), Some(at("2026-11-21T02:00:00Z")));
    assert_eq!(daily.last_between(since, at("2026-11-21T01:59:59Z")), Some(at("2026-11-20T02:00:00Z")));
    assert_eq!(daily.last_between(since, at("2026-11-19T01:00:00Z")), None);
    assert_eq!(daily.last_between(at("2026-11-22T00:00:00Z"), since), None);
}
