//! `sshjob cancel`: a run that another process drives is ended on its hosts.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sshjob::domain::job::Mode;
use sshjob::domain::quantity::Span;
use sshjob::domain::run::Outcomes;
use sshjob::domain::task::TaskState;
use sshjob::engine::clock::Clock;
use sshjob::engine::drive::drive;
use sshjob::engine::event::Event;
use sshjob::engine::gate::Stop;
use sshjob::engine::records::Runs;
use sshjob::engine::start::start;
use tokio::sync::mpsc;

use crate::support::eventually::wait_for;
use crate::support::memory::Memory;
use crate::support::rig;
use crate::support::sshd::SshdFleet;
use crate::support::world::{World, json, said};

#[test]
fn run_that_another_process_drives_is_ended_and_shown() {
    let world = World::new(2);
    let script = "trap 'touch ended; exit' TERM; cd $WHERE; touch begun; while :; do sleep 0.1; done";
    let place = format!("WHERE={}", world.path().display());
    let words = ["run", "-f", "1", "-e", &place, "-t", "Environment=Dev", "--", script];
    let driver = world.command(&words).spawn().unwrap();
    wait_for(&world.path().join("begun"));
    let cancelled = world.sshjob(&["-o", "json", "cancel", "last"]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    let run = json(&cancelled);
    assert_eq!((&run["state"], &run["counts"]), (&json!("cancelled"), &json!({"cancelled": 2})), "{run:#}");
    wait_for(&world.path().join("ended"));
    let output = driver.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let again = world.sshjob(&["cancel", "last"]);
    assert_eq!(again.status.code(), Some(0));
    let told = String::from_utf8_lossy(&again.stderr);
    assert!(told.starts_with("run `adhoc-") && told.ends_with("is over already: cancelled\n"), "{told}");
}

/// Cause: whoever closed their terminal left a run of which nobody knew what became.
#[test]
fn run_whose_terminal_is_closed_is_cancelled_unless_it_is_to_outlive_it() {
    for is_immune in [false, true] {
        let world = World::new(1);
        let place = format!("WHERE={}", world.path().display());
        let script = "cd $WHERE; touch begun; while [ ! -e go ]; do sleep 0.1; done";
        let words = ["run", "-e", &place, "-t", "Environment=Dev", "--", script];
        let mut command = world.command(&words);
        let mut driver = if is_immune { below("nohup", &command) } else { command.spawn().unwrap() };
        wait_for(&world.path().join("begun"));
        kill_process(Pid::from_child(&driver), Signal::HUP).unwrap();
        if is_immune {
            assert!(driver.try_wait().unwrap().is_none());
            std::fs::write(world.path().join("go"), "").unwrap();
        }
        let code = driver.wait().unwrap().code();
        let state = json(&world.sshjob(&["-o", "json", "status"]))["state"].clone();
        let expected = if is_immune { (Some(0), json!("succeeded")) } else { (Some(130), json!("cancelled")) };
        assert_eq!((code, state), expected);
    }
}

/// Starts `command` by another program, which takes its place.
fn below(program: &str, command: &Command) -> Child {
    let mut other = Command::new(program);
    other.arg(command.get_program()).args(command.get_args()).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.current_dir(command.get_current_dir().unwrap());
    other.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn run_whose_driver_is_dead_is_settled_and_shown() {
    let world = World::new(2);
    let place = format!("WHERE={}", world.path().display());
    let script = "cd $WHERE; touch begun; while :; do sleep 0.1; done";
    let mut driver =
        world.command(&["run", "-f", "1", "-e", &place, "-t", "Environment=Dev", "--", script]).spawn().unwrap();
    wait_for(&world.path().join("begun"));
    driver.kill().unwrap();
    driver.wait().unwrap();
    let cancelled = world.sshjob(&["-o", "json", "cancel", "last"]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    let run = json(&cancelled);
    assert_eq!((&run["state"], &run["counts"]), (&json!("failed"), &json!({"skipped": 1, "lost": 1})), "{run:#}");
    let told = String::from_utf8_lossy(&cancelled.stderr);
    assert!(told.ends_with("is over already: failed\n"), "{told}");
}

/// Cause: of a host that had not been asked for anything the end of it was awaited, for 15 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_after_the_intent_and_before_the_delivery_asks_the_host_for_nothing_and_waits_for_nothing() {
    for mode in [Mode::Attached, Mode::Detached { unit: false, keep: Span(Duration::from_hours(1)) }] {
        let (fleet, store, folder) = (SshdFleet::same(1), Memory::default(), tempfile::tempdir().unwrap());
        let mut job = rig::script(&format!("touch {}/begun", folder.path().display()));
        job.mode = mode.clone();
        let runs = Runs::new(store.clone());
        let request = rig::request(job, &fleet.addresses(), "one");
        let started = start(&runs, request, Clock::System.now()).await.unwrap();
        let (mut worker, _) = rig::worker(&store, &started, &fleet.login().path());
        // There is room for the first event, and none for that of the start, before the delivery.
        let (events, mut heard) = mpsc::channel(1);
        worker.events = events;
        let gate = worker.gate.clone();
        let (driving, run) = (started.clone(), started.run.run.clone());
        let driven = tokio::spawn(async move { drive(&worker, &driving).await });
        let intent = async {
            loop {
                let outcomes = runs.outcomes(&run, 0).await.unwrap().map(|(outcomes, _): (Outcomes, _)| outcomes.tasks);
                if outcomes.is_some_and(|tasks| tasks.values().any(|task| task.state == TaskState::Running)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), intent).await.expect("the intent is written");
        gate.end(Stop::Cancelled);
        let begun = Instant::now();
        let mut ended = None;
        while let Some(event) = heard.recv().await {
            if let Event::TaskFinished { record, .. } = event {
                ended = Some((record.state, record.reason));
            }
        }
        let reason = "cancelled before it started".to_owned();
        assert_eq!(ended, Some((TaskState::Cancelled, Some(reason))), "{mode:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{mode:?}: {:?}", begun.elapsed());
        driven.await.unwrap().unwrap();
        assert!(!folder.path().join("begun").exists(), "{mode:?}");
    }
}
