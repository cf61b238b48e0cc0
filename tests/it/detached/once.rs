//! Whatever happens at the start, an attempt runs once or never.

use std::sync::Barrier;

use super::*;

/// A script that leaves one line for each time that it runs.
const TRACE: &str = "#!/bin/sh\necho ran >>trace";

fn traces(host: &Host) -> usize {
    std::fs::read_to_string(host.dir("home").join("trace")).unwrap_or_default().lines().count()
}

#[test]
fn attempt_that_is_started_from_everywhere_at_once_runs_once() {
    for (shell, host) in Host::of_every_shell() {
        for number in 1..=4 {
            let (one, gate) = (attempt(number), Barrier::new(5));
            let started: Vec<_> = std::thread::scope(|scope| {
                let start = || {
                    gate.wait();
                    host.start(TRACE, &one)
                };
                let starts: Vec<_> = (0..5).map(|_| scope.spawn(start)).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect()
            });
            let count = |answer| started.iter().filter(|it| **it == Ok(answer)).count();
            assert_eq!((count(Started::Now), count(Started::Before)), (1, 4), "{shell}: {started:?}");
            assert_eq!(how(&host.wait(&one).verdict), (How::Exit(0), Why::Itself), "{shell}");
            assert_eq!(traces(&host), usize::try_from(number).unwrap(), "{shell}");
        }
        let left = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
        let one = host.home_of(&attempt(1));
        let (attempt, instance) = (one.parent().unwrap(), one.ancestors().nth(2).unwrap());
        assert_eq!(
            (left(instance), left(attempt)),
            (4, 2),
            "{shell}: nothing but the attempts and their owners is left"
        );
    }
}

#[test]
fn start_that_was_robbed_of_its_beginning_never_runs() {
    for (shell, host) in Host::of_every_shell() {
        let detached = Detached::new(Program::Command(&[b"true".to_vec()]), &Sudo::No, &TERMS).unwrap();
        // What a start-up file reads is gone: a byte, the first line, the first function.
        for robbed in [1, 35, 36, 2_000, 9_000] {
            let mut session = host.open(detached.parcel(&token(), &attempt(1), &[]).unwrap());
            let head = session.parcel.head.clone();
            session.send(&head[robbed..]);
            // A reader that counts bytes waits until the channel ends.
            drop(session.child.stdin.take());
            assert_eq!(session.end(), Err(DeliveryError::Cut), "{shell}: without the first {robbed}");
        }
        assert_eq!(host.verdict(&attempt(1)), Verdict::Vanished, "{shell}");
    }
}

/// A machine whose every tool may, at its `n`-th call by anyone, kill the shell that called it: before it does its work
/// or after.
fn killing_at(n: usize, after: bool) -> Host {
    let mut host = Host::new();
    let (count, home) = (host.dir("count"), host.dir("home"));
    for tool in
        ["dd", "mkdir", "mkfifo", "mv", "rm", "rmdir", "setsid", "sha256sum", "sleep", "find", "wc", "ls", "head"]
    {
        let real = which(tool).unwrap();
        let work = if after { format!("{} \"$@\"", real.display()) } else { ":".to_owned() };
        // Only what belongs to this host is ever killed: an orphan's parent is somebody else's.
        let text = format!(
            "#!/bin/sh\necho >>{count}\nif [ \"$(wc -l <{count})\" = {n} ]; then\n{work}\n\
             grep -qzxF HOME={home} /proc/$PPID/environ && kill -KILL $PPID\nexit 1\nfi\nexec {real} \"$@\"\n",
            count = count.display(),
            home = home.display(),
            real = real.display(),
        );
        let stand_in = host.dir("bin").join(tool);
        std::fs::write(&stand_in, text.replace("wc -l", &format!("{} -l", which("wc").unwrap().display()))).unwrap();
        std::fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut dirs = host.dir("bin").into_os_string();
    dirs.push(":");
    dirs.push(path());
    host.path = Some(dirs.into());
    host
}

#[test]
fn start_that_is_killed_at_any_step_runs_once_or_never_and_the_state_says_so() {
    let (mut ran, mut never, mut lost) = (0, 0, 0);
    for n in 1.. {
        let mut calls = 0;
        for after in [false, true] {
            let (mut host, one) = (killing_at(n, after), attempt(1));
            let first = host.start(TRACE, &one);
            // Whoever does not know whether it started, starts it again.
            host.path = None;
            let second = host.start(TRACE, &one);
            let found = host.wait(&one);
            calls = calls.max(std::fs::read_to_string(host.dir("count")).unwrap().lines().count());
            let traces = traces(&host);
            let case = format!("{n}, after: {after}: {first:?} {second:?} {found:?} {traces}");
            assert!(traces <= 1, "{case}");
            assert!(first != Ok(Started::Now) || second == Ok(Started::Before), "{case}");
            match found.verdict {
                Verdict::Ended { how: How::Exit(0), .. } => assert_eq!(traces, 1, "{case}"),
                Verdict::Killed { .. } => lost += 1,
                ref other => panic!("{other:?}: {case}"),
            }
            ran += usize::from(first == Ok(Started::Now));
            never += usize::from(second == Ok(Started::Now));
        }
        if calls < n {
            break;
        }
    }
    println!("killed: {ran} had started, {never} had not and were started again, {lost} were lost");
    assert!(ran > 0 && never > 0 && lost > 0);
}

#[test]
fn start_that_is_cut_anywhere_runs_never_and_leaves_nothing() {
    let host = Host::new();
    // The one comes in the head; the other, for one letter, after it.
    for letter in ["x", "ß"] {
        let script: Arc<[u8]> = Arc::from(format!("{TRACE}\n# {letter}{}\n", "x".repeat(20_000)).into_bytes());
        let detached = Detached::new(Program::Script { bytes: &script, args: &[] }, &Sudo::No, &TERMS).unwrap();
        let whole = detached.parcel(&token(), &attempt(1), &[("SECRET", b"hidden")]).unwrap();
        assert_eq!(whole.script.is_empty(), letter.is_ascii());
        let announced: usize = whole.command.rsplit(' ').nth(1).unwrap().parse().unwrap();
        let (head, all) = (whole.head.len(), whole.head.len() + whole.script.len());
        let steps = (0..20).map(|n| all * n / 20);
        for cut in steps.chain([1, announced - 100, announced - 2, announced + 200, head - 1, head, head + 1, all - 1])
        {
            // Without its last line end the head is still complete.
            if cut >= all - usize::from(whole.script.is_empty()) {
                continue;
            }
            let mut session = host.open(detached.parcel(&token(), &attempt(1), &[("SECRET", b"hidden")]).unwrap());
            // What the tests put into the head moves all that comes after it.
            let (sent, moved) = (session.parcel.head.clone(), session.parcel.head.len() - head);
            let sent = [&sent[..], &session.parcel.script.clone()].concat();
            let cut = if cut < announced { cut } else { cut + moved };
            session.send(&sent[..cut]);
            drop(session.child.stdin.take());
            let expected = if cut < head + moved { DeliveryError::Cut } else { DeliveryError::Hash };
            assert_eq!(session.end(), Err(expected), "{letter}: cut at {cut} of {all}");
        }
    }
    assert_eq!((traces(&host), host.verdict(&attempt(1))), (0, Verdict::Vanished));
    eventually("nothing is left behind", || std::fs::read_dir(host.dir("home").join(".sshjob")).unwrap().count() == 0);
}

#[test]
fn channel_that_is_killed_at_any_moment_leaves_an_attempt_that_runs_once() {
    let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\necho ran >>trace; echo out; echo err >&2");
    let detached = Detached::new(Program::Script { bytes: &script, args: &[] }, &Sudo::No, &TERMS).unwrap();
    for (number, makes_sessions) in (1..=20).flat_map(|number| [(number, true), (number, false)]) {
        // Each in a home of its own.
        let mut host = Host::new();
        host.makes_sessions = makes_sessions;
        let one = attempt(number);
        let mut session = host.open(detached.parcel(&token(), &one, &[]).unwrap());
        session.send_all();
        // Whatever has happened by then: the moment decides nothing that is asserted.
        let moment = Instant::now() + Duration::from_micros(700 * u64::from(number));
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        let child = rustix::process::Pid::from_child(&session.child);
        // Where the supervisor has left the group, all that is left of it.
        let _ = if makes_sessions {
            rustix::process::kill_process(child, rustix::process::Signal::KILL)
        } else {
            rustix::process::kill_process_group(child, rustix::process::Signal::KILL)
        };
        let _ = session.end();
        host.start(std::str::from_utf8(&script).unwrap(), &one).unwrap();
        let found = host.wait(&one);
        assert_eq!(
            (how(&found.verdict), found.out, found.err),
            ((How::Exit(0), Why::Itself), whole(b"out\n"), whole(b"err\n"))
        );
        assert_eq!(traces(&host), 1);
    }
}

#[test]
fn claim_that_says_not_whose_it_is_runs_nothing_and_is_gone_when_nobody_can_be_its_owner() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        let dir = host.owned(&one);
        std::fs::write(dir.with_file_name("owner"), "").unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let record = |pid: u32, born: &str| format!("t {pid} {born} {} 1.00 1 1 1 host\n", boot.trim_end());
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let born = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap();
        std::fs::write(dir.join("self"), record(std::process::id(), born)).unwrap();
        assert_eq!(host.start(TRACE, &one), Ok(Started::Before), "{shell}");
        let asks = [Ask::Look { attempt: one.clone(), out: 0, err: 0, most: 0 }];
        assert!(host.asked(&asks).is_err(), "{shell}");
        std::fs::write(dir.join("self"), record(std::process::id(), "1")).unwrap();
        assert_eq!(host.verdict(&one), Verdict::Vanished, "{shell}");
        // What is no token leads nowhere, and takes nothing with it.
        std::fs::write(dir.with_file_name("owner"), "../../../../kept/x").unwrap();
        std::fs::create_dir_all(host.dir("home").join("kept/x")).unwrap();
        host.asked(&[Ask::Forget(one.clone())]).unwrap();
        assert!(host.dir("home").join("kept/x").exists() && !dir.exists(), "{shell}");
        assert_eq!(host.verdict(&one), Verdict::Vanished, "{shell}");
        host.owned(&one);
        assert_eq!(host.start(TRACE, &one), Ok(Started::Before), "{shell}");
        assert_eq!(traces(&host), 0, "{shell}");
    }
}

#[test]
fn owner_that_a_power_cut_has_taken_is_found_by_what_only_an_owner_leaves() {
    for (shell, host) in Host::of_every_shell() {
        for (number, exits) in [(1, true), (2, false)] {
            let one = attempt(number);
            let script = if exits { "#!/bin/sh\nexit 3" } else { "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.01; done" };
            assert_eq!(host.start(script, &one), Ok(Started::Now), "{shell}");
            let dir = host.home_of(&one);
            let reached = if exits { dir.join("status") } else { dir.join("leader") };
            let said = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty());
            eventually("it has got so far", || said(&reached));
            std::fs::write(dir.with_file_name("owner"), "").unwrap();
            let verdict = host.verdict(&one);
            if exits {
                assert_eq!(how(&verdict), (How::Exit(3), Why::Itself), "{shell}");
            } else {
                assert!(matches!(verdict, Verdict::Running { .. }), "{shell}: {verdict:?}");
                let own = std::fs::read_to_string(dir.join("self")).unwrap();
                let boot = own.split(' ').nth(3).unwrap();
                std::fs::write(dir.join("self"), own.replace(boot, "11111111-2222-3333-4444-555555555555")).unwrap();
                assert_eq!(host.verdict(&one), Verdict::Rebooted, "{shell}");
                std::fs::write(host.dir("home").join("go"), "").unwrap();
                eventually("it has ended", || dir.join("status").exists());
            }
        }
    }
}

#[test]
fn program_that_is_gone_by_the_second_start_has_started_all_the_same() {
    for (shell, host) in Host::of_every_shell() {
        let program = host.dir("bin").join("installer");
        std::fs::write(&program, "#!/bin/sh\nrm \"$0\"\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let words = [program.to_str().unwrap().as_bytes().to_vec()];
        let detached = Detached::new(Program::Command(&words), &Sudo::No, &TERMS).unwrap();
        for expected in [Started::Now, Started::Before] {
            let token = token();
            let answer = host.ask(detached.parcel(&token, &attempt(1), &[]).unwrap()).unwrap();
            assert_eq!(read_start(&token, &answer), Ok(expected), "{shell}");
            eventually("it is gone", || !program.exists());
        }
    }
}
