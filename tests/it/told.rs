//! What people hear of real runs: their start while they go on, and their end once, however late it is written down and
//! however long nobody listens.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::clock::FastClock;
use crate::support::eventually::{eventually, wait_for};
use crate::support::hook::{Answer, Hook};
use crate::support::scheduler::{Scheduler, write_job};
use crate::support::world::{World, said};

/// The addresses that a ping of a run which has ended `so` asks for, by what was asked first.
fn ping(first: &str, so: &str) -> [String; 2] {
    let (_, rid) = first.split_once("/start?rid=").unwrap_or_else(|| panic!("no start: {first}"));
    assert_eq!(rid.len(), 36, "{rid}");
    [format!("/check/start?rid={rid}"), format!("/check{so}?rid={rid}")]
}

#[test]
fn run_pings_when_it_starts_and_when_it_ends_by_one_run_id() {
    let (world, hook) = (World::new(1), Hook::start(Answer::ok()));
    let script = "touch $WHERE/begun\nuntil [ -e $WHERE/go ]; do sleep 0.05; done\nexit $(cat $WHERE/go)";
    write_job(&world, "slow", script, &format!("timeout: 10m\nnotify: {{ ping: \"{}\" }}\n", hook.url("/check")));
    let mut ids = BTreeSet::new();
    for (status, so) in [("0", ""), ("3", "/fail")] {
        let before = hook.paths().len();
        let mut run = Scheduler::start(world.command(&["--store", "store", "run", "slow"]));
        wait_for(&world.path().join("begun"));
        // It cannot end before it is told that it may.
        eventually("the ping of its start", || hook.paths().len() == before + 1);
        fs::write(world.path().join("go"), status).unwrap();
        run.end();
        let pings = hook.paths()[before..].to_vec();
        assert_eq!(pings, ping(&pings[0], so), "{:?}", run.err());
        ids.insert(pings);
        fs::remove_file(world.path().join("go")).unwrap();
        fs::remove_file(world.path().join("begun")).unwrap();
    }
    assert_eq!(ids.len(), 2);
}

#[test]
fn scheduler_pings_when_a_run_starts_and_when_it_ends_by_one_run_id() {
    let (world, hook) = (World::new(1), Hook::start(Answer::ok()));
    let script = "until [ -e $WHERE/go ]; do sleep 0.05; done";
    write_job(&world, "slow", script, &format!("timeout: 10m\nnotify: {{ ping: \"{}\" }}\n", hook.url("/check")));
    let mut command = world.command(&["--store", "store", "up"]);
    FastClock::new(60).rule(&mut command);
    let mut up = Scheduler::start(command);
    eventually("the ping of a start", || hook.paths().len() == 1);
    fs::remove_file(world.path().join("jobs/slow.yaml")).unwrap();
    up.complaint("the removal", |line| line.contains("is gone"));
    fs::write(world.path().join("go"), "").unwrap();
    eventually("the ping of its end", || hook.paths().len() == 2);
    assert_eq!(up.terminate().code(), Some(0), "{:?}", up.err());
    let pings = hook.paths();
    assert_eq!(pings, ping(&pings[0], ""), "{:?}", up.err());
}

#[test]
fn scheduler_tells_of_every_run_when_the_server_is_back() {
    let (world, hook) = (World::new(1), Hook::start(Answer::Status("503 Busy", "later".to_owned())));
    let rule = format!("overlap: allow\nnotify: {{ on: failure, webhook: \"{}\" }}\n", hook.url("/T0/secret"));
    write_job(&world, "wrong", "exit 3", &rule);
    let mut command = world.command(&["--store", "store", "up"]);
    FastClock::new(60).rule(&mut command);
    let mut up = Scheduler::start(command);
    let failed = |up: &Scheduler| up.out().iter().filter(|line| line.contains("  failed ")).count();
    eventually("some runs that fail", || failed(&up) >= 5);
    let told = up.complaint("that nobody is told", |line| line.starts_with("warning: telling of wrong-"));
    assert!(told.ends_with(" by `webhook`: status 503: later; `sshjob up` tries again"), "{told}");
    fs::remove_file(world.path().join("jobs/wrong.yaml")).unwrap();
    up.complaint("the removal", |line| line.contains("is gone"));
    let waiting = || fs::read_dir(world.path().join("store/outbox")).map_or(0, Iterator::count);
    eventually("that nothing but messages is left", || {
        let fired = up.out().iter().filter(|line| line.contains("  fired ")).count();
        fired == failed(&up) && waiting() >= fired
    });
    hook.answer(Answer::ok());
    eventually("that all are told", || waiting() == 0);
    assert_eq!(up.terminate().code(), Some(0), "{:?}", up.err());
    let document = |body: &str| serde_json::from_str::<Value>(body).unwrap()["run"].as_str().unwrap().to_owned();
    let heard: BTreeSet<String> = hook.received().iter().map(|received| document(&received.body)).collect();
    assert_eq!(heard.len(), failed(&up), "{}", said(&world.sshjob(&["--store", "store", "runs"])));
}

#[cfg(not(feature = "aws"))]
#[test]
fn job_that_names_a_topic_is_refused_before_anything_runs_where_there_is_no_aws() {
    let world = World::new(1);
    let rule = "notify: { on: failure, sns: \"arn:aws:sns:eu-central-1:123456789012:ops\" }\n";
    write_job(&world, "topical", "touch $WHERE/ran", rule);
    let refusal = "error: job `topical`: `notify.sns`: this sshjob was built without AWS, and reaches no SNS topic\n\
                   hint: build it with its default features, or tell people by `webhook`, `slack` or `email`\n";
    for words in [&["run", "topical"][..], &["up", "--once"]] {
        let output = world.sshjob(&[&["--store", "store"], words].concat());
        assert_eq!((output.status.code(), output.stderr), (Some(2), refusal.as_bytes().to_vec()), "{words:?}");
    }
    assert!(!world.path().join("ran").exists() && !world.path().join("store/runs").exists());
}
