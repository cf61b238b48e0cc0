//! A host whose disk is full: what a script prints is lost there, and nothing else.

use std::fs;

use serde_json::json;

use super::task;
use crate::support::machine::{Machine, Plan};
use crate::support::world::{World, json, said};

#[test]
fn full_disk_of_a_host_costs_output_and_is_named() {
    let world = World::new(0);
    let mut plan = Plan::accepting(world.fleet().login().public());
    plan.user("ann", "/bin/sh", "mount -t tmpfs -o size=512k,mode=777 small .");
    let Some(machine) = Machine::start(&plan) else { return };
    let (ip, port) = (machine.address().ip(), machine.address().port());
    let host = format!("{{ id: host, address: {ip}, port: {port}, user: ann, tags: {{ Environment: Dev }} }}");
    fs::write(world.path().join("hosts.yaml"), format!("instances:\n  - {host}\n")).unwrap();
    let script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo done >&2";
    let words = ["-o", "json", "run", "-d", "--wait", "1m", "-t", "Environment=Dev", "--", script];
    let output = world.sshjob(&words);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let run = json(&output);
    let told = task(&run, "host");
    let reason = json!("output was not all stored: is the host's disk full?");
    assert_eq!((&told["state"], &told["exit_code"]), (&json!("succeeded"), &json!(0)), "{told:#}");
    assert_eq!((&told["truncated"], &told["reason"]), (&json!(true), &reason), "{told:#}");
    for words in [&["logs", "last"][..], &["logs", "last", "-f"]] {
        let logs = world.sshjob(words);
        assert_eq!(logs.status.code(), Some(0), "{}", said(&logs));
        let (out, err) = (logs.stdout.len(), String::from_utf8_lossy(&logs.stderr).into_owned());
        assert!((1000..512 * 1024).contains(&out), "{out}");
        let warning = "warning: host could not store all of its standard output: is its disk full?\n";
        assert!(err.contains(warning) && !err.contains("missing"), "{err}");
    }
}
