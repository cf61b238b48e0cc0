//! `sshjob up`: what is due fires, is carried to its end and told, whatever happens to the scheduler and its files.

mod files;
mod going;

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::schema;
use crate::support::clock::{self, FastClock};
use crate::support::eventually::{eventually, wait_for};
use crate::support::scheduler::{Scheduler, is_alive, marks, pid_in, run_of, write_job};
use crate::support::world::{World, json, ndjson, said};

/// `sshjob up` with these words on the store of `world`, yet to be started.
fn up(world: &World, words: &[&str]) -> Command {
    world.command(&[&["--store", "store", "up"], words].concat())
}

/// Starts `sshjob up` by a clock that brings a minute every second.
fn start(world: &World, clock: FastClock, words: &[&str]) -> Scheduler {
    let mut command = up(world, words);
    clock.rule(&mut command);
    Scheduler::start(command)
}

/// Has the store say that everything was decided up to this time.
fn ticked(world: &World, at: &str) {
    let folder = world.path().join("store/state");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("cursor.json"), json!({ "ticked": at, "known": ["hello", "wrong"] }).to_string()).unwrap();
}

/// What `up --once` says at this time, and how it ends.
fn once_at(world: &World, time: &str, words: &[&str]) -> std::process::Output {
    let mut command = up(world, &[&["--once"], words].concat());
    clock::at(&mut command, time);
    command.output().unwrap()
}

#[test]
fn once_fires_what_is_due_and_exits_as_it_ended() {
    let world = World::new(2);
    write_job(&world, "hello", "echo $SSHJOB_INSTANCE $SSHJOB_SCHEDULED_FOR >> $WHERE/marks", "");
    ticked(&world, "2026-11-23T04:59:30Z");
    let fired = once_at(&world, "2026-11-23 05:00:30", &["-o", "ndjson"]);
    assert_eq!(fired.status.code(), Some(0), "{}", said(&fired));
    let events = ndjson(&fired);
    for event in &events {
        schema::assert_valid("event", event);
    }
    let told: Vec<_> = events.iter().map(|event| (&event["event"], &event["run"])).collect();
    let run = json!("hello-20261123T050000Z");
    let names = ["run_fired", "run_started", "run_finished"].map(|name| json!(name));
    assert_eq!(told, names.iter().map(|name| (name, &run)).collect::<Vec<_>>());
    assert_eq!(events[2]["counts"], json!({"succeeded": 2}));
    assert_eq!(events[2]["scheduled_for"], "2026-11-23T05:00:00Z");
    let mut hosts = marks(&world.path().join("marks"));
    hosts.sort();
    assert_eq!(hosts, ["host-0 2026-11-23T05:00:00Z", "host-1 2026-11-23T05:00:00Z"]);

    let idle = once_at(&world, "2026-11-23 05:00:45", &[]);
    assert_eq!((idle.status.code(), idle.stdout.as_slice()), (Some(0), &b""[..]), "{}", said(&idle));

    // What has fired waits for its inventory, and that is not well.
    let (hosts, away) = (world.path().join("hosts.yaml"), world.path().join("away"));
    fs::rename(&hosts, &away).unwrap();
    let unknown = once_at(&world, "2026-11-23 05:01:01", &[]);
    assert_eq!(unknown.status.code(), Some(7), "{}", said(&unknown));
    fs::rename(away, hosts).unwrap();
    let made_up = once_at(&world, "2026-11-23 05:01:31", &[]);
    assert_eq!(made_up.status.code(), Some(0), "{}", said(&made_up));

    write_job(&world, "hello", "exit 3", "");
    let failed = once_at(&world, "2026-11-23 05:02:01", &[]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    let text = String::from_utf8_lossy(&failed.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].ends_with("Z  fired      hello-20261123T050200Z"), "{text}");
    assert!(lines[1].contains("Z  failed     hello-20261123T050200Z  2 failed of 2 hosts in "), "{text}");
}

#[test]
fn once_with_a_broken_job_fires_the_others_and_exits_so() {
    let world = World::new(1);
    write_job(&world, "hello", "true", "");
    write_job(&world, "wrong", "true", "sudoo: true\n");
    ticked(&world, "2026-11-23T04:59:30Z");
    let output = once_at(&world, "2026-11-23 05:00:30", &["-o", "json"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let runs = json(&output);
    schema::assert_valid("runs", &runs);
    assert_eq!((&runs["runs"][0]["run"], &runs["runs"][1]), (&json!("hello-20261123T050000Z"), &json!(null)));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("unknown key `sudoo`") && told.contains("--> jobs/wrong.yaml:"), "{told}");
}

#[test]
fn clock_that_was_set_back_is_told_until_when_nothing_fires() {
    let world = World::new(1);
    write_job(&world, "hello", "true", "");
    ticked(&world, "2026-11-23T08:00:00Z");
    let output = once_at(&world, "2026-11-23 05:00:30", &[]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b""[..]), "{}", said(&output));
    let told = "warning: the clock was set back, or another scheduler's is ahead: nothing fires until \
                2026-11-23T08:00:00Z\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), told);
}

#[test]
fn cursor_that_is_damaged_is_told_again_and_again() {
    let world = World::new(1);
    write_job(&world, "hello", "true", "");
    fs::create_dir_all(world.path().join("store/state")).unwrap();
    fs::write(world.path().join("store/state/cursor.json"), "garbage").unwrap();
    // Ten minutes are four seconds.
    let mut scheduler = start(&world, FastClock::new(150), &[]);
    let is_it = |line: &String| line.starts_with("warning: the store: `state/cursor.json` is damaged: ");
    eventually("two warnings", || scheduler.err().iter().filter(|line| is_it(line)).count() >= 2);
    assert_eq!(scheduler.terminate().code(), Some(0), "{:?}", scheduler.err());
}

#[test]
fn scheduler_takes_up_edits_and_goes_cleanly() {
    let world = World::new(1);
    write_job(&world, "hello", "echo one", "");
    let clock = FastClock::new(60);
    let mut scheduler = start(&world, clock, &["--grace", "1s"]);
    scheduler.line("the first verdict", |line| line.contains("  succeeded  hello-"));

    write_job(&world, "hello", "echo one", "timeout: never\n");
    scheduler.complaint("the error", |line| line.contains("`timeout`: `never` is not a duration"));
    scheduler.complaint("what counts", |line| line == "job `hello` goes on as it was before");
    let before = scheduler.out().len();
    eventually("a firing of the last good version", || {
        scheduler.out().iter().skip(before).any(|line| line.contains("  succeeded  hello-"))
    });
    write_job(&world, "late", "echo $$ > $WHERE/attached; while :; do sleep 0.1; done", "timeout: 10m\n");
    let unit = "mode: detached\ntimeout: 10m\n";
    write_job(&world, "left", "echo $$ > $WHERE/detached; while :; do sleep 0.1; done", unit);
    fs::remove_file(world.path().join("jobs/hello.yaml")).unwrap();
    scheduler.complaint("the removal", |line| line == "job `hello` is gone: it fires no more");
    let attached = pid_in(&world.path().join("attached"));
    let detached = pid_in(&world.path().join("detached"));
    let late = run_of(&scheduler.line("the late job", |line| line.contains("  fired      late-")));
    let left = run_of(&scheduler.line("the job that stays", |line| line.contains("  running    left-")));
    scheduler.line("an overlap", |line| {
        line.contains("  skipped    late-") && line.ends_with(&format!("overlap: run `{late}` is still active"))
    });
    assert!(is_alive(attached) && is_alive(detached));

    let status = scheduler.terminate();
    assert_eq!(status.code(), Some(0), "{:?}", scheduler.err());
    assert!(!is_alive(attached), "{:?}", scheduler.out());
    assert!(is_alive(detached));
    let ended = json(&world.sshjob(&["--store", "store", "-o", "json", "status", &late]));
    assert_eq!((&ended["state"], &ended["counts"]), (&json!("cancelled"), &json!({"cancelled": 1})), "{ended:#}");
    let errors = scheduler.err().iter().filter(|line| line.contains("is not a duration")).count();
    assert_eq!(errors, 1, "{:?}", scheduler.err());
    let cancelled = world.sshjob(&["--store", "store", "cancel", &left]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    assert!(!is_alive(detached));
}

/// A script that says that it has begun, and ends when it may.
const ROLLING: &str = "echo $SSHJOB_RUN_ID $SSHJOB_INSTANCE $SSHJOB_ATTEMPT >> $WHERE/marks\n\
                       until [ -e $WHERE/go ]; do sleep 0.05; done";

#[test]
fn scheduler_that_is_killed_goes_on_with_a_rolling_run_and_starts_nothing_twice() {
    let world = World::new(3);
    write_job(&world, "roll", ROLLING, "timeout: 10m\nrollout: { max_concurrency: 1 }\n");
    let clock = FastClock::new(60);
    let mut scheduler = start(&world, clock, &[]);
    let run = run_of(&scheduler.line("a firing", |line| line.contains("  fired      roll-")));
    wait_for(&world.path().join("marks"));
    scheduler.kill();
    fs::write(world.path().join("go"), "").unwrap();
    let scheduler = start(&world, clock, &[]);
    let end = scheduler.line("its verdict", |line| line.contains(&format!("  failed     {run}")));
    assert!(end.contains("  2 succeeded, 1 lost of 3 hosts in "), "{end}");
    let starts = marks(&world.path().join("marks"));
    let mut of_run: Vec<&String> = starts.iter().filter(|line| line.starts_with(&*run)).collect();
    of_run.sort();
    assert_eq!(of_run, ["host-0", "host-1", "host-2"].map(|host| format!("{run} {host} 1")).iter().collect::<Vec<_>>());
}

#[test]
fn scheduler_that_goes_leaves_a_rolling_run_to_the_next() {
    let world = World::new(3);
    write_job(&world, "roll", ROLLING, "timeout: 10m\nrollout: { max_concurrency: 1 }\n");
    let clock = FastClock::new(60);
    let mut scheduler = start(&world, clock, &["--grace", "10m"]);
    let run = run_of(&scheduler.line("a firing", |line| line.contains("  fired      roll-")));
    wait_for(&world.path().join("marks"));
    scheduler.ask_to_go();
    scheduler.complaint("that it is going", |line| line.starts_with("going: "));
    fs::write(world.path().join("go"), "").unwrap();
    assert_eq!(scheduler.end().code(), Some(0), "{:?}", scheduler.err());
    let status = json(&world.sshjob(&["--store", "store", "-o", "json", "status", &run]));
    assert_eq!((&status["state"], &status["counts"]), (&json!("running"), &json!({"pending": 2, "succeeded": 1})));
    let scheduler = start(&world, clock, &[]);
    let end = scheduler.line("its verdict", |line| line.contains(&format!("  succeeded  {run}")));
    assert!(end.contains("  3 succeeded of 3 hosts in "), "{end}");
    let starts = marks(&world.path().join("marks"));
    assert_eq!(starts.iter().filter(|line| line.starts_with(&*run)).count(), 3, "{starts:?}");
}

#[test]
fn job_whose_key_is_missing_fails_with_the_cause_and_holds_up_no_other() {
    let world = World::new(1);
    write_job(&world, "good", "true", "");
    write_job(&world, "bad", "true", "key: missing.pem\ndeadline: 1m\n");
    // Whoever comes within ten minutes is in time.
    let scheduler = start(&world, FastClock::new(120), &[]);
    let waits = scheduler.line("the cause", |line| line.contains("  waiting    bad-"));
    assert!(waits.contains("missing.pem"), "{waits}");
    let bad = run_of(&waits);
    scheduler.line("another job", |line| line.contains("  succeeded  good-"));
    let fails = scheduler.line("its end", |line| line.contains(&format!("  failed     {bad}")));
    assert!(fails.contains("1 skipped of 1 host") && fails.contains("nothing could be started: "), "{fails}");
    assert!(fails.contains("missing.pem"), "{fails}");
}

/// Cause: a line of cron's failed for what somebody had tried by hand.
#[test]
fn what_was_started_by_hand_is_told_and_answered_for_elsewhere() {
    let world = World::new(1);
    let words = ["--store", "store", "run", "-q", "-d", "-t", "Environment=Dev", "--", "exit 3"];
    assert_eq!(world.sshjob(&words).status.code(), Some(0));
    eventually("its end is told", || {
        let once = up(&world, &["--once"]).output().unwrap();
        assert_eq!(once.status.code(), Some(0), "{}", said(&once));
        String::from_utf8_lossy(&once.stdout).contains("  failed     adhoc-")
    });
}

#[test]
fn run_that_is_paused_starts_nothing_until_it_is_resumed() {
    let world = World::new(3);
    let place = format!("WHERE={}", world.path().display());
    let words = ["-v", "run", "-f", "1", "-e", &place, "-t", "Environment=Dev", "--", ROLLING];
    let driver = Scheduler::start(world.command(&words));
    wait_for(&world.path().join("marks"));
    let paused = json(&world.sshjob(&["-o", "json", "pause", "last"]));
    assert_eq!((&paused["state"], &paused["reason"]), (&json!("paused"), &json!(format!("paused by {}", actor()))));
    driver.complaint("that the driver has heard", |line| line.contains("heard") && line.contains("paused=true"));
    fs::write(world.path().join("go"), "").unwrap();
    let status = || json(&world.sshjob(&["-o", "json", "status", "last"]));
    eventually("the end of what runs", || status()["counts"]["succeeded"] == 1);
    let now = status();
    assert_eq!((&now["state"], &now["counts"]), (&json!("paused"), &json!({"succeeded": 1, "pending": 2})));
    assert_eq!(marks(&world.path().join("marks")).len(), 1);
    let resumed = world.sshjob(&["resume", "last"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    eventually("the end of the run", || status()["state"] == "succeeded");
    assert_eq!(marks(&world.path().join("marks")).len(), 3);
    let late = world.sshjob(&["pause", "last"]);
    assert_eq!(late.status.code(), Some(2), "{}", said(&late));
    assert!(said(&late).contains("is over: succeeded; only one that is not can be paused"), "{}", said(&late));
}

/// Who the program takes the tester for.
fn actor() -> String {
    format!("tester@{}", fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim())
}
