//! Random expressions, zones and times, compared with `croner`, which reads crontab and changed clocks by itself.
//!
//! Where it means something else, that is said here once, and the comparison is made all the same:
//!
//! | difference | croner | here | why |
//! |---|---|---|---|
//! | several minutes or hours, none of them `*`, where clocks change (`*/20 2 * * *`) | such a job follows elapsed time: skipped in a gap, doubled in a repeated hour | each local time fires once | the hour alone decides (crontab(5)): who names an hour means it once a day. Compared with one croner expression for each time |
//! | `*/n` in one day field, and the other restricted | either will do | both must match | crontab(5) goes by the first character. Compared with croner's own switch for "both" |
//! | `10/5` | refused | 10, 15, … | Quartz and EventBridge write it so. Not compared in crontab; croner is given `10-59/5` |
//! | a gap of a day (Apia, 2011) or one that ends on a day that does not match | skipped, or an error after two hours | fires once after the gap | no firing is dropped in silence. [`gap_beyond_croner_fires_once`] |
//! | `L` beside `W` in one field (`L,15W`) | read as `LW` | the last day, and the working day nearest to the 15th | they are two items of a list. Not generated together; [`last_day_beside_a_working_day_stays_one`] |
//! | `L-3` | unknown | the third day before the last | EventBridge has it. Tested beside the pattern |

use std::cell::Cell;

use croner::parser::CronParser;
use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::{Calendar, firings, schedule};

/// How many random cases are compared; `PROPTEST_CASES` asks for more.
const CASES: u32 = 4000;

/// Firings in a row that are compared.
const FIRINGS: usize = 8;

/// Zones whose clocks change: by an hour, by half of one, at midnight, in the south; and some that do not.
const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Beirut",
];

/// A crontab line, field by field, as both readers are told it.
#[derive(Debug, Clone)]
struct Line {
    minutes: Vec<u8>,
    /// As it is written, and its values where none is `*`.
    minute: String,
    hour: String,
    hours: Vec<u8>,
    day: String,
    month: String,
    weekday: String,
}

/// One to three values, or a range, or a range with steps: as written, and what it means.
fn numbers(last: u8) -> impl Strategy<Value = (String, Vec<u8>)> {
    let few = prop::collection::vec(0..=last, 1..=3)
        .prop_map(|values| (values.iter().map(u8::to_string).collect::<Vec<_>>().join(","), values));
    let range = (0..=last, 0..4_u8, 1..=2_u8).prop_map(move |(from, more, step)| {
        let to = from.saturating_add(more).min(last);
        let steps = if step == 1 { String::new() } else { format!("/{step}") };
        (format!("{from}-{to}{steps}"), (from..=to).step_by(step.into()).collect())
    });
    prop_oneof![3 => few, 1 => range]
}

fn every(last: u8, steps: &'static [u8]) -> impl Strategy<Value = (String, Vec<u8>)> {
    select(steps).prop_map(move |step| {
        let text = if step == 1 { "*".to_owned() } else { format!("*/{step}") };
        (text, (0..=last).step_by(step.into()).collect())
    })
}

fn line() -> impl Strategy<Value = Line> {
    let minute = prop_oneof![2 => numbers(59), 1 => every(59, &[1, 5, 7, 10, 15, 20, 30])];
    let early =
        prop_oneof![select(&[0_u8, 1, 2, 3, 23][..]).prop_map(|hour| (hour.to_string(), vec![hour])), numbers(23),];
    let hour = prop_oneof![2 => early.prop_map(|(text, hours)| (text, hours)), 1 => every(23, &[1, 2, 3, 5, 6])];
    let day = prop_oneof![
        6 => Just("*".to_owned()),
        1 => Just("*/2".to_owned()),
        1 => (1..=31_u8).prop_map(|day| day.to_string()),
        1 => (1..=28_u8, 0..4_u8).prop_map(|(from, more)| format!("{from}-{}", from + more)),
        1 => select(&["L", "LW", "1W", "15W", "30W", "1,15,28", "10-31/7"][..]).prop_map(str::to_owned),
    ];
    let month = prop_oneof![
        6 => Just("*".to_owned()),
        1 => select(&["3", "MAR-APR", "oct,nov", "*/2", "4-10/3", "2,3,9,10,11"][..]).prop_map(str::to_owned),
    ];
    let weekday = prop_oneof![
        6 => Just("*".to_owned()),
        1 => select(&["0", "7", "SUN", "1-5", "MON-FRI", "SAT-SUN", "6,0", "5-7", "*/2", "0-6/3"][..]).prop_map(str::to_owned),
        1 => select(&["SUN#1", "SUN#2", "SUNL", "7L", "FRI#5", "2#4", "MON,SUN#5"][..]).prop_map(str::to_owned),
    ];
    (minute, hour, day, month, weekday).prop_map(|((minute, minutes), (hour, hours), day, month, weekday)| Line {
        minutes,
        minute,
        hour,
        hours,
        day,
        month,
        weekday,
    })
}

impl Line {
    fn text(&self) -> String {
        [&self.minute, &self.hour, &self.day, &self.month, &self.weekday].map(String::as_str).join(" ")
    }

    /// The same in croner's words: an expression for each local time, unless it follows elapsed time.
    fn of_croner(&self) -> Vec<String> {
        let days = format!("{} {} {}", self.day, self.month, self.weekday);
        if self.hour.starts_with('*') {
            return vec![format!("{} {} {days}", self.minute, self.hour)];
        }
        let times = self.hours.iter().flat_map(|hour| self.minutes.iter().map(move |minute| (minute, hour)));
        times.map(|(minute, hour)| format!("{minute} {hour} {days}")).collect()
    }

    /// What croner says the first firings after `after` are.
    fn asked(&self, after: &Zoned) -> Vec<Timestamp> {
        let both = self.day.starts_with("*/") || self.weekday.starts_with("*/");
        let parser = CronParser::builder().dom_and_dow(both).build();
        let each = self.of_croner().into_iter().flat_map(|text| {
            let cron = parser.parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let firings: Vec<Timestamp> =
                cron.iter_after(after.clone()).take(FIRINGS).map(|firing| firing.timestamp()).collect();
            firings
        });
        let mut firings: Vec<Timestamp> = each.collect();
        firings.sort();
        firings.dedup();
        firings.truncate(FIRINGS);
        firings
    }
}

/// A time from a day and a half before a change of the zone's clock to some hours after it, or any time of the year.
fn time(zone: &TimeZone, near: bool, year: i16, change: usize, minutes: i64) -> Timestamp {
    let start = date(year, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp();
    let changes: Vec<Timestamp> = zone.following(start).take(2).map(|change| change.timestamp()).collect();
    match changes.get(change).filter(|_| near) {
        Some(change) => *change + SignedDuration::from_mins(minutes.rem_euclid(42 * 60) - 36 * 60),
        None => start + SignedDuration::from_mins(minutes.rem_euclid(365 * 24 * 60)),
    }
}

#[test]
fn croner_agrees_on_random_expressions_zones_and_times() {
    let when = (prop::bool::weighted(0.8), 2015..2027_i16, 0..2_usize, -400_000..400_000_i64);
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(Config::default().cases.max(CASES)) });
    let (compared, changed, moved) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let cases = (line(), select(&ZONES[..]), when);
    let outcome = runner.run(&cases, |(line, name, (near, year, change, minutes))| {
        // A date that no year has is refused.
        let Ok(calendar) = Calendar::new(&"job".parse().unwrap(), &schedule(name, &[&line.text()])) else {
            return Ok(());
        };
        let zone = calendar.zone();
        let after = time(zone, near, year, change, minutes);
        let asked = line.asked(&after.to_zoned(zone.clone()));
        let firings = calendar.between(after, Timestamp::MAX, FIRINGS);
        let told: Vec<Timestamp> = firings.iter().map(|firing| firing.at).collect();
        prop_assert_eq!(&told, &asked, "{} in {} after {}", line.text(), name, after.to_zoned(zone.clone()));
        compared.set(compared.get() + 1);
        let change = zone.following(after).next().map(|change| change.timestamp());
        changed.set(
            changed.get() + u32::from(change.is_some_and(|change| told.last().is_some_and(|last| change <= *last))),
        );
        moved.set(moved.get() + u32::from(firings.iter().any(|firing| firing.moved.is_some())));
        Ok(())
    });
    outcome.unwrap();
    let (compared, changed, moved) = (compared.get(), changed.get(), moved.get());
    eprintln!("{compared} expressions compared, {changed} of them over a change of the clock, {moved} moved by it");
    assert!(compared > CASES * 9 / 10 && changed > CASES / 4 && moved > CASES / 400);
}

#[test]
fn gap_beyond_croner_fires_once() {
    let apia = firings("Pacific/Apia", &["30 12 30 12 *"], "2011-12-29T00:00", "2012-01-02T00:00");
    assert_eq!(apia, ["12-31 00:00 +14:00 for 12:30"]);
}

#[test]
fn last_day_beside_a_working_day_stays_one() {
    let firings = firings("UTC", &["0 0 L,15W * *"], "2026-08-01T00:00", "2026-08-31T23:59");
    assert_eq!(firings, ["08-14 00:00 +00:00", "08-31 00:00 +00:00"]);
}
