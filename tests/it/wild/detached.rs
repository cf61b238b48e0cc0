//! Detached scripts on hosts as they really are: they outlive their login, whatever shell that has and whatever tools there
//! are.

use serde_json::Value;

use super::*;
use crate::support::world::json;

/// Asserts that the script ran on every host of a run as it ran in sight.
fn check(wild: &Wild, run: &Value) {
    let words = [&[GREETING], &ARGS[..]].concat();
    let expected = format!("<{}>\n", words.join(">\n<"));
    assert_eq!(run["tasks"].as_array().unwrap().len(), wild.users.len(), "{run:#}");
    for task in run["tasks"].as_array().unwrap() {
        let told = [&task["state"], &task["stdout"], &task["stderr"]].map(|it| it.as_str().unwrap());
        assert_eq!(told, ["succeeded", &expected, "trouble\n"], "{task:#}\n{}", wild.machine.log());
    }
}

#[test]
fn detached_script_runs_to_its_end_whatever_the_login_shell_and_its_files_do() {
    let users = [
        user("bash"),
        User { shell: "dash", ..user("dash") },
        User { shell: "zsh", ..user("zsh") },
        User { shell: "fish", ..user("fish") },
        User { shell: "tcsh", ..user("tcsh") },
        User { shell: "ksh", ..user("ksh") },
        User { shell: "mksh", ..user("mksh") },
        User { shell: "/home/busybox/sh", setup: "ln -s $(command -v busybox) sh", ..user("busybox") },
        User { setup: "echo 'echo hello; echo there >&2' >.bashrc", ..user("bashrc-prints") },
        User { setup: "echo 'set -x' >.bashrc", ..user("bashrc-traces") },
        User { shell: "zsh", setup: "echo 'echo hello; echo there >&2' >.zshenv", ..user("zshenv-prints") },
        User { shell: "tcsh", setup: "echo 'echo hello' >.tcshrc", ..user("tcshrc-prints") },
        User { setup: "cd / && rmdir /home/missing", ..user("missing") },
        User { setup: "chmod 0 .; chown root .", ..user("forbidden") },
    ];
    let Some(wild) = Wild::start(&users, |_| {}) else { return };
    let output = wild.run(&["-d", "--wait", "1m", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    check(&wild, &json(&output));
}

/// Leaves the machine the tools of busybox, and no others.
const BUSYBOX_ONLY: &str = "mkdir /run/tools; cp $(command -v busybox) /run/tools/busybox
for applet in $(busybox --list); do ln -s busybox /run/tools/$applet; done
mount --bind /run/tools /usr/bin; [ -h /bin ] || mount --bind /run/tools /bin";

#[test]
fn host_with_nothing_but_busybox_runs_attached_and_detached_scripts_and_ends_them() {
    let users = [User { shell: "/bin/sh", setup: BUSYBOX_ONLY, ..user("busybox") }];
    let Some(wild) = Wild::start(&users, |_| {}) else { return };
    let tools = wild.world.sshjob(&["run", "-t", "Wild", "--", "ls -l $(command -v dd) $(command -v sh)"]);
    let text = String::from_utf8_lossy(&tools.stdout).into_owned();
    assert_eq!(text.matches("-> busybox\n").count(), 2, "{}", said(&tools));
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @"busybox: succeeded");
    let output = wild.run(&["-d", "--wait", "1m", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    check(&wild, &json(&output));
    let started = wild.world.sshjob(&["run", "-d", "-t", "Wild", "--", "echo up; sleep 1000 & exec sleep 1000"]);
    assert_eq!(started.status.code(), Some(0), "{}", said(&started));
    let cancelled = wild.world.sshjob(&["-o", "json", "cancel", "last"]);
    let run = json(&cancelled);
    let task = &run["tasks"][0];
    let told = [&task["state"], &task["signal"], &task["stdout"]].map(|it| it.as_str().unwrap());
    assert_eq!(told, ["cancelled", "TERM", "up\n"], "{}", said(&cancelled));
    assert!(task["reason"].is_null(), "nothing of it is left: {task:#}");
}
