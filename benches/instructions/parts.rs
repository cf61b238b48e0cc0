//! What is done per tick and per task, each part alone: how long it takes, or, under callgrind, how many instructions.
//!
//!     cargo run --release --no-default-features --features benches --bin bench-parts [PART [ROUNDS]]
//!
//! `benches/instructions/run` counts with one round and with two, so that what comes before and after does not count.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, prints, and may give up"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::id::{InstanceId, RunId};
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::{Missed, Overlap, Schedule};
use sshjob::domain::layout::{Key, RunKeys, Stream};
use sshjob::domain::quantity::Span;
use sshjob::domain::run::Outcomes;
use sshjob::domain::schedule::calendar::Calendar;
use sshjob::domain::selector::Selector;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::records::Runs;
use sshjob::engine::spool::{Sink as _, Spool};
use sshjob::port::{Object, Store, StoreError, Version, Written};

const INSTANCES: u32 = 100_000;
const JOBS: u32 = 10_000;
const TASKS: u32 = 500;
const OUTPUTS: u32 = 100;
const OUTPUT_BYTES: u64 = 1_000_000;
const ROUNDS: usize = 20;

/// What a packet carries, as OpenSSH fills it.
const PACKET: usize = 32 * 1024;

/// Does its work that many times; tells how long each took.
type Part = fn(usize) -> Vec<Duration>;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = words.first().map(String::as_str);
    let rounds = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(ROUNDS);
    let parts: [(&str, Part); 4] = [("tags", tags), ("due", due), ("outcomes", outcomes), ("spool", spool)];
    for (name, part) in parts {
        if wanted.is_none_or(|wanted| wanted == name) {
            let mut times = part(rounds);
            times.sort();
            println!("{name:<9} {:?}", times.get(times.len() / 2).unwrap());
        }
    }
}

/// How long `work` takes, each time.
fn time<T>(rounds: usize, mut work: impl FnMut() -> T) -> Vec<Duration> {
    let once = |_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed()
    };
    (0..rounds).map(once).collect()
}

/// Chooses 1,000 of 100,000 instances by two tags, leaving out some by name.
fn tags(rounds: usize) -> Vec<Duration> {
    let all: Vec<Instance> = (0..INSTANCES).map(instance).collect();
    let filters = ["Environment=Dev*,Test", "Role=role-7"].map(|filter| filter.parse().unwrap());
    let exclude = vec!["web-1?7*".to_owned(), "i-0000000000000002f".to_owned()];
    let selector = Selector { tags: filters.into(), exclude, ..Selector::default() };
    // Choosing takes what it chooses from. For one round as many are made as for two, so that making them does not count.
    let mut sets: Vec<_> = (0..rounds.max(2)).map(|_| all.clone()).collect();
    let times = time(rounds, || selector.choose(sets.pop().unwrap()));
    assert_eq!(selector.choose(all).len(), 990);
    times
}

fn instance(number: u32) -> Instance {
    let environment =
        ["Production", "Development", "Staging", "Production"].into_iter().nth(number as usize / 10 % 4).unwrap();
    let tags = [
        ("Environment", environment.to_owned()),
        ("Name", format!("web-{number}")),
        ("Role", format!("role-{}", number % 25)),
    ];
    Instance {
        id: format!("i-{number:017x}").parse().unwrap(),
        account: "123456789012".to_owned(),
        region: "eu-central-1".to_owned(),
        state: InstanceState::Running,
        addresses: Addresses {
            private: Some(format!("10.0.{}.{}", number / 256, number % 256)),
            ..Addresses::default()
        },
        tags: tags.map(|(key, value)| (key.to_owned(), value)).into(),
        zone: None,
        launched_at: None,
        port: None,
        user: None,
    }
}

/// Asks 10,000 calendars whether they fire in a minute.
fn due(rounds: usize) -> Vec<Duration> {
    let calendars: Vec<Calendar> = (0..JOBS).map(calendar).collect();
    let until: Timestamp = "2026-06-01T06:30:00Z".parse().unwrap();
    let after = until.checked_sub(SignedDuration::from_mins(1)).unwrap();
    time(rounds, || calendars.iter().map(|calendar| calendar.between(after, until, 100).len()).sum::<usize>())
}

fn calendar(number: u32) -> Calendar {
    let (minute, hour) = (number % 60, number % 24);
    let expression = match number % 5 {
        0 => format!("{minute} * * * *"),
        1 => format!("{minute} {hour} * * *"),
        2 => format!("{minute} {hour} 1,15 * *"),
        3 => format!("{minute} {hour} * * TUE#2"),
        _ => format!("*/15 8-18 {} * *", number % 28 + 1),
    };
    let zone = ["UTC", "Europe/Berlin", "America/New_York"].into_iter().nth(number as usize % 3).unwrap();
    let schedule = Schedule {
        expressions: vec![expression],
        timezone: zone.to_owned(),
        jitter: Span(Duration::ZERO),
        paused: false,
        blackout: Vec::new(),
        on: Vec::new(),
        overlap: Overlap::Skip,
        missed: Missed::Latest,
        deadline: Span(Duration::from_mins(10)),
    };
    Calendar::new(&format!("job-{number}").parse().unwrap(), &schedule).unwrap()
}

/// Writes down what has become of 500 tasks, and reads it again.
fn outcomes(rounds: usize) -> Vec<Duration> {
    let at: Timestamp = "2026-06-01T06:30:00Z".parse().unwrap();
    let record = TaskRecord {
        state: TaskState::Succeeded,
        exit_code: Some(0),
        attempt: 1,
        started_at: Some(at),
        finished_at: Some(at),
        stdout_bytes: 12_345,
        host_key: Some("SHA256:uNiVztksCsDhcc0u9e8BrQlNqNLwjTMoYvtUTlbnrcM".to_owned()),
        ..TaskRecord::pending()
    };
    let id = |number| -> InstanceId { format!("i-{number:017x}").parse().unwrap() };
    let tasks: BTreeMap<_, _> = (0..TASKS).map(|number| (id(number), record.clone())).collect();
    let outcomes = Outcomes { owner: "0123456789abcdef".to_owned(), tasks };
    time(rounds, || {
        let bytes = serde_json::to_vec(&outcomes).unwrap();
        let again: Outcomes = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(again.tasks.len(), outcomes.tasks.len());
    })
}

/// Takes 1 MB of output of each of 100 tasks, in packets, for a store that keeps nothing.
fn spool(rounds: usize) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let run: RunId = "job-20260601T063000Z".parse().unwrap();
    let output = vec![b'x'; usize::try_from(OUTPUT_BYTES).unwrap()];
    time(rounds, || {
        for number in 0..OUTPUTS {
            let instance = format!("i-{number}").parse().unwrap();
            let mut spool = Spool::new(Runs::new(Nowhere), RunKeys::new(&run), instance, 1, 2 * OUTPUT_BYTES);
            let spooled = runtime.block_on(async {
                for packet in output.chunks(PACKET) {
                    spool.write(Stream::Out, packet).await;
                }
                spool.finish().await
            });
            assert_eq!((spooled.stdout_bytes, spooled.truncated), (OUTPUT_BYTES, false));
        }
    })
}

/// A store that keeps nothing.
#[derive(Debug, Clone)]
struct Nowhere;

impl Store for Nowhere {
    async fn get(&self, _: &Key) -> Result<Option<Object>, StoreError> {
        Ok(None)
    }

    async fn create(&self, _: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        black_box(bytes);
        Ok(Written::Done(Version(String::new())))
    }

    async fn swap(&self, _: &Key, _: &Version, _: Vec<u8>) -> Result<Written, StoreError> {
        Ok(Written::Conflict)
    }

    async fn list(&self, _: &str, _: Option<&Key>, _: usize) -> Result<Vec<Key>, StoreError> {
        Ok(Vec::new())
    }

    async fn remove(&self, _: &Key) -> Result<(), StoreError> {
        Ok(())
    }
}
