//! `kill -9` of whoever takes part in a start: before and after every packet, at the claim, and at random moments.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sshjob::adapter::dir::Dir;

use super::{age, assert_over, only_run};
use crate::support::eventually::{eventually, wait_for};
use crate::support::proxy::Way;
use crate::support::sshd::{Spec, Sshd};
use crate::support::steps::{CIPHER, Step, Steps};
use crate::support::world::{World, json, said};

/// How many starts are under way at a time; they mostly wait.
const AT_A_TIME: usize = 4;

/// Who ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// Only the connection: both ends are told.
    Connection,
    /// The process of the host's sshd that serves it.
    Session,
    /// `sshjob` itself.
    Client,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    Never,
    /// At a packet.
    At(Step),
    /// Before or after the supervisor takes its directory's name.
    Claim { after: bool },
    /// At this part of the time that a start takes.
    Random(f64),
}

/// What came of a start.
#[derive(Debug)]
struct Outcome {
    /// The types of the packets that the host received, and of those that it sent, by its own account.
    types: [Vec<u8>; 2],
    packets: (usize, usize),
    struck: bool,
    claimed: bool,
    state: String,
    took: Duration,
}

/// A host and whoever starts a script on it, once.
struct Scene {
    world: World,
    host: Arc<Sshd>,
}

impl Scene {
    fn new(moment: Moment) -> Self {
        let world = World::new(0);
        let lines = vec![CIPHER.to_owned(), "LogLevel DEBUG3".to_owned()];
        let mut host = Sshd::start(Spec { lines, ..Spec::accepting(world.fleet().login().public()) });
        if let Moment::Claim { after } = moment {
            // The supervisor's first `mv` is its claim.
            let wait = "echo >$HOME/here; while [ ! -e $HOME/go ]; do sleep 0.01; done";
            let [before, after] = if after { [":", wait] } else { [wait, ":"] };
            let text = format!("#!/bin/sh\n{before}\n/bin/mv \"$@\"; status=$?\n{after}\nexit $status\n");
            let stand_in = host.home().join("bin/mv");
            fs::create_dir(host.home().join("bin")).unwrap();
            fs::write(&stand_in, text).unwrap();
            fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
            let command = "ForceCommand PATH=$HOME/bin:$PATH exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"";
            host.restart(|spec| spec.lines.push(command.to_owned()));
        }
        // Several packets of script, and several pieces of output.
        let script = format!(
            "#!/bin/sh\necho started >>{}/marks\nseq 1 30000\nseq 1 20000 >&2\n#{}\n",
            world.path().display(),
            "x".repeat(90_000)
        );
        fs::write(world.path().join("step.sh"), script).unwrap();
        fs::create_dir(world.path().join("jobs")).unwrap();
        let job = "targets: { tags: { Environment: Dev } }\nscript: step.sh\nmode: detached\n";
        fs::write(world.path().join("jobs/step.yaml"), job).unwrap();
        Self { world, host: Arc::new(host) }
    }

    /// Ends `victim` at `moment` of a start, and sees that what is told of it afterwards is true.
    fn start(&self, victim: Victim, moment: Moment, whole: Duration) -> Outcome {
        let client = Arc::new(OnceLock::<Pid>::new());
        let end = {
            let (host, client) = (Arc::clone(&self.host), Arc::clone(&client));
            move || match victim {
                Victim::Connection => {}
                Victim::Session => host.kill_sessions(),
                // One that has ended by now is still nobody else: its parent has not asked yet.
                Victim::Client => drop(kill_process(*client.wait(), Signal::KILL)),
            }
        };
        let end = Arc::new(end);
        let way = {
            let (host, end) = (Arc::clone(&self.host), Arc::clone(&end));
            let step = if let Moment::At(step) = moment { Some(step) } else { None };
            Steps::to(self.host.address(), step, move || {
                // After a packet is when the host has got it.
                if let Some(Step { way: Way::There, packet, after: true }) = step {
                    eventually("the packet is there", || types(&host)[0].len() > packet);
                }
                end();
            })
        };
        self.world.add("host", way.address(), "Environment: Dev");
        let began = Instant::now();
        let child = self.world.command(&["--store", "store", "-o", "json", "run", "step"]).spawn().unwrap();
        client.set(Pid::from_child(&child)).unwrap();
        match moment {
            Moment::Never | Moment::At(_) => {}
            Moment::Claim { .. } => {
                wait_for(&self.host.home().join("here"));
                end();
                fs::write(self.host.home().join("go"), "").unwrap();
            }
            Moment::Random(part) => {
                std::thread::sleep(whole.mul_f64(part));
                end();
            }
        }
        let output = child.wait_with_output().unwrap();
        let took = began.elapsed();
        // What is on its way comes through first: then the host's own account is complete.
        self.host.wait_until_idle();
        let (types, packets) = (types(&self.host), way.packets());
        let struck = way.has_struck() || !matches!(moment, Moment::At(_) | Moment::Never);
        let case = format!("{victim:?} {moment:?}: {}", said(&output));
        let (claimed, state) = self.check(&case);
        Outcome { types, packets, struck, claimed, state, took }
    }

    /// Whether the supervisor had its claim, and the state of the task; asserts that both are what happened.
    fn check(&self, case: &str) -> (bool, String) {
        let starts = fs::read_to_string(self.world.path().join("marks")).unwrap_or_default().lines().count();
        let store = Dir::open(self.world.path().join("store")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let Some(run) = runtime.block_on(only_run(&store)) else {
            assert_eq!(starts, 0, "{case}: started without a run");
            return (false, "no run".to_owned());
        };
        let claimed = self.host.home().join(".sshjob").join(run.run.as_str()).join("host/1/self").exists();
        runtime.block_on(age(&store, &run));
        let status = self.world.sshjob(&["--store", "store", "-o", "json", "status", "last", "--wait"]);
        let case = format!("{case}\n{}", said(&status));
        runtime.block_on(assert_over(&store, &run, &case));
        let task = json(&status)["tasks"][0].clone();
        let state = task["state"].as_str().unwrap_or_else(|| panic!("{case}")).to_owned();
        if claimed {
            assert_eq!((starts, &*state), (1, "succeeded"), "{case}");
            for (stream, last) in [("--stdout", 30_000), ("--stderr", 20_000)] {
                let logs = self.world.sshjob(&["--store", "store", "logs", "last", "--raw", stream]);
                let all: String = (1..=last).map(|n| format!("{n}\n")).collect();
                assert!(logs.stdout == all.as_bytes(), "{stream} has {} bytes: {case}", logs.stdout.len());
            }
        } else {
            assert_eq!(starts, 0, "{case}: started without a claim");
            assert!(["lost", "unreachable", "skipped"].contains(&&*state), "{case}");
        }
        (claimed, state)
    }
}

/// The types of the packets that a host has received, and of those that it has sent.
fn types(host: &Sshd) -> [Vec<u8>; 2] {
    let log = host.log();
    ["debug3: receive packet: type ", "debug3: send packet: type "].map(|mark| {
        let found = log.lines().filter_map(|line| line.split_once(mark)?.1.split(' ').next()?.trim_end().parse().ok());
        found.collect()
    })
}

#[test]
fn probe() {
    let sound = Scene::new(Moment::Never).start(Victim::Connection, Moment::Never, Duration::ZERO);
    eprintln!("{sound:?}");
}
