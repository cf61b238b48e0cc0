//! Random expressions, zones and times, compared with `croner`, which reads crontab and changed clocks by itself.
//!
//! Where it means something else, that is said here once, and the comparison is made all the same:
//!
//! | difference | croner | here | why |
//! |---|---|---|---|
//! | several minutes or hours, none of them `*`, where clocks change (`*/20 2 * * *`) | such a job follows elapsed time: skipped in a gap, doubled in a repeated hour | each local time fires once | the hour alone decides (crontab(5)): who names an hour means it once a day. Compared with one croner expression for each time |
//! | `*/n` in one day field, and the other restricted | either will do | both must match | crontab(5) goes by the first character. Compared with croner's own switch for "both" |
//! | `10/5` | refused | 10, 15, … | Quartz and EventBridge write it so. Compared with `10-59/5` |
//! | a gap of a day (Apia, 2011) or one that ends on a day that does not match | skipped, or an error after two hours | fires once after the gap | no firing is dropped in silence. [`gap_beyond_croner_fires_once`] |
//! | `L` beside `W` in one field (`L,15W`) | read as `LW` | the last day, and the working day nearest to the 15th | they are two items of a list. Not generated together; [`last_day_beside_a_working_day_stays_one`] |
//! | `L-3` | unknown | the third day before the last | EventBridge has it. Tested beside the pattern |
//!
//! Of EventBridge's `cron(…)` it knows nothing: that is written in crontab's words for it, days of the week by name, and
//! the years are counted off.

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

/// A line, as it is written here and, field by field, as croner is told it.
#[derive(Debug, Clone)]
struct Line {
    text: String,
    minutes: Vec<u8>,
    minute: String,
    hour: String,
    /// Its values where none is `*`.
    hours: Vec<u8>,
    day: String,
    month: String,
    weekday: String,
    /// Any where there are none.
    years: Vec<i16>,
}

/// How a field is written here and for croner.
type Written = (String, String);

/// A field, and the numbers that it means.
type Numbers = (Written, Vec<u8>);

fn same(text: impl Into<String>) -> Written {
    let text = text.into();
    (text.clone(), text)
}

/// One of these, written for both, or alike.
fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = Written> {
    select(words).prop_map(|word| match word.split_once(" is ") {
        Some((here, croners)) => (here.to_owned(), croners.to_owned()),
        None => same(word),
    })
}

/// One to three values, or a range, or one with steps: as written, and what it means.
fn numbers(last: u8) -> impl Strategy<Value = Numbers> {
    let few = prop::collection::vec(0..=last, 1..=3)
        .prop_map(|values| (same(values.iter().map(u8::to_string).collect::<Vec<_>>().join(",")), values));
    let range = (0..=last, 0..4_u8, 1..=2_u8).prop_map(move |(from, more, step)| {
        let to = from.saturating_add(more).min(last);
        let steps = if step == 1 { String::new() } else { format!("/{step}") };
        (same(format!("{from}-{to}{steps}")), (from..=to).step_by(step.into()).collect())
    });
    let open = (0..=last, 2..=20_u8).prop_map(move |(from, step)| {
        let values: Vec<u8> = (from..=last).step_by(step.into()).collect();
        // A step beyond the last is none to croner.
        let croners = if values.len() == 1 { from.to_string() } else { format!("{from}-{last}/{step}") };
        ((format!("{from}/{step}"), croners), values)
    });
    prop_oneof![3 => few, 1 => range, 1 => open]
}

fn every(last: u8, steps: &'static [u8]) -> impl Strategy<Value = Numbers> {
    select(steps).prop_map(move |step| {
        let text = if step == 1 { "*".to_owned() } else { format!("*/{step}") };
        (same(text), (0..=last).step_by(step.into()).collect())
    })
}

/// The time of the day, and the month: alike in both dialects.
fn time_and_month() -> impl Strategy<Value = (Numbers, Numbers, Written)> {
    let minute = prop_oneof![2 => numbers(59), 1 => every(59, &[1, 5, 7, 10, 15, 20, 30])];
    let early = prop_oneof![
        select(&[0_u8, 1, 2, 3, 23][..]).prop_map(|hour| (same(hour.to_string()), vec![hour])),
        numbers(23)
    ];
    let hour = prop_oneof![2 => early, 1 => every(23, &[1, 2, 3, 5, 6])];
    let month = prop_oneof![
        6 => Just(same("*")),
        1 => one_of(&["3", "MAR-APR", "oct,nov", "*/2", "4-10/3", "4/3 is 4-12/3", "2,3,9,10,11"]),
    ];
    (minute, hour, month)
}

fn crontab() -> impl Strategy<Value = Line> {
    let day = prop_oneof![
        6 => Just(same("*")),
        1 => Just(same("*/2")),
        1 => (1..=31_u8).prop_map(|day| same(day.to_string())),
        1 => (1..=28_u8, 0..4_u8).prop_map(|(from, more)| same(format!("{from}-{}", from + more))),
        1 => one_of(&["L", "LW", "1W", "15W", "30W", "1,15,28", "10-31/7", "10/7 is 10-31/7"]),
    ];
    let weekday = prop_oneof![
        6 => Just(same("*")),
        1 => one_of(&["0", "7", "SUN", "1-5", "MON-FRI", "SAT-SUN", "6,0", "5-7", "*/2", "0-6/3", "1/2 is 1-7/2"]),
        1 => one_of(&["SUN#1", "SUN#2", "SUNL", "7L", "FRI#5", "2#4", "MON,SUN#5"]),
    ];
    (time_and_month(), day, weekday).prop_map(|((minute, hour, month), day, weekday)| {
        let text = [&minute.0.0, &hour.0.0, &day.0, &month.0, &weekday.0].map(String::as_str).join(" ");
        Line::new(text, minute, hour, [day.1, month.1, weekday.1], Vec::new())
    })
}

/// `EventBridge`'s dialect: one of the day fields is `?`, days of the week count from Sunday as 1, and there are years.
fn bridge() -> impl Strategy<Value = Line> {
    let by_day = prop_oneof![
        2 => Just(same("*")),
        1 => (1..=31_u8).prop_map(|day| same(day.to_string())),
        1 => one_of(&["L", "LW", "1W", "15W", "30W", "1,15,28", "10-31/7", "10/7 is 10-31/7", "*/3"]),
    ];
    let by_week = prop_oneof![
        1 => one_of(&["1 is SUN", "7 is SAT", "2-6 is MON-FRI", "1,7 is SUN,SAT", "MON-FRI", "2/2 is MON,WED,FRI"]),
        1 => one_of(&["*", "L is SAT", "1L is SUNL", "6L is FRIL", "FRIL", "3#2 is TUE#2", "1#5 is SUN#5", "2,7#3 is MON,SAT#3"]),
    ];
    let any = || Just(("?".to_owned(), "*".to_owned()));
    let days = prop_oneof![(by_day, any()), (any(), by_week)];
    let years = prop_oneof![
        2 => Just(("*".to_owned(), Vec::new())),
        1 => (2015..2027_i16, 0..4_i16).prop_map(|(from, more)| (format!("{from}-{}", from + more), (from..=from + more).collect())),
        1 => (2015..2027_i16, 1..4_i16).prop_map(|(one, more)| (format!("{one},{}", one + more), vec![one, one + more])),
        1 => (2015..2027_i16).prop_map(|from| (format!("{from}/3"), (from..=2199).step_by(3).collect())),
    ];
    (time_and_month(), days, years).prop_map(|((minute, hour, month), (day, weekday), (year, years))| {
        let fields = [&minute.0.0, &hour.0.0, &day.0, &month.0, &weekday.0, &year].map(String::as_str).join(" ");
        Line::new(format!("cron({fields})"), minute, hour, [day.1, month.1, weekday.1], years)
    })
}

impl Line {
    fn new(
        text: String,
        (minute, minutes): Numbers,
        (hour, hours): Numbers,
        [day, month, weekday]: [String; 3],
        years: Vec<i16>,
    ) -> Self {
        Self { text, minutes, minute: minute.1, hour: hour.1, hours, day, month, weekday, years }
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
            if self.years.is_empty() {
                return cron.iter_after(after.clone()).take(FIRINGS).map(|firing| firing.timestamp()).collect();
            }
            let mut firings = Vec::new();
            for year in self.years.iter().filter(|year| **year >= after.year()) {
                let eve = date(year - 1, 12, 30).to_zoned(after.time_zone().clone()).unwrap();
                let of_year = cron.iter_after(after.clone().max(eve)).take_while(|firing| firing.year() <= *year);
                let of_year = of_year.filter(|firing| firing.year() == *year).map(|firing| firing.timestamp());
                firings.extend(of_year.take(FIRINGS));
                if firings.len() >= FIRINGS {
                    break;
                }
            }
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

/// What came of comparing random lines.
struct Compared {
    count: u32,
    /// Over a change of a clock.
    changed: u32,
    /// Moved by one.
    moved: u32,
    /// With steps from a number on.
    open: u32,
}

fn compare(lines: impl Strategy<Value = Line>, cases: u32) -> Compared {
    let when = (prop::bool::weighted(0.8), 2015..2027_i16, 0..2_usize, -400_000..400_000_i64);
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(Config::default().cases.max(cases)) });
    let [count, changed, moved, open] = [0_u32; 4].map(Cell::new);
    let add = |cell: &Cell<u32>, is_so: bool| cell.set(cell.get() + u32::from(is_so));
    let outcome = runner.run(&(lines, select(&ZONES[..]), when), |(line, name, (near, year, change, minutes))| {
        // A date that no year has is refused.
        let Ok(calendar) = Calendar::new(&"job".parse().unwrap(), &schedule(name, &[&line.text])) else {
            return Ok(());
        };
        let zone = calendar.zone();
        let after = time(zone, near, year, change, minutes);
        let asked = line.asked(&after.to_zoned(zone.clone()));
        let firings = calendar.between(after, Timestamp::MAX, FIRINGS);
        let told: Vec<Timestamp> = firings.iter().map(|firing| firing.at).collect();
        prop_assert_eq!(&told, &asked, "{} in {} after {}", line.text, name, after.to_zoned(zone.clone()));
        add(&count, true);
        let change = zone.following(after).next().map(|change| change.timestamp());
        add(&changed, change.is_some_and(|change| told.last().is_some_and(|last| change <= *last)));
        add(&moved, firings.iter().any(|firing| firing.moved.is_some()));
        let is_open = |field: &str| field.split_once('/').is_some_and(|(from, _)| from.parse::<u8>().is_ok());
        let fields = line.text.trim_start_matches("cron(");
        add(&open, !told.is_empty() && fields.split(' ').any(is_open));
        Ok(())
    });
    outcome.unwrap();
    let [count, changed, moved, open] = [count, changed, moved, open].map(Cell::into_inner);
    eprintln!("{count} expressions compared, {changed} of them over a change of the clock, {moved} moved by it");
    Compared { count, changed, moved, open }
}

#[test]
fn croner_agrees_on_random_expressions_zones_and_times() {
    let Compared { count, changed, moved, open } = compare(crontab(), CASES);
    assert!(count > CASES * 9 / 10 && changed > CASES / 4 && moved > CASES / 400 && open > CASES / 10);
}

#[test]
fn croner_agrees_on_eventbridge_s_expressions_in_crontab_s_words() {
    let Compared { count, changed, moved, open } = compare(bridge(), CASES / 2);
    let all = CASES / 2;
    assert!(count > all * 9 / 10 && changed > all / 8 && moved > all / 800 && open > all / 10);
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
