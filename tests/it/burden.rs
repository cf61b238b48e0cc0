//! How the program bears what is hard to bear: floods of output in little memory, Ctrl-C, and a store that
//! loses output.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::eventually::wait_for;
use crate::support::world::{World, json, said};

/// The lines of the flood: 200 MB in all, each different, so that none can be missing, doubled or out of its place.
const LINES: u32 = 200_000;

/// The length of a line, with its end.
const LINE_BYTES: usize = 1000;

/// The most memory that the program may ever have used, in KiB.
const MOST_MEMORY: u64 = 200 * 1024;

/// The most memory that a process has used so far, in KiB (`VmHWM`, proc(5)); none where it has ended.
pub(super) fn peak_memory(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB").unwrap().parse().ok()
}

/// Reads the flood, each line of it after `mark`, and returns the most memory that was used until shortly before its end.
fn drink(child: &mut Child, mark: &str) -> u64 {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut peak) = (Vec::new(), None);
    for number in 1..=LINES {
        line.clear();
        out.read_until(b'\n', &mut line).unwrap();
        let expected = format!("{mark}{number:0width$}\n", width = LINE_BYTES - 1);
        assert!(line == expected.as_bytes(), "line {number} is {}", String::from_utf8_lossy(&line));
        if number % 1000 == 0 {
            peak = peak_memory(child).or(peak);
        }
    }
    assert_eq!(out.read_to_end(&mut line).unwrap(), 0);
    peak.unwrap()
}

#[test]
fn flood_of_output_arrives_whole_in_bounded_memory() {
    let world = World::new(1);
    let flood = format!("seq -f %0{}.0f {LINES}", LINE_BYTES - 1);
    let calls: [(&str, &[&str]); 4] = [
        ("host-0 | ", &["run", "-t", "Environment=Dev", "--", &flood]),
        ("host-0 | ", &["logs", "last"]),
        ("host-0 | ", &["logs", "last", "--follow"]),
        ("", &["logs", "last", "--host", "host-0", "--raw"]),
    ];
    for (mark, words) in calls {
        let mut child = world.command(words).spawn().unwrap();
        let peak = drink(&mut child, mark);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        assert!(peak < MOST_MEMORY, "{words:?}: {peak} KiB");
    }
    let status = json(&world.sshjob(&["status", "-o", "json"]));
    assert_eq!(status["tasks"][0]["stdout_bytes"], u64::from(LINES) * LINE_BYTES as u64);
    assert_eq!(status["tasks"][0]["truncated"], false);
}

/// Sends the signal that Ctrl-C is.
fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// Whether any run of the world has its verdict.
fn has_verdict(world: &World) -> bool {
    let runs = world.path().join(".local/state/sshjob/runs/adhoc");
    fs::read_dir(runs).unwrap().any(|run| run.unwrap().path().join("result.json").exists())
}

#[test]
fn first_ctrl_c_ends_what_runs_starts_nothing_more_and_reports() {
    let world = World::new(2);
    let script = "trap 'touch ended; exit' TERM; cd $WHERE; touch begun; while :; do sleep 0.1; done";
    let place = format!("WHERE={}", world.path().display());
    let words = ["run", "-o", "json", "-f", "1", "-e", &place, "-t", "Environment=Dev", "--", script];
    let child = world.command(&words).spawn().unwrap();
    wait_for(&world.path().join("begun"));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let run = json(&output);
    assert_eq!((&run["state"], &run["counts"]), (&json!("cancelled"), &json!({"cancelled": 2})), "{run:#}");
    wait_for(&world.path().join("ended"));
    assert_eq!(world.sshjob(&["status", "last"]).status.code(), Some(130));
}

#[test]
fn second_ctrl_c_leaves_at_once() {
    let world = World::new(1);
    // Deaf to TERM: waiting for its end would take the ten seconds after which it is killed, and bring a verdict.
    let script = "trap '' TERM; touch $WHERE/begun; while :; do sleep 1; done";
    let place = format!("WHERE={}", world.path().display());
    let mut child = world.command(&["run", "-e", &place, "-t", "Environment=Dev", "--", script]).spawn().unwrap();
    wait_for(&world.path().join("begun"));
    interrupt(&child);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "interrupted: ending what runs; press Ctrl-C again to leave at once");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = lines.next().unwrap();
    let id = left.split('`').nth(1).unwrap();
    assert_eq!(left, format!("left run `{id}`: its hosts end what runs; `sshjob status {id}` tells what is known"));
    assert!(!has_verdict(&world));
    let status = json(&world.sshjob(&["status", "last", "-o", "json"]));
    assert_eq!((&status["state"], &status["counts"]), (&json!("failed"), &json!({"lost": 1})), "{status:#}");
}

#[test]
fn output_that_the_store_loses_is_exit_code_7() {
    let world = World::new(1);
    let script = "touch $WHERE/begun; while ! [ -e $WHERE/go ]; do sleep 0.05; done; echo output";
    let place = format!("WHERE={}", world.path().display());
    let child = world.command(&["run", "-e", &place, "-t", "Environment=Dev", "--", script]).spawn().unwrap();
    wait_for(&world.path().join("begun"));
    let runs = world.path().join(".local/state/sshjob/runs/adhoc");
    let run = fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    // Where the folder of the output would be.
    fs::write(run.join("output"), "").unwrap();
    fs::write(world.path().join("go"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    for each in ["no more tasks are started: the store is unavailable", "bytes 0 to 6 of `runs/adhoc/"] {
        assert!(said(&output).contains(each), "{}", said(&output));
    }
}
