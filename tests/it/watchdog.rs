//! What an attached job leaves running on a host when nobody listens any more, however that came about: nothing.

use std::collections::BTreeSet;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::crowd::{Crowd, processes_named, token};
use crate::support::eventually::eventually;
use crate::support::wire::{Way, Wire};
use crate::support::world::{json, said};

/// A leader and a child; `$1` is a word of both.
const FAMILY: &str = "sh -c 'while :; do sleep 1; done' child $1 & while :; do sleep 1; done";

/// The same with nothing open: no end of a channel reaches it, and it writes to none.
const CLOSED: &str = "exec <&- >&- 2>&-; sh -c 'while :; do sleep 1; done' child $1 & while :; do sleep 1; done";

/// Login shells, each a user's.
const SHELLS: [&str; 7] = ["bash", "dash", "zsh", "fish", "tcsh", "ksh", "mksh"];

/// As oneself, as another user, and as root.
const AS: [&str; 3] = ["--sudo=false", "--sudo=app", "--sudo"];

fn crowd() -> Option<Crowd> {
    let users: Vec<_> = SHELLS.into_iter().map(|shell| (shell, shell)).chain([("log", "sh")]).collect();
    let rules = "Defaults use_pty\nDefaults:log log_input, log_output\nALL ALL=(ALL) NOPASSWD: ALL";
    Crowd::start(&users, rules, |plan| plan.user("app", "/bin/sh", ""))
}

/// Starts `script` on all hosts; both members of each family are there when this returns.
fn start(crowd: &Crowd, sudo: &str, timeout: &str, script: &str) -> (Child, String) {
    let word = token();
    let run = crowd.start_run(&["-ojson", sudo, "--timeout", timeout, "--", "sh", "-c", script, "sh", &word]);
    // Each host for itself: a shell that has forked and not executed yet looks like one process more of another's.
    eventually("all are up", || servers(&word).len() == SHELLS.len() + 1 && members(&word) >= 2 * (SHELLS.len() + 1));
    (run, word)
}

fn members(word: &str) -> usize {
    processes_named(word).len()
}

/// The servers whose sessions have members of the families.
fn servers(word: &str) -> BTreeSet<i32> {
    processes_named(word).into_iter().filter_map(server_of).collect()
}

#[track_caller]
fn assert_all_end(word: &str, what: &str) {
    eventually(&format!("all have ended: {what}"), || processes_named(word).is_empty());
}

/// The program is gone without a word.
fn kill(mut run: Child) {
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn program_that_is_killed_leaves_nothing_running() {
    let Some(crowd) = crowd() else { return };
    for sudo in AS {
        for script in [FAMILY, CLOSED] {
            let (run, word) = start(&crowd, sudo, "1h", script);
            kill(run);
            assert_all_end(&word, sudo);
        }
    }
}

#[test]
fn wire_that_is_cut_leaves_nothing_running_and_the_outcome_open() {
    let Some(crowd) = crowd() else { return };
    for (sudo, way) in AS.into_iter().flat_map(|sudo| [(sudo, Way::Finished), (sudo, Way::Reset)]) {
        let wire = Wire::to(crowd.machine.address());
        crowd.live_at(wire.address());
        let (run, word) = start(&crowd, sudo, "1h", FAMILY);
        wire.set(way);
        assert_all_end(&word, sudo);
        assert_lost(run);
    }
}

#[test]
fn server_that_is_killed_leaves_nothing_running_and_the_outcome_open() {
    let Some(crowd) = crowd() else { return };
    for sudo in AS {
        let (run, word) = start(&crowd, sudo, "1h", FAMILY);
        for pid in servers(&word) {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        assert_all_end(&word, sudo);
        assert_lost(run);
    }
}

#[test]
fn host_that_hears_no_more_ends_it_by_itself_at_its_timeout() {
    let Some(crowd) = crowd() else { return };
    // Side by side: each takes the timeout and the host's own margin of 5 s.
    let dark = AS.map(|sudo| {
        let wire = Wire::to(crowd.machine.address());
        crowd.live_at(wire.address());
        let (run, word) = start(&crowd, sudo, "4s", FAMILY);
        wire.set(Way::Held);
        kill(run);
        (sudo, wire, word)
    });
    for (sudo, _wire, word) in &dark {
        assert_all_end(word, sudo);
    }
}

#[test]
fn process_that_has_left_the_group_and_the_session_lives_on() {
    let Some(crowd) = crowd() else { return };
    let daemon = token();
    let script = format!("(setsid sh -c 'while :; do sleep 1; done' daemon {daemon} >/dev/null 2>&1 &); {FAMILY}");
    // Before it has a session of its own, `setsid` is as much of the group as the others.
    let daemons = || processes_named(&daemon).into_iter().filter(|pid| session(*pid) == Some(*pid)).collect::<Vec<_>>();
    for sudo in AS {
        let (run, word) = start(&crowd, sudo, "1h", &script);
        eventually("the daemons are up", || daemons().len() == SHELLS.len() + 1);
        kill(run);
        assert_all_end(&word, sudo);
        assert_eq!(daemons().len(), SHELLS.len() + 1, "{sudo}");
        for pid in daemons() {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        eventually("the daemons have ended", || daemons().is_empty());
    }
}

/// The session that a process is in; none where it has ended.
fn session(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After its name, in which there may be anything: the state, the parent, the group, the session.
    stat.rsplit_once(')')?.1.split(' ').nth(4)?.parse().ok()
}

/// Nobody can tell how it ended.
#[track_caller]
fn assert_lost(run: Child) {
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    for task in json(&output)["tasks"].as_array().unwrap() {
        assert_eq!((&task["state"], &task["reason"]), (&"lost".into(), &"connection".into()), "{task}");
    }
}

/// The sshd that has started a process, itself or through others.
fn server_of(mut pid: i32) -> Option<i32> {
    loop {
        // The name, in parentheses, then the state, then the parent (proc(5)).
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        if name.contains("(sshd") {
            return Some(pid);
        }
        pid = rest.split(' ').nth(1)?.parse().ok()?;
    }
}
