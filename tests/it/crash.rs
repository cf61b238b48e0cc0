//! `kill -9` at every store write of a run: the store stays readable, nothing unfinished claims success, and a retry
//! starts nothing twice. The hosts' own files are the witness.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sshjob::adapter::dir::Dir;
use sshjob::domain::run::RunState;
use sshjob::domain::task::TaskState;
use sshjob::engine::clock::Clock;
use sshjob::engine::history::{self, RunView};
use sshjob::engine::reconcile::reconcile;
use sshjob::engine::records::Runs;

use crate::support::key::Login;
use crate::support::killer::Killer;
use crate::support::rig;
use crate::support::sshd::SshdFleet;

/// What the parent tells the child that is to die.
const PLOT: &str = "SSHJOB_TEST_CRASH";

/// More writes than a run on three hosts makes: the sweep ends when one run survives.
const MANY: usize = 200;

/// How many crashes are under way at a time; they mostly wait.
const AT_A_TIME: usize = 4;

/// Leaves a mark on the host for each start, and one for each end.
fn job(marks: &Path) -> sshjob::domain::job::Job {
    let marks = marks.display();
    rig::script(&format!(
        "echo started >>{marks}/$SSHJOB_INSTANCE\necho output of $SSHJOB_INSTANCE\necho ended >>{marks}/$SSHJOB_INSTANCE\n"
    ))
}

/// The child: runs the job and is killed on the way. Does nothing when the tests are simply run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_is_killed_at_its_moment() {
    let Ok(plot) = std::env::var(PLOT) else { return };
    let (moment, rest) = plot.split_once(' ').unwrap();
    let (store, rest) = rest.split_once(' ').unwrap();
    let (marks, rest) = rest.split_once(' ').unwrap();
    let (login, addresses) = rest.split_once(' ').unwrap();
    let addresses: Vec<SocketAddr> = addresses.split(',').map(|address| address.parse().unwrap()).collect();
    let store = Killer::new(Dir::open(store).unwrap(), moment.parse().unwrap());
    let request = rig::request(job(Path::new(marks)), &addresses, "the request");
    let runs = Runs::new(store.clone());
    let started = sshjob::engine::start::start(&runs, request, Clock::System.now()).await.unwrap();
    let (worker, _heard) = rig::worker(&store, &started, Path::new(login));
    sshjob::engine::drive::drive(&worker, &started).await.unwrap();
}

/// Starts a child that dies at `moment`; returns the step, or nothing where it survived.
fn crash(moment: &str, store: &Path, marks: &Path, login: &Path, addresses: &[SocketAddr]) -> Option<String> {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let plot = format!("{moment} {} {} {} {}", store.display(), marks.display(), login.display(), addresses.join(","));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_is_killed_at_its_moment", "--nocapture"])
        .env(PLOT, plot)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.success() {
        return None;
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), Some(9), "{stderr}");
    stderr.lines().find_map(|line| line.strip_prefix("killed ")).map(str::to_owned)
}

/// How often the script started and ended on each host, by the host's own account.
fn marks(folder: &Path, addresses: &[SocketAddr]) -> BTreeMap<String, (usize, usize)> {
    let count = |instance: &str| {
        let text = std::fs::read_to_string(folder.join(instance)).unwrap_or_default();
        let of = |word: &str| text.lines().filter(|line| *line == word).count();
        (of("started"), of("ended"))
    };
    addresses.iter().map(|at| rig::target(*at).instance.to_string()).map(|id| (id.clone(), count(&id))).collect()
}

async fn settle(store: &Dir) -> Option<RunView> {
    let runs = Runs::new(store.clone());
    let ids = history::ids(&runs, None).await.unwrap();
    assert!(ids.len() <= 1, "one request is one run: {ids:?}");
    let record = runs.run(ids.first()?).await.unwrap()?;
    reconcile(&runs, &record, Clock::System.now()).await.unwrap();
    history::load(&runs, &record.run).await.unwrap()
}

async fn check(step: &str, store: &Path, folder: &Path, login: &Login, addresses: &[SocketAddr]) {
    let store = Dir::open(store).unwrap();
    let view = settle(&store).await;
    let before = marks(folder, addresses);
    let mut again = addresses.to_vec();
    let mut lost = Vec::new();
    if let Some(view) = view.filter(|view| view.plan.as_ref().is_some_and(|plan| plan.total() > 0)) {
        assert!(view.state().is_final(), "{step}: a dead run is settled");
        let mut all_succeeded = true;
        for task in &view.tasks {
            let id = task.target.instance.to_string();
            let (started, ended) = before[&id];
            assert!(task.record.state.is_final(), "{step}: {id} is {}", task.record.state);
            match task.record.state {
                TaskState::Succeeded => assert_eq!((started, ended), (1, 1), "{step}: {id} claims success"),
                TaskState::Lost => lost.push(id),
                TaskState::Skipped => assert_eq!(started, 0, "{step}: {id} is said not to have started"),
                other => panic!("{step}: {id} is {other}"),
            }
            all_succeeded &= task.record.state == TaskState::Succeeded;
        }
        assert_eq!(view.state() == RunState::Succeeded, all_succeeded, "{step}");
        again.retain(|at| {
            let id = rig::target(*at).instance;
            view.tasks.iter().any(|task| task.target.instance == id && task.record.state.is_retried())
        });
    } else {
        assert!(before.values().all(|(started, _)| *started == 0), "{step}: started without a plan");
    }
    if !again.is_empty() {
        let done = rig::run(&store, rig::request(job(folder), &again, "again"), login).await.unwrap();
        assert_eq!(done.driven.verdict.as_ref().unwrap().state, RunState::Succeeded, "{step}");
    }
    for (id, (started, _)) in marks(folder, addresses) {
        let expected = if lost.contains(&id) { 0..=1 } else { 1..=1 };
        assert!(expected.contains(&started), "{step}: {id} started {started} times");
    }
}

/// Dies at each of `moments` and sees that nothing lies afterwards; returns the steps at which runs died.
async fn sweep(moments: &[String], fleet: &SshdFleet) -> Vec<String> {
    let addresses = fleet.addresses();
    let crashes: Vec<_> = moments
        .iter()
        .map(|moment| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("marks")).unwrap();
            let (moment, login, addresses) = (moment.clone(), fleet.login().path(), addresses.clone());
            tokio::task::spawn_blocking(move || {
                let (store, marks) = (folder.path().join("store"), folder.path().join("marks"));
                let step = crash(&moment, &store, &marks, &login, &addresses);
                (folder, step)
            })
        })
        .collect();
    let mut steps = Vec::new();
    for crashed in crashes {
        let (folder, step) = crashed.await.unwrap();
        let (store, marks) = (folder.path().join("store"), folder.path().join("marks"));
        check(step.as_deref().unwrap_or("not killed"), &store, &marks, fleet.login(), &addresses).await;
        steps.extend(step);
    }
    steps
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_store_write_nothing_lies_and_nothing_starts_twice() {
    let fleet = SshdFleet::same(3);
    for n in (1..MANY).step_by(AT_A_TIME / 2) {
        let moments: Vec<String> =
            (n..n + AT_A_TIME / 2).flat_map(|n| [format!("before:{n}"), format!("after:{n}")]).collect();
        if sweep(&moments, &fleet).await.is_empty() {
            break;
        }
    }
}

/// The writes of two runs differ in number and order, so a sweep that counts them may miss a kind.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_kind_of_write_nothing_lies_and_nothing_starts_twice() {
    let fleet = SshdFleet::same(3);
    let kinds = [
        "state/requests/",
        "blobs/",
        "active/",
        "run.json",
        "targets.json",
        "plan.json",
        ".claim",
        "trust/",
        "batches/0.json",
        "/output/",
        "result.json",
    ];
    let moments: Vec<String> =
        kinds.iter().flat_map(|kind| ["before", "after"].map(|w| format!("{w}:{kind}"))).collect();
    for moments in moments.chunks(AT_A_TIME) {
        let steps = sweep(moments, &fleet).await;
        assert_eq!(steps.len(), moments.len(), "{moments:?}: {steps:#?}");
    }
}
