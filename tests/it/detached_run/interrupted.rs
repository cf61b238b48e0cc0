//! `kill -9` of whoever looks at a detached run, follows or ends it, and of the process that serves them on its host, at
//! random packets: what is known afterwards is true, and no output is lost or repeated.

use std::fs;
use std::sync::{Arc, OnceLock};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::killed::lines;
use super::steps::each;
use super::task;
use crate::support::eventually::wait_for;
use crate::support::proxy::Way;
use crate::support::sshd::{Spec, Sshd};
use crate::support::steps::{CIPHER, Step, Steps};
use crate::support::world::{World, json, said};

/// Into how many parts a command is divided each way; in each of them it is struck once.
const PARTS: usize = 6;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The process of the host's sshd that serves the command.
    Session,
    /// `sshjob` itself.
    Client,
}

/// What came of a command.
struct Outcome {
    packets: (usize, usize),
    struck: bool,
}

/// Starts a script, has `command` of `sshjob` struck at `step`, and asserts that what is told afterwards is true.
fn strike(command: &[&str], victim: Victim, step: Option<Step>) -> Outcome {
    let case = format!("{command:?} {victim:?} {step:?}");
    let world = World::new(0);
    let spec = Spec { lines: vec![CIPHER.to_owned()], ..Spec::accepting(world.fleet().login().public()) };
    let host = Arc::new(Sshd::start(spec));
    let mut way = Steps::to(host.address(), None, || ());
    world.add("host", way.address(), "Environment: Dev");
    let is_cancel = command[0] == "cancel";
    let end = if is_cancel { "exec sleep 1000" } else { "while [ ! -e $WHERE/go ]; do sleep 0.05; done" };
    let script = format!("echo >>$WHERE/marks; seq 1 30000; seq 1 20000 >&2; touch $WHERE/up; {end}");
    super::start(&world, &[], &script);
    wait_for(&world.path().join("up"));
    if command[0] == "status" {
        fs::write(world.path().join("go"), "").unwrap();
        host.wait_until_idle();
    }
    let client = Arc::new(OnceLock::<Pid>::new());
    let (killed, sshd) = (Arc::clone(&client), Arc::clone(&host));
    way.watch(step, move || match victim {
        Victim::Session => drop(sshd.kill_sessions()),
        Victim::Client => drop(kill_process(*killed.wait(), Signal::KILL)),
    });
    let child = world.command(command).spawn().unwrap();
    client.set(Pid::from_child(&child)).unwrap();
    fs::write(world.path().join("go"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    let outcome = Outcome { packets: way.packets(), struck: way.has_struck() };
    if command[0] == "logs" {
        let marked = |last| {
            String::from_utf8(lines(last)).unwrap().lines().fold(String::new(), |all, it| all + "host | " + it + "\n")
        };
        assert!(marked(30_000).as_bytes().starts_with(&output.stdout), "{case}: {}", output.stdout.len());
    }
    if is_cancel {
        let again = world.sshjob(&["-o", "json", "cancel", "last"]);
        assert_eq!(again.status.code(), Some(0), "{case}: {}\n{}", said(&output), said(&again));
    }
    let status = world.sshjob(&["-o", "json", "status", "last", "--wait"]);
    let told = json(&status);
    let (state, signal) = if is_cancel { ("cancelled", json!("TERM")) } else { ("succeeded", json!(null)) };
    let told = (&told["state"], &task(&told, "host")["signal"]);
    assert_eq!(told, (&json!(state), &signal), "{case}: {}\n{}", said(&output), said(&status));
    for (stream, last) in [("--stdout", 30_000), ("--stderr", 20_000)] {
        let logs = world.sshjob(&["logs", "last", "--host", "host", "--raw", stream]);
        assert!(logs.stdout == lines(last), "{case}: {stream} has {} bytes", logs.stdout.len());
    }
    // Nothing of it runs any more, and it has run once.
    host.wait_until_idle();
    assert_eq!(fs::read_to_string(world.path().join("marks")).unwrap(), "\n", "{case}");
    outcome
}

/// Strikes `command` at a random packet of each part, each way, whoever is the victim.
fn sweep(command: &[&str]) {
    let (there, back) = strike(command, Victim::Client, None).packets;
    let random = |below: usize| usize::try_from(getrandom::u32().unwrap()).unwrap() % below.max(1);
    let mut strikes = Vec::new();
    for victim in [Victim::Session, Victim::Client] {
        for (way, packets) in [(Way::There, there), (Way::Back, back)] {
            for part in 0..PARTS {
                let (from, to) = (packets * part / PARTS, packets * (part + 1) / PARTS);
                let step = Step { way, packet: from + random(to - from), after: random(2) == 1 };
                strikes.push((victim, step));
            }
        }
    }
    let struck = each(&strikes, |(victim, step)| strike(command, *victim, Some(*step)).struck);
    let struck = struck.into_iter().filter(|struck| *struck).count();
    eprintln!("{command:?} of {there} and {back} packets was struck {struck} times of {}", strikes.len());
    // How many packets there are differs from one time to the next.
    assert!(struck >= strikes.len() / 2, "{struck} of {}", strikes.len());
}

#[test]
fn look_that_is_killed_at_any_packet_loses_and_repeats_nothing() {
    sweep(&["status", "last"]);
}

#[test]
fn follower_that_is_killed_at_any_packet_loses_and_repeats_nothing() {
    sweep(&["logs", "last", "-f"]);
}

#[test]
fn cancel_that_is_killed_at_any_packet_is_made_good_by_another() {
    sweep(&["cancel", "last"]);
}
