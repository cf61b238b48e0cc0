mod clocks;
mod damaged;
mod edits;
mod inventory;
mod sleep;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use sshjob::domain::cursor::{Cursor, Looked};
use sshjob::domain::firing::{Decided, Ended, Fate, JobState, Why};
use sshjob::domain::id::{JobName, RunId};
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::Job;
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::Layers;
use sshjob::domain::layout::{self, RunKeys};
use sshjob::domain::run::{Active, Carrier, Outcomes, RunState};
use sshjob::domain::schedule::Calendar;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::{Clock, Simulated};
use sshjob::engine::fire::{self, Fired, Firer, Scheduled, skip};
use sshjob::engine::history;
use sshjob::engine::prune::{Policy, prune};
use sshjob::engine::reconcile::write_verdict;
use sshjob::engine::records::Runs;
use sshjob::engine::start::driver;
use sshjob::engine::tick::{Look, SELECT_WITHIN, Standing, Ticked, Ticker};
use sshjob::port::{Inventory, InventoryError, Scripts, Store as _};

use crate::support::memory::Memory;

/// An inventory and scripts that can be broken.
#[derive(Clone, Default)]
pub struct Around {
    inventory_down: Arc<Mutex<bool>>,
    unreadable: Arc<Mutex<Option<String>>>,
    /// The job for which the inventory never answers.
    silent: Arc<Mutex<Option<String>>>,
    /// How often that was asked for.
    asked: Arc<AtomicUsize>,
}

impl Inventory for Around {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        let is_silent = self.silent.lock().unwrap().as_deref() == Some(job.name.as_str());
        if is_silent {
            self.asked.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        if *self.inventory_down.lock().unwrap() {
            return Err(InventoryError::Unavailable { at: "ec2".to_owned(), why: "throttled".to_owned() });
        }
        let instance = Instance {
            id: "i-1".parse().unwrap(),
            account: "1".to_owned(),
            region: "r".to_owned(),
            zone: None,
            launched_at: None,
            addresses: Addresses { private: Some("10.0.0.1".to_owned()), ..Addresses::default() },
            tags: [("Role".to_owned(), "web".to_owned())].into(),
            state: InstanceState::Running,
            port: None,
            user: None,
        };
        Ok(job.targets.selector.choose(vec![instance]))
    }
}

impl Scripts for Around {
    async fn script(&self, job: &Job) -> Result<Vec<u8>, String> {
        match self.unreadable.lock().unwrap().as_deref() {
            Some(name) if name == job.name.as_str() => Err("it cannot be read".to_owned()),
            _ => Ok(b"true".to_vec()),
        }
    }
}

/// What came of a tick, and of looking at everything.
#[derive(Debug)]
pub struct Seen {
    pub fired: Vec<Fired>,
    pub runs: Vec<(RunId, Standing)>,
    pub troubles: Vec<(String, String)>,
    pub silent_until: Option<Timestamp>,
}

/// A store, what is around it, and the jobs that fire.
pub struct Rig {
    pub runs: Runs<Memory>,
    pub around: Around,
    pub jobs: Vec<Scheduled>,
    /// What its process drives.
    driven: BTreeSet<RunId>,
}

fn scheduled(name: &str, settings: &str) -> Scheduled {
    let text = format!("targets: {{ tags: {{ Role: web }} }}\nrun: x\n{settings}");
    let mut job = Layers::default().resolve(JobFile::parse(&text, "job.yaml", name).unwrap()).unwrap();
    job.name = name.parse().unwrap();
    let calendar = Calendar::new(&job.name, &job.schedule).unwrap();
    Scheduled { job, calendar }
}

impl Rig {
    pub fn new(jobs: &[(&str, &str)]) -> Self {
        Self::on(&Runs::new(Memory::default()), jobs)
    }

    /// A scheduler of these jobs on a store that there is.
    fn on(runs: &Runs<Memory>, jobs: &[(&str, &str)]) -> Self {
        let jobs = jobs.iter().map(|(name, settings)| scheduled(name, settings)).collect();
        Self { runs: runs.clone(), around: Around::default(), jobs, driven: BTreeSet::new() }
    }

    fn is_marked(&self, run: &str) -> bool {
        let mark = layout::active(&run.parse().unwrap()).to_string();
        self.runs.store().objects().iter().any(|(key, _)| *key == mark)
    }

    /// What has become of the firings of a job.
    async fn state(&self, job: &str) -> JobState {
        fire::read(&self.runs, &job.parse().unwrap()).await.unwrap().0
    }

    async fn set_state(&self, job: &str, state: &JobState) {
        let key = layout::job_state(&job.parse().unwrap());
        self.runs.store().remove(&key).await.unwrap();
        let _ = self.runs.create(&key, state).await.unwrap();
    }

    /// A ticker whose clock shows this time.
    fn ticker(&self, epoch: Timestamp) -> Ticker<Memory, Around, Around> {
        let since = tokio::time::Instant::now();
        let clock = Clock::Simulated(Simulated { epoch, since, ahead: SignedDuration::ZERO });
        let firer = Firer {
            runs: self.runs.clone(),
            scripts: self.around.clone(),
            actor: "test".to_owned(),
            carrier: Carrier::Scheduler,
            driven: self.driven.clone(),
        };
        Ticker { firer, inventory: self.around.clone(), patience: SELECT_WITHIN, clock }
    }

    /// Ticks at this time of the day, and looks at everything.
    pub async fn tick(&self, time: &str) -> Seen {
        self.tick_at(at(time)).await
    }

    pub async fn tick_at(&self, epoch: Timestamp) -> Seen {
        let ticker = self.ticker(epoch);
        let Ticked { fired, active, troubles, silent_until } = ticker.tick(&self.jobs, epoch).await.unwrap();
        let mut seen = Seen { fired, runs: Vec::new(), troubles, silent_until };
        let mut looks: Vec<Look> = Arc::new(ticker).look(active).collect().await;
        looks.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (run, found) in looks {
            match found {
                Ok(standing) => seen.runs.extend(standing.map(|standing| (run, standing))),
                Err(why) => seen.troubles.push((run.to_string(), why)),
            }
        }
        seen
    }

    /// Every run there is: its id without the job, its state, why.
    pub async fn told(&self) -> Vec<String> {
        let listed = history::list(&self.runs, None, None, 1000).await.unwrap();
        let mut told: Vec<String> = Vec::new();
        for run in listed {
            let summary = run.summary.unwrap();
            let reason = summary.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            told.push(format!("{} {}{reason}", run.run, summary.state.as_str()));
        }
        told.sort();
        told
    }
}

/// This time of the day of all these tests.
fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

/// What came of firings, in short.
pub fn fired(ticked: &Seen) -> Vec<String> {
    let mut told: Vec<String> = ticked
        .fired
        .iter()
        .map(|fired| match fired {
            Fired::Run(run) => run.to_string(),
            Fired::Skipped(run, why) => format!("{run}: {why}"),
        })
        .collect();
    told.sort();
    told
}

const EVERY_MINUTE: &str = "schedule: '* * * * *'\noverlap: allow\n";

#[tokio::test(start_paused = true)]
async fn tick_that_comes_twice_late_or_out_of_order_fires_once() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    assert_eq!(fired(&rig.tick("12:00:00").await), ["a-20261122T120000Z"]);
    assert!(fired(&rig.tick("12:00:00").await).is_empty());
    assert_eq!(fired(&rig.tick("12:02:10").await), ["a-20261122T120100Z", "a-20261122T120200Z"]);
    assert!(fired(&rig.tick("12:01:00").await).is_empty());
    assert_eq!(rig.told().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn clock_that_goes_back_an_hour_fires_nothing_again() {
    let rig = Rig::new(&[("a", "schedule: '*/30 * * * *'\noverlap: allow\n")]);
    rig.tick("12:00:00").await;
    rig.tick("12:30:00").await;
    for time in ["11:30:00", "11:59:00", "12:00:00", "12:29:59", "12:30:00"] {
        assert!(fired(&rig.tick(time).await).is_empty(), "{time}");
    }
    assert_eq!(fired(&rig.tick("13:00:00").await), ["a-20261122T130000Z"]);
}

#[tokio::test(start_paused = true)]
async fn clock_that_goes_on_an_hour_makes_firings_missed_as_the_policy_says() {
    let missed = |policy: &str| format!("schedule: '*/20 * * * *'\noverlap: allow\ndeadline: 5m\nmissed: {policy}\n");
    let (skip, latest, all) = (missed("skip"), missed("latest"), missed("all"));
    let rig = Rig::new(&[("all", &all), ("latest", &latest), ("skip", &skip)]);
    rig.tick("12:00:00").await;
    let one = "missed: noticed later than the job's `deadline` allows";
    let several = |count, last: &str| {
        format!(
            "missed: {count} firings, the last at 2026-11-22T{last}Z, were noticed later than the job's `missed` and \
             `deadline` allow"
        )
    };
    assert_eq!(
        fired(&rig.tick("12:50:00").await),
        [
            "all-20261122T122000Z".to_owned(),
            "all-20261122T124000Z".to_owned(),
            format!("latest-20261122T122000Z: {one}"),
            "latest-20261122T124000Z".to_owned(),
            format!("skip-20261122T122000Z: {}", several(2, "12:40:00")),
        ]
    );
    // One that is in time makes up for those before it.
    assert_eq!(
        fired(&rig.tick("13:41:00").await),
        [
            "all-20261122T130000Z".to_owned(),
            "all-20261122T132000Z".to_owned(),
            "all-20261122T134000Z".to_owned(),
            format!("latest-20261122T130000Z: {}", several(2, "13:20:00")),
            "latest-20261122T134000Z".to_owned(),
            format!("skip-20261122T130000Z: {}", several(2, "13:20:00")),
            "skip-20261122T134000Z".to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn firings_of_a_long_sleep_are_capped_and_the_rest_is_said() {
    let rig = Rig::new(&[("a", "schedule: '* * * * *'\noverlap: allow\nmissed: all\ndeadline: 1m\n")]);
    rig.tick("02:00:00").await;
    // `overlap: allow` has a bound of its own; the first run of 02:00 is one of those that are active.
    let fired = fired(&rig.tick("12:00:30").await);
    assert!(fired[0].contains("missed: 499 firings, the last at 2026-11-22T10:19:00Z"), "{}", fired[0]);
    assert_eq!(fired.iter().filter(|told| !told.contains(':')).count(), 99);
    assert_eq!(fired.iter().filter(|told| told.ends_with("100 runs of the job are active")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn job_whose_first_firing_failed_begins_when_it_was_first_seen() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    *rig.around.unreadable.lock().unwrap() = Some("a".to_owned());
    assert!(fired(&rig.tick("12:00:00").await).is_empty());
    *rig.around.unreadable.lock().unwrap() = None;
    let all = ["00", "01", "02", "03", "04", "05"].map(|minute| format!("a-20261122T12{minute}00Z"));
    assert_eq!(fired(&rig.tick("12:05:00").await), all);
}

#[tokio::test(start_paused = true)]
async fn run_whose_mark_was_lost_is_marked_again() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    rig.tick("12:00:00").await;
    rig.runs.store().remove(&layout::active(&"a-20261122T120000Z".parse().unwrap())).await.unwrap();
    rig.tick("12:01:00").await;
    assert!(rig.is_marked("a-20261122T120000Z"));
}

#[tokio::test(start_paused = true)]
async fn run_that_was_skipped_is_closed_with_its_reason_by_whoever_finds_it() {
    let rig = Rig::new(&[("a", "schedule: '* * * * *'\npaused: true\n")]);
    rig.tick("12:00:00").await;
    let told = ["a-20261122T120000Z skipped: the job is paused, and no firing runs until it is not"];
    assert_eq!(rig.told().await, told);
    // As a crash leaves it that comes before the verdict.
    let run: RunId = "a-20261122T120000Z".parse().unwrap();
    rig.runs.store().remove(&RunKeys::new(&run).result()).await.unwrap();
    let _ = rig.runs.store().create(&layout::active(&run), b"{}".to_vec()).await.unwrap();
    rig.tick("12:00:30").await;
    assert_eq!(rig.told().await, told);
}

/// Cause: who slept between deciding and claiming ran what had ended and was pruned in between.
#[tokio::test(start_paused = true)]
async fn run_that_is_claimed_again_after_it_was_pruned_does_not_run() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    rig.tick("12:00:00").await;
    let run: RunId = "a-20261122T120000Z".parse().unwrap();
    let record = rig.runs.run(&run).await.unwrap().unwrap();
    write_verdict(&rig.runs, &record, skip("enough".to_owned(), at("12:00:10"))).await.unwrap();
    prune(&rig.runs, Policy { older_than: None, keep: 0 }, at("12:00:20"), false).await.unwrap();
    assert!(rig.told().await.is_empty());
    let _ = rig.runs.create(&layout::active(&run), &Active { driver: None, wave: None }).await.unwrap();
    let _ = rig.runs.create(&RunKeys::new(&run).run(), &record).await.unwrap();
    rig.tick("12:00:30").await;
    let why = "it was over: it was claimed again after it had been removed";
    assert_eq!(rig.told().await, [format!("{run} skipped: {why}")]);
    assert!(!rig.is_marked(run.as_str()));
}

/// Cause: while a job was paused, the mark of its skipped firing stayed for as long, and with it every script.
#[tokio::test(start_paused = true)]
async fn mark_of_a_skipped_firing_that_has_ended_goes_though_its_job_is_still_paused() {
    let rig = Rig::new(&[("a", "schedule: '* * * * *'\npaused: true\n")]);
    let run = "a-20261120T120000Z";
    let why = Fate::Skip(Why::Paused);
    let (first, last) = ("2026-11-20T12:00:00Z".parse().unwrap(), at("11:59:00"));
    let decided = Decided { at: first, until: last, fate: why, replaces: Vec::new(), plan_before: first };
    let ended = Ended { run: run.parse().unwrap(), state: RunState::Skipped, at: at("11:00:00"), took_ms: 0 };
    rig.set_state("a", &JobState { decided: Some(decided), ended: [ended].into(), ..JobState::default() }).await;
    let _ =
        rig.runs.create(&layout::active(&run.parse().unwrap()), &Active { driver: None, wave: None }).await.unwrap();
    rig.tick("12:00:00").await;
    assert!(!rig.is_marked(run));
}

#[tokio::test(start_paused = true)]
async fn job_whose_script_is_unreadable_holds_up_no_other_and_is_made_up_for() {
    let rig = Rig::new(&[("a", EVERY_MINUTE), ("b", EVERY_MINUTE)]);
    *rig.around.unreadable.lock().unwrap() = Some("a".to_owned());
    let ticked = rig.tick("12:00:00").await;
    assert_eq!(fired(&ticked), ["b-20261122T120000Z"]);
    assert_eq!(ticked.troubles, [("a".to_owned(), "script: it cannot be read".to_owned())]);
    let cursor = rig.runs.read::<Cursor>(&layout::cursor()).await.unwrap().unwrap().0;
    let [a, b] = ["a", "b"].map(|job| cursor.of(&job.parse().unwrap()).unwrap());
    assert!(a < b, "its firing is not decided: {a}, {b}");
    *rig.around.unreadable.lock().unwrap() = None;
    let all = ["a-20261122T120000Z", "a-20261122T120100Z", "b-20261122T120100Z"];
    assert_eq!(fired(&rig.tick("12:01:00").await), all);
    assert!(fired(&rig.tick("12:01:30").await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn pause_and_blackout_are_each_one_record_however_long_they_last() {
    let blackout = "schedule: '* * * * *'\noverlap: allow\nblackout: ['2026-11-22T12:00/2026-11-22T12:03']\n";
    let rig = Rig::new(&[("black", blackout), ("paused", "schedule: '* * * * *'\npaused: true\n")]);
    for minute in 0..5 {
        rig.tick(&format!("12:0{minute}:00")).await;
    }
    assert_eq!(
        rig.told().await,
        [
            "black-20261122T120000Z skipped: no firing runs in the blackout `2026-11-22T12:00/2026-11-22T12:03`",
            "black-20261122T120300Z running",
            "black-20261122T120400Z running",
            "paused-20261122T120000Z skipped: the job is paused, and no firing runs until it is not",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn overlap_skips_queues_replaces_or_allows() {
    let job = |overlap: &str| format!("schedule: '* * * * *'\noverlap: {overlap}\n");
    let (skip, queue, replace, allow) = (job("skip"), job("queue"), job("replace"), job("allow"));
    let rig = Rig::new(&[("allow", &allow), ("queue", &queue), ("replace", &replace), ("skip", &skip)]);
    rig.tick("12:00:00").await;
    rig.tick("12:01:00").await;
    assert_eq!(
        rig.told().await,
        [
            "allow-20261122T120000Z running",
            "allow-20261122T120100Z running",
            "queue-20261122T120000Z running",
            "queue-20261122T120100Z planning",
            "replace-20261122T120000Z running: cancel asked by run replace-20261122T120100Z",
            "replace-20261122T120100Z planning",
            "skip-20261122T120000Z running",
            "skip-20261122T120100Z skipped: overlap: run `skip-20261122T120000Z` is still active",
        ]
    );
    // What waits longer than its deadline is skipped, and says for whom it waited.
    rig.tick("12:12:00").await;
    let queued = rig.told().await.into_iter().find(|told| told.starts_with("queue-20261122T120100Z")).unwrap();
    let why = "overlap: run `queue-20261122T120000Z` was active until the deadline";
    assert_eq!(queued, format!("queue-20261122T120100Z {}: {why}", RunState::Skipped.as_str()));
}

#[tokio::test(start_paused = true)]
async fn schedulers_that_know_different_jobs_lose_none_of_each_others_firings() {
    let ours = Rig::new(&[("a", EVERY_MINUTE)]);
    let theirs = Rig { runs: ours.runs.clone(), ..Rig::new(&[("b", EVERY_MINUTE)]) };
    assert_eq!(fired(&ours.tick("12:00:00").await), ["a-20261122T120000Z"]);
    assert_eq!(fired(&theirs.tick("12:00:00").await), ["b-20261122T120000Z"]);
    // Theirs is away while ours goes on.
    for minute in 1..=3 {
        assert_eq!(fired(&ours.tick(&format!("12:0{minute}:00")).await).len(), 1);
    }
    let caught_up: Vec<String> = (1..=4).map(|minute| format!("b-20261122T120{minute}00Z")).collect();
    assert_eq!(fired(&theirs.tick("12:04:00").await), caught_up);
    assert_eq!(fired(&ours.tick("12:04:00").await), ["a-20261122T120400Z"]);
}

#[tokio::test(start_paused = true)]
async fn job_that_is_new_fires_nothing_of_the_time_before_it() {
    let mut rig = Rig::new(&[("a", EVERY_MINUTE)]);
    rig.tick("12:00:00").await;
    rig.jobs.push(scheduled("b", EVERY_MINUTE));
    assert_eq!(fired(&rig.tick("12:03:30").await).len(), 3);
    let both = ["a-20261122T120400Z", "b-20261122T120400Z"];
    assert_eq!(fired(&rig.tick("12:04:00").await), both);
}

#[tokio::test(start_paused = true)]
async fn firing_that_is_delayed_is_decided_once_though_its_record_is_gone() {
    let rig = Rig::new(&[("delayed", "schedule: '*/30 * * * *'\njitter: 20m\noverlap: allow\n")]);
    let mut first = fired(&rig.tick("12:00:00").await);
    first.extend(fired(&rig.tick("12:25:00").await));
    let [run] = first.as_slice() else { panic!("{first:?}") };
    let run: RunId = run.parse().unwrap();
    // Its run has ended, and is pruned; the cursor was lost with a broken disk.
    let keys = layout::RunKeys::new(&run);
    for key in [layout::active(&run), keys.run(), keys.plan(), layout::cursor()] {
        rig.runs.store().remove(&key).await.unwrap();
    }
    let mut state = rig.state("delayed").await;
    state.active.clear();
    rig.set_state("delayed", &state).await;
    let before =
        Cursor { known: ["delayed".parse().unwrap()].into(), ..Cursor::at("2026-11-22T12:00:00Z".parse().unwrap()) };
    rig.runs.create(&layout::cursor(), &before).await.unwrap();
    assert!(fired(&rig.tick("12:25:00").await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn mark_of_an_old_firing_that_is_just_being_claimed_stays() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    rig.tick("12:00:00").await;
    let run: RunId = "a-20261120T120000Z".parse().unwrap();
    let mut state = rig.state("a").await;
    state.active.push(run.clone());
    rig.set_state("a", &state).await;
    let mark = Active { driver: None, wave: None };
    rig.runs.create(&layout::active(&run), &mark).await.unwrap();
    let orphan: RunId = "a-20261119T120000Z".parse().unwrap();
    rig.runs.create(&layout::active(&orphan), &mark).await.unwrap();
    rig.tick("12:00:30").await;
    assert!(rig.runs.active(&run).await.unwrap().is_some());
    assert!(rig.runs.active(&orphan).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn run_that_is_cancelled_while_it_waits_ends_as_cancelled_and_says_by_whom() {
    let rig = Rig::new(&[("queue", "schedule: '* * * * *'\noverlap: queue\n")]);
    rig.tick("12:00:00").await;
    rig.tick("12:01:00").await;
    let run: RunId = "queue-20261122T120100Z".parse().unwrap();
    sshjob::engine::control::cancel(&rig.runs, &run, "ann").await.unwrap();
    let record = rig.runs.run(&run).await.unwrap().unwrap();
    let now = "2026-11-22T12:01:10Z".parse().unwrap();
    let settled = sshjob::engine::reconcile::reconcile(&rig.runs, &record, now).await.unwrap();
    let sshjob::engine::reconcile::Settled::Finished(verdict) = settled else { panic!("{settled:?}") };
    assert_eq!(verdict.state, RunState::Cancelled);
    assert_eq!(verdict.reason.as_deref(), Some("cancelled by ann before it started"));
    assert!(rig.runs.active(&run).await.unwrap().is_none());
}
