//! What stops a rolling run: every way of not succeeding counts, and goes on counting for who takes the run up.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::quantity::Amount;
use sshjob::domain::run::RunRecord;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::{Clock, Simulated};
use sshjob::engine::drive::{Driven, drive};
use sshjob::engine::gate::{Gate, Stop};
use sshjob::engine::records::Runs;
use sshjob::engine::start::{Started, start};
use sshjob::engine::task::{Attempt, Fleet, Task};
use sshjob::engine::worker::Worker;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use crate::support::memory::Memory;
use crate::support::rig;

/// Hosts of which each ends as it is told, a minute after it was reached; those that were reached are counted.
#[derive(Clone)]
struct Hosts {
    ends: TaskState,
    reached: Arc<Mutex<usize>>,
}

impl Hosts {
    fn new(ends: TaskState) -> Self {
        Self { ends, reached: Arc::default() }
    }
}

impl Fleet<Memory> for Hosts {
    type Ready = ();

    async fn reach(&self, _: &Task<'_, Memory, Self>, _: &mut TaskRecord) -> Result<(), (TaskState, String)> {
        *self.reached.lock().unwrap() += 1;
        sleep(Duration::from_mins(1)).await;
        match self.ends {
            TaskState::Unreachable | TaskState::AuthFailed | TaskState::HostKeyRejected => {
                Err((self.ends, "as it is told".to_owned()))
            }
            _ => Ok(()),
        }
    }

    async fn run(&self, task: &Task<'_, Memory, Self>, (): (), record: TaskRecord) -> Attempt {
        record.ended(self.ends, "as it is told", task.worker.clock.now()).into()
    }

    async fn look_after(&self, _: &Runs<Memory>, _: &RunRecord, _: Clock) {}
}

/// A clock that shows noon at `since`.
fn noon(since: Instant) -> Clock {
    let epoch = "2026-11-22T12:00:00Z".parse().unwrap();
    Clock::Simulated(Simulated { epoch, since, ahead: SignedDuration::ZERO })
}

/// Claims a run on five hosts, one at a time, that tolerates so many errors.
async fn rolling(store: &Memory, now: Timestamp, max_errors: u32) -> Started {
    let mut job = rig::script("true");
    job.rollout.max_concurrency = Amount::Count(1);
    job.rollout.max_errors = Some(Amount::Count(max_errors));
    let hosts: Vec<SocketAddr> = (1..=5).map(|n| ([127, 0, 0, n], 22).into()).collect();
    start(&Runs::new(store.clone()), rig::request(job, &hosts, "one"), now).await.unwrap()
}

async fn go_on(store: &Memory, started: &Started, clock: Clock, hosts: &Hosts) -> Driven {
    let (events, mut heard) = mpsc::channel(64);
    let worker = Worker {
        runs: Runs::new(store.clone()),
        clock,
        events,
        access: hosts.clone(),
        secrets: Arc::default(),
        gate: Gate::new(started.plan.max_concurrency, started.plan.max_errors),
        batch_ended: Arc::new(Notify::new()),
    };
    let hearing = async move { while heard.recv().await.is_some() {} };
    let driving = async move { drive(&worker, started).await.unwrap() };
    tokio::join!(driving, hearing).0
}

#[tokio::test(start_paused = true)]
async fn every_way_of_not_succeeding_counts_towards_max_errors() {
    let errors = TaskState::ALL.into_iter().filter(|state| state.is_final());
    for state in errors {
        let (store, clock, hosts) = (Memory::default(), noon(Instant::now()), Hosts::new(state));
        let started = rolling(&store, clock.now(), 1).await;
        let driven = go_on(&store, &started, clock, &hosts).await;
        let counts = driven.verdict.unwrap().counts;
        // What was never started, or was ended by whom somebody asked, is no error.
        if matches!(state, TaskState::Succeeded | TaskState::Skipped | TaskState::Cancelled) {
            assert_eq!((counts.of(state), driven.stop), (5, None), "{state}");
        } else {
            let stopped = (counts.of(state), counts.of(TaskState::Skipped), driven.stop);
            assert_eq!(stopped, (2, 3, Some(Stop::MaxErrors(1))), "{state}");
            assert_eq!(*hosts.reached.lock().unwrap(), 2, "{state}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_a_scheduler_that_died_count_for_the_one_that_goes_on() {
    for state in [TaskState::Failed, TaskState::AuthFailed] {
        let (store, clock, hosts) = (Memory::default(), noon(Instant::now()), Hosts::new(state));
        let started = rolling(&store, clock.now(), 2).await;
        let machine = store.reboot();
        // Two have ended, and the third is being reached.
        let dies = async {
            sleep(Duration::from_secs(150)).await;
            machine.crash();
        };
        tokio::select! {
            _ = go_on(&machine, &started, clock, &hosts) => panic!("it is not over"),
            () = async { tokio::join!(dies, machine.crashed()); } => {}
        }
        assert_eq!(*hosts.reached.lock().unwrap(), 3, "{state}");
        sleep(Duration::from_mins(1)).await;
        let again = Started { lease: None, ..started };
        let driven = go_on(&store.reboot(), &again, clock, &hosts).await;
        // One more, which makes three, is one too many.
        let counts = driven.verdict.unwrap().counts;
        let stopped = (counts.of(state), counts.of(TaskState::Skipped), driven.stop);
        assert_eq!(stopped, (3, 2, Some(Stop::MaxErrors(2))), "{state}");
    }
}
