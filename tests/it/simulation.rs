//! Schedulers in a world where everything goes wrong that can: whatever a seed makes of it, a firing is one run, an
//! attempt starts at most once, and every run ends with every task in one final state.
//!
//! A test binary of its own, for it keeps every core busy. A failing seed is printed; `SSHJOB_SEED=n` replays it alone, and `SSHJOB_SEEDS=n` runs that many.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "all of it is tests: clippy's own exception covers the test functions alone"
)]

#[path = "../support/simulation/mod.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::firing::{Decision, Ended, Fate, JobState, decide, turns};
use sshjob::domain::id::{JobName, RunId};
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::Job;
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::Layers;
use sshjob::domain::plan;
use sshjob::domain::run::{Carrier, RunState, Target};
use sshjob::domain::schedule::Calendar;
use sshjob::domain::task::{Counts, TaskState};
use sshjob::engine::clock::Clock;
use sshjob::engine::drive::drive;
use sshjob::engine::fire::{Firer, Scheduled};
use sshjob::engine::gate::Gate;
use sshjob::engine::records::Runs;
use sshjob::engine::start::Started;
use sshjob::engine::tick::{Standing, Ticker};
use sshjob::engine::worker::Worker;
use tokio::sync::{Notify, mpsc};

use crate::world::check::{check, check_reach};
use crate::world::fleet::SimFleet;
use crate::world::rng::Rng;
use crate::world::store::SimStore;
use crate::world::{Process, World};

const SCHEDULERS: usize = 3;
const JOBS: usize = 5;
const HOSTS: usize = 50;

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_mins(4);

/// How long it may take then until every run has ended.
const SETTLED_WITHIN: Duration = Duration::from_hours(3);

/// Just before a minute that daylight saving skips, one that it repeats, and one that it leaves alone.
const EPOCHS: [&str; 4] =
    ["2026-03-29T00:56:10Z", "2026-10-25T00:55:30Z", "2026-10-03T15:26:00Z", "2026-11-22T12:00:20Z"];

/// The settings that a job of the simulation is made of.
static KINDS: LazyLock<Vec<Job>> = LazyLock::new(|| {
    let mut rng = Rng::new(1);
    let mut pick = |from: &[&'static str]| from[rng.below(from.len())];
    let kinds = (0..100).map(|_| {
        let text = format!(
            "targets: {{ tags: {{ Group: {} }} }}\nrun: x\nschedule: '{}'\ntimezone: {}\noverlap: {}\nmissed: {}\n\
             deadline: {}\nmode: {}\nretries: {{ attempts: {}, delay: 5s, on: [unreachable, failed] }}\n\
             rollout: {{ max_concurrency: {}, canary: {}{} }}\nhosts_per_worker: {}\n{}",
            pick(&["'0'", "'1'", "'2'", "['1', '2']", "['0', '1', '2', '3']"]),
            pick(&["* * * * *", "*/2 * * * *", "*/3 * * * *", "rate(2 minutes)", "rate(4 minutes)", "0-59/5 * * * *"]),
            pick(&["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
            pick(&["skip", "queue", "replace", "allow"]),
            pick(&["skip", "latest", "all"]),
            pick(&["1m", "3m", "10m"]),
            pick(&["attached", "attached", "detached"]),
            pick(&["1", "2", "3"]),
            pick(&["3", "10", "25%", "100%"]),
            pick(&["0", "0", "1"]),
            pick(&["", "", ", max_errors: 1", ", max_errors: 20%"]),
            pick(&["3", "10", "50"]),
            pick(&["", "", "", "paused: true\n"]),
        );
        Layers::default().resolve(JobFile::parse(&text, "sim.yaml", "sim").unwrap()).unwrap()
    });
    kinds.collect()
});

fn jobs(rng: &mut Rng) -> Vec<Scheduled> {
    let one = |n| {
        let mut job = KINDS[rng.below(KINDS.len())].clone();
        job.name = format!("job-{n}").parse().unwrap();
        let calendar = Calendar::new(&job.name, &job.schedule).unwrap();
        Scheduled { job, calendar }
    };
    (0..JOBS).map(one).collect()
}

/// A scheduler's process: ticks until it dies, or for ever.
struct Scheduler {
    process: Process,
    clock: Clock,
    jobs: Arc<Vec<Scheduled>>,
    driving: Arc<Mutex<BTreeSet<RunId>>>,
}

impl Scheduler {
    fn ticker(&self) -> Ticker<SimStore, SimFleet, SimFleet> {
        let runs = Runs::new(SimStore(self.process.clone()));
        let fleet = SimFleet(self.process.clone());
        let (scripts, actor, carrier) = (fleet.clone(), "simulation".to_owned(), Carrier::Scheduler);
        let firer = Firer { runs, scripts, actor, carrier, driven: BTreeSet::new() };
        Ticker { firer, inventory: fleet, clock: self.clock }
    }

    async fn live(&self) {
        let world = &self.process.world;
        loop {
            let rest = if world.state().is_calm { 30_000 } else { 70_000 };
            world.pause(rest).await;
            self.process.live_on().await;
            let (is_late, is_twice, is_dropped) = {
                let mut state = world.state();
                let mut strikes = |percent: usize, name: &str| state.strikes(percent * 10, || name.to_owned());
                (strikes(8, "a tick was late"), strikes(8, "a tick came twice"), strikes(8, "a tick was dropped"))
            };
            if is_dropped {
                continue;
            }
            let now = self.clock.now();
            let at = if is_late { now - SignedDuration::from_secs(150) } else { now };
            if is_twice {
                tokio::join!(self.tick(at), self.tick(at));
            } else {
                self.tick(at).await;
            }
        }
    }

    async fn tick(&self, at: Timestamp) {
        let Ok(ticked) = self.ticker().tick(&self.jobs, at).await else { return };
        for (run, standing) in ticked.runs {
            match standing {
                Standing::Ready(started) => {
                    if self.driving.lock().unwrap().insert(run.clone()) {
                        tokio::spawn(self.drive(started));
                    }
                }
                Standing::Detached(record) => {
                    let runs = Runs::new(SimStore(self.process.clone()));
                    let control = runs.control(&run).await.ok().flatten();
                    let is_cancelled = control.is_some_and(|(control, _)| control.cancelled);
                    SimFleet(self.process.clone()).collect(&runs, &record, is_cancelled).await;
                }
                Standing::Finished(..) | Standing::Driven | Standing::Waiting(_) => {}
            }
        }
    }

    fn drive(&self, started: Started) -> impl Future<Output = ()> + Send + 'static {
        let (events, mut heard) = mpsc::channel(64);
        let worker = Worker {
            runs: Runs::new(SimStore(self.process.clone())),
            clock: self.clock,
            events,
            access: SimFleet(self.process.clone()),
            secrets: Arc::default(),
            gate: Gate::new(started.plan.max_concurrency, started.plan.max_errors),
            batch_ended: Arc::new(Notify::new()),
        };
        let driving = Arc::clone(&self.driving);
        async move {
            let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
            let _ = drive(&worker, &started).await;
            drop(worker);
            let _ = listening.await;
            driving.lock().unwrap().remove(&started.run.run);
        }
    }
}

/// One scheduler after the other: where one dies the next is started.
async fn keep_scheduling(world: Arc<World>, jobs: Arc<Vec<Scheduled>>) {
    loop {
        let process = Process::new(&world);
        let ahead = {
            let mut state = world.state();
            let skew = i64::try_from(state.rng.below(4_000)).unwrap() - 2_000;
            let jump = if state.strikes(30, || "a clock was an hour ahead".to_owned()) { 3_600_000 } else { 0 };
            SignedDuration::from_millis(skew + jump)
        };
        let clock = world.clock(ahead);
        let scheduler = Scheduler { process: process.clone(), clock, jobs: Arc::clone(&jobs), driving: Arc::default() };
        let living = tokio::spawn(async move { scheduler.live().await });
        let life = Duration::from_millis(u64::try_from(world.state().rng.below(600_000)).unwrap());
        tokio::select! {
            biased;
            () = process.death() => {}
            () = tokio::time::sleep(life) => {
                let is_calm = world.state().is_calm;
                if is_calm && ahead.as_secs() < 60 {
                    process.death().await;
                }
                world.state().hit("died at any moment".to_owned());
                process.kill();
            }
        }
        living.abort();
        world.pause(20_000).await;
    }
}

/// Hosts come and go, and are up and down.
async fn change_hosts(world: Arc<World>) {
    loop {
        world.pause(20_000).await;
        let mut state = world.state();
        if state.is_calm {
            return;
        }
        let n = state.rng.below(HOSTS);
        if state.rng.below(3) == 0 {
            state.hosts[n].is_listed ^= true;
            state.hit("a host came or went".to_owned());
        } else {
            state.hosts[n].is_up ^= true;
            state.hit("a host went down or up".to_owned());
        }
    }
}

/// Lives through a seed and tells what must not have been, and what went wrong by design.
fn simulate(seed: u64) -> (Vec<String>, BTreeMap<String, u64>, [u64; 3]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let epoch: Timestamp = EPOCHS[rng.below(EPOCHS.len())].parse().unwrap();
        let jobs = Arc::new(jobs(&mut rng));
        let world = World::new(seed, epoch, HOSTS);
        for _ in 0..SCHEDULERS {
            tokio::spawn(keep_scheduling(Arc::clone(&world), Arc::clone(&jobs)));
        }
        tokio::spawn(change_hosts(Arc::clone(&world)));
        tokio::time::sleep(TROUBLE).await;
        world.state().is_calm = true;
        // From now on nothing new is looked at: what has fired must end.
        let settled = tokio::time::timeout(SETTLED_WITHIN, until_settled(&world)).await.is_ok();
        let mut state = world.state();
        let mut wrong = std::mem::take(&mut state.violations);
        if !settled {
            let active: Vec<_> = state.objects.keys().filter(|key| key.starts_with("active/")).take(3).collect();
            wrong.push(format!("these never ended: {active:?}"));
        }
        check(&state, &jobs, &mut wrong);
        let runs = u64::try_from(state.verdicts.len()).unwrap();
        let figures = [runs, u64::try_from(state.log.len()).unwrap(), state.last_version];
        (wrong, std::mem::take(&mut state.faults), figures)
    })
}

/// Waits until no run is active; jobs fire on meanwhile, so that it is a moment that is waited for.
async fn until_settled(world: &World) {
    let since = world.now();
    let is_old = |key: &String| {
        let run: RunId = key.rsplit('/').next().unwrap().parse().unwrap();
        run.time() < since.strftime("%Y%m%dT%H%M%SZ").to_string().as_str()
    };
    while world.state().objects.keys().any(|key| key.starts_with("active/") && is_old(key)) {
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
}

#[test]
fn whatever_goes_wrong_a_firing_is_one_run_and_every_task_ends_once() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let one = number("SSHJOB_SEED");
    let seeds = one.map_or(0..number("SSHJOB_SEEDS").unwrap_or(10), |seed| seed..seed + 1);
    let next = AtomicU64::new(seeds.start);
    let (failed, total) = (Mutex::new(Vec::new()), Mutex::new((BTreeMap::<String, u64>::new(), [0; 3])));
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end || failed.lock().unwrap().len() >= 5 {
                        return;
                    }
                    let (wrong, faults, figures) = simulate(seed);
                    if !wrong.is_empty() {
                        failed.lock().unwrap().push((seed, wrong));
                    }
                    let mut total = total.lock().unwrap();
                    for (name, count) in faults {
                        *total.0.entry(name).or_default() += count;
                    }
                    for (sum, figure) in total.1.iter_mut().zip(figures) {
                        *sum += figure;
                    }
                }
            });
        }
    });
    let (faults, [runs, starts, writes]) = total.into_inner().unwrap();
    eprintln!(
        "{} seeds in {:.1?}: {runs} runs, {starts} starts, {writes} writes",
        seeds.end - seeds.start,
        began.elapsed()
    );
    for (name, count) in &faults {
        eprintln!("{count:>9} {name}");
    }
    if seeds.end - seeds.start >= 5000 {
        check_reach(&faults);
    }
    let failed = failed.into_inner().unwrap();
    for (seed, wrong) in &failed {
        eprintln!("SSHJOB_SEED={seed} fails:");
        for wrong in wrong.iter().take(8) {
            eprintln!("  {wrong}");
        }
    }
    assert!(failed.is_empty(), "seeds failed: {:?}", failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>());
}

/// A year, or a week where nobody asks for many worlds.
fn days() -> i64 {
    if std::env::var_os("SSHJOB_SEEDS").is_some() { 365 } else { 7 }
}

#[test]
fn year_of_two_hundred_jobs_over_ten_thousand_hosts_runs_every_firing_once() {
    let began = std::time::Instant::now();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let end = start + SignedDuration::from_hours(24 * days());
    let (mut fired, mut tasks) = (0_u64, 0_u64);
    for number in 0..200 {
        let schedule = match number % 20 {
            0 => format!("{} * * * *", number % 60),
            1..5 => format!("{} */6 * * *", number % 60),
            _ => format!("{} {} * * *", number % 60, number % 24),
        };
        let zone = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"][number % 4];
        let text =
            format!("targets: {{ tags: {{ Group: '{number}' }} }}\nrun: x\nschedule: '{schedule}'\ntimezone: {zone}\n");
        let name: JobName = format!("job-{number}").parse().unwrap();
        let mut job = Layers::default().resolve(JobFile::parse(&text, "year.yaml", "year").unwrap()).unwrap();
        job.name = name.clone();
        let calendar = Calendar::new(&name, &job.schedule).unwrap();
        let hosts = (0..50).map(|host| plan::target(&job, &instance(number * 50 + host)));
        let hosts: Vec<Target> = hosts.collect();
        let (mut state, mut now, mut ids) = (JobState::default(), start, BTreeSet::new());
        while let Some(firing) = calendar.next(now).filter(|firing| firing.due <= end) {
            let turns = turns(&job.schedule, &calendar, now, firing.due, firing.due);
            let [turn] = turns.as_slice() else { panic!("{name} at {}: {turns:?}", firing.at) };
            let Decision::Now(next) = decide(&name, job.schedule.overlap, &state, turn) else { panic!("{turn:?}") };
            assert_eq!(next.decided.as_ref().unwrap().fate, Fate::Run);
            state = next;
            let run = RunId::of_firing(&name, firing.at);
            let (plan, batches) = plan::plan(&job, &hosts, Carrier::Scheduler);
            assert_eq!(plan.total(), 50);
            let counts: Counts = batches.iter().flat_map(|it| &it.targets).map(|_| TaskState::Succeeded).collect();
            assert_eq!(counts.total(), plan.total());
            assert!(ids.insert(run.clone()), "{run} ran twice");
            state.end(Ended { run, state: RunState::Succeeded, took_ms: 1000 });
            (fired, tasks, now) = (fired + 1, tasks + u64::from(counts.total()), firing.due);
        }
        let elapsed = calendar.between(start, end, usize::MAX).len();
        assert_eq!(ids.len(), elapsed, "{name}");
    }
    eprintln!("{} days of 200 jobs: {fired} runs of {tasks} tasks in {:.1?}", days(), began.elapsed());
}

/// A host of the year.
fn instance(number: usize) -> Instance {
    Instance {
        id: format!("i-{number:05}").parse().unwrap(),
        account: "1".to_owned(),
        region: "r".to_owned(),
        zone: None,
        addresses: Addresses {
            private: Some(format!("10.0.{}.{}", number / 250, number % 250)),
            ..Addresses::default()
        },
        tags: [("Group".to_owned(), (number / 50).to_string())].into(),
        state: InstanceState::Running,
        port: None,
        user: None,
    }
}
