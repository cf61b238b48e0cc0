//! Hosts that lie, flood and stall: each ends in its own state, none succeeds that has not, and all in bounded memory.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdout, Output};
use std::time::{Duration, Instant};

use russh::keys::HashAlg;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sshjob::domain::job::Source;
use sshjob::domain::quantity::{Amount, Span};
use sshjob::domain::task::TaskState;

use crate::support::eventually::eventually;
use crate::support::hostile::{Deed, Hostiles};
use crate::support::key::Login;
use crate::support::memory::Memory;
use crate::support::rig;
use crate::support::sshd::user;
use crate::support::world::{World, json, said};

/// What comes of each host that lies or stalls: its state, exit code or signal, reason, and whether output is missing.
const TRICKS: &[(Deed, &str)] = &[
    (Deed::Behaves, "succeeded, exit 0"),
    (Deed::SpeaksHttp, "unreachable: SSH handshake: the host says `HTTP/1.1 400 Bad Request` instead of its version"),
    (Deed::DripsVersion, "unreachable: SSH handshake: no answer within 5s"),
    (Deed::HugePacket, "unreachable: SSH handshake: bad packet size: 4294967295"),
    (Deed::EmptyPacket, "unreachable: SSH handshake: the host closed the connection"),
    (Deed::DripsHandshake, "unreachable: SSH handshake: no answer within 5s"),
    (
        Deed::InventsAlgorithms,
        "unreachable: SSH handshake: no common key exchange: the host offers [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], [2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J]0;ownedsucceeded[2J], 8 more; accepted are mlkem768x25519-sha256, curve25519-sha256, curve25519-sha256@libssh.org, diffie-hellman-group-exchange-sha256, diffie-hellman-group16-sha512, diffie-hellman-group15-sha512",
    ),
    (Deed::ForgesSignature, "unreachable: SSH handshake: wrong server signature"),
    (Deed::DripsLogin, "unreachable: authentication: no answer within 5s"),
    (Deed::ExtendsHugely, "unreachable: authentication: the host closed the connection"),
    (Deed::WelcomesUnasked, "unreachable: authentication: the host closed the connection"),
    (Deed::WantsMore, "auth_failed: user USER: the host accepts the key KEY, and wants another one as well"),
    (
        Deed::SaysGoodbye,
        "auth_failed: user USER: the host takes no more keys after 1 key of 1 (`MaxAuthTries`); it says: [2J ]0;owned succeeded",
    ),
    (Deed::DripsChannel, "unreachable: opening a channel: no answer within 5s"),
    (
        Deed::RefusesChannel,
        "unreachable: opening a channel: the host refuses it: Other { code: 99, reason: \"Unknown code 99\" }",
    ),
    (Deed::ConfirmsAnother, "unreachable: opening a channel: the host closed the connection"),
    (Deed::ClosedWindow, "unreachable: nothing was started: the connection broke or stalled in mid-delivery"),
    (Deed::EmptyPackets, "unreachable: opening a channel: the host closed the connection"),
    (Deed::TinyPackets, "succeeded, exit 0"),
    (Deed::OverflowsWindow, "succeeded, exit 0"),
    (Deed::DripsCommand, "lost: connection: no word of the script within 15s: does a login file hang?"),
    (Deed::RefusesTwice, "unreachable: nothing was started: the host refuses to run commands"),
    (Deed::AgreesTwice, "succeeded, exit 0"),
    (Deed::ForgesStatus, "lost: connection"),
    (
        Deed::StatusOnly,
        "unreachable: nothing was started: the login shell or a forced command ended with status 0 and said nothing: is it a shell, and does a login file exit?",
    ),
    (Deed::StatusBeforeStart, "succeeded, exit 0"),
    (
        Deed::StartsTooEarly,
        "unreachable: nothing was started: the host claims that it started before all of it was sent",
    ),
    (
        Deed::StartsAnother,
        "unreachable: nothing was started: the login shell or a forced command ended with status 0: 0123456789abcdef0123456789abcdef start output",
    ),
    (Deed::ClosesUnstarted, "lost: connection"),
    (Deed::StatusBeforeOutput, "succeeded, exit 0"),
    (Deed::SecondThoughts, "failed, exit 7"),
    (Deed::StatusAfterClose, "failed, exit 7"),
    (Deed::HalfStatus, "lost: connection"),
    (Deed::Status256, "failed, exit 256"),
    (Deed::StatusMinusOne, "failed, exit 4294967295"),
    (Deed::InventsSignal, "failed, signal `2J0ownedsucceede`"),
    (Deed::NamelessSignal, "failed, signal ``"),
    (Deed::CutsOutput, "succeeded, exit 0: the connection broke after its end: output may be missing (truncated)"),
    (Deed::OutputAfterEnd, "succeeded, exit 0"),
    (Deed::OutputAfterClose, "succeeded, exit 0"),
    (Deed::RefusesLate, "lost: connection"),
    (Deed::EndsOutputOnly, "timed_out: ran longer than 3s; the host did not confirm that it ended"),
    (Deed::DripsOutput, "timed_out: ran longer than 3s; the host did not confirm that it ended"),
    (Deed::HalfData, "lost: connection"),
    (Deed::LongPacket, "succeeded, exit 0"),
    (Deed::OverlongPacket, "lost: connection"),
    (Deed::ChangesIdentity, "succeeded, exit 0"),
    (Deed::BeginsKeyChange, "timed_out: ran longer than 3s; the host did not confirm that it ended"),
    (Deed::TurnsDeaf, "timed_out: ran longer than 3s; the host did not confirm that it ended"),
];

/// What comes of each host that floods.
const FLOODS: &[(Deed, &str)] = &[
    (Deed::PrefacesForEver, "unreachable: SSH handshake: the host says `please wait …"),
    (Deed::EndlessVersion, "unreachable: SSH handshake: invalid ssh version string"),
    (Deed::BeginsHandshakeForEver, "unreachable: SSH handshake: key exchange init failed"),
    (Deed::IgnoresInHandshake, "unreachable: SSH handshake: no answer within 6s"),
    (Deed::BannersForEver, "unreachable: authentication: no answer within 6s"),
    (Deed::ExtendsForEver, "unreachable: authentication: the host closed the connection"),
    (Deed::LikesKeyForEver, "unreachable: authentication: no answer within 6s"),
    (Deed::OpensChannels, "lost: connection: no word of the script within 18s: does a login file hang?"),
    (Deed::OpensChannelsDeaf, "lost: connection: no word of the script within 18s: does a login file hang?"),
    (Deed::AsksForEver, "lost: connection: no word of the script within 18s: does a login file hang?"),
    (
        Deed::NoiseForEver,
        "lost: connection: the host wrote more than 64 KiB before the script could start: see its login files",
    ),
    (Deed::OutputForEver, "timed_out: ran longer than 6s; the host did not confirm that it ended"),
    (Deed::OutputForEverAfterStatus, "succeeded, exit 0: a background process still holds the output open"),
    (Deed::ChangesKeysForEver, "timed_out: ran longer than 6s; the host did not confirm that it ended"),
];

/// No host may hold us for longer than this; the longest of our deadlines come to half of it.
const BEARABLE: Duration = Duration::from_mins(2);

/// The most memory that the program may ever have used, in KiB.
const MOST_MEMORY: u64 = 100 * 1024;

/// A world with these hosts, each named after its deed.
fn beside(deeds: &[(Deed, &str)]) -> (World, Hostiles) {
    let world = World::new(1);
    let hosts = Hostiles::start(&deeds.iter().map(|(deed, _)| *deed).collect::<Vec<_>>());
    for ((deed, _), at) in deeds.iter().zip(hosts.addresses()) {
        world.add(&format!("{deed:?}"), *at, "Kind: hostile");
    }
    (world, hosts)
}

/// The one line that a task comes to.
fn told(task: &Value) -> String {
    let mut line = task["state"].as_str().unwrap().to_owned();
    if let Some(code) = task["exit_code"].as_u64() {
        write!(line, ", exit {code}").unwrap();
    }
    if let Some(signal) = task["signal"].as_str() {
        write!(line, ", signal `{signal}`").unwrap();
    }
    if let Some(reason) = task["reason"].as_str() {
        write!(line, ": {reason}").unwrap();
    }
    if task["truncated"] == true {
        line.push_str(" (truncated)");
    }
    line
}

/// Holds what a run says of each host against what it should.
#[track_caller]
fn assert_told(deeds: &[(Deed, &str)], world: &World, output: &Output) {
    let run = json(output);
    let tasks = run["tasks"].as_array().unwrap();
    let of = |deed: Deed| tasks.iter().find(|task| task["instance"] == format!("{deed:?}")).map(told);
    let table = |line: &dyn Fn(&(Deed, &str)) -> String| {
        deeds.iter().map(|row| format!("{:?}: {}", row.0, line(row))).collect::<Vec<_>>().join("\n")
    };
    let actual = table(&|(deed, _)| of(*deed).unwrap_or_default());
    // What differs from tester to tester and from test to test.
    let key = world.fleet().login().public().fingerprint(HashAlg::Sha256).to_string();
    let actual = actual.replace(&key, "KEY").replace(&format!("`{}`", user()), "USER");
    // Of a flood the end is kept, which begins anywhere.
    let actual = actual.lines().map(|line| match line.split_once(": the host says `") {
        Some((before, flood)) if flood.contains("please wait please wait") => {
            format!("{before}: the host says `please wait …")
        }
        _ => line.to_owned(),
    });
    let actual = actual.collect::<Vec<_>>().join("\n");
    assert_eq!(actual, table(&|(_, line)| (*line).to_owned()));
    assert!(!said(output).contains("panicked"), "{}", said(output));
}

#[test]
fn host_that_lies_or_stalls_ends_as_it_must_within_its_deadlines() {
    let (world, _hosts) = beside(TRICKS);
    let begun = Instant::now();
    let words = ["run", "-t", "Kind=hostile", "--connect-timeout", "5s", "--timeout", "3s", "-f", "100"];
    let output = world.sshjob(&[&words[..], &["-o", "json", "--", "true"]].concat());
    assert_told(TRICKS, &world, &output);
    assert!(begun.elapsed() < BEARABLE, "{:?}", begun.elapsed());
}

#[test]
fn host_that_floods_ends_as_it_must_within_its_deadlines_and_in_little_memory() {
    let (world, _hosts) = beside(FLOODS);
    let begun = Instant::now();
    let words = ["run", "-t", "Kind=hostile", "--connect-timeout", "6s", "--timeout", "6s", "-f", "100"];
    // A pipe that nobody reads meanwhile would hold the program up.
    let path = world.path().join("told");
    let mut command = world.command(&[&words[..], &["-o", "json", "--", "true"]].concat());
    let mut child = command.stdout(File::create(&path).unwrap()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = super::burden::peak_memory(&child).unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(20));
    }
    let stdout = std::fs::read(path).unwrap();
    assert_told(FLOODS, &world, &Output { stdout, ..child.wait_with_output().unwrap() });
    assert!(begun.elapsed() < BEARABLE, "{:?}", begun.elapsed());
    assert!((1..MOST_MEMORY).contains(&peak), "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn hundred_hostile_hosts_leave_four_hundred_others_unaffected() {
    // Every fifth host is hostile, each in the next way.
    let mut tricks = TRICKS[1..].iter().cycle();
    let deeds: Vec<(Deed, &str)> =
        (0..500).map(|n| if n % 5 == 4 { *tricks.next().unwrap() } else { (Deed::Behaves, "succeeded") }).collect();
    let hosts = Hostiles::start(&deeds.iter().map(|(deed, _)| *deed).collect::<Vec<_>>());
    let mut job = rig::job(Source::Command(vec!["true".to_owned()]));
    job.rollout.max_concurrency = Amount::Count(100);
    job.login.connect_timeout = Span(Duration::from_secs(8));
    job.timeout = Span(Duration::from_secs(3));
    let begun = Instant::now();
    let request = rig::request(job, hosts.addresses(), "one");
    let done = rig::run(&Memory::default(), request, &Login::fresh()).await.unwrap();
    assert!(begun.elapsed() < BEARABLE, "{:?}", begun.elapsed());
    let states: HashMap<String, String> =
        done.tasks().into_iter().map(|(host, record, _)| (host, record.state.to_string())).collect();
    let mut wrong = Vec::new();
    for ((deed, line), at) in deeds.iter().zip(hosts.addresses()) {
        let state = &states[&rig::target(*at).instance.to_string()];
        if line.split([',', ':']).next() != Some(state) {
            wrong.push(format!("{deed:?}: {state}"));
        }
    }
    assert_eq!((states.len(), wrong), (500, Vec::<String>::new()));
    assert_eq!(done.driven.verdict.unwrap().counts.iter().map(|(_, count)| count).sum::<u32>(), 500);
}

#[test]
fn host_that_is_another_one_the_next_time_is_rejected_with_both_fingerprints() {
    let (world, _hosts) = beside(&[(Deed::ChangesKeyEachTime, "")]);
    let task = || json(&world.sshjob(&["run", "-t", "Kind=hostile", "-o", "json", "--", "true"]))["tasks"][0].clone();
    let (first, second) = (task(), task());
    assert_eq!((&first["state"], &second["state"]), (&"succeeded".into(), &"host_key_rejected".into()));
    let reason = second["reason"].as_str().unwrap();
    for key in [&first["host_key"], &second["host_key"]] {
        assert!(reason.contains(key.as_str().unwrap()), "{key}: {reason}");
    }
    assert_ne!(first["host_key"], second["host_key"]);
}

/// How many bytes wait for the host at `at` to read them (`rx_queue`, `proc_net_tcp(5)`).
fn unread(at: SocketAddr) -> u64 {
    let IpAddr::V4(address) = at.ip() else { panic!("{at}") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.octets()), at.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let queues = fields.filter(|fields| fields.get(1) == Some(&&*local)).map(|fields| fields[4].to_owned());
    queues.map(|queues| u64::from_str_radix(queues.split_once(':').unwrap().1, 16).unwrap()).sum()
}

/// A run on a host that takes nothing, in mid-delivery, and what it tells.
fn run_that_is_stuck(world: &World, hosts: &Hostiles, words: &[&str]) -> (Child, BufReader<ChildStdout>) {
    // More than both ends of a connection buffer.
    std::fs::write(world.path().join("large.sh"), format!("#!/bin/sh\n{}", "# padding\n".repeat(1_600_000))).unwrap();
    let run = ["run", "-t", "Kind=hostile", "--script", "large.sh", "-o", "ndjson"];
    let mut child = world.command(&[&run, words].concat()).spawn().unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut event = String::new();
    while !event.contains("task_started") {
        event.clear();
        assert!(told.read_line(&mut event).unwrap() > 0, "the task starts");
    }
    eventually("the delivery is under way", || unread(hosts.addresses()[0]) > 64 * 1024);
    (child, told)
}

/// Cause: what ends a task waited for its turn behind a delivery that the host never took.
#[test]
fn run_on_a_host_that_takes_nothing_can_be_ended() {
    let (world, hosts) = beside(&[(Deed::NeverReads, "")]);
    let ((mut child, mut told), mut event) = (run_that_is_stuck(&world, &hosts, &[]), String::new());
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    told.read_to_string(&mut event).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // It did not merely leave at last: it has ended the task, and says so.
    assert!(event.contains("run_finished"), "{event}");
    assert!(begun.elapsed() < BEARABLE, "{:?}", begun.elapsed());
}

#[test]
fn ctrl_c_starts_no_more_of_a_detached_run_and_the_second_says_what_it_leaves() {
    let (world, hosts) = beside(&[(Deed::NeverReads, "")]);
    let (mut child, _told) = run_that_is_stuck(&world, &hosts, &["-d"]);
    let interrupt = |child: &Child| kill_process(Pid::from_child(child), Signal::INT).unwrap();
    interrupt(&child);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = "interrupted: starting no more; what has started goes on; press Ctrl-C again to leave at once";
    assert_eq!(lines.next().unwrap(), first);
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = lines.next().unwrap();
    let id = left.split('`').nth(1).unwrap();
    assert_eq!(left, format!("left run `{id}`: what has started goes on; `sshjob status {id}` tells what is known"));
}

/// A host whose machine is gone sends no good-bye: only that it no longer answers tells.
#[tokio::test]
async fn host_that_vanishes_while_a_script_runs_is_noticed_within_two_minutes() {
    let (hosts, store, login) = (Hostiles::start(&[Deed::DripsOutput]), Memory::default(), Login::fresh());
    let mut job = rig::job(Source::Command(vec!["true".to_owned()]));
    job.timeout = Span(Duration::from_hours(24));
    let request = rig::request(job, hosts.addresses(), "one");
    let running = rig::run(&store, request, &login);
    tokio::pin!(running);
    // Its one byte of output is in the store: nothing more is on its way, and the clock may run ahead.
    let has_output = || store.objects().iter().any(|(key, _)| key.contains("/output/"));
    while !has_output() {
        tokio::select! {
            _ = &mut running => panic!("it ended"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let done = running.await.unwrap();
    assert_eq!(done.state(hosts.addresses()[0]), (TaskState::Lost, "connection".to_owned()));
    assert!(begun.elapsed() < Duration::from_mins(2), "{:?}", begun.elapsed());
}
