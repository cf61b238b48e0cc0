//! Every way in which a detached script ends, and what is said of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{directory, kill_group, kill_supervisor, start, task, wait, wait_for};
use crate::support::world::{World, json, said};

/// The attempt's own account of what runs on host `n`, as soon as it runs.
fn wait_for_all(world: &World, hosts: usize) {
    (0..hosts).for_each(|n| wait_for(&world.path().join(format!("host-{n}"))));
}

/// Whether anything is left below `path` but empty folders.
fn is_bare(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return true };
    entries.flatten().all(|entry| entry.path().is_dir() && is_bare(&entry.path()))
}

#[test]
fn run_returns_at_once_and_is_told_truthfully_to_its_end() {
    let world = World::new(2);
    let script = "printf 'a\\0\\377\\r\\n'; echo err >&2; touch $WHERE/$SSHJOB_INSTANCE
while [ ! -e $WHERE/go ]; do sleep 0.05; done; printf end; exit 0";
    let run = start(&world, &[], script);
    assert_eq!((&run["state"], &run["counts"]), (&json!("running"), &json!({"running": 2})), "{run:#}");
    wait_for_all(&world, 2);
    let status = world.sshjob(&["-o", "json", "status", "last"]);
    assert_eq!(status.status.code(), Some(0), "{}", said(&status));
    let stands = json(&status);
    assert_eq!((&stands["state"], &stands["counts"]), (&json!("running"), &json!({"running": 2})), "{stands:#}");
    assert_eq!(task(&stands, "host-1")["stdout_bytes"], 5, "{stands:#}");
    assert!(directory(&world, &run, "host-0").join("out").exists());
    let waiting = world.command(&["-o", "json", "status", "last", "--wait"]).spawn().unwrap();
    fs::write(world.path().join("go"), "").unwrap();
    let ended = waiting.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    let ended = json(&ended);
    assert_eq!((&ended["state"], &ended["counts"]), (&json!("succeeded"), &json!({"succeeded": 2})), "{ended:#}");
    for (stream, expected) in [("--stdout", &b"a\0\xff\r\nend"[..]), ("--stderr", b"err\n")] {
        let logs = world.sshjob(&["logs", "last", "--host", "host-0", "--raw", stream]);
        assert_eq!(logs.stdout, expected, "{}", said(&logs));
    }
    assert!(is_bare(&world.fleet().home_of_first().join(".sshjob")), "what is collected is removed");
    let active = world.path().join(".local/state/sshjob/active");
    assert!(is_bare(&active), "what is finished is not active");
}

#[test]
fn every_end_of_its_own_has_its_state() {
    let world = World::new(7);
    let script = "case $SSHJOB_INSTANCE in
host-0) exit 0 ;; host-1) exit 3 ;; host-2) kill -TERM $$ ;; host-3) kill -KILL $$ ;; host-4) sleep 600 ;;
host-5) trap '' TERM; (setsid sleep 7 &); exit 0 ;; host-6) echo $$ >&2; exec sh -c 'exit 255' ;; esac; sleep 600";
    let words = ["-o", "json", "run", "-d", "--wait", "1m", "--timeout", "2s", "-t", "Environment=Dev", "--", script];
    let output = world.sshjob(&words);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let run = json(&output);
    let ends = [
        ("host-0", "succeeded", json!(0), json!(null)),
        ("host-1", "failed", json!(3), json!(null)),
        ("host-2", "failed", json!(null), json!("TERM")),
        ("host-3", "failed", json!(null), json!("KILL")),
        ("host-4", "timed_out", json!(null), json!("TERM")),
        ("host-5", "succeeded", json!(0), json!(null)),
        ("host-6", "failed", json!(255), json!(null)),
    ];
    for (host, state, code, signal) in ends {
        let task = task(&run, host);
        assert_eq!((&task["state"], &task["exit_code"], &task["signal"]), (&json!(state), &code, &signal), "{task:#}");
    }
    assert_eq!(task(&run, "host-4")["reason"], "ran longer than 2s");
    let (run, status) = (run["run"].as_str().unwrap(), world.sshjob(&["status"]));
    let hints = format!(
        "hint: `sshjob logs {run} --host host-1` shows all of its output\n\
         hint: `sshjob retry {run} --failed` runs it again where it did not succeed\n"
    );
    assert_eq!(String::from_utf8(status.stderr).unwrap(), hints);
}

#[test]
fn what_becomes_of_hosts_and_supervisors_is_lost_and_says_why() {
    let world = World::new(4);
    let run = start(&world, &[], "touch $WHERE/$SSHJOB_INSTANCE; sleep 600");
    wait_for_all(&world, 4);
    let at = |host: &str| directory(&world, &run, host);
    // As if the host had been restarted.
    let (own, text) = (at("host-0").join("self"), fs::read_to_string(at("host-0").join("self")).unwrap());
    kill_supervisor(&at("host-0"));
    kill_group(&at("host-0"));
    let mut words: Vec<_> = text.split(' ').collect();
    words[3] = "00000000-0000-4000-8000-000000000000";
    fs::write(own, words.join(" ")).unwrap();
    kill_supervisor(&at("host-1"));
    kill_group(&at("host-1"));
    kill_supervisor(&at("host-2"));
    kill_group(&at("host-2"));
    fs::remove_dir_all(at("host-2")).unwrap();
    kill_supervisor(&at("host-3"));
    let stands = json(&world.sshjob(&["-o", "json", "status", "last"]));
    let orphan = task(&stands, "host-3");
    let known = (&json!("running"), &json!("its supervisor is gone: how it ends will not be known"));
    assert_eq!((&orphan["state"], &orphan["reason"]), known, "{stands:#}");
    kill_group(&at("host-3"));
    let output = wait(&world);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    let ended = json(&output);
    for (host, reason) in [("host-0", "rebooted"), ("host-1", "killed"), ("host-2", "vanished"), ("host-3", "killed")] {
        let task = task(&ended, host);
        assert_eq!((&task["state"], &task["reason"]), (&json!("lost"), &json!(reason)), "{ended:#}");
    }
    let run = run["run"].as_str().unwrap();
    let hints = |words: &[&str]| String::from_utf8(world.sshjob(words).stderr).unwrap();
    let again = format!(
        "hint: whether it ran to its end on 4 hosts is not known: look there, then `sshjob retry {run} --lost` runs it again\n"
    );
    assert_eq!((hints(&["status"]), hints(&["-q", "status"])), (again, String::new()));
}

#[test]
fn cancel_ends_the_group_and_names_who_survives() {
    let world = World::new(2);
    let script = "echo begun; (setsid sleep 601 &); touch $WHERE/$SSHJOB_INSTANCE; sleep 600";
    start(&world, &[], script);
    wait_for_all(&world, 2);
    let output = world.sshjob(&["-o", "json", "cancel", "last"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let run = json(&output);
    assert_eq!((&run["state"], &run["counts"]), (&json!("cancelled"), &json!({"cancelled": 2})), "{run:#}");
    for host in ["host-0", "host-1"] {
        let task = task(&run, host);
        assert_eq!((&task["signal"], &task["stdout"]), (&json!("TERM"), &json!("begun\n")), "{task:#}");
        let reason = task["reason"].as_str().unwrap();
        let pid = reason.strip_prefix("still there: sleep (pid ").and_then(|rest| rest.strip_suffix(')'));
        let pid = pid.unwrap_or_else(|| panic!("{reason}")).parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
    }
    let again = world.sshjob(&["-o", "json", "status", "last", "--wait"]);
    assert_eq!((again.status.code(), json(&again)), (Some(130), run));
}

#[test]
fn who_survives_is_told_even_where_the_end_is_seen_by_somebody_else() {
    let mut world = World::new(1);
    start(&world, &[], "(setsid sleep 602 &); touch $WHERE/$SSHJOB_INSTANCE; sleep 600");
    wait_for_all(&world, 1);
    // The host ends the task, and then talks nonsense.
    let first = format!("mkdir {}", world.path().join("first").display());
    let command = format!("ForceCommand {first} || {{ echo nonsense; exit; }}; sh -c \"$SSH_ORIGINAL_COMMAND\"");
    world.fleet_mut().restart(|spec| spec.lines = vec![command.clone()]);
    let cancelled = world.sshjob(&["cancel", "last"]);
    assert_eq!(cancelled.status.code(), Some(7), "{}", said(&cancelled));
    world.fleet_mut().restart(|spec| spec.lines.clear());
    let ended = json(&wait(&world));
    let task = task(&ended, "host-0");
    let reason = task["reason"].as_str().unwrap_or_else(|| panic!("{task:#}"));
    assert_eq!(task["state"], "cancelled", "{task:#}");
    let pid = reason.strip_prefix("still there: sleep (pid ").and_then(|rest| rest.strip_suffix(')')).unwrap();
    let told = format!("warning: host-0: {reason}\n");
    assert!(String::from_utf8_lossy(&cancelled.stderr).contains(&told), "{}", said(&cancelled));
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn host_that_does_not_answer_or_answers_anything_changes_nothing() {
    let mut world = World::new(2);
    let run =
        start(&world, &[], "touch $WHERE/$SSHJOB_INSTANCE; while [ ! -e $WHERE/go ]; do sleep 0.05; done; echo all");
    wait_for_all(&world, 2);
    let stands = |world: &World, why: &str| {
        let output = world.sshjob(&["-o", "json", "status", "last"]);
        let (told, warned) = (json(&output), String::from_utf8_lossy(&output.stderr).into_owned());
        assert_eq!((output.status.code(), &told["counts"]), (Some(0), &json!({"running": 2})), "{}", said(&output));
        assert!(warned.starts_with("warning: host-") && warned.contains(why), "{warned}");
        assert_eq!(warned.lines().count(), 2, "{warned}");
    };
    // A host that says something else instead, in the middle of a sentence, or something of its own.
    for (command, why) in [
        ("echo nonsense", "nonsense"),
        ("head -c 100000 /dev/zero", "more than 64 KiB"),
        ("sh -c \"$SSH_ORIGINAL_COMMAND\" | head -c 120", "answer is cut"),
        ("sh -c \"$SSH_ORIGINAL_COMMAND\" | sed 's/ running / exit 0 done /'", "the host's answer"),
        ("sh -c \"$SSH_ORIGINAL_COMMAND\" | sed 's/ running .*/ vanished/'", "the host's answer"),
    ] {
        world.fleet_mut().restart(|spec| spec.lines = vec![format!("ForceCommand {command}")]);
        stands(&world, why);
    }
    world.fleet_mut().restart(|spec| spec.lines = vec!["DenyUsers *".to_owned()]);
    stands(&world, "was not asked");
    let (key, away) = (world.fleet().login().path(), world.path().join("away"));
    for words in [&["logs"][..], &["logs", "--host", "host-1", "-o", "json"], &["logs", "--host", "host-0"]] {
        // The last does not get as far as to ask anybody.
        if words.last() == Some(&"host-0") {
            fs::rename(&key, &away).unwrap();
        }
        let logs = world.sshjob(words);
        assert_eq!(logs.status.code(), Some(7), "{}", said(&logs));
        assert!(said(&logs).contains(" could not be asked: this may not be all of the output"), "{}", said(&logs));
    }
    fs::rename(&away, &key).unwrap();
    world.fleet_mut().restart(|spec| spec.lines.clear());
    fs::write(world.path().join("go"), "").unwrap();
    let output = wait(&world);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(task(&json(&output), "host-0")["stdout"], "all\n");
    assert!(run["run"].is_string());
}

#[test]
fn script_that_ignores_term_is_killed_at_its_time_by_its_watch_and_by_a_cancel() {
    let world = World::new(2);
    let script = "trap '' TERM; touch $WHERE/$SSHJOB_INSTANCE; while :; do sleep 0.1; done";
    let late = start(&world, &["-x", "host-1", "--timeout", "2s"], script);
    // Both take ten seconds, side by side.
    start(&world, &["-x", "host-0"], script);
    wait_for_all(&world, 2);
    let cancelled = json(&world.sshjob(&["-o", "json", "cancel", "last"]));
    let told = task(&cancelled, "host-1");
    assert_eq!((&told["state"], &told["signal"]), (&json!("cancelled"), &json!("KILL")), "{told:#}");
    // Its end is written by its watch: nobody has looked at it before.
    wait_for(&directory(&world, &late, "host-0").join("status"));
    let output = world.sshjob(&["-o", "json", "status", late["run"].as_str().unwrap()]);
    assert_eq!(output.status.code(), Some(124), "{}", said(&output));
    let ended = json(&output);
    let told = task(&ended, "host-0");
    assert_eq!((&told["state"], &told["signal"]), (&json!("timed_out"), &json!("KILL")), "{told:#}");
}

#[test]
fn run_whose_wait_is_over_tells_what_runs_on_and_leaves_it_alone() {
    let world = World::new(1);
    let run = |output| {
        let words = ["-o", output, "run", "-d", "--wait", "1s", "-t", "Environment=Dev", "--", "echo up; sleep 600"];
        world.sshjob(&words)
    };
    let output = run("json");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let told = json(&output);
    assert_eq!((&told["state"], &told["counts"]), (&json!("running"), &json!({"running": 1})), "{told:#}");
    assert_eq!(task(&told, "host-0")["stdout"], "up\n", "{told:#}");
    let output = run("text");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(out.contains(" running: 1 running of 1 host\n") && out.contains("host-0  127."), "{}", said(&output));
    assert!(err.starts_with("host-0  running\n"), "{}", said(&output));
    assert!(err.contains("hint: `sshjob cancel adhoc-"), "{}", said(&output));
    for run in [told["run"].as_str().unwrap(), "last"] {
        let cancelled = world.sshjob(&["-o", "json", "cancel", run]);
        assert_eq!(json(&cancelled)["counts"], json!({"cancelled": 1}), "it ran on: {}", said(&cancelled));
    }
}

/// Cause: while it waited it was deaf to Ctrl-C.
#[test]
fn wait_for_what_runs_detached_is_broken_off_by_ctrl_c_and_the_run_goes_on() {
    let world = World::new(1);
    let place = format!("WHERE={}", world.path().display());
    let script = "touch $WHERE/begun; sleep 600";
    let words = ["run", "-d", "--wait", "1h", "-e", &place, "-t", "Environment=Dev", "--", script];
    let mut child = world.command(&words).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    wait_for(&world.path().join("begun"));
    assert!(lines.any(|line| line == "host-0  running"), "all has started");
    // That it waits shows in nothing; asked a moment earlier it ends as well, with other words.
    std::thread::sleep(std::time::Duration::from_millis(500));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let told = lines.next().unwrap();
    assert!(told.starts_with("interrupted: ") && told.contains(" goes on; "), "{told}");
    let cancelled = world.sshjob(&["-o", "json", "cancel", "last"]);
    assert_eq!(json(&cancelled)["counts"], json!({"cancelled": 1}), "it went on: {}", said(&cancelled));
}

#[test]
fn job_that_wants_another_attempt_after_its_end_is_not_detached_in_silence() {
    let world = World::new(1);
    fs::create_dir(world.path().join("jobs")).unwrap();
    let job = "targets: { tags: { Environment: Dev } }\nrun: exit 3\nretries: { attempts: 2, on: [failed] }\n";
    fs::write(world.path().join("jobs/again.yaml"), job).unwrap();
    let output = world.sshjob(&["run", "again", "-d"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let expected = "error: job `again`: `retries.on`: after `failed` a detached script is not tried again, but only after \
                    `unreachable`\n  --> jobs/again.yaml:3:";
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(expected), "{}", said(&output));
    // What a project says of all its jobs is no word about a command.
    let project = fs::read_to_string(world.path().join("sshjob.yaml")).unwrap();
    let retries = "retries: { attempts: 2, on: [failed] }\n";
    fs::write(world.path().join("sshjob.yaml"), project + retries).unwrap();
    let words = ["-o", "json", "run", "-d", "--wait", "1m", "-t", "Environment=Dev", "--", "exit 3"];
    let output = world.sshjob(&words);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(task(&json(&output), "host-0")["attempt"], 1);
}

#[test]
fn people_read_what_to_do_next() {
    let world = World::new(2);
    let output = world.sshjob(&["run", "-d", "-t", "Environment=Dev", "--", "sleep 0.1"]);
    let told = said(&output);
    let id = told.split_whitespace().find(|word| word.starts_with("adhoc-")).unwrap_or_else(|| panic!("{told}"));
    let mut lines: Vec<String> =
        String::from_utf8_lossy(&output.stderr).lines().map(|it| it.replace(id, "RUN")).collect();
    lines.sort();
    let expected = [
        "RUN running: 2 running of 2 hosts",
        "hint: `sshjob cancel RUN` ends it; its hosts end it after 5m (`--timeout`)",
        "hint: `sshjob status RUN` tells how it goes on, `sshjob logs RUN -f` follows its output",
        "host-0  running",
        "host-1  running",
    ];
    assert_eq!(lines, expected, "{told}");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b""[..]));
    let waited = wait(&world);
    assert_eq!(waited.status.code(), Some(0), "{}", said(&waited));
}
