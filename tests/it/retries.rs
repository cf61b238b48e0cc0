//! A task that waits for its next attempt, and the worker that finds it waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sshjob::adapter::dir::Dir;
use sshjob::domain::layout::RunKeys;
use sshjob::domain::quantity::Span;
use sshjob::domain::run::Outcomes;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::Clock;
use sshjob::engine::event::Event;
use sshjob::engine::records::Runs;
use sshjob::engine::start::start;
use tokio::sync::Notify;

use crate::support::fault::{Fault, Faulty};
use crate::support::key::Login;
use crate::support::rig;
use crate::support::sshd::SshdFleet;

/// What is in the store of the only batch.
async fn stored(runs: &Runs<Dir>, keys: &RunKeys) -> BTreeMap<String, TaskRecord> {
    let outcomes = runs.read::<Outcomes>(&keys.outcomes(0)).await.unwrap();
    let tasks = outcomes.map(|(outcomes, _)| outcomes.tasks).unwrap_or_default();
    tasks.into_iter().map(|(id, record)| (id.to_string(), record)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_task_is_stored_with_its_attempt_and_how_that_ended() {
    let (host, folder, login) = (Faulty::start(Fault::Refuses), tempfile::tempdir().unwrap(), Login::fresh());
    let store = Dir::open(folder.path().join("store")).unwrap();
    let runs = Runs::new(store.clone());
    let mut job = rig::script("true");
    job.retries.attempts = 3;
    job.retries.delay = Span(Duration::from_hours(1));
    let started = start(&runs, rig::request(job, &[host.address()], "one"), Clock::System.now()).await.unwrap();
    let (worker, mut heard) = rig::worker(&store, &started, &login.path());
    let expires_at = Clock::System.now() + Duration::from_hours(2);
    let run = started.run.run.clone();
    let working = tokio::spawn(async move { worker.run_batch(&run, 0, expires_at, false, &Notify::new()).await });
    while !matches!(heard.recv().await.unwrap(), Event::TaskRetried { .. }) {}
    let (keys, id) = (RunKeys::new(&started.run.run), rig::target(host.address()).instance.to_string());
    let waiting = loop {
        if let Some(record) = stored(&runs, &keys).await.remove(&id) {
            break record;
        }
        tokio::task::yield_now().await;
    };
    working.abort();
    assert_eq!(
        (waiting.state, waiting.retried, waiting.attempt, waiting.started_at),
        (TaskState::Pending, Some(TaskState::Unreachable), 1, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_finds_a_task_waiting_makes_its_next_attempt() {
    let (fleet, folder) = (SshdFleet::same(1), tempfile::tempdir().unwrap());
    let (address, mark) = (fleet.addresses()[0], folder.path().join("mark"));
    let store = Dir::open(folder.path().join("store")).unwrap();
    let runs = Runs::new(store.clone());
    let mut job = rig::script(&format!("echo $SSHJOB_ATTEMPT >>{}; exit 3", mark.display()));
    job.retries.attempts = 3;
    job.retries.delay = Span(Duration::from_millis(1));
    job.retries.on.push(sshjob::domain::job::RetryOn::Failed);
    let started = start(&runs, rig::request(job, &[address], "one"), Clock::System.now()).await.unwrap();
    let (keys, id) = (RunKeys::new(&started.run.run), rig::target(address).instance);
    // What a worker leaves that dies while it waits.
    let last = TaskRecord { attempt: 1, ..TaskRecord::pending() };
    let waiting = last.ended(TaskState::Unreachable, "connect: connection refused", Clock::System.now()).waiting();
    let outcomes = Outcomes { owner: "dead".to_owned(), tasks: BTreeMap::from([(id.clone(), waiting)]) };
    runs.create(&keys.outcomes(0), &outcomes).await.unwrap();

    let (worker, _heard) = rig::worker(&store, &started, &fleet.login().path());
    let expires_at = Clock::System.now() + Duration::from_hours(2);
    worker.run_batch(&started.run.run, 0, expires_at, true, &Arc::new(Notify::new())).await.unwrap();
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "2\n3\n");
    let record = stored(&runs, &keys).await.remove(id.as_str()).unwrap();
    assert_eq!((record.state, record.retried, record.attempt), (TaskState::Failed, None, 3));
    // What a run took is counted from its first start, and the first attempt never got so far.
    assert_eq!(record.first_started_at, record.began_at());
    assert!(record.began_at() < record.started_at, "{record:?}");
}
