//! The hosts of a simulated world, as one process reaches them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::instance::{Addresses, Instance};
use sshjob::domain::job::Job;
use sshjob::domain::run::RunRecord;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::Clock;
use sshjob::engine::gate::Stop;
use sshjob::engine::records::Runs;
use sshjob::engine::task::{Attempt, Fleet, Task};
use sshjob::port::{Inventory, InventoryError, Scripts, Store as _, Written};

use super::store::SimStore;
use super::{Process, Start};

/// What `job` runs.
pub(crate) fn script(job: &Job) -> Vec<u8> {
    format!("#!/bin/sh\necho {}\n", job.name).into_bytes()
}

/// How long a driver may take to hear of a pause, and what it has let through by then to start.
const HEARS_WITHIN: Duration = Duration::from_secs(20);

/// How long after its timeout a detached script is waited for whose host does not answer.
const GONE_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// The hosts, their inventory and the scripts, as one process sees them.
#[derive(Clone)]
pub(crate) struct SimFleet(pub(crate) Process);

impl Fleet<SimStore> for SimFleet {
    type Ready = ();

    async fn reach(
        &self,
        task: &Task<'_, SimStore, Self>,
        _record: &mut TaskRecord,
    ) -> Result<(), (TaskState, String)> {
        self.0.live_on().await;
        self.0.world.pause(2_000).await;
        self.0.live_on().await;
        let state = self.0.world.state();
        let host = state.hosts.iter().find(|host| host.id == task.target.instance).unwrap();
        match (host.is_up, host.refuses) {
            (false, _) => Err((TaskState::Unreachable, "connection refused".to_owned())),
            (true, true) => Err((TaskState::AuthFailed, "no key is good enough".to_owned())),
            (true, false) => Ok(()),
        }
    }

    async fn run(&self, task: &Task<'_, SimStore, Self>, _ready: (), mut record: TaskRecord) -> Attempt {
        let world = &self.0.world;
        self.0.live_on().await;
        if world.state().strikes(5, || "died before a start".to_owned()) {
            self.0.kill();
        }
        world.pause(500).await;
        self.0.live_on().await;
        if world.state().strikes(10, || "delivery broke off".to_owned()) {
            record.started_at = None;
            return record.ended(TaskState::Unreachable, "nothing was started", task.worker.clock.now()).into();
        }
        let start = self.begin(task);
        let death = world.state().strikes(5, || "died after a start".to_owned());
        if death {
            self.0.kill();
            self.0.live_on().await;
        }
        if task.batch.run.job.mode.is_detached() {
            record.confirmed = !world.state().strikes(30, || "the answer to a start was lost".to_owned());
            return record.into();
        }
        let left = Duration::try_from(start.ends.duration_since(world.now())).unwrap_or_default();
        let ended = tokio::select! {
            biased;
            () = task.worker.gate.ending() => Some(match task.worker.gate.stopped() {
                // Nobody has asked for its end.
                Some(Stop::OutOfTime) => (TaskState::TimedOut, "the time of its worker was over"),
                _ => (TaskState::Cancelled, "ended"),
            }),
            () = tokio::time::sleep(left) => None,
        };
        self.0.live_on().await;
        let now = task.worker.clock.now();
        let lost = world.state().strikes(10, || "a connection was lost".to_owned());
        match (ended, lost) {
            (_, true) => record.ended(TaskState::Lost, "connection", now).into(),
            (Some((state, why)), false) => {
                end(&self.0, &start);
                record.ended(state, why, now).into()
            }
            (None, false) => exited(record, start.code, now).into(),
        }
    }

    async fn look_after(&self, runs: &Runs<SimStore>, run: &RunRecord, _clock: Clock) {
        loop {
            self.0.live_on().await;
            self.collect(runs, run, false).await;
            self.0.world.pause(20_000).await;
        }
    }
}

fn exited(mut record: TaskRecord, code: u32, now: Timestamp) -> TaskRecord {
    record.exit_code = Some(code);
    record.state = if code == 0 { TaskState::Succeeded } else { TaskState::Failed };
    record.finished_at = Some(now);
    record
}

/// Notes on the host that a script was ended now.
fn end(process: &Process, start: &Start) {
    let now = process.world.now();
    let mut state = process.world.state();
    let found = state
        .log
        .iter_mut()
        .rev()
        .find(|known| known.run == start.run && known.instance == start.instance && known.attempt == start.attempt);
    if let Some(found) = found {
        found.ends = now;
    }
}

impl SimFleet {
    fn begin(&self, task: &Task<'_, SimStore, Self>) -> Start {
        let now = self.0.world.now();
        let mut state = self.0.world.state();
        let most = if state.rng.chance(10) { 180 } else { 20 };
        let took = SignedDuration::from_secs(i64::try_from(state.rng.below(most)).unwrap());
        let code = u32::from(state.rng.chance(8));
        let start = Start {
            run: task.batch.run.run.clone(),
            instance: task.target.instance.clone(),
            attempt: task.attempt,
            at: now,
            ends: now + took,
            code,
        };
        let is_same = |known: &&Start| {
            known.run == start.run && known.instance == start.instance && known.attempt == start.attempt
        };
        if state.log.iter().find(is_same).is_some() {
            let violation = format!("attempt {} of {} on {} started twice", start.attempt, start.run, start.instance);
            state.violations.push(violation);
        }
        // A process hears of a pause within seconds, unless it stalled meanwhile or could not read.
        if let Some(since) = state.paused.get(&start.run).copied()
            && since.elapsed() > HEARS_WITHIN
            && self.0.has_been_well_since(since)
        {
            state.violations.push(format!("{} started on {} while it was paused", start.run, start.instance));
        }
        state.log.push(start.clone());
        start
    }

    /// Looks at the detached tasks of `run`, or ends them.
    pub(crate) async fn collect(&self, runs: &Runs<SimStore>, run: &RunRecord, is_cancelled: bool) {
        let Ok(Some(plan)) = runs.plan(&run.run).await else { return };
        for n in 0..u32::try_from(plan.batches.len()).unwrap() {
            self.collect_batch(runs, run, n, is_cancelled).await;
        }
        let _ = runs.store().get(&sshjob::domain::layout::cursor()).await;
    }

    /// Looks at the detached tasks of batch `n` of `run`, or ends them.
    pub(crate) async fn collect_batch(&self, runs: &Runs<SimStore>, run: &RunRecord, n: u32, is_cancelled: bool) {
        let Ok(Some((mut outcomes, version))) = runs.outcomes(&run.run, n).await else { return };
        let now = self.0.world.now();
        let mut is_news = false;
        for (instance, record) in &mut outcomes.tasks {
            if record.state != TaskState::Running {
                continue;
            }
            let since = record.started_at.unwrap_or(run.started_at);
            if since.duration_since(now) > GONE_AFTER * 1440 {
                // Its clock was days ahead: what is left to wait counts from now.
                (record.started_at, is_news) = (Some(now), true);
                continue;
            }
            let since = since.min(now);
            let state = self.0.world.state();
            let started = state
                .log
                .iter()
                .find(|start| start.run == run.run && start.instance == *instance && start.attempt == record.attempt);
            let is_up = state.hosts.iter().any(|host| host.id == *instance && host.is_up);
            let gone_after = SignedDuration::try_from(run.job.timeout.0).unwrap() + GONE_AFTER;
            let told = match started.cloned() {
                _ if !is_up && now.duration_since(since) > gone_after => {
                    record.clone().ended(TaskState::Lost, "vanished", now)
                }
                _ if !is_up => continue,
                Some(start) if start.ends <= now => exited(record.clone(), start.code, now),
                Some(_) if is_cancelled => record.clone().ended(TaskState::Cancelled, "cancelled", now),
                None if now.duration_since(since) > SignedDuration::from_mins(3) => {
                    record.clone().ended(TaskState::Lost, "vanished", now)
                }
                _ => continue,
            };
            drop(state);
            *record = told;
            is_news = true;
        }
        if is_news {
            let key = sshjob::domain::layout::RunKeys::new(&run.run).outcomes(n);
            let _: Result<Written, _> = runs.swap(&key, &version, &outcomes).await;
        }
    }
}

impl Inventory for SimFleet {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        self.0.live_on().await;
        self.0.world.pause(1_000).await;
        self.0.live_on().await;
        let mut state = self.0.world.state();
        if state.strikes(100, || "the inventory was throttled".to_owned()) {
            return Err(InventoryError::Unavailable { at: "ec2".to_owned(), why: "throttled".to_owned() });
        }
        let instances = state.hosts.iter().filter(|host| host.is_listed).map(|host| Instance {
            id: host.id.clone(),
            account: "1".to_owned(),
            region: "r".to_owned(),
            zone: None,
            launched_at: None,
            addresses: Addresses { private: Some("10.0.0.1".to_owned()), ..Addresses::default() },
            tags: [("Group".to_owned(), host.group.to_string())].into(),
            state: sshjob::domain::instance::InstanceState::Running,
            port: None,
            user: None,
        });
        Ok(job.targets.selector.choose(instances.collect()))
    }
}

impl Scripts for SimFleet {
    async fn script(&self, job: &Job) -> Result<Vec<u8>, String> {
        self.0.live_on().await;
        if self.0.world.state().strikes(5, || "a script could not be read".to_owned()) {
            return Err("it cannot be read".to_owned());
        }
        Ok(script(job))
    }
}
