//! A detached canary: how it ends is known before anything else is started.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use super::{task, wait_for};
use crate::support::world::{World, json as document, said};

/// Starts four detached tasks, of which the first is the canary and ends with this status. Returns the hosts on which
/// one was started as well.
fn run(world: &World, status: &str) -> (Output, Vec<String>) {
    let job = format!(
        "targets: {{ tags: {{ Environment: Dev }} }}\nenv: {{ WHERE: '{}' }}\nmode: detached\nrollout: {{ canary: 1 }}\n\
         run: |\n  echo $SSHJOB_INSTANCE >>$WHERE/started\n  while [ ! -e $WHERE/go ]; do sleep 0.05; done\n  \
         exit $(cat $WHERE/go)\n",
        world.path().display()
    );
    fs::create_dir(world.path().join("jobs")).unwrap();
    fs::write(world.path().join("jobs/roll.yaml"), job).unwrap();
    let child = world.command(&["-o", "json", "run", "roll"]).spawn().unwrap();
    wait_for(&world.path().join("started"));
    fs::write(world.path().join("ready"), status).unwrap();
    fs::rename(world.path().join("ready"), world.path().join("go")).unwrap();
    let output = child.wait_with_output().unwrap();
    let started = fs::read_to_string(world.path().join("started")).unwrap();
    (output, started.lines().map(str::to_owned).collect())
}

#[test]
fn detached_canary_that_fails_keeps_the_others_from_starting() {
    let world = World::new(4);
    let (output, started) = run(&world, "3");
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let run = document(&output);
    assert_eq!((&run["state"], &run["counts"]), (&json!("failed"), &json!({"failed": 1, "skipped": 3})), "{run:#}");
    assert_eq!(started.len(), 1, "{started:?}");
    let canary = task(&run, &started[0]);
    assert_eq!((&canary["state"], &canary["exit_code"]), (&json!("failed"), &json!(3)), "{run:#}");
    assert_eq!(run["tasks"].as_array().map(Vec::len), Some(4), "each is told of once: {run:#}");
}

#[test]
fn others_start_once_a_detached_canary_has_succeeded() {
    let world = World::new(4);
    let (output, _) = run(&world, "0");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let run = document(&output);
    assert_eq!((&run["state"], &run["counts"]), (&json!("running"), &json!({"succeeded": 1, "running": 3})), "{run:#}");
    let mut states: Vec<&Value> = run["tasks"].as_array().unwrap().iter().map(|task| &task["state"]).collect();
    states.sort_by_key(ToString::to_string);
    assert_eq!(states, ["running", "running", "running", "succeeded"], "{run:#}");
    let ended = super::wait(&world);
    assert_eq!((ended.status.code(), &document(&ended)["counts"]), (Some(0), &json!({"succeeded": 4})));
}
