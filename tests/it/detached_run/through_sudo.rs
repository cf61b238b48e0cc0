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
