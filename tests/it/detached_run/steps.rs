//! `kill -9` of whoever takes part in a start: before and after every packet, at the claim, and at random moments.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sshjob::adapter::dir::Dir;

use super::killed::lines;
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
    Claim {
        after: bool,
    },
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
            "x".repeat(40_000)
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
            // Tells whether there was anybody to end.
            move || match victim {
                Victim::Connection => true,
                Victim::Session => host.kill_sessions() > 0,
                // One that has ended by now is still nobody else: its parent has not asked yet.
                Victim::Client => kill_process(*client.wait(), Signal::KILL).is_ok(),
            }
        };
        let end = Arc::new(end);
        let way = {
            let (end, step) = (Arc::clone(&end), if let Moment::At(step) = moment { Some(step) } else { None });
            Steps::to(self.host.address(), step, move || {
                end();
            })
        };
        self.world.add("host", way.address(), "Environment: Dev");
        let child = self.world.command(&["--store", "store", "-o", "json", "run", "step"]).spawn().unwrap();
        client.set(Pid::from_child(&child)).unwrap();
        eventually("they talk", || way.packets().0 > 0 || way.has_struck());
        let began = Instant::now();
        let struck = match moment {
            Moment::Never | Moment::At(_) => false,
            Moment::Claim { .. } => {
                wait_for(&self.host.home().join("here"));
                end();
                fs::write(self.host.home().join("go"), "").unwrap();
                true
            }
            Moment::Random(part) => {
                std::thread::sleep(whole.mul_f64(part));
                end()
            }
        };
        let output = child.wait_with_output().unwrap();
        let took = began.elapsed();
        // What is on its way comes through first: then the host's own account is complete.
        self.host.wait_until_idle();
        let (types, packets) = (types(&self.host), way.packets());
        let struck = struck || way.has_struck();
        let case = format!("{victim:?} {moment:?}: {}", said(&output));
        let (claimed, state) = self.check(&case);
        Outcome { types, packets, struck, claimed, state, took }
    }

    /// Whether the supervisor had its claim, and the state of the task; asserts that both are what happened.
    fn check(&self, case: &str) -> (bool, String) {
        let starts = || fs::read_to_string(self.world.path().join("marks")).unwrap_or_default().lines().count();
        let store = Dir::open(self.world.path().join("store")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let Some(run) = runtime.block_on(only_run(&store)) else {
            assert_eq!(starts(), 0, "{case}: started without a run");
            return (false, "no run".to_owned());
        };
        let claimed = self.host.home().join(".sshjob").join(run.run.as_str()).join("host/1/owner").exists();
        runtime.block_on(age(&store, &run));
        let status = self.world.sshjob(&["--store", "store", "-o", "json", "status", "last", "--wait"]);
        runtime.block_on(assert_over(&store, &run, case));
        let state = json(&status)["tasks"][0]["state"].as_str().unwrap_or_else(|| panic!("{case}")).to_owned();
        // Not before its end: from a claim to the script's first words it takes a while.
        let starts = starts();
        if claimed {
            assert_eq!((starts, &*state), (1, "succeeded"), "{case}");
            for (stream, last) in [("--stdout", 30_000), ("--stderr", 20_000)] {
                let logs = self.world.sshjob(&["--store", "store", "logs", "last", "--host", "host", "--raw", stream]);
                assert!(logs.stdout == lines(last), "{stream} has {} bytes: {case}", logs.stdout.len());
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

/// What the packets of a sound start are, one way: by their numbers in RFC 4250 and the RFCs that it names.
fn names(types: &[u8], packets: usize) -> Vec<&'static str> {
    let known = types.iter().map(|number| match number {
        4 => "DEBUG",
        5 => "SERVICE_REQUEST",
        6 => "SERVICE_ACCEPT",
        7 => "EXT_INFO",
        20 => "KEXINIT",
        21 => "NEWKEYS",
        30 => "KEX_INIT",
        31 => "KEX_REPLY",
        50 => "USERAUTH_REQUEST",
        51 => "USERAUTH_FAILURE",
        52 => "USERAUTH_SUCCESS",
        60 => "USERAUTH_PK_OK",
        80 => "GLOBAL_REQUEST",
        90 => "CHANNEL_OPEN",
        91 => "CHANNEL_OPEN_CONFIRMATION",
        96 => "CHANNEL_EOF",
        97 => "CHANNEL_CLOSE",
        98 => "CHANNEL_REQUEST",
        99 => "CHANNEL_SUCCESS",
        _ => "other",
    });
    let mut names: Vec<_> = known.collect();
    // Of data, and of room for it, sshd does not tell: they come when the command has been asked for, or granted.
    let asked = names.iter().position(|name| ["CHANNEL_REQUEST", "CHANNEL_SUCCESS"].contains(name)).unwrap() + 1;
    names.splice(asked..asked, (types.len()..packets).map(|_| "CHANNEL_DATA"));
    names
}

/// How many starts got how far.
fn told<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for outcome in outcomes {
        let claim = if outcome.claimed { "claimed" } else { "not claimed" };
        *counts.entry((claim, &*outcome.state)).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|((claim, state), count)| format!("{count} {claim} and {state}")).collect();
    counts.join(", ")
}

/// A start that nobody disturbs.
fn sound() -> Outcome {
    Scene::new(Moment::Never).start(Victim::Connection, Moment::Never, Duration::ZERO)
}

/// Does all of `work`, several at a time.
pub(super) fn each<T: Sync, R: Send>(work: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let Some(item) = work.get(next.fetch_add(1, Ordering::SeqCst)) {
                done.push(act(item));
            }
            done
        };
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    done.into_iter().flatten().collect()
}

/// Ends `victim` before and after every packet of a start.
fn sweep(victim: Victim) {
    let sound = sound();
    let mut steps = Vec::new();
    for (way, types, packets) in
        [(Way::There, &sound.types[0], sound.packets.0), (Way::Back, &sound.types[1], sound.packets.1)]
    {
        for (packet, name) in names(types, packets).into_iter().enumerate() {
            steps.extend([false, true].map(|after| (name, Step { way, packet, after })));
        }
    }
    let outcomes = each(&steps, |(name, step)| {
        let outcome = Scene::new(Moment::At(*step)).start(victim, Moment::At(*step), Duration::ZERO);
        (*name, *step, outcome)
    });
    let struck: Vec<_> = outcomes.into_iter().filter(|(_, _, outcome)| outcome.struck).collect();
    let all = struck.iter().map(|(_, _, outcome)| outcome);
    eprintln!("{victim:?} ended at {} of {} steps: {}", struck.len(), steps.len(), told(all));
    let mut by_name = BTreeMap::<_, Vec<&Outcome>>::new();
    for (name, step, outcome) in &struck {
        let when = if step.after { "after" } else { "before" };
        by_name.entry((format!("{:?}", step.way), *name, when)).or_default().push(outcome);
    }
    for ((way, name, when), outcomes) in &by_name {
        eprintln!("  {when} {name} {way}: {}", told(outcomes.iter().copied()));
    }
    for (way, name) in [
        ("There", "KEX_INIT"),
        ("There", "USERAUTH_REQUEST"),
        ("There", "CHANNEL_OPEN"),
        ("There", "CHANNEL_REQUEST"),
        ("There", "CHANNEL_DATA"),
        ("Back", "USERAUTH_SUCCESS"),
        ("Back", "CHANNEL_OPEN_CONFIRMATION"),
        ("Back", "CHANNEL_SUCCESS"),
        ("Back", "CHANNEL_DATA"),
    ] {
        for when in ["before", "after"] {
            assert!(by_name.contains_key(&(way.to_owned(), name, when)), "{when} {name} {way}: {by_name:#?}");
        }
    }
    for claimed in [false, true] {
        assert!(struck.iter().any(|(_, _, outcome)| outcome.claimed == claimed), "{claimed}: {by_name:#?}");
    }
}

#[test]
fn start_whose_sshd_session_is_killed_at_any_packet_runs_once_if_it_is_claimed() {
    sweep(Victim::Session);
}

#[test]
fn start_whose_client_is_killed_at_any_packet_runs_once_if_it_is_claimed() {
    sweep(Victim::Client);
}

#[test]
fn start_whose_connection_ends_at_any_packet_runs_once_if_it_is_claimed() {
    sweep(Victim::Connection);
}

#[test]
fn start_whose_session_or_client_is_killed_at_its_claim_runs_once() {
    for victim in [Victim::Session, Victim::Client] {
        for after in [false, true] {
            let moment = Moment::Claim { after };
            let outcome = Scene::new(moment).start(victim, moment, Duration::ZERO);
            assert!(outcome.claimed, "{victim:?} {after}: whoever has begun to claim is nobody's child");
        }
    }
}

#[test]
fn start_whose_sshd_session_is_killed_at_random_moments_runs_once_if_it_is_claimed() {
    let mut whole = sound().took;
    let (mut struck, mut missed) = (Vec::new(), 0);
    // One at a time: the time that it takes is what the moments are parts of.
    while struck.len() < 20 {
        let moment = Moment::Random(f64::from(getrandom::u32().unwrap()) / f64::from(u32::MAX));
        let outcome = Scene::new(moment).start(Victim::Session, moment, whole);
        if outcome.struck {
            struck.push(outcome);
            continue;
        }
        // It had ended before: that start took less than the first.
        (whole, missed) = (whole.min(outcome.took), missed + 1);
        assert!(missed < 100, "{} of {} kills came during a start", struck.len(), struck.len() + missed);
    }
    eprintln!("Session ended at 20 random moments within {whole:.0?}, {missed} came too late: {}", told(&struck));
}
