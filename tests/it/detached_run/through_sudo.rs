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
        let daemon = format!("(setsid sh -c 'while :; do sleep 1; done' daemon {mark} &)");
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
        let mut survivors = Vec::new();
        for task in told["tasks"].as_array().unwrap() {
            assert_eq!((&task["signal"], &task["stdout"]), (&json!("TERM"), &json!("up\n")), "{sudo}: {task:#}");
            let reason = task["reason"].as_str().unwrap_or_else(|| panic!("{sudo}: {task:#}"));
            survivors.push(reason.to_owned());
        }
        eprintln!("{survivors:?}");
        assert_eq!(processes_named(&mark).len(), 4, "{sudo}: nobody claims more than was asked for");
    }
}
