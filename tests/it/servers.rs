//! SSH servers that are not OpenSSH's: everything that a job needs of a server works there, too.

use serde_json::{Value, json};

use crate::support::eventually::wait_for;
use crate::support::foreign::Foreign;
use crate::support::world::{World, json, said};

const SCRIPT: &str = r#"#!/bin/sh
printf '%s|' "$@" "$GREETING" "$SSHJOB_ATTEMPT"
echo trouble >&2
exit 7
"#;

/// Says that it runs, and that it was asked to end. Its output goes nowhere: dash tells of a `sleep` that was ended, and
/// with nobody there to read it would end of that instead.
const PATIENT: &str = "exec >/dev/null 2>&1; trap 'touch ended; exit 0' TERM; cd $WHERE; touch begun; \
                       while :; do sleep 0.05; done";

/// How a task ended: state, exit code, signal, standard output, standard error.
fn ended(task: &Value) -> Value {
    json!([task["state"], task["exit_code"], task["signal"], task["stdout"], task["stderr"]])
}

/// Puts a server to everything that a job needs of one.
fn assert_serves(world: &World, server: &Foreign) {
    let address = server.address().to_string();
    let task = |flags: &[&str], words: &[&str]| {
        let output = world.sshjob(&[&["-o", "json", "run", "-w", &address], flags, words].concat());
        assert!(!output.stdout.is_empty(), "{}", said(&output));
        json(&output)["tasks"][0].clone()
    };

    let command = task(&[], &["--", "echo hello; cat"]);
    assert_eq!(ended(&command), json!(["succeeded", 0, null, "hello\n", ""]), "{command:#}");

    // More than what fits into a channel's first window.
    let padding = "# as long as it takes\n".repeat(10_000);
    std::fs::write(world.path().join("script.sh"), format!("{SCRIPT}{padding}")).unwrap();
    let words = ["--", "it's", "a b", ""];
    let script = task(&["-e", "GREETING=gr\u{fc}\u{df} $HOME 'dich'", "--script", "script.sh"], &words);
    let output = "it's|a b||gr\u{fc}\u{df} $HOME 'dich'|1|";
    assert_eq!(ended(&script), json!(["failed", 7, null, output, "trouble\n"]), "{script:#}");

    let killed = task(&[], &["--", "echo before; kill -KILL $$"]);
    assert_eq!(ended(&killed), json!(["failed", null, "KILL", "before\n", ""]), "{killed:#}");

    let much = task(&[], &["--", "head -c 1048576 /dev/zero | tr '\\0' x; echo end >&2"]);
    let sizes = json!([much["state"], much["stdout_bytes"], much["stderr"], much["truncated"]]);
    assert_eq!(sizes, json!(["succeeded", 1_048_576, "end\n", false]), "{much:#}");

    let place = |name: &str| {
        let folder = world.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        (format!("WHERE={}", folder.display()), folder)
    };
    let (place_of_late, folder) = place("late");
    let late = task(&["-e", &place_of_late, "--timeout", "1s"], &["--", PATIENT]);
    assert_eq!(late["state"], "timed_out", "{late:#}");
    wait_for(&folder.join("ended"));

    let (place_of_cancelled, folder) = place("cancelled");
    let words = ["run", "-w", &address, "-e", &place_of_cancelled, "--", PATIENT];
    let driver = world.command(&words).spawn().unwrap();
    wait_for(&folder.join("begun"));
    let cancelled = world.sshjob(&["-o", "json", "cancel", "last"]);
    assert_eq!(json(&cancelled)["counts"], json!({"cancelled": 1}), "{}", said(&cancelled));
    wait_for(&folder.join("ended"));
    assert_eq!(driver.wait_with_output().unwrap().status.code(), Some(130));

    // A laptop that dies: the watchdog on the host sees the connection end.
    let (place_of_left, folder) = place("left");
    let words = ["run", "-w", &address, "-e", &place_of_left, "--", PATIENT];
    let mut driver = world.command(&words).spawn().unwrap();
    wait_for(&folder.join("begun"));
    driver.kill().unwrap();
    driver.wait().unwrap();
    wait_for(&folder.join("ended"));
}

#[test]
fn asyncssh_serves() {
    let world = World::new(0);
    assert_serves(&world, &Foreign::python("asyncssh", world.fleet().login().public()));
}

#[test]
fn paramiko_serves() {
    let world = World::new(0);
    assert_serves(&world, &Foreign::python("paramiko", world.fleet().login().public()));
}

#[test]
fn dropbear_serves() {
    let world = World::new(0);
    let Some(server) = Foreign::dropbear(world.fleet().login().public()) else { return };
    assert_serves(&world, &server);
}

#[test]
fn tinyssh_serves() {
    let world = World::new(0);
    let Some(server) = Foreign::tinyssh(world.fleet().login().public()) else { return };
    assert_serves(&world, &server);
}
