//! Detached runs on real sshd hosts: started, left alone, looked at, followed and ended, by whoever has the store.

mod canary;
mod ends;
mod flood;
mod followed;
mod full;
mod interrupted;
mod killed;
mod overdue;
mod restarted;
mod steps;
mod through_sudo;
mod together;
mod unconfirmed;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use sshjob::adapter::dir::Dir;
use sshjob::adapter::ssh::{Connector, Identity, Keyring};
use sshjob::domain::job::{Job, Mode};
use sshjob::domain::layout::{self, RunKeys, Stream};
use sshjob::domain::quantity::Span;
use sshjob::domain::run::RunRecord;
use sshjob::domain::task::TaskState;
use sshjob::engine::access::Access;
use sshjob::engine::clock::Clock;
use sshjob::engine::collect::{Collector, Round};
use sshjob::engine::history::{self, RunView};
use sshjob::engine::pieces::{Piece, Pieces};
use sshjob::engine::records::Runs;
use sshjob::port::{Store, Written};

use crate::support::rig;
use crate::support::world::{World, json, said};

/// Starts `script` on all hosts of a world, and returns at once.
fn start(world: &World, words: &[&str], script: &str) -> Value {
    let place = format!("WHERE={}", world.path().display());
    let run = [&["-o", "json", "run", "-d", "-e", &place, "-t", "Environment=Dev"], words, &["--", script]].concat();
    let output = world.sshjob(&run);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    json(&output)
}

/// Waits until the last run of a world has ended, in a process of its own.
fn wait(world: &World) -> Output {
    world.sshjob(&["-o", "json", "status", "last", "--wait"])
}

/// The task on `host`.
fn task<'a>(run: &'a Value, host: &str) -> &'a Value {
    let tasks = run["tasks"].as_array().unwrap();
    tasks.iter().find(|task| task["instance"] == host).unwrap_or_else(|| panic!("no {host}: {run:#}"))
}

/// The directory of the first attempt of `run` on `host`.
fn directory(world: &World, run: &Value, host: &str) -> PathBuf {
    owned(&world.fleet().home_of_first(), run, host)
}

/// The same below any home.
fn owned(home: &Path, run: &Value, host: &str) -> PathBuf {
    let attempt = home.join(".sshjob").join(run["run"].as_str().unwrap()).join(host).join("1");
    let owner = std::fs::read_to_string(attempt.join("owner")).unwrap();
    attempt.join(owner.trim_end())
}

/// The number in the `n`-th word of a file.
fn number(path: &Path, n: usize) -> i32 {
    let text = std::fs::read_to_string(path).unwrap();
    text.split(' ').nth(n).unwrap().parse().unwrap()
}

/// Kills the supervisor of the attempt in `directory`.
fn kill_supervisor(directory: &Path) {
    let pid = number(&directory.join("self"), 1);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Kills the program of the attempt in `directory`, and all of its group.
fn kill_group(directory: &Path) {
    let pid = number(&directory.join("leader"), 0);
    kill_process_group(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Waits until there is such a file. The deadline is only there to fail at last.
#[track_caller]
fn wait_for(path: &Path) {
    crate::support::eventually::wait_for(path);
}

/// The same job, to outlive its channel.
pub(super) fn detached(mut job: Job) -> Job {
    job.mode = Mode::Detached { unit: false, keep: Span(Duration::from_hours(1)) };
    job
}

/// A collector as another process has it.
fn collector<S: Store>(store: &S, run: &RunRecord, login: &Path) -> Collector<S> {
    let key = sshjob::adapter::ssh::key::load(login, None).unwrap();
    let access = Access {
        connector: Connector::default(),
        keyring: Keyring::new([Identity::from(key)].into_iter().collect()),
        trust: rig::trust(store, &run.job),
        clock: Clock::System,
    };
    Collector { runs: Runs::new(store.clone()), access, clock: Clock::System }
}

/// Looks until nothing runs any more.
async fn collect<S: Store>(store: &S, run: &RunRecord, login: &Path) {
    let collector = collector(store, run, login);
    let looking = async {
        loop {
            let Round { running, troubles, .. } = collector.look(run).await.unwrap();
            assert!(troubles.is_empty(), "{troubles:?}");
            if running == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), looking).await.expect("nothing runs any more");
}

/// The only run in `store`, where it got so far.
async fn only_run<S: Store>(store: &S) -> Option<RunRecord> {
    let runs = Runs::new(store.clone());
    let ids = history::ids(&runs, None).await.unwrap();
    assert!(ids.len() <= 1, "one request is one run: {ids:?}");
    runs.run(ids.first()?).await.unwrap()
}

/// How `run` stands.
async fn view<S: Store>(store: &S, run: &RunRecord) -> RunView {
    history::load(&Runs::new(store.clone()), &run.run).await.unwrap().unwrap()
}

/// Lets an hour pass for what has started and was never confirmed, or should have ended.
async fn age<S: Store>(store: &S, run: &RunRecord) {
    let (runs, key) = (Runs::new(store.clone()), RunKeys::new(&run.run).outcomes(0));
    let Some((mut outcomes, version)) = runs.outcomes(&run.run, 0).await.unwrap() else { return };
    for record in outcomes.tasks.values_mut().filter(|it| it.state == TaskState::Running) {
        for at in [&mut record.started_at, &mut record.overdue_since] {
            *at = at.map(|at| at - Duration::from_hours(1));
        }
    }
    assert!(matches!(runs.swap(&key, &version, &outcomes).await.unwrap(), Written::Done(_)));
}

/// All of the output of the first attempt on `instance`, with no gap.
async fn output<S: Store>(store: &S, run: &RunRecord, instance: &str, stream: Stream) -> Vec<u8> {
    let (runs, instance) = (Runs::new(store.clone()), instance.parse().unwrap());
    let mut pieces = Pieces::new(&runs, &run.run, &instance, 1, stream);
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        let Piece::Bytes { bytes, .. } = piece else { panic!("{piece:?}") };
        all.extend(bytes);
    }
    all
}

/// Asserts that `run` is finished, and no longer marked as active.
async fn assert_over(store: &Dir, run: &RunRecord, step: &str) {
    assert!(view(store, run).await.verdict.is_some(), "{step}: no verdict");
    assert!(store.get(&layout::active(&run.run)).await.unwrap().is_none(), "{step}: still active");
}
