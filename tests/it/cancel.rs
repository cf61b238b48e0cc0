//! `sshjob cancel`: a run that another process drives is ended on its hosts.

use serde_json::json;

use crate::support::eventually::wait_for;
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
