//! What it costs to ask 10,000 calendars whether they fire in a minute, where 10 of them do:
//! `cargo bench --no-default-features --bench due`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, prints, and may give up"
)]

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::job::{Missed, Overlap, Schedule};
use sshjob::domain::quantity::Span;
use sshjob::domain::schedule::calendar::Calendar;

const JOBS: u32 = 10_000;
const DUE: usize = 10;
const ROUNDS: u32 = 200;
const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"];

fn main() {
    let calendars: Vec<Calendar> = (0..JOBS).map(calendar).collect();
    // 08:30 in Berlin, where the jobs below are due.
    let until: Timestamp = "2026-06-01T06:30:00Z".parse().unwrap();
    let after = until.checked_sub(SignedDuration::from_mins(1)).unwrap();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let due: usize = calendars.iter().map(|calendar| calendar.between(after, until, 100).len()).sum();
            let took = start.elapsed();
            assert_eq!(due, DUE);
            took
        })
        .collect();
    times.sort();
    let median = times.get(times.len() / 2).unwrap();
    println!("a minute of {JOBS} calendars, {DUE} due: {median:?}, {:?} each", *median / JOBS);
    let start = Instant::now();
    let firing = calendars.iter().filter(|calendar| calendar.next(until).is_some()).count();
    println!("the next firing of {firing} calendars: {:?}", start.elapsed());
}

/// Ten are due at 08:30 in Berlin; the others at other minutes, of all kinds.
fn calendar(number: u32) -> Calendar {
    let (minute, hour, zone) = (number % 28 + 1, number % 24, number % 5);
    let (expression, zone) = match number {
        0..10 => ("30 8 * * MON-FRI".to_owned(), 1),
        _ => match number % 6 {
            0 => (format!("{minute} * * * *"), 0),
            1 => (format!("{minute} {hour} * * *"), zone),
            2 => (format!("{minute} {hour} 1,15 * *"), zone),
            3 => (format!("{minute} {hour} 15W * *"), zone),
            4 => (format!("{minute} {hour} * * TUE#2"), zone),
            _ => (format!("{minute},59 8-18 13 * FRI"), 1),
        },
    };
    let schedule = Schedule {
        expressions: vec![expression],
        timezone: ZONES.iter().copied().nth(usize::try_from(zone).unwrap()).unwrap().to_owned(),
        jitter: Span(Duration::ZERO),
        paused: false,
        blackout: vec!["2026-12-24/2026-12-26".to_owned()],
        on: Vec::new(),
        overlap: Overlap::Skip,
        missed: Missed::Latest,
        deadline: Span(Duration::from_mins(10)),
    };
    Calendar::new(&format!("job-{number}").parse().unwrap(), &schedule).unwrap()
}
