//! Servers that take no more connections, or go away.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

use super::*;
use crate::support::key;
use crate::support::sshd::{Spec, Sshd};

/// Runs the job `wild`, and calls `seen` with every line of what is said of it.
fn follow(wild: &Wild, mut seen: impl FnMut(&str)) -> String {
    let mut child = wild.world.command(&["run", "wild"]).spawn().unwrap();
    let (mut out, mut said) = (String::new(), String::new());
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        seen(&line);
        writeln!(said, "{line}").unwrap();
    }
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.wait().unwrap();
    out + &said
}

#[test]
fn connection_one_too_many_is_tried_again() {
    let one = |plan: &mut Plan| plan.lines = vec!["UsePAM yes".to_owned(), "MaxStartups 1".to_owned()];
    let Some(wild) = Wild::start(&[user("anyone")], one) else { return };
    let connect = || {
        let held = TcpStream::connect(wild.machine.address()).unwrap();
        // It counts from the moment when sshd speaks.
        assert_eq!(held.peek(&mut [0]).unwrap(), 1);
        held
    };
    let held = connect();
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @"anyone: unreachable  SSH handshake: the host says `Exceeded MaxStartups` instead of its version");

    let job = "targets: { tags: { Wild: yes } }\nrun: echo in\nretries: { attempts: 20, delay: 10ms }\n";
    fs::create_dir(wild.world.path().join("jobs")).unwrap();
    fs::write(wild.world.path().join("jobs/wild.yaml"), job).unwrap();
    let mut held = Some(held);
    let said = follow(&wild, |_| drop(held.take()));
    assert!(said.starts_with("anyone | in\n") && said.contains("(attempt 2 in 10ms)"), "{said}");
}

/// A host in mid-run: its script has begun, and waits until a file named `go` is there.
struct Running {
    world: World,
    host: Sshd,
    child: Child,
}

impl Running {
    fn start() -> Self {
        let world = World::new(0);
        let host = Sshd::start(Spec::accepting(world.fleet().login().public()));
        world.add("web", host.address(), "Role: web");
        let [begun, go] = ["begun", "go"].map(|name| world.path().join(name).display().to_string());
        let job = format!(
            "targets: {{ tags: {{ Role: web }} }}\nretries: {{ attempts: 3, delay: 1ms }}\n\
             run: echo begun >>{begun}; while [ ! -e {go} ]; do sleep 0.1; done; echo done\n"
        );
        fs::create_dir(world.path().join("jobs")).unwrap();
        fs::write(world.path().join("jobs/wait.yaml"), job).unwrap();
        let child = world.command(&["run", "wait"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while fs::read_to_string(world.path().join("begun")).unwrap_or_default().is_empty() {
            assert!(Instant::now() < deadline, "it has not begun within a minute: {}", host.log());
            std::thread::yield_now();
        }
        Self { world, host, child }
    }

    /// Lets the script end; what was said, and how often it had begun.
    fn end(self) -> (Output, usize) {
        fs::write(self.world.path().join("go"), "").unwrap();
        let output = self.child.wait_with_output().unwrap();
        (output, fs::read_to_string(self.world.path().join("begun")).unwrap().lines().count())
    }
}

#[test]
fn server_reloaded_in_mid_run_changes_nothing() {
    let running = Running::start();
    running.host.reload();
    let (output, begun) = running.end();
    assert_eq!((output.status.code(), begun), (Some(0), 1), "{}", said(&output));
    assert_eq!(output.stdout, b"web | done\n");
}

#[test]
fn server_that_dies_in_mid_run_leaves_the_task_lost_and_nothing_is_tried_again() {
    let mut running = Running::start();
    running.host.restart(|_| {});
    let (output, begun) = running.end();
    insta::assert_snapshot!(line("web", &output).unwrap(), @"lost  connection");
    assert_eq!((output.status.code(), begun), (Some(6), 1), "{}", said(&output));
}

#[test]
fn server_that_has_heard_enough_of_our_keys_says_so() {
    let Some(wild) = Wild::start(&[user("ann")], |_| {}) else { return };
    let keys: Vec<String> = (1..=8).map(|n| format!("key-{n}")).collect();
    for name in &keys {
        key::write(&key::fresh(), &wild.world.path().join(name));
    }
    let flags: Vec<&str> = keys.iter().flat_map(|name| ["-i", name]).collect();
    insta::assert_snapshot!(wild.table(&wild.run(&flags)), @"ann: auth_failed  user `ann`: the host takes no more keys after 6 keys of 8 (`MaxAuthTries`); name the right one with `-i` or `key`; it says: Too many authentication failures");
}
