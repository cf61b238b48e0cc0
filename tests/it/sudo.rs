//! sudo without a terminal: what it starts and ends, exactly as without, and what it refuses, in which words.

use std::fmt::Write as _;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::crowd::{Crowd, eventually, lines_of, processes_named, token};
use crate::support::machine::Plan;
use crate::support::world::{json, said};

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
        users.iter().for_each(|(user, _)| told.push_str(&lines_of(&output, user)));
    }
    insta::assert_snapshot!(told, @r#"
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
    password: failed  exit 1  nothing was started: sudo ended with status 1: unknown user nobody-here sudo: error initializing audit plugin sudoers_audit
    stranger: failed  exit 1  nothing was started: sudo ended with status 1: unknown user nobody-here sudo: error initializing audit plugin sudoers_audit
    other: failed  exit 1  nothing was started: sudo ended with status 1: unknown user nobody-here sudo: error initializing audit plugin sudoers_audit
    one-command: failed  exit 1  nothing was started: sudo ended with status 1: unknown user nobody-here sudo: error initializing audit plugin sudoers_audit
    terminal: failed  exit 1  nothing was started: sudo ended with status 1: unknown user nobody-here sudo: error initializing audit plugin sudoers_audit
    pathless: failed  exit 127  nothing was started: there is no `sudo`, which is to become `nobody-here`, on the path of this user
    pathless-tcsh: failed  exit 1  nothing was started: there is no `sudo`, which is to become `nobody-here`, on the path of this user
    nologin: unreachable  nothing was started: the login shell or a forced command ended with status 1: This account is currently not available.
    "#);
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
    "pathless": "shell" "unreachable"
    "pathless-tcsh": "shell" "unreachable"
    "stranger": "sudo" "failed"
    "terminal": "sudo" "failed"
    "#);
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
