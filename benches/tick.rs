//! What one tick costs with 10,000 jobs of which 10 are due, in CPU time of the whole process, over a store in memory and
//! over one in a directory; and what it costs the functions to read those jobs:
//! `cargo bench --no-default-features --bench tick`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::similar_names,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "a benchmark prints, and may give up; it shares a store with the tests, and uses a part of that"
)]

#[path = "../tests/support/memory.rs"]
mod memory;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use memory::Memory;
use sshjob::adapter::dir::Dir;
use sshjob::domain::cursor::Cursor;
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::Job;
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::Layers;
use sshjob::domain::layout::{self, Key};
use sshjob::domain::run::{Carrier, RunState, Verdict};
use sshjob::domain::schedule::Calendar;
use sshjob::domain::task::Counts;
use sshjob::engine::clock::{Clock, Simulated};
use sshjob::engine::fire::{Firer, Scheduled};
use sshjob::engine::reconcile::write_verdict;
use sshjob::engine::records::Runs;
use sshjob::engine::tick::{Look, SELECT_WITHIN, Standing, Ticker};
use sshjob::functions::book::Book;
use sshjob::port::{Inventory, InventoryError, Scripts, Store};

const JOBS: u32 = 10_000;
const DUE: usize = 10;
const TICKS: u32 = 100;
const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"];

/// The kernel counts CPU time in these.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// The file of job `number`: ten are due at 08:30 in Berlin, the others at other minutes, of all kinds.
fn text(number: u32) -> String {
    let (minute, hour, zone) = (number % 28 + 1, number % 24, number % 5);
    let (expression, zone) = match number {
        0..10 => ("30 8 * * *".to_owned(), 1),
        _ => match number % 5 {
            0 => (format!("{minute} * * * *"), 0),
            1 => (format!("{minute} {hour} * * *"), zone),
            2 => (format!("{minute} {hour} 1,15 * *"), zone),
            3 => (format!("{minute} {hour} * * TUE#2"), zone),
            _ => (format!("{minute},59 9-18 13 * FRI"), 1),
        },
    };
    format!(
        "description: Rotates the logs of shard {number}\nschedule: \"{expression}\"\ntimezone: {}\n\
         blackout: [\"2026-12-24/2026-12-26\"]\ntargets:\n  tags: {{ Environment: Prod, Shard: \"{number}\" }}\n\
         run: logrotate --force /etc/logrotate.conf\nenv: {{ SHARD: \"{number}\" }}\ntimeout: 10m\n\
         rollout: {{ max_concurrency: 25%, max_errors: 10% }}\n",
        ZONES[usize::try_from(zone).unwrap()],
    )
}

fn name(number: u32) -> String {
    format!("rotate-logs-{number}")
}

fn scheduled(number: u32) -> Scheduled {
    let (text, name) = (text(number), name(number));
    let job = Layers::default().resolve(JobFile::parse(&text, "job.yaml", &name).unwrap()).unwrap();
    let calendar = Calendar::new(&job.name, &job.schedule).unwrap();
    Scheduled { job, calendar }
}

/// One instance for every job, and one script.
struct Around;

impl Inventory for Around {
    async fn select(&self, _job: &Job) -> Result<Vec<Instance>, InventoryError> {
        Ok(vec![Instance {
            id: "i-1".parse().unwrap(),
            account: "1".to_owned(),
            region: "r".to_owned(),
            zone: None,
            launched_at: None,
            addresses: Addresses { private: Some("10.0.0.1".to_owned()), ..Addresses::default() },
            tags: [("Environment".to_owned(), "Prod".to_owned())].into(),
            state: InstanceState::Running,
            port: None,
            user: None,
        }])
    }
}

impl Scripts for Around {
    async fn script(&self, _job: &Job) -> Result<Vec<u8>, String> {
        Ok(b"logrotate --force /etc/logrotate.conf".to_vec())
    }
}

/// The CPU time that this process has used.
fn cpu() -> Duration {
    // proc_pid_stat(5): utime and stime are fields 14 and 15.
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().unwrap()).sum();
    CLOCK_TICK * ticks
}

/// Ticks once a day when ten jobs are due, each of whose runs has ended by the next day; what a tick takes.
async fn tick<S: Store>(runs: &Runs<S>, jobs: &[Scheduled]) -> Duration {
    let first: Timestamp = "2026-06-01T06:30:00Z".parse().unwrap();
    let mut took = Duration::ZERO;
    for day in 0..TICKS {
        let at = first + SignedDuration::from_hours(24 * i64::from(day));
        let known = jobs.iter().map(|scheduled| scheduled.job.name.clone()).collect();
        let cursor = Cursor { known, ..Cursor::at(at - SignedDuration::from_mins(1)) };
        runs.store().remove(&layout::cursor()).await.unwrap();
        runs.create(&layout::cursor(), &cursor).await.unwrap();
        let clock =
            Clock::Simulated(Simulated { epoch: at, since: tokio::time::Instant::now(), ahead: SignedDuration::ZERO });
        let actor = "bench".to_owned();
        let (scripts, carrier, driven) = (Around, Carrier::Scheduler, BTreeSet::new());
        let firer = Firer { runs: runs.clone(), scripts, actor, carrier, driven };
        let ticker = Ticker { firer, inventory: Around, patience: SELECT_WITHIN, clock };
        let before = cpu();
        let ticked = ticker.tick(jobs, at).await.unwrap();
        let looks: Vec<Look> = Arc::new(ticker).look(ticked.active).collect().await;
        took += cpu().saturating_sub(before);
        assert_eq!((ticked.fired.len(), looks.len()), (DUE, DUE));
        for (_, standing) in looks {
            let Ok(Some(Standing::Ready(started))) = standing else { panic!("{standing:?}") };
            let (state, counts) = (RunState::Succeeded, Counts::default());
            let verdict = Verdict { state, reason: None, counts, began_at: Some(at), finished_at: at };
            write_verdict(runs, &started.run, verdict).await.unwrap();
        }
    }
    took / TICKS
}

/// Reads all jobs as the functions do, and what they are to know of them; what that takes.
async fn read(runs: &Runs<Memory>) -> Duration {
    const ROUNDS: u32 = 5;
    let before = cpu();
    for _ in 0..ROUNDS {
        let mut read = Book::new(runs.clone()).read().await.unwrap();
        assert_eq!((read.scheduled().len(), read.wrong.len()), (usize::try_from(JOBS).unwrap(), 0));
    }
    cpu().saturating_sub(before) / ROUNDS
}

#[tokio::main]
async fn main() {
    let mut jobs: Vec<Scheduled> = (0..JOBS).map(scheduled).collect();
    jobs.sort_by(|one, other| one.job.name.cmp(&other.job.name));
    let memory = Runs::new(Memory::default());
    println!("a tick of {JOBS} jobs, {DUE} due, in memory: {:?} of CPU", tick(&memory, &jobs).await);
    let folder = tempfile::tempdir().unwrap();
    let dir = Runs::new(Dir::open(folder.path()).unwrap());
    println!("a tick of {JOBS} jobs, {DUE} due, in a directory: {:?} of CPU", tick(&dir, &jobs).await);
    for number in 0..JOBS {
        let key = Key::parse(&format!("jobs/{}.yaml", name(number))).unwrap();
        memory.store().create(&key, text(number).into_bytes()).await.unwrap();
    }
    println!("{JOBS} job files, read as the functions do: {:?} of CPU", read(&memory).await);
}
