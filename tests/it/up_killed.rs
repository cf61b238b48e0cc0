//! `kill -9` of the scheduler at fifty random moments, and of two on one store in turn, while ten jobs fire every minute of
//! a fast clock.
//!
//! The moments come from a seed, which is printed; `SSHJOB_SEED=n` replays it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sshjob::adapter::dir::Dir;
use sshjob::domain::cursor::Cursor;
use sshjob::domain::layout;
use sshjob::domain::run::RunState;
use sshjob::domain::task::TaskState;
use sshjob::engine::history::{RunView, ids, load};
use sshjob::engine::records::Runs;

use crate::support::clock::FastClock;
use crate::support::eventually::eventually;
use crate::support::scheduler::{Scheduler, marks, run_of, write_job};
use crate::support::simulation::rng::Rng;
use crate::support::world::World;

const KILLS: usize = 50;
const HOSTS: usize = 3;

/// How long two schedulers are killed in turn.
const FIRING_FOR: Duration = Duration::from_secs(15);

/// A minute of this clock is a second.
const SPEED: u32 = 60;

/// What the jobs are like: all that a scheduler does differently.
const KINDS: [&str; 10] = [
    "",
    "",
    "overlap: allow\n",
    "overlap: allow\nrollout: { max_concurrency: 1 }\n",
    "overlap: queue\n",
    "overlap: queue\nrollout: { max_concurrency: 1, canary: 1 }\n",
    "overlap: replace\n",
    "overlap: replace\nrollout: { max_concurrency: 1 }\n",
    "mode: detached\n",
    "mode: detached\noverlap: allow\n",
];

fn start(world: &World, clock: FastClock) -> Scheduler {
    let mut command = world.command(&["--store", "store", "up"]);
    clock.rule(&mut command);
    Scheduler::start(command)
}

fn seed() -> u64 {
    if let Some(seed) = std::env::var("SSHJOB_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed;
    }
    let mut seed = [0; 4];
    getrandom::fill(&mut seed).unwrap();
    u64::from(u32::from_le_bytes(seed))
}

/// A world whose ten jobs fire every minute, and write down on their hosts when they start and end.
fn world(rng: &mut Rng) -> World {
    let world = World::new(HOSTS);
    for (n, kind) in KINDS.into_iter().enumerate() {
        let script = format!(
            "echo $SSHJOB_RUN_ID $SSHJOB_INSTANCE $SSHJOB_ATTEMPT >> $WHERE/marks.{n}\nsleep 0.{}\n\
             echo $SSHJOB_RUN_ID $SSHJOB_INSTANCE $SSHJOB_ATTEMPT >> $WHERE/ends.{n}",
            rng.below(5),
        );
        // Each on one host, or rolling over all of them; whoever is late within an hour is in time.
        let where_to =
            if kind.contains("rollout") { "" } else { "targets: { tags: { Environment: Dev }, limit: 1 }\n" };
        write_job(&world, &format!("job-{n}"), &script, &format!("{kind}deadline: 1h\nmissed: all\n"));
        narrow(&world, n, where_to);
    }
    world
}

/// Has `up` end all there is to end, with no job left to fire; then every run there was, by its id.
async fn settle(world: &World, up: &mut [Scheduler]) -> BTreeMap<String, RunView> {
    let knows_all = format!("up with {} scheduled jobs of `.`", KINDS.len());
    eventually("that all are up", || up.iter().all(|scheduler| scheduler.err().contains(&knows_all)));
    // The folder stays: one that is gone takes no job away.
    fs::remove_dir_all(world.path().join("jobs")).unwrap();
    fs::create_dir(world.path().join("jobs")).unwrap();
    let runs = Runs::new(Dir::open(world.path().join("store")).unwrap());
    let is_gone =
        |scheduler: &Scheduler| scheduler.err().iter().filter(|line| line.contains("is gone")).count() == KINDS.len();
    eventually("that the jobs are gone", || up.iter().all(is_gone));
    let gone: Cursor = runs.read(&layout::cursor()).await.unwrap().unwrap().0;
    eventually("that every run is over", || !is_any_active(world.path()));
    for scheduler in up {
        assert_eq!(scheduler.terminate().code(), Some(0), "{:?}", scheduler.err());
    }
    // Jobs that are gone stay where they were; one that could not be decided would stand elsewhere than the others.
    assert!(gone.behind.values().collect::<BTreeSet<_>>().len() <= 1, "{gone:?}");
    let mut views = BTreeMap::new();
    for run in ids(&runs, None).await.unwrap() {
        let view = load(&runs, &run).await.unwrap().unwrap();
        views.insert(run.to_string(), view);
    }
    views
}

/// One run per firing, no second start, and nothing told that the hosts do not bear out.
fn assert_true(world: &World, views: &BTreeMap<String, RunView>) {
    assert_every_minute_is_one_run(views);
    for n in 0..KINDS.len() {
        let starts = marks(&world.path().join(format!("marks.{n}")));
        let distinct: BTreeSet<&String> = starts.iter().collect();
        assert_eq!(distinct.len(), starts.len(), "started twice: {starts:?}");
        let ends: BTreeSet<String> = marks(&world.path().join(format!("ends.{n}"))).into_iter().collect();
        let job = format!("job-{n}");
        for view in views.values().filter(|view| view.record.job.name.as_str() == job) {
            assert_truthful(view, &distinct, &ends);
        }
    }
}

/// How many firings a scheduler has made runs of.
fn fired(scheduler: &Scheduler) -> usize {
    scheduler.out().iter().filter(|line| line.contains("  fired ")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_every_firing_is_one_run_and_nothing_starts_twice() {
    let seed = seed();
    eprintln!("SSHJOB_SEED={seed}");
    let mut rng = Rng::new(seed);
    let (world, clock, begun) = (world(&mut rng), FastClock::new(SPEED), Instant::now());
    for _ in 0..KILLS {
        let mut scheduler = start(&world, clock);
        std::thread::sleep(Duration::from_millis(rng.below(800) as u64));
        scheduler.kill();
    }
    let killing = begun.elapsed();
    // The last one goes on until all is settled; what fires meanwhile is part of it, until nothing fires any more.
    let mut last = [start(&world, clock)];
    eventually("a firing of the last scheduler", || fired(&last[0]) > 0);
    let views = settle(&world, &mut last).await;
    let told = tally(&views);
    eprintln!("{KILLS} kills in {killing:.1?}, {:.1?} in all; {} runs: {told:?}", begun.elapsed(), views.len());
    assert_true(&world, &views);
    assert!(told["succeeded"] > 0 && told["lost"] > 0 && told["skipped run"] > 0, "nothing of it happened: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_of_one_store_share_its_firings_and_lose_nothing() {
    let (world, clock) = (world(&mut Rng::new(0)), FastClock::new(SPEED));
    let mut pair = [start(&world, clock), start(&world, clock)];
    eventually("that both have fired", || pair.iter().all(|scheduler| fired(scheduler) >= KINDS.len()));
    let views = settle(&world, &mut pair).await;
    let told = tally(&views);
    eprintln!("{} runs: {told:?}", views.len());
    assert_true(&world, &views);
    // Nobody has died, so nothing is in doubt.
    let tasks = views.values().flat_map(|view| view.tasks.iter().map(|task| (&view.record.run, &task.record)));
    let lost: Vec<_> = tasks.filter(|(_, record)| record.state == TaskState::Lost).collect();
    assert!(lost.is_empty(), "{lost:?}\n{:#?}\n{:#?}", pair[0].out(), pair[1].out());
    let twice = pair.iter().flat_map(Scheduler::out).filter(|line| line.contains("  fired "));
    let runs: Vec<String> = twice.map(|line| run_of(&line)).collect();
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), runs.len(), "two say that they have fired it: {runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_killed_in_turn_every_firing_is_one_run_and_nothing_starts_twice() {
    let seed = seed();
    eprintln!("SSHJOB_SEED={seed}");
    let mut rng = Rng::new(seed);
    let (world, clock, begun) = (world(&mut rng), FastClock::new(SPEED), Instant::now());
    let mut pair = [start(&world, clock), start(&world, clock)];
    let (mut kills, mut firings) = (0, [0, 0]);
    while begun.elapsed() < FIRING_FOR || firings.contains(&0) {
        std::thread::sleep(Duration::from_millis(rng.below(1200) as u64));
        let turn = kills % 2;
        pair[turn].kill();
        firings[turn] += fired(&pair[turn]);
        pair[turn] = start(&world, clock);
        kills += 1;
        assert!(begun.elapsed() < Duration::from_mins(2), "one of them never fires: {firings:?}");
    }
    let views = settle(&world, &mut pair).await;
    let told = tally(&views);
    eprintln!("{kills} kills, {:.1?} in all; {firings:?} firings; {} runs: {told:?}", begun.elapsed(), views.len());
    assert_true(&world, &views);
    assert!(told["succeeded"] > 0, "nothing of it happened: {told:?}");
}

/// Puts `targets` in the place of those that job `n` has.
fn narrow(world: &World, n: usize, targets: &str) {
    if targets.is_empty() {
        return;
    }
    let path = world.path().join(format!("jobs/job-{n}.yaml"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("targets: { tags: { Environment: Dev } }\n", targets)).unwrap();
}

fn is_any_active(world: &Path) -> bool {
    let jobs = fs::read_dir(world.join("store/active")).into_iter().flatten().map_while(Result::ok);
    jobs.filter_map(|job| fs::read_dir(job.path()).ok())
        .any(|mut marks| marks.any(|mark| is_mark(&mark.unwrap().path())))
}

fn is_mark(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"job-"))
}

/// How many tasks, and skipped runs, there are of each kind.
fn tally(views: &BTreeMap<String, RunView>) -> BTreeMap<&'static str, usize> {
    let mut told = BTreeMap::from([("succeeded", 0), ("lost", 0), ("skipped run", 0)]);
    for view in views.values() {
        if view.state() == RunState::Skipped {
            *told.entry("skipped run").or_default() += 1;
        }
        for task in &view.tasks {
            *told.entry(task.record.state.as_str()).or_default() += 1;
        }
    }
    told
}

/// Every minute from the first firing to the last is one run of every job.
fn assert_every_minute_is_one_run(views: &BTreeMap<String, RunView>) {
    let mut fired: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for view in views.values() {
        fired.entry(view.record.job.name.to_string()).or_default().push(view.record.scheduled_for.unwrap());
    }
    assert_eq!(fired.len(), KINDS.len());
    let first = fired.values().flatten().min().copied().unwrap();
    for (job, at) in fired {
        let minutes: BTreeSet<i64> = at.iter().map(|at| at.as_second() / 60).collect();
        assert_eq!(minutes.len(), at.len(), "{job}: a minute is two runs");
        assert_eq!(minutes.first(), Some(&(first.as_second() / 60)), "{job}: its first firing is missing");
        let span = minutes.last().unwrap() - minutes.first().unwrap() + 1;
        let missing: Vec<i64> =
            (*minutes.first().unwrap()..=*minutes.last().unwrap()).filter(|minute| !minutes.contains(minute)).collect();
        assert_eq!(i64::try_from(minutes.len()).unwrap(), span, "{job}: minutes without a run: {missing:?}");
    }
}

/// What is told of a run is what its hosts wrote down themselves.
fn assert_truthful(view: &RunView, starts: &BTreeSet<&String>, ends: &BTreeSet<String>) {
    let run = &view.record.run;
    let verdict = view.verdict.as_ref().unwrap_or_else(|| panic!("{run} has no verdict"));
    assert_eq!(verdict.counts, view.counts(), "{run}: the counts do not add up");
    let is_planned = view.plan.as_ref().is_some_and(|plan| plan.sealed.is_none());
    assert_eq!(is_planned, !view.tasks.is_empty(), "{run}");
    let succeeded = view.tasks.iter().filter(|task| task.record.state == TaskState::Succeeded).count();
    let all = is_planned && succeeded == view.tasks.len();
    assert_eq!(verdict.state == RunState::Succeeded, all, "{run}: {verdict:?}");
    for task in &view.tasks {
        let (state, host) = (task.record.state, &task.target.instance);
        let of_host = |line: &str| line.starts_with(&format!("{run} {host} "));
        let (began, ended) = (starts.iter().any(|line| of_host(line)), ends.iter().any(|line| of_host(line)));
        match state {
            TaskState::Succeeded => assert!(began && ended, "{run} {host} succeeded and did not run"),
            TaskState::Skipped | TaskState::Unreachable => assert!(!began, "{run} {host} is {state} and ran"),
            // It may have run, or been ended on the way.
            TaskState::Lost | TaskState::Cancelled => {}
            other => panic!("{run} {host} is {other}: {:?}", task.record),
        }
    }
}
