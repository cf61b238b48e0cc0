//! When jobs fire: table tests of changed clocks here, and [`oracle`] compares with another reading of crontab.

mod oracle;

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sshjob::domain::job::{Missed, Overlap, Schedule};
use sshjob::domain::quantity::Span;
use sshjob::domain::schedule::calendar::{Calendar, Firing, Moved};

/// A schedule that says no more than when, by the clock of `zone`.
fn schedule(zone: &str, expressions: &[&str]) -> Schedule {
    Schedule {
        expressions: expressions.iter().map(|&expression| expression.to_owned()).collect(),
        timezone: zone.to_owned(),
        jitter: Span(Duration::ZERO),
        paused: false,
        blackout: Vec::new(),
        on: Vec::new(),
        overlap: Overlap::Skip,
        missed: Missed::Latest,
        deadline: Span(Duration::ZERO),
    }
}

fn calendar(zone: &str, expressions: &[&str]) -> Calendar {
    Calendar::new(&"job".parse().unwrap(), &schedule(zone, expressions)).unwrap()
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A firing as people write it down: local time, offset, what became of it.
fn told(zone: &TimeZone, firing: &Firing) -> String {
    let at = firing.at.to_zoned(zone.clone()).strftime("%m-%d %H:%M %:z").to_string();
    match firing.moved {
        None => at,
        Some(Moved::AfterGap(local)) => format!("{at} for {}", local.strftime("%H:%M")),
        Some(Moved::FirstOfTwo) => format!("{at} first of two"),
    }
}

/// The firings between two local times, which `between` and `next` agree on.
fn firings(zone: &str, expressions: &[&str], from: &str, until: &str) -> Vec<String> {
    let calendar = calendar(zone, expressions);
    let zone = calendar.zone().clone();
    let instant = |text: &str| {
        let local: jiff::civil::DateTime = text.parse().unwrap();
        zone.to_zoned(local).unwrap().timestamp()
    };
    let (from, until) = (instant(from), instant(until));
    let firings = calendar.between(from, until, usize::MAX);
    let mut after = from;
    for firing in &firings {
        assert_eq!(calendar.next(after).as_ref(), Some(firing));
        after = firing.at;
    }
    assert!(calendar.next(after).is_none_or(|next| next.at > until));
    firings.iter().map(|firing| told(&zone, firing)).collect()
}

#[test]
fn local_time_that_is_skipped_fires_once_after_the_gap() {
    // 02:00 to 03:00 is skipped on 29 March.
    let berlin = |expressions: &[&str]| firings("Europe/Berlin", expressions, "2026-03-28T12:00", "2026-03-30T12:00");
    assert_eq!(berlin(&["30 2 * * *"]), ["03-29 03:00 +02:00 for 02:30", "03-30 02:30 +02:00"]);
    assert_eq!(berlin(&["0 2 * * *"]), ["03-29 03:00 +02:00 for 02:00", "03-30 02:00 +02:00"]);
    // Several of one gap are one, and one with what is meant for its end.
    assert_eq!(
        berlin(&["*/20 2 * * *"]),
        ["03-29 03:00 +02:00 for 02:00", "03-30 02:00 +02:00", "03-30 02:20 +02:00", "03-30 02:40 +02:00"]
    );
    assert_eq!(berlin(&["30 2,3 29 3 *"]), ["03-29 03:00 +02:00 for 02:30", "03-29 03:30 +02:00"]);
    assert_eq!(berlin(&["30 2 29 3 *", "0 3 29 3 *"]).len(), 1);
    assert_eq!(berlin(&["at(2026-03-29T02:30:15)"]), ["03-29 03:00 +02:00 for 02:30"]);
    let new_york =
        |expressions: &[&str]| firings("America/New_York", expressions, "2026-03-07T12:00", "2026-03-09T12:00");
    assert_eq!(new_york(&["30 2 * * *"]), ["03-08 03:00 -04:00 for 02:30", "03-09 02:30 -04:00"]);
    assert_eq!(new_york(&["59 1 * * *"]), ["03-08 01:59 -05:00", "03-09 01:59 -04:00"]);
    assert_eq!(new_york(&["0 3 * * *"]), ["03-08 03:00 -04:00", "03-09 03:00 -04:00"]);
    // 02:00 to 02:30 is skipped on 4 October.
    let lord_howe =
        |expressions: &[&str]| firings("Australia/Lord_Howe", expressions, "2026-10-03T12:00", "2026-10-05T12:00");
    assert_eq!(lord_howe(&["15 2 * * *"]), ["10-04 02:30 +11:00 for 02:15", "10-05 02:15 +11:00"]);
    assert_eq!(lord_howe(&["30 2 * * *"]), ["10-04 02:30 +11:00", "10-05 02:30 +11:00"]);
    assert_eq!(lord_howe(&["45 2 * * *"]), ["10-04 02:45 +11:00", "10-05 02:45 +11:00"]);
}

#[test]
fn local_time_that_is_repeated_fires_once_the_first_time() {
    // 02:00 to 03:00 comes twice on 25 October.
    let berlin = |expressions: &[&str]| firings("Europe/Berlin", expressions, "2026-10-24T12:00", "2026-10-26T01:00");
    assert_eq!(berlin(&["30 2 * * *"]), ["10-25 02:30 +02:00 first of two"]);
    assert_eq!(berlin(&["0 2 * * *"]), ["10-25 02:00 +02:00 first of two"]);
    assert_eq!(berlin(&["0 3 * * *"]), ["10-25 03:00 +01:00"]);
    assert_eq!(
        berlin(&["30 1-3 * * *"]),
        ["10-25 01:30 +02:00", "10-25 02:30 +02:00 first of two", "10-25 03:30 +01:00"]
    );
    assert_eq!(berlin(&["at(2026-10-25T02:30:00)"]), ["10-25 02:30 +02:00 first of two"]);
    let new_york =
        |expressions: &[&str]| firings("America/New_York", expressions, "2026-10-31T12:00", "2026-11-01T12:00");
    assert_eq!(new_york(&["30 1 * * *"]), ["11-01 01:30 -04:00 first of two"]);
    // 01:30 to 02:00 comes twice on 5 April.
    let lord_howe =
        |expressions: &[&str]| firings("Australia/Lord_Howe", expressions, "2026-04-04T12:00", "2026-04-05T12:00");
    assert_eq!(lord_howe(&["45 1 * * *"]), ["04-05 01:45 +11:00 first of two"]);
    assert_eq!(lord_howe(&["15 1 * * *"]), ["04-05 01:15 +11:00"]);
    assert_eq!(lord_howe(&["0 2 * * *"]), ["04-05 02:00 +10:30"]);
}

#[test]
fn every_hour_follows_elapsed_time() {
    let spring = ["03-29 01:30 +01:00", "03-29 03:30 +02:00", "03-29 04:30 +02:00"];
    assert_eq!(firings("Europe/Berlin", &["30 * * * *"], "2026-03-29T01:00", "2026-03-29T05:00"), spring);
    let autumn = ["10-25 01:30 +02:00", "10-25 02:30 +02:00", "10-25 02:30 +01:00", "10-25 03:30 +01:00"];
    assert_eq!(firings("Europe/Berlin", &["30 * * * *"], "2026-10-25T01:00", "2026-10-25T04:00"), autumn);
    let even = ["10-25 00:00 +02:00", "10-25 02:00 +02:00", "10-25 02:00 +01:00", "10-25 04:00 +01:00"];
    assert_eq!(firings("Europe/Berlin", &["0 */2 * * *"], "2026-10-24T23:00", "2026-10-25T05:00"), even);
    assert_eq!(
        firings("America/New_York", &["*/30 * * * *"], "2026-11-01T00:45", "2026-11-01T02:00"),
        ["11-01 01:00 -04:00", "11-01 01:30 -04:00", "11-01 01:00 -05:00", "11-01 01:30 -05:00", "11-01 02:00 -05:00"]
    );
    // Half an hour more or less: the minutes are those of the clock.
    assert_eq!(
        firings("Australia/Lord_Howe", &["*/20 * * * *"], "2026-10-04T01:30", "2026-10-04T03:00"),
        ["10-04 01:40 +10:30", "10-04 02:40 +11:00", "10-04 03:00 +11:00"]
    );
    assert_eq!(
        firings("Australia/Lord_Howe", &["*/20 * * * *"], "2026-04-05T01:15", "2026-04-05T02:20"),
        ["04-05 01:20 +11:00", "04-05 01:40 +11:00", "04-05 01:40 +10:30", "04-05 02:00 +10:30", "04-05 02:20 +10:30"]
    );
}

#[test]
fn offset_of_45_minutes_is_the_clock_s_and_not_the_rate_s() {
    let kathmandu = |expression| firings("Asia/Kathmandu", &[expression], "2026-06-01T00:00", "2026-06-01T03:00");
    assert_eq!(kathmandu("0 * * * *"), ["06-01 01:00 +05:45", "06-01 02:00 +05:45", "06-01 03:00 +05:45"]);
    assert_eq!(kathmandu("30 2 * * *"), ["06-01 02:30 +05:45"]);
    // Aligned to the Unix epoch, which no zone moves.
    assert_eq!(kathmandu("rate(1 hour)"), ["06-01 00:45 +05:45", "06-01 01:45 +05:45", "06-01 02:45 +05:45"]);
    // Until 1986 the offset was 05:30; midnight to 00:15 was skipped.
    let change = |expression| firings("Asia/Kathmandu", &[expression], "1985-12-31T23:00", "1986-01-01T00:30");
    assert_eq!(change("0 0 * * *"), ["01-01 00:15 +05:45 for 00:00"]);
    assert_eq!(change("*/20 * * * *"), ["12-31 23:20 +05:30", "12-31 23:40 +05:30", "01-01 00:20 +05:45"]);
}

#[test]
fn clock_that_is_changed_around_midnight_loses_and_doubles_no_day() {
    // A whole day was skipped.
    let apia = |expression| firings("Pacific/Apia", &[expression], "2011-12-29T00:00", "2011-12-31T13:00");
    assert_eq!(apia("0 12 * * *"), ["12-29 12:00 -10:00", "12-31 00:00 +14:00 for 12:00", "12-31 12:00 +14:00"]);
    assert_eq!(apia("0 */12 * * *"), ["12-29 12:00 -10:00", "12-31 00:00 +14:00", "12-31 12:00 +14:00"]);
    // Midnight is skipped: the new day begins at one.
    let havana = |expression| firings("America/Havana", &[expression], "2026-03-07T12:00", "2026-03-08T12:00");
    assert_eq!(havana("@daily"), ["03-08 01:00 -04:00 for 00:00"]);
    // The clock goes back to the day before, and midnight comes twice.
    let saint_johns = |expression| firings("America/St_Johns", &[expression], "2010-11-06T12:00", "2010-11-07T12:00");
    assert_eq!(saint_johns("@daily"), ["11-07 00:00 -02:30 first of two"]);
    assert_eq!(saint_johns("30 23 * * *"), ["11-06 23:30 -02:30 first of two"]);
    assert_eq!(saint_johns("0 */12 * * *"), ["11-07 00:00 -02:30", "11-07 00:00 -03:30", "11-07 12:00 -03:30"]);
}

#[test]
fn window_of_a_minute_holds_what_is_due_in_it_once() {
    let calendar = calendar("Europe/Berlin", &["30 2 * * *", "*/10 2 * * *", "0 */6 * * *"]);
    let (from, until) = (instant("2026-03-28T00:00:07Z"), instant("2026-03-30T00:00:07Z"));
    let mut ticked = Vec::new();
    let mut tick = from;
    while tick < until {
        let next = tick + jiff::SignedDuration::from_secs(47);
        ticked.extend(calendar.between(tick, next.min(until), usize::MAX));
        tick = next;
    }
    let firings = calendar.between(from, until, usize::MAX);
    assert_eq!(ticked, firings);
    assert!(firings.len() > 15 && firings.is_sorted_by(|one, other| one.at < other.at));
    assert_eq!(calendar.between(from, until, 3), firings[..3]);
}

#[test]
fn jitter_delays_what_is_due_and_not_its_name() {
    let schedule = Schedule { jitter: "2m".parse().unwrap(), ..schedule("UTC", &["0 * * * *"]) };
    let delays: Vec<i64> = ["hello", "rotate-logs", "a", "b"]
        .map(|job| {
            let calendar = Calendar::new(&job.parse().unwrap(), &schedule).unwrap();
            let firing = calendar.next(instant("2026-06-01T00:30:00Z")).unwrap();
            assert_eq!(firing.at, instant("2026-06-01T01:00:00Z"));
            assert_eq!(calendar.between(firing.at, firing.due, 9), std::slice::from_ref(&firing));
            assert_eq!(calendar.next(firing.due).unwrap().at, instant("2026-06-01T02:00:00Z"));
            (firing.due - firing.at).get_seconds()
        })
        .to_vec();
    // Every machine and every version comes to these.
    assert_eq!(delays, [22, 51, 10, 106]);
}

#[test]
fn firing_in_a_blackout_says_which() {
    let blackout = vec!["2026-06-02/2026-06-02".to_owned(), "2026-06-03T01:00/2026-06-03T02:00".to_owned()];
    let schedule = Schedule { blackout, ..schedule("Asia/Kathmandu", &["0 0,1,2 * * *"]) };
    let calendar = Calendar::new(&"job".parse().unwrap(), &schedule).unwrap();
    let forbidden: Vec<_> = calendar
        .between(instant("2026-05-31T18:15:00Z"), instant("2026-06-02T20:15:00Z"), 99)
        .iter()
        .map(|firing| firing.blackout.and_then(|index| calendar.blackout(index)))
        .collect();
    let (day, hour) = (Some("2026-06-02/2026-06-02"), Some("2026-06-03T01:00/2026-06-03T02:00"));
    assert_eq!(forbidden, [None, None, day, day, day, None, hour, None]);
}

#[test]
fn schedule_that_is_over_never_fires_again() {
    let calendar = |expression| calendar("Europe/Berlin", &[expression]);
    let now = instant("2026-06-01T00:00:00Z");
    assert_eq!(calendar("at(2026-05-31T00:00:00)").next(now), None);
    assert_eq!(calendar("cron(0 0 1 1 ? 2020-2026)").next(now), None);
    assert_eq!(calendar("cron(0 0 1 1 ? 2190)").next(now).unwrap().at, instant("2189-12-31T23:00:00Z"));
    // `*/7` leaves either day open, so that both must match: the next 29 February that is a Sunday.
    assert_eq!(calendar("0 0 29 2 */7").next(now).unwrap().at, instant("2032-02-28T23:00:00Z"));
    assert_eq!(Calendar::new(&"job".parse().unwrap(), &schedule("UTC", &[])).unwrap().next(now), None);
}

#[test]
fn schedule_that_is_none_is_refused() {
    let refused = |schedule: &Schedule| Calendar::new(&"job".parse().unwrap(), schedule).unwrap_err().to_string();
    let wrong = refused(&schedule("Europe/Bärlin", &["@daily"]));
    assert_eq!(wrong, "`Europe/Bärlin` is not a time zone of the IANA database");
    assert_eq!(refused(&schedule("UTC", &["@daily", "@dayly"])), "`@dayly` is not a schedule: there is no such macro");
    let blackout = Schedule { blackout: vec!["soon".to_owned()], ..schedule("UTC", &["@daily"]) };
    assert_eq!(refused(&blackout), "`soon` is not a range of dates or times");
}
