//! What a dead process left behind is settled, whoever dies while settling it, and a driver that lost its lease
//! leaves it alone.

use std::time::Duration;

use jiff::Timestamp;
use sshjob::adapter::dir::Dir;
use sshjob::domain::layout::{self, RunKeys};
use sshjob::domain::run::{Active, Claim, Outcomes, RunState};
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::Clock;
use sshjob::engine::drive::drive;
use sshjob::engine::gate::Stop;
use sshjob::engine::ledger::Ledger;
use sshjob::engine::reconcile::{Settled, reconcile};
use sshjob::engine::records::Runs;
use sshjob::engine::start::{Started, start};
use sshjob::engine::worker::WorkError;
use sshjob::port::{Store as _, Written};

use crate::support::eventually::wait_for;
use crate::support::key::Login;
use crate::support::memory::{Fault, Memory};
use crate::support::rig;
use crate::support::world::{World, json, said};

/// More writes than settling a run of one batch makes.
const MANY: usize = 20;

/// Long after every lease has lapsed.
fn later() -> Timestamp {
    Clock::System.now() + Duration::from_hours(1)
}

async fn planned(store: &Memory) -> Started {
    let addresses = ["127.0.0.1:1", "127.0.0.1:2"].map(|at| at.parse().unwrap());
    let request = rig::request(rig::script("true"), &addresses, "one");
    start(&Runs::new(store.clone()), request, Clock::System.now()).await.unwrap()
}

/// A worker has claimed the only batch, has started its first task, and is never heard of again.
async fn abandoned(store: &Memory) -> Started {
    let started = planned(store).await;
    let (runs, keys) = (Runs::new(store.clone()), RunKeys::new(&started.run.run));
    let claim = Claim { nonce: "first".to_owned(), expires_at: Clock::System.now(), holder: None, turn: 0 };
    let record = TaskRecord { state: TaskState::Running, attempt: 1, ..TaskRecord::pending() };
    let first = rig::target("127.0.0.1:1".parse().unwrap()).instance;
    let outcomes = Outcomes { owner: "first".to_owned(), tasks: [(first, record)].into() };
    assert!(matches!(runs.create(&keys.claim(0), &claim).await.unwrap(), Written::Done(_)));
    assert!(matches!(runs.create(&keys.outcomes(0), &outcomes).await.unwrap(), Written::Done(_)));
    started
}

/// The verdict that a look from another machine brings.
async fn settled(store: &Memory, started: &Started) -> Vec<(TaskState, u32)> {
    let Settled::Finished(verdict) = reconcile(&Runs::new(store.reboot()), &started.run, later()).await.unwrap() else {
        panic!("nobody drives it");
    };
    assert_eq!(verdict.state, RunState::Failed);
    verdict.counts.iter().collect()
}

/// Cause: a reconciler that died between taking the claim and writing the outcomes left an owner that was neither
/// itself nor the holder before it, and every later look took that for a living rival.
#[tokio::test]
async fn reconciler_that_dies_at_any_write_is_followed_by_another() {
    let mut survived = false;
    for n in 1..MANY {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            let store = Memory::default();
            let started = abandoned(&store).await;
            let dying = store.reboot().with_fault(n, fault);
            let runs = Runs::new(dying.clone());
            tokio::select! {
                done = reconcile(&runs, &started.run, later()) => survived = done.is_ok(),
                () = dying.crashed() => {}
            }
            let counts = settled(&store, &started).await;
            assert_eq!(counts, [(TaskState::Lost, 1), (TaskState::Skipped, 1)], "{fault:?} {n}");
        }
        if survived {
            return;
        }
    }
    panic!("settling makes {MANY} writes or more");
}

/// Cause: a run settled before it was planned could be planned and started afterwards by a process that had been
/// stopped meanwhile.
#[tokio::test]
async fn planner_that_comes_after_the_verdict_finds_nothing_to_run() {
    let store = Memory::default();
    let started = planned(&store).await;
    store.remove(&RunKeys::new(&started.run.run).plan()).await.unwrap();
    assert_eq!(settled(&store, &started).await, []);
    let again = planned(&store.reboot()).await;
    assert_eq!((again.run.run.clone(), again.plan.total()), (started.run.run.clone(), 0));
}

/// Cause: a driver whose lease was taken closed the batches of the one that had taken it.
#[tokio::test(flavor = "multi_thread")]
async fn driver_that_lost_its_lease_leaves_the_batches_to_its_successor() {
    let store = Memory::default();
    let started = planned(&store).await;
    let (runs, key) = (Runs::new(store.clone()), layout::active(&started.run.run));
    let (_, version) = runs.active(&started.run.run).await.unwrap().unwrap();
    let successor = Claim { nonce: "successor".to_owned(), expires_at: later(), holder: None, turn: 0 };
    let taken = runs.swap(&key, &version, &Active { driver: Some(successor), wave: None }).await.unwrap();
    assert!(matches!(taken, Written::Done(_)));
    let login = Login::fresh();
    let (worker, _heard) = rig::worker(&store, &started, &login.path());
    // Nothing is let through the gate, so that nothing fails on the way to the end.
    worker.gate.close(Stop::Canary);
    assert!(matches!(drive(&worker, &started).await, Err(WorkError::Fenced)));
    assert!(runs.verdict(&started.run.run).await.unwrap().is_none());
    assert!(runs.claim(&started.run.run, 0).await.unwrap().is_none(), "the batch is left alone");
}

/// Cause: as above, for a worker that takes a batch over.
#[tokio::test]
async fn worker_takes_over_from_one_that_died_before_its_first_record() {
    let store = Memory::default();
    let started = abandoned(&store).await;
    let (runs, key) = (Runs::new(store.clone()), RunKeys::new(&started.run.run).claim(0));
    for nonce in ["second", "third"] {
        let (_, version) = runs.read::<Claim>(&key).await.unwrap().unwrap();
        let claim = Claim { nonce: nonce.to_owned(), expires_at: later(), holder: None, turn: 0 };
        assert!(matches!(runs.swap(&key, &version, &claim).await.unwrap(), Written::Done(_)));
    }
    assert!(Ledger::open(runs.clone(), &started.run.run, 0, 1, "second").await.is_err(), "its claim was taken");
    let (_, known) = Ledger::open(runs, &started.run.run, 0, 1, "third").await.unwrap();
    assert_eq!(known.len(), 1);
}

/// The commands that list runs look at no more of them than this.
const SETTLED_AT_MOST: usize = 100;

#[tokio::test]
async fn runs_whose_drivers_are_dead_are_settled_by_who_lists_them_a_hundred_at_a_time() {
    let world = World::new(0);
    let runs = Runs::new(Dir::open(world.path().join("store")).unwrap());
    let begun: Timestamp = "2026-11-23T05:00:00Z".parse().unwrap();
    for n in 0..SETTLED_AT_MOST + 2 {
        let request = rig::request(rig::script("true"), &["127.0.0.1:1".parse().unwrap()], &n.to_string());
        let started = start(&runs, request, begun + Duration::from_secs(n as u64)).await.unwrap();
        // Of whose process nothing is known any more.
        let (Active { driver, wave }, version) = runs.active(&started.run.run).await.unwrap().unwrap();
        let driver = driver.map(|driver| Claim { holder: None, ..driver });
        runs.swap(&layout::active(&started.run.run), &version, &Active { driver, wave }).await.unwrap();
    }
    let list = || {
        let listed = json(&world.sshjob(&["--store", "store", "-o", "json", "runs", "-n", "1000"]));
        let states = listed["runs"].as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap().to_owned());
        states.collect::<Vec<_>>()
    };
    let first = list();
    // The newest come first.
    assert!(first[..SETTLED_AT_MOST].iter().all(|state| state == "failed"), "{first:?}");
    assert_eq!(first[SETTLED_AT_MOST..], ["running", "running"]);
    assert!(list().iter().all(|state| state == "failed"));
    assert_eq!(runs.store().list("active/", None, 1000).await.unwrap(), []);
}

/// Cause: whoever waited was told twice a second.
#[test]
fn what_cannot_be_settled_is_told_once() {
    let world = World::new(1);
    let started = world.path().join("started");
    let script = format!("touch {}; sleep 600", started.display());
    let mut driver = world.command(&["run", "--id", "one", "-t", "Environment=Dev", "--", &script]).spawn().unwrap();
    wait_for(&started);
    driver.kill().unwrap();
    driver.wait().unwrap();
    let runs = world.path().join(".local/state/sshjob/runs/adhoc");
    let run = std::fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    // Nobody can take the claim of what died.
    let claim = run.join("batches/0.claim");
    std::fs::remove_file(&claim).unwrap();
    std::fs::create_dir(&claim).unwrap();
    let output = world.sshjob(&["status", "last"]);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(warned.matches("warning: cannot settle what is left of `adhoc-").count(), 1, "{warned}");
}
