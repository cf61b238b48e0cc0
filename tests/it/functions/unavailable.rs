//! A store that answers nobody for ten seconds, from any read or write on, in simulated time and with hosts that count
//! how often a script starts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use sshjob::domain::order::Order;
use sshjob::domain::run::RunRecord;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::Clock;
use sshjob::engine::gate::Gate;
use sshjob::engine::records::Runs;
use sshjob::engine::task::{Attempt, Fleet, Task};
use sshjob::engine::worker::{Secrets, WorkError, Worker};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::{Pair, firing, noon};
use crate::support::key::Login;
use crate::support::memory::Memory;

/// For how long the store is gone.
const GONE: Duration = Duration::from_secs(10);

/// Hosts that do as they are told, and count.
#[derive(Clone, Default)]
struct Hosts(Arc<Mutex<BTreeMap<String, usize>>>);

impl Fleet<Memory> for Hosts {
    type Ready = ();

    async fn reach(&self, _: &Task<'_, Memory, Self>, _: &mut TaskRecord) -> Result<(), (TaskState, String)> {
        sleep(Duration::from_millis(300)).await;
        Ok(())
    }

    async fn run(&self, task: &Task<'_, Memory, Self>, (): (), record: TaskRecord) -> Attempt {
        *self.0.lock().unwrap().entry(task.target.instance.to_string()).or_default() += 1;
        sleep(Duration::from_secs(1)).await;
        let finished_at = Some(task.worker.clock.now());
        TaskRecord { state: TaskState::Succeeded, exit_code: Some(0), finished_at, ..record }.into()
    }

    async fn look_after(&self, _: &Runs<Memory>, _: &RunRecord, _: Clock) {}
}

/// Carries out `order` as a worker function does, on these hosts.
pub async fn work(
    runs: &Runs<Memory>,
    clock: Clock,
    hosts: &impl Fleet<Memory>,
    order: &Order,
) -> Result<(), WorkError> {
    if order.not_after < clock.now() || runs.verdict(&order.run).await?.is_some() {
        return Ok(());
    }
    let run = runs.run(&order.run).await?.unwrap();
    let (events, mut heard) = mpsc::channel(64);
    let worker = Worker {
        runs: runs.clone(),
        clock,
        events,
        access: hosts.clone(),
        secrets: Arc::new(Secrets::new()),
        gate: Gate::new(100, None),
        batch_ended: Arc::new(Notify::new()),
    };
    let deadline = clock.now() + SignedDuration::from_mins(15);
    let hearing = async move { while heard.recv().await.is_some() {} };
    let working = async move { worker.run_until(&run, order.batch, deadline).await };
    tokio::join!(working, hearing).0
}

/// Tells the story of a run whose trigger, or whose first worker, finds the store gone from its `n`-th call on; returns
/// whether it did.
async fn tell(n: usize, is_trigger: bool) -> bool {
    let pair = Pair::new(&(1..=3).map(|n| ([127, 0, 0, n], 22).into()).collect::<Vec<_>>(), &Login::fresh());
    pair.job("once", "schedule: '0 12 * * *'\nrun: x\nhosts_per_worker: 2\n").await;
    let (mut pair, hosts, run) = (pair, Hosts::default(), firing("once"));
    pair.set_time(-60);
    pair.tick().await;
    let healthy = pair.runs().clone();
    let faulty = Runs::new(healthy.store().reboot().with_outage(n, GONE));
    if is_trigger {
        pair.trigger.runs = faulty.clone();
    }
    let clock = noon(0);
    (pair.trigger.clock, pair.worker.clock) = (clock, clock);
    let mut first = (!is_trigger).then_some(&faulty);
    for _ in 0..40 {
        // What it cannot do the next tick does.
        let _ = pair.trigger.handle(json!({}), "tick").await;
        for order in pair.orders() {
            for runs in [first.take().unwrap_or(&healthy), &healthy] {
                let done = work(runs, clock, &hosts, &order).await;
                let is_expected = matches!(done, Ok(()) | Err(WorkError::Held(_) | WorkError::Store(_)));
                assert!(is_expected, "call {n}: {done:?}");
            }
        }
        if pair.verdict(&run).await.is_some() && pair.runs().active(&run).await.unwrap().is_none() {
            break;
        }
        sleep(Duration::from_mins(1)).await;
    }
    let told = format!("call {n} of the {}", if is_trigger { "trigger" } else { "worker" });
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("succeeded"), "{told}: {:?}", pair.states(&run).await);
    let starts: Vec<usize> = hosts.0.lock().unwrap().values().copied().collect();
    assert_eq!(starts, [1; 3], "{told}");
    assert!(pair.runs().active(&run).await.unwrap().is_none(), "{told}");
    faulty.store().has_been_down()
}

#[tokio::test(start_paused = true)]
async fn store_that_is_gone_for_ten_seconds_at_any_call_of_the_trigger_costs_nothing_but_time() {
    let mut calls = 1;
    while tell(calls, true).await {
        calls += 1;
    }
    assert!(calls > 40, "{calls}");
}

#[tokio::test(start_paused = true)]
async fn store_that_is_gone_for_ten_seconds_at_any_call_of_a_worker_costs_nothing_but_time() {
    let mut calls = 1;
    while tell(calls, false).await {
        calls += 1;
    }
    assert!(calls > 10, "{calls}");
}

/// Carries out the orders that wait as soon as some do, which they must within so long.
async fn work_within(pair: &Pair, hosts: &Hosts, clock: Clock, within: Duration) {
    let waiting = async {
        loop {
            let orders = pair.orders();
            if !orders.is_empty() {
                return orders;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    for order in timeout(within, waiting).await.unwrap() {
        work(pair.runs(), clock, hosts, &order).await.unwrap();
    }
}

/// Cause: the trigger sent for workers when every inventory had answered.
#[tokio::test(start_paused = true)]
async fn inventory_that_hangs_for_one_job_delays_the_workers_of_no_other() {
    let mut pair = Pair::new(&[([127, 0, 0, 1], 22).into()], &Login::fresh());
    for job in ["a-silent", "b"] {
        pair.job(job, "schedule: '* * * * *'\nrun: x\n").await;
    }
    pair.set_time(-30);
    pair.tick().await;
    let (clock, hosts, began) = (noon(20), Hosts::default(), Instant::now());
    (pair.trigger.clock, pair.worker.clock) = (clock, clock);
    let ticks = async {
        let first = pair.trigger.handle(json!({}), "tick");
        let second = async {
            sleep(Duration::from_secs(40)).await;
            pair.trigger.handle(json!({}), "tick").await
        };
        let (first, second) = tokio::join!(first, second);
        (first.unwrap(), second.unwrap())
    };
    let works = async {
        work_within(&pair, &hosts, clock, Duration::from_secs(10)).await;
        sleep(Duration::from_secs(40).saturating_sub(began.elapsed())).await;
        work_within(&pair, &hosts, clock, Duration::from_secs(10)).await;
        began.elapsed()
    };
    let (_, took) = tokio::join!(ticks, works);
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert_eq!(pair.verdict(&firing("b")).await.as_deref(), Some("succeeded"));
    assert_eq!(hosts.0.lock().unwrap().values().sum::<usize>(), 2);
}
