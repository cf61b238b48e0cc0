//! Detached scripts of other users: started, looked at and ended through sudo.

use serde_json::json;

use crate::support::crowd::{Crowd, processes_named, token};
use crate::support::eventually::eventually;
use crate::support::world::{json, said};

#[test]
fn script_of_another_user_is_started_collected_and_cancelled_through_sudo() {
    let rules = "ALL ALL = (ALL) NOPASSWD: ALL";
    let Some(crowd) = Crowd::start(&[("ann", "sh"), ("bob", "bash")], rules, |_| ()) else { return };
    let mark = token();
    let output = crowd.run(&["-d", "--sudo", "--wait", "1m", "-ojson", "--", "id -un; echo $HOME; exit 4"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for task in json(&output)["tasks"].as_array().unwrap() {
        let told = (&task["state"], &task["exit_code"], &task["stdout"]);
        assert_eq!(told, (&json!("failed"), &json!(4), &json!("root\n/root\n")), "{task:#}");
    }
    let words = ["-d", "--sudo", "--", "sh", "-c", "while :; do sleep 1; done", &mark];
    let output = crowd.run(&words);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    eventually("both run", || processes_named(&mark).len() >= 2);
    let output = crowd.world.sshjob(&["-o", "json", "cancel", "last"]);
    let run = json(&output);
    assert_eq!(run["counts"], json!({"cancelled": 2}), "{}", said(&output));
    for task in run["tasks"].as_array().unwrap() {
        assert_eq!((&task["signal"], &task["reason"]), (&json!("TERM"), &json!(null)), "{task:#}");
    }
    assert_eq!(processes_named(&mark), [0; 0]);
}

/// The number of a process on the machine that it lives on.
fn number_there(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    numbers.split_whitespace().next_back().unwrap().to_owned()
}

#[test]
fn daemon_of_another_user_does_not_hold_the_end_and_is_named_when_it_survives_a_cancel() {
    let rules = "ALL ALL = (ALL) NOPASSWD: ALL";
    let Some(crowd) = Crowd::start(&[("ann", "sh"), ("bob", "bash")], rules, |plan| plan.user("app", "/bin/sh", ""))
    else {
        return;
    };
    for sudo in ["--sudo", "--sudo=app"] {
        let mark = token();
        // Two forks, a session of its own, and its parent gone; it keeps the output open.
        let daemon = format!("(setsid sh -c 'tail -f /dev/null; :' daemon {mark} &)");
        let run = |script: &str| {
            let output = crowd.run(&["-d", sudo, "--", &format!("{daemon}; echo up; {script}")]);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        };
        run("exit 5");
        let output = crowd.world.sshjob(&["-o", "json", "status", "last", "--wait"]);
        for task in json(&output)["tasks"].as_array().unwrap() {
            let told = (&task["state"], &task["exit_code"], &task["stdout"]);
            assert_eq!(told, (&json!("failed"), &json!(5), &json!("up\n")), "{sudo}: {task:#}");
        }
        assert_eq!(processes_named(&mark).len(), 2, "{sudo}: whoever has left lives on");
        run("exec sleep 1000");
        eventually("both run", || processes_named(&mark).len() == 4);
        let output = crowd.world.sshjob(&["-o", "json", "cancel", "last"]);
        let told = json(&output);
        assert_eq!(told["counts"], json!({"cancelled": 2}), "{sudo}: {}", said(&output));
        let alive: Vec<String> = processes_named(&mark).into_iter().map(number_there).collect();
        for task in told["tasks"].as_array().unwrap() {
            assert_eq!((&task["signal"], &task["stdout"]), (&json!("TERM"), &json!("up\n")), "{sudo}: {task:#}");
            // Neither the daemon of the run before nor that of the other host is this one's.
            let reason = task["reason"].as_str().unwrap_or_default();
            let named = reason.strip_prefix("still there: sh (pid ").and_then(|rest| rest.split_once("), tail (pid "));
            let (daemon, child) = named.unwrap_or_else(|| panic!("{sudo}: {task:#}"));
            assert!(alive.contains(&daemon.to_owned()), "{sudo}: {reason}: {alive:?}");
            assert!(child.strip_suffix(')').is_some_and(|pid| pid.parse::<u32>().is_ok()), "{sudo}: {reason}");
        }
        assert_eq!(processes_named(&mark).len(), 4, "{sudo}: nobody claims more than was asked for");
    }
}
