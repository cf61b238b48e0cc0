//! `kill -9` of whoever starts a detached run, and of whoever collects it, at every store write and at random moments.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use sshjob::adapter::dir::Dir;
use sshjob::domain::job::Job;
use sshjob::domain::layout::Stream;
use sshjob::domain::task::TaskState;
use sshjob::engine::clock::Clock;
use sshjob::engine::history::RunView;
use sshjob::engine::records::Runs;
use sshjob::engine::start::Request;

use super::{age, assert_over, collect, collector, detached, only_run, output, view};
use crate::support::killer::{At, Killer, Moment};
use crate::support::rig;
use crate::support::sshd::SshdFleet;
use crate::support::world::{World, json, said};

/// What the parent tells the child that is to die.
const PLOT: &str = "SSHJOB_TEST_DETACHED_CRASH";

/// More writes than anybody makes here: the sweep ends when one survives.
const MANY: usize = 200;

/// Several pieces of each stream.
fn job(marks: &Path) -> Job {
    let mark = format!("{}/$SSHJOB_INSTANCE", marks.display());
    detached(rig::script(&format!("echo started >>{mark}\nseq 1 60000\nseq 1 50000 >&2\necho ended >>{mark}\n")))
}

/// The numbers from 1 on, a line each, as `seq` has them.
pub(super) fn lines(last: u32) -> Vec<u8> {
    (1..=last).flat_map(|n| format!("{n}\n").into_bytes()).collect()
}

/// The child: starts the run, or collects it, and is killed on the way. Does nothing when the tests are simply run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_is_killed_at_its_moment() {
    let Ok(plot) = std::env::var(PLOT) else { return };
    let mut words = plot.split(' ');
    let mut word = || words.next().unwrap();
    let (role, when, n, store, marks, login) = (word(), word(), word(), word(), word(), word());
    let addresses: Vec<SocketAddr> = word().split(',').map(|address| address.parse().unwrap()).collect();
    let at = At::Nth(n.parse().unwrap());
    let moment = if when == "before" { Moment::Before(at) } else { Moment::After(at) };
    let store = Killer::new(Dir::open(store).unwrap(), moment);
    if role == "collector" {
        let run = only_run(&store).await.unwrap();
        return collect(&store, &run, Path::new(login)).await;
    }
    let request = rig::request(job(Path::new(marks)), &addresses, marks);
    let started = sshjob::engine::start::start(&Runs::new(store.clone()), request, Clock::System.now()).await.unwrap();
    let (worker, _heard) = rig::worker(&store, &started, Path::new(login));
    sshjob::engine::drive::drive(&worker, &started).await.unwrap();
}

/// A folder with a store, and the hosts' own account of what ran.
struct Scene {
    folder: tempfile::TempDir,
    login: PathBuf,
    addresses: Vec<SocketAddr>,
}

impl Scene {
    fn new(fleet: &SshdFleet) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("marks")).unwrap();
        Self { folder, login: fleet.login().path(), addresses: fleet.addresses() }
    }

    /// A request that is no other's: all hosts here have one home.
    fn request(&self) -> Request {
        let marks = self.folder.path().join("marks");
        rig::request(job(&marks), &self.addresses, marks.to_str().unwrap())
    }

    fn store(&self) -> Dir {
        Dir::open(self.folder.path().join("store")).unwrap()
    }

    /// Starts a child that dies at its `n`-th write; returns the step, or nothing where it survived.
    fn crash(&self, role: &str, when: &str, n: usize) -> Option<String> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let path = self.folder.path().display();
        let plot =
            format!("{role} {when} {n} {path}/store {path}/marks {} {}", self.login.display(), addresses.join(","));
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "detached_run::killed::child_is_killed_at_its_moment", "--nocapture"])
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

    /// How often the script started and ended on a host, by the host's own account.
    fn marks(&self, instance: &str) -> (usize, usize) {
        let text = std::fs::read_to_string(self.folder.path().join("marks").join(instance)).unwrap_or_default();
        let of = |word: &str| text.lines().filter(|line| *line == word).count();
        (of("started"), of("ended"))
    }

    /// What `view` says is what happened, and all output is there, once.
    async fn check(&self, view: &RunView, step: &str) {
        for task in &view.tasks {
            let (id, state) = (task.target.instance.as_str(), task.record.state);
            let expected = match state {
                TaskState::Succeeded => (1, 1),
                TaskState::Lost | TaskState::Skipped => (0, 0),
                other => panic!("{step}: {id} is {other}"),
            };
            assert_eq!(self.marks(id), expected, "{step}: {id} is {state}");
            if state == TaskState::Succeeded {
                for (stream, last) in [(Stream::Out, 60_000), (Stream::Err, 50_000)] {
                    let all = output(&self.store(), &view.record, id, stream).await;
                    assert!(all == lines(last), "{step}: {id}: {} bytes of {stream:?}", all.len());
                }
                let sizes = (task.record.stdout_bytes, task.record.stderr_bytes);
                assert_eq!(sizes, (lines(60_000).len() as u64, lines(50_000).len() as u64), "{step}: {id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starter_killed_at_every_store_write_starts_once_or_never_and_the_state_says_which() {
    let fleet = SshdFleet::same(2);
    let mut steps = Vec::new();
    for n in 1..MANY {
        let crashes = ["before", "after"].map(|when| {
            let scene = Scene::new(&fleet);
            tokio::task::spawn_blocking(move || {
                let step = scene.crash("starter", when, n);
                (scene, step)
            })
        });
        let mut survived = 0;
        for crashed in crashes {
            let (scene, step) = crashed.await.unwrap();
            let told = step.as_deref().unwrap_or("not killed");
            // What is on its way comes through first: then the hosts' own account is complete.
            fleet.wait_until_idle();
            let store = scene.store();
            if let Some(run) = only_run(&store).await {
                age(&store, &run).await;
                collect(&store, &run, &scene.login).await;
                assert_over(&store, &run, told).await;
                scene.check(&view(&store, &run).await, told).await;
            } else {
                assert!(rig_marks(&scene).iter().all(|marks| *marks == (0, 0)), "{told}: started without a run");
            }
            survived += usize::from(step.is_none());
            steps.extend(step);
        }
        if survived == 2 {
            break;
        }
    }
    for kind in ["active/", "run.json", "targets.json", "plan.json", ".claim", "batches/0.json", "trust/"] {
        assert!(steps.iter().any(|step| step.contains(kind)), "{kind}: {steps:#?}");
    }
}

fn rig_marks(scene: &Scene) -> Vec<(usize, usize)> {
    scene.addresses.iter().map(|at| scene.marks(rig::target(*at).instance.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_killed_at_every_store_write_loses_and_repeats_nothing() {
    let fleet = SshdFleet::same(1);
    let mut steps = Vec::new();
    for n in 1..MANY {
        let mut survived = 0;
        for when in ["before", "after"] {
            let scene = Scene::new(&fleet);
            let store = scene.store();
            let request = scene.request();
            let done = rig::run(&store, request, fleet.login()).await.unwrap();
            assert!(done.driven.verdict.is_none());
            let run = &done.started.run;
            fleet.wait_until_idle();
            let step = {
                let scene = &scene;
                tokio::task::block_in_place(|| scene.crash("collector", when, n))
            };
            let told = step.as_deref().unwrap_or("not killed");
            // As `status` does, which also mends what is left of a finished run.
            sshjob::engine::history::refresh(&Runs::new(store.clone()), &run.run, Clock::System.now()).await.unwrap();
            if view(&store, run).await.verdict.is_none() {
                collect(&store, run, &scene.login).await;
            }
            assert_over(&store, run, told).await;
            scene.check(&view(&store, run).await, told).await;
            survived += usize::from(step.is_none());
            steps.extend(step);
        }
        if survived == 2 {
            break;
        }
    }
    for kind in ["/output/", "batches/0.json", "result.json", "active/"] {
        for when in ["before", "after"] {
            assert!(steps.iter().any(|s| s.starts_with(when) && s.contains(kind)), "{when} {kind}: {steps:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_at_the_same_time_agree() {
    let fleet = SshdFleet::same(3);
    let scene = Scene::new(&fleet);
    let store = scene.store();
    let request = scene.request();
    let run = rig::run(&store, request, fleet.login()).await.unwrap().started.run;
    let path = scene.login.clone();
    // One may ask while another has the host forget what is kept: that is a failed try of its, and no more.
    let several = (0..4).map(async |_| {
        let collector = collector(&store, &run, &path);
        while collector.look(&run).await.unwrap().running > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    futures_util::future::join_all(several).await;
    assert_over(&store, &run, "four collectors").await;
    let view = view(&store, &run).await;
    assert!(view.tasks.iter().all(|task| task.record.state == TaskState::Succeeded), "{:#?}", view.tasks);
    scene.check(&view, "four collectors").await;
    // Who comes late changes nothing.
    let late = collector(&store, &run, &path).end(&run).await.unwrap();
    assert_eq!(late.running, 0);
    assert_eq!(super::view(&store, &run).await.tasks, view.tasks);
}

/// The words of a detached run of `script` on all hosts of a world.
fn words<'a>(store: &'a str, script: &'a str) -> [&'a str; 7] {
    ["--store", store, "run", "-d", "-tEnvironment=Dev", "--", script]
}

#[test]
fn starter_killed_at_random_moments_starts_once_or_never() {
    let world = World::new(3);
    std::fs::create_dir(world.path().join("marks")).unwrap();
    let started = Instant::now();
    assert!(world.sshjob(&words("whole", "true")).status.success());
    let mut whole = started.elapsed();
    let (mut settled, mut landed, mut ends) = (0, 0, BTreeMap::<String, usize>::new());
    for round in 0.. {
        if landed == 20 {
            break;
        }
        assert!(round < 120, "{landed} of {round} kills came during a start");
        let store = format!("store-{round}");
        let marks = world.path().join("marks").join(round.to_string());
        let script = format!("echo $SSHJOB_INSTANCE >> {}; sleep 0.1; seq 1 1000", marks.display());
        let mut child = world.command(&words(&store, &script)).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(getrandom::u32().unwrap()) / f64::from(u32::MAX)));
        if child.try_wait().unwrap().is_none() {
            landed += 1;
        } else {
            // That start took less than the first.
            whole = whole.mul_f64(0.8);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        world.fleet().wait_until_idle();
        let starts = std::fs::read_to_string(&marks).unwrap_or_default();
        let dir = Dir::open(world.path().join(&store)).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let Some(run) = runtime.block_on(only_run(&dir)) else {
            assert_eq!(starts, "", "round {round}: started without a run");
            continue;
        };
        settled += 1;
        runtime.block_on(age(&dir, &run));
        let status = world.sshjob(&["--store", &store, "-o", "json", "status", "last", "--wait"]);
        let told = json(&status);
        assert!(!told["finished_at"].is_null(), "round {round}: {}", said(&status));
        for task in told["tasks"].as_array().unwrap() {
            let times = starts.lines().filter(|line| *line == task["instance"]).count();
            let expected = usize::from(task["state"] == "succeeded");
            assert_eq!(times, expected, "round {round}: {task:#}");
            *ends.entry(task["state"].as_str().unwrap().to_owned()).or_default() += 1;
            if expected == 1 {
                assert_eq!(task["stdout_bytes"], lines(1000).len(), "round {round}: {task:#}");
            }
        }
    }
    eprintln!(
        "sshjob killed at 20 random moments within {whole:.0?} of a start: {settled} runs, whose tasks are {ends:?}"
    );
    assert!(settled > 0, "no kill left a run behind");
}
