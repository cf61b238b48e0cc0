//! sudo without a terminal: what it starts and ends, exactly as without, and what it refuses, in which words.

use std::fmt::Write as _;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::crowd::{Crowd, lines_of, processes_named, token};
use crate::support::eventually::eventually;
use crate::support::machine::Plan;
use crate::support::world::{World, json, said};

/// Runs as anyone without a password, with sudo in different moods.
const RULES: &str = "Defaults env_reset, secure_path=/usr/local/bin:/usr/bin:/bin
Defaults:pty use_pty
Defaults:log log_input, log_output
Defaults:open !env_reset
ALL ALL=(ALL) NOPASSWD: ALL";

/// The users with these moods.
const MOODS: [(&str, &str); 4] = [("plain", "bash"), ("pty", "bash"), ("log", "bash"), ("open", "bash")];

/// More users of a machine, whom one can only become.
fn and_app(plan: &mut Plan) {
    plan.user("app", "/bin/sh", "chmod 700 .");
}

#[test]
fn refusals_are_immediate_and_say_what_to_do() {
    let users = ["password", "stranger", "other", "one-command", "terminal", "pathless"].map(|user| (user, "bash"));
    let users = [&users[..], &[("pathless-tcsh", "tcsh"), ("nologin", "nologin")]].concat();
    let rules = "password ALL=(ALL) ALL\nother ALL=(other) NOPASSWD: ALL\none-command ALL=(ALL) NOPASSWD: /bin/true\n\
                 Defaults:terminal requiretty\nterminal ALL=(ALL) NOPASSWD: ALL\nnologin ALL=(ALL) NOPASSWD: ALL";
    let Some(crowd) = Crowd::start(&users, rules, |plan| {
        plan.setup.push_str("echo 'PATH=/nowhere' >/home/pathless/.bashrc\n");
        plan.setup.push_str("echo 'set path=(/nowhere)' >/home/pathless-tcsh/.tcshrc\n");
    }) else {
        return;
    };
    let mut told = String::new();
    for sudo in ["--sudo", "--sudo=other", "--sudo=nobody-here"] {
        let output = crowd.run(&[sudo, "--", "id", "-un"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        writeln!(told, "{sudo}").unwrap();
        told.extend(users.iter().map(|(user, _)| lines_of(&output, user)));
    }
    insta::assert_snapshot!(told, @r"
    --sudo
    password: failed  exit 1  nothing was started: sudo wants a password to become `root`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
    stranger: failed  exit 1  nothing was started: sudo wants a password to become `root`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
    other: failed  exit 1  nothing was started: sudo wants a password to become `root`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
    one-command: failed  exit 1  nothing was started: sudo wants a password to become `root`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
    terminal: failed  exit 1  nothing was started: sudo wants a terminal, and there is none: `!requiretty` in sudoers does without
    pathless: failed  exit 127  nothing was started: there is no `sudo`, which is to become `root`, on the path of this user
    pathless-tcsh: failed  exit 1  nothing was started: there is no `sudo`, which is to become `root`, on the path of this user
    nologin: unreachable  nothing was started: the login shell or a forced command ended with status 1: This account is currently not available.
    --sudo=other
    password: failed  exit 1  nothing was started: sudo wants a password to become `other`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
    stranger: failed  exit 1  nothing was started: sudo wants a password to become `other`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
    other: | other
    one-command: failed  exit 1  nothing was started: sudo wants a password to become `other`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
    terminal: failed  exit 1  nothing was started: sudo wants a terminal, and there is none: `!requiretty` in sudoers does without
    pathless: failed  exit 127  nothing was started: there is no `sudo`, which is to become `other`, on the path of this user
    pathless-tcsh: failed  exit 1  nothing was started: there is no `sudo`, which is to become `other`, on the path of this user
    nologin: unreachable  nothing was started: the login shell or a forced command ended with status 1: This account is currently not available.
    --sudo=nobody-here
    password: failed  exit 1  nothing was started: sudo knows no user `nobody-here` on this host
    stranger: failed  exit 1  nothing was started: sudo knows no user `nobody-here` on this host
    other: failed  exit 1  nothing was started: sudo knows no user `nobody-here` on this host
    one-command: failed  exit 1  nothing was started: sudo knows no user `nobody-here` on this host
    terminal: failed  exit 1  nothing was started: sudo knows no user `nobody-here` on this host
    pathless: failed  exit 127  nothing was started: there is no `sudo`, which is to become `nobody-here`, on the path of this user
    pathless-tcsh: failed  exit 1  nothing was started: there is no `sudo`, which is to become `nobody-here`, on the path of this user
    nologin: unreachable  nothing was started: the login shell or a forced command ended with status 1: This account is currently not available.
    ");
    // What `check` says of the same hosts.
    let output = crowd.world.sshjob(&["-o", "json", "check", "-tA", "--sudo=other"]);
    let hosts = json(&output)["hosts"].as_array().unwrap().clone();
    let steps: Vec<String> =
        hosts.iter().map(|host| format!("{}: {} {}", host["instance"], host["failed"], host["state"])).collect();
    insta::assert_snapshot!(steps.join("\n"), @r#"
    "nologin": "shell" "unreachable"
    "one-command": "sudo" "failed"
    "other": null "succeeded"
    "password": "sudo" "failed"
    "pathless": "shell" "failed"
    "pathless-tcsh": "shell" "failed"
    "stranger": "sudo" "failed"
    "terminal": "sudo" "failed"
    "#);
}

#[test]
fn sudo_that_hangs_ends_the_wait_for_it() {
    let pam =
        |plan: &mut Plan| plan.setup.push_str("echo 'account required pam_exec.so /bin/sleep 1000' >/etc/pam.d/sudo\n");
    let Some(crowd) = Crowd::start(&[("ann", "bash")], "ALL ALL=(ALL) NOPASSWD: ALL", pam) else { return };
    let output = crowd.run(&["--sudo", "--connect-timeout", "2s", "--", "id", "-un"]);
    // Whether it will start one day nobody knows.
    insta::assert_snapshot!(lines_of(&output, "ann"), @"ann: lost  connection: no word of the script within 6s: does sudo hang?");
}

#[test]
fn whom_to_become_is_said_by_flag_environment_job_or_project_and_shown() {
    let world = World::new(1);
    let project = std::fs::read_to_string(world.path().join("sshjob.yaml")).unwrap() + "sudo: of-the-project\n";
    std::fs::write(world.path().join("sshjob.yaml"), project).unwrap();
    std::fs::create_dir(world.path().join("jobs")).unwrap();
    let job = "targets: { tags: { Environment: Dev } }\nrun: id -un\n";
    std::fs::write(world.path().join("jobs/plain.yaml"), job).unwrap();
    std::fs::write(world.path().join("jobs/own.yaml"), format!("{job}sudo: of-the-job\n")).unwrap();
    let cases: [(&[&str], &str, Value); 7] = [
        (&["plain"], "", "of-the-project".into()),
        (&["own"], "", "of-the-job".into()),
        (&["own"], "of-the-environment", "of-the-environment".into()),
        (&["own"], "true", "root".into()),
        (&["own", "--sudo=of-the-flag"], "of-the-environment", "of-the-flag".into()),
        (&["own", "--sudo"], "of-the-environment", "root".into()),
        (&["own", "--sudo=false"], "true", Value::Null),
    ];
    for (words, variable, user) in cases {
        let dry = |format| {
            let words = [&["run", "--dry-run", "-o", format][..], words].concat();
            world.command(&words).env("SSHJOB_SUDO", variable).output().unwrap()
        };
        assert_eq!(json(&dry("json"))["sudo"], user, "{words:?}");
        let shown = user.as_str().map_or(String::new(), |user| format!(", as {user} by sudo"));
        let text = String::from_utf8(dry("text").stdout).unwrap();
        let (_, rest) = text.split_once(')').unwrap();
        assert!(rest.starts_with(&format!("{shown}, 1 at a time")), "{text}");
    }
    let wrong = world.sshjob(&["run", "own", "--sudo=a;b"]);
    let told = "error: invalid value 'a;b' for '--sudo[=<USER>]': `a;b` is not a user to become: letters, digits and \
                `-_.@+`, at most 64, not starting with `-`\n\nFor more information, try '--help'.\n";
    assert_eq!((wrong.status.code(), &*String::from_utf8_lossy(&wrong.stderr)), (Some(2), told));
}

/// Shows exactly what reached it, and as whom and where it runs.
const SHOW: &str =
    "#!/bin/sh\nid -un\npwd\necho \"$HOME\"\nprintf '<%s>\\n' \"$GREETING\" \"$SSHJOB_INSTANCE\" \"$@\"\ncat\nexit 7\n";

#[test]
fn arguments_and_environment_reach_another_user_exactly() {
    let shells = ["bash", "dash", "zsh", "fish", "tcsh", "ksh", "mksh"].map(|shell| (shell, shell));
    let users = [&MOODS[..], &shells].concat();
    let Some(crowd) = Crowd::start(&users, RULES, and_app) else { return };
    std::fs::write(crowd.world.path().join("show"), SHOW).unwrap();
    std::fs::create_dir(crowd.world.path().join("jobs")).unwrap();
    let job = "targets: { tags: { A: b } }\nscript: show\nsudo: app\nargs: [\"it's\", \"a  b\", \"$HOME `id` \\\\ !\", \"*\", \"\"]\nenv: { GREETING: \"grüß\\tdich\\n$X 'y'\" }\n";
    std::fs::write(crowd.world.path().join("jobs/show.yaml"), job).unwrap();
    let args = "<it's>\n<a  b>\n<$HOME `id` \\ !>\n<*>\n<>\n";
    for (flags, user, home) in
        [(&[][..], "app", "/home/app"), (&["--sudo"][..], "root", "/root"), (&["--sudo=root"], "root", "/root")]
    {
        let output = crowd.world.sshjob(&[&["-o", "json", "run", "show"], flags].concat());
        for task in json(&output)["tasks"].as_array().unwrap() {
            let host = task["instance"].as_str().unwrap();
            // Homes are open here; and one of the moods keeps the variable.
            let home = if host == "open" { format!("/home/{host}") } else { home.to_owned() };
            let expected = format!("{user}\n/home/{host}\n{home}\n<grüß\tdich\n$X 'y'>\n<{host}>\n{args}");
            assert_eq!(
                (task["stdout"].as_str(), task["exit_code"].as_u64()),
                (Some(&*expected), Some(7)),
                "{task}\n{}",
                crowd.machine.log()
            );
        }
    }
}

/// A family that ends only when it is killed; `$1` is a word of both members.
const STUBBORN: &str = "trap '' TERM INT HUP
sh -c 'while :; do sleep 1; done' child $1 &
while :; do sleep 1; done";

#[test]
fn families_that_ignore_every_request_are_killed_through_sudo() {
    let Some(crowd) = Crowd::start(&MOODS, RULES, and_app) else { return };
    // Three ends at once: each takes the 10 s of grace.
    let [interrupted, late, orphaned] = [("1h", "app"), ("5s", "app"), ("1h", "root")].map(|(timeout, user)| {
        let (word, sudo) = (token(), format!("--sudo={user}"));
        let words = ["-ojson", &sudo, "--timeout", timeout, "--", "sh", "-c", STUBBORN, "sh", &word];
        let run = crowd.start_run(&words);
        eventually("all are up", || processes_named(&word).len() == 2 * MOODS.len());
        (run, word)
    });
    let pid = |child: &Child| Pid::from_child(child);
    kill_process(pid(&interrupted.0), Signal::INT).unwrap();
    kill_process(pid(&orphaned.0), Signal::KILL).unwrap();
    for ((run, word), state) in [(interrupted, "cancelled"), (late, "timed_out")] {
        let output = run.wait_with_output().unwrap();
        assert!(processes_named(&word).is_empty(), "{state}");
        for task in json(&output)["tasks"].as_array().unwrap() {
            assert_eq!((&task["state"], &task["signal"]), (&state.into(), &"KILL".into()), "{task}");
        }
    }
    eventually("what nobody waits for has ended", || processes_named(&orphaned.1).is_empty());
}
