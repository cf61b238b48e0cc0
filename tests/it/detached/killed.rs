//! Whoever is killed, and whatever becomes of the host: what is told is true, and nothing runs for ever.

use super::*;

const WAITING: &str = "#!/bin/sh\necho up; while [ ! -e go ]; do sleep 0.01; done; echo late";

/// Starts a script and waits until it says that it is up.
#[track_caller]
pub(super) fn up(host: &Host, script: &str, attempt: &Attempt) {
    assert_eq!(host.start(script, attempt), Ok(Started::Now));
    eventually("the script is up", || host.look(attempt, 0, 0, 9).out.bytes == b"up\n");
}

/// The same of the pumps, which their watch tells after its first nap.
pub(super) fn pumps(host: &Host, attempt: &Attempt) -> Vec<String> {
    eventually("the pumps are known", || !record(host, attempt, "pumps").is_empty());
    record(host, attempt, "pumps")
}

/// The words of a record in the attempt's directory.
pub(super) fn record(host: &Host, attempt: &Attempt, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(host.home_of(attempt).join(name)).unwrap();
    text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect()
}

pub(super) fn kill(signal: &str, target: &str) {
    assert!(Command::new("kill").args([signal, "--", target]).status().unwrap().success());
}

/// Changes one word of a record.
pub(super) fn forge(host: &Host, attempt: &Attempt, name: &str, word: usize, to: &str) {
    let mut words = record(host, attempt, name);
    to.clone_into(&mut words[word]);
    std::fs::write(host.home_of(attempt).join(name), words.join(" ") + "\n").unwrap();
}

const KILLED: Verdict = Verdict::Killed { why: Why::Itself, out_of_memory: false };

#[test]
fn supervisor_that_is_killed_leaves_the_program_running_and_its_end_unknown() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        up(&host, WAITING, &one);
        kill("-KILL", &record(&host, &one, "self")[1]);
        eventually("nobody supervises", || matches!(host.verdict(&one), Verdict::Running { supervised: false, .. }));
        std::fs::write(host.dir("home").join("go"), "").unwrap();
        let found = host.wait(&one);
        assert_eq!((found.verdict, found.out), (KILLED, whole(b"up\nlate\n")), "{shell}");
    }
}

/// Those that copy the output of an attempt: of its supervisor's session, and not of the program's.
fn copiers(host: &Host, attempt: &Attempt) -> Vec<String> {
    let session = |process: &Path| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(3)?.to_owned() + if stat.contains("(dd)") { " dd" } else { "" })
    };
    let supervisor = Path::new("/proc").join(&record(host, attempt, "self")[1]);
    let copies = session(&supervisor).unwrap() + " dd";
    let copies = |process: std::fs::DirEntry| {
        (session(&process.path())? == copies).then(|| process.file_name().into_string().unwrap())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(copies).collect()
}

#[test]
fn output_that_is_still_being_stored_is_waited_for_where_nobody_supervises() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        up(&host, WAITING, &one);
        eventually("both copy", || copiers(&host, &one).len() == 2);
        let copiers = copiers(&host, &one);
        for copier in &copiers {
            kill("-STOP", copier);
        }
        kill("-KILL", &record(&host, &one, "self")[1]);
        std::fs::write(host.dir("home").join("go"), "").unwrap();
        let leader = Path::new("/proc").join(&record(&host, &one, "leader")[0]);
        eventually("the program has ended", || !leader.exists());
        let found = host.look(&one, 0, 0, 99);
        assert!(matches!(found.verdict, Verdict::Running { supervised: false, .. }), "{shell}: {found:?}");
        assert_eq!(found.out, whole(b"up\n"), "{shell}");
        // Nothing is waited for without end: long after the last beat it is told as it is.
        let beat = record(&host, &one, "beat").remove(0);
        forge(&host, &one, "beat", 0, "0.01");
        assert_eq!(host.verdict(&one), KILLED, "{shell}");
        forge(&host, &one, "beat", 0, &beat);
        for copier in &copiers {
            kill("-CONT", copier);
        }
        let found = host.wait(&one);
        assert_eq!((found.verdict, found.out), (KILLED, whole(b"up\nlate\n")), "{shell}");
    }
}

#[test]
fn everything_that_is_killed_at_once_is_told() {
    let (host, one) = (Host::new(), attempt(1));
    up(&host, WAITING, &one);
    kill("-KILL", &record(&host, &one, "self")[1]);
    kill("-KILL", &format!("-{}", record(&host, &one, "leader")[0]));
    assert_eq!(host.wait(&one).verdict, KILLED);
    assert_eq!(host.start(WAITING, &one), Ok(Started::Before));
}

#[test]
fn program_that_is_killed_ended_by_that_signal() {
    let (host, one) = (Host::new(), attempt(1));
    up(&host, WAITING, &one);
    kill("-KILL", &record(&host, &one, "leader")[0]);
    assert_eq!(how(&host.wait(&one).verdict), (signal(9), Why::Itself));
}

#[test]
fn goodbye_to_the_session_reaches_nobody() {
    let (host, one) = (Host::new(), attempt(1));
    up(&host, WAITING, &one);
    let supervisor = record(&host, &one, "self")[1].clone();
    for signal in ["-HUP", "-INT", "-TERM", "-PIPE"] {
        kill(signal, &supervisor);
    }
    std::fs::write(host.dir("home").join("go"), "").unwrap();
    assert_eq!(how(&host.wait(&one).verdict), (How::Exit(0), Why::Itself));
}

#[test]
fn host_that_was_restarted_is_told_from_one_where_the_program_was_killed() {
    let (host, one) = (Host::new(), attempt(1));
    up(&host, WAITING, &one);
    let boot = record(&host, &one, "self")[3].clone();
    forge(&host, &one, "self", 3, "11111111-2222-3333-4444-555555555555");
    assert_eq!(host.verdict(&one), Verdict::Rebooted);
    // A process of that number runs, and is not ours.
    assert_eq!(host.cancel(&one).deed, cancel::Deed::Over);
    forge(&host, &one, "self", 3, &boot);
    std::fs::write(host.dir("home").join("go"), "").unwrap();
    assert_eq!(how(&host.wait(&one).verdict), (How::Exit(0), Why::Itself));
    forge(&host, &one, "self", 3, "11111111-2222-3333-4444-555555555555");
    assert!(matches!(host.verdict(&one), Verdict::Ended { how: How::Exit(0), ago: None, .. }));
}

#[test]
fn process_that_has_the_number_of_ours_is_not_ours() {
    let (host, one) = (Host::new(), attempt(1));
    up(&host, WAITING, &one);
    pumps(&host, &one);
    for (name, word) in [("leader", 1), ("self", 2), ("pumps", 1), ("pumps", 3)] {
        forge(&host, &one, name, word, "1");
    }
    assert_eq!(host.verdict(&one), KILLED);
    let cancelled = host.cancel(&one);
    assert_eq!(cancelled.deed, cancel::Deed::Over);
    assert!(cancelled.survivors > 0, "it is found by its environment, and left alone");
    std::fs::write(host.dir("home").join("go"), "").unwrap();
    eventually("it has ended", || host.home_of(&one).join("status").exists());
}

#[test]
fn directory_that_is_deleted_has_vanished() {
    let (host, one) = (Host::new(), attempt(1));
    up(&host, WAITING, &one);
    let supervisor = record(&host, &one, "self")[1].clone();
    std::fs::remove_dir_all(host.home_of(&one)).unwrap();
    std::fs::write(host.dir("home").join("go"), "").unwrap();
    eventually("its supervisor gives up", || !Path::new("/proc").join(&supervisor).exists());
    assert_eq!(host.verdict(&one), Verdict::Vanished);
}

#[test]
fn pump_that_is_killed_does_not_hang_the_program() {
    let (host, one) = (Host::new(), attempt(1));
    let script = "#!/bin/sh\necho up; while [ ! -e go ]; do sleep 0.01; done; yes | head -c 300000; echo $? >ended";
    up(&host, script, &one);
    for copier in copiers(&host, &one) {
        kill("-KILL", &copier);
    }
    std::fs::write(host.dir("home").join("go"), "").unwrap();
    let found = host.wait(&one);
    assert_eq!(how(&found.verdict), (How::Exit(0), Why::Itself));
    assert!(found.out.dropped.is_some(), "what nobody stored is not passed over in silence");
}

#[test]
fn program_beyond_its_time_is_ended_with_its_group() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        let terms = Terms { timeout: Duration::from_millis(300), ..TERMS };
        let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\ntail -f /dev/null & echo $!; wait");
        host.start_on(&terms, Program::Script { bytes: &script, args: &[] }, &one).unwrap();
        let found = host.wait(&one);
        assert_eq!(how(&found.verdict), (signal(15), Why::TimedOut), "{shell}");
        let child = String::from_utf8(found.out.bytes).unwrap();
        assert!(!Path::new("/proc").join(child.trim()).exists(), "{shell}");
    }
}

#[test]
fn daemon_that_holds_the_output_does_not_hold_the_verdict() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        host.start("#!/bin/sh\nsetsid sh -c 'while [ ! -e go ]; do sleep 0.01; done; echo late' &\necho up", &one)
            .unwrap();
        let found = host.wait(&one);
        assert_eq!((how(&found.verdict), found.out), ((How::Exit(0), Why::Itself), whole(b"up\n")), "{shell}");
        std::fs::write(host.dir("home").join("go"), "").unwrap();
        eventually("it still has a reader", || host.look(&one, 0, 0, 99).out.bytes == b"up\nlate\n");
    }
}

#[test]
fn daemon_that_still_writes_fills_no_file_that_is_gone() {
    for (shell, host) in Host::of_every_shell() {
        let (one, home) = (attempt(1), host.dir("home"));
        let daemon = "while [ ! -e go ]; do sleep 0.01; done; head -c 100000 /dev/zero; echo late; echo >lives";
        host.start(&format!("#!/bin/sh\nsetsid sh -c '{daemon}' &\necho up"), &one).unwrap();
        assert_eq!(how(&host.wait(&one).verdict), (How::Exit(0), Why::Itself), "{shell}");
        let dir = host.home_of(&one);
        host.asked(&[Ask::Forget(one)]).unwrap();
        let fds =
            || std::fs::read_dir("/proc").unwrap().flatten().filter_map(|it| it.path().join("fd").read_dir().ok());
        let gone = ["out (deleted)", "err (deleted)"].map(|file| dir.join(file));
        let is_ours = |fd: std::fs::DirEntry| std::fs::read_link(fd.path()).is_ok_and(|to| gone.contains(&to));
        eventually(&format!("{shell}: nobody holds its files"), || !fds().flatten().flatten().any(is_ours));
        std::fs::write(home.join("go"), "").unwrap();
        eventually("it writes and lives", || home.join("lives").exists());
    }
}

#[test]
fn program_whose_supervisor_was_killed_still_ends_at_its_time() {
    let hosts = Host::of_every_shell();
    std::thread::scope(|scope| {
        for (shell, host) in &hosts {
            scope.spawn(move || unsupervise(shell, host));
        }
    });
}

/// Kills the supervisor of a program with so long to run that it is surely up by then.
fn unsupervise(shell: &str, host: &Host) {
    let one = attempt(1);
    let terms = Terms { timeout: Duration::from_secs(6), ..TERMS };
    let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\necho up; exec tail -f /dev/null");
    host.start_on(&terms, Program::Script { bytes: &script, args: &[] }, &one).unwrap();
    eventually("the script is up", || host.look(&one, 0, 0, 9).out.bytes == b"up\n");
    kill("-KILL", &record(host, &one, "self")[1]);
    let expected = Verdict::Killed { why: Why::TimedOut, out_of_memory: false };
    assert_eq!(host.wait(&one).verdict, expected, "{shell}");
}

/// The watch of an attempt: of its supervisor's children the one that is neither the program nor a pump.
pub(super) fn watch(host: &Host, attempt: &Attempt) -> String {
    let (supervisor, pumps) = (record(host, attempt, "self")[1].clone(), pumps(host, attempt));
    let known = [&record(host, attempt, "leader")[0], &pumps[0], &pumps[2]];
    let is_it = |process: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).unwrap_or_default();
        parent == supervisor && known.iter().all(|known| !process.file_name().eq_ignore_ascii_case(known))
    };
    let mut found = std::fs::read_dir("/proc").unwrap().flatten().filter(is_it);
    found.next().unwrap().file_name().into_string().unwrap()
}

/// Kills the watch of a program with six seconds to run and, unless `is_supervised`, its supervisor.
fn unwatch(shell: &str, host: &Host, is_supervised: bool) {
    let one = attempt(1);
    let terms = Terms { timeout: Duration::from_secs(6), ..TERMS };
    let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\ntail -f /dev/null & echo $!; wait");
    host.start_on(&terms, Program::Script { bytes: &script, args: &[] }, &one).unwrap();
    eventually("the script is up", || !host.look(&one, 0, 0, 9).out.bytes.is_empty());
    kill("-KILL", &watch(host, &one));
    // With its supervisor, its end is told as that of any other; without, that it was asked to end.
    let found = if is_supervised {
        let found = host.wait(&one);
        assert_eq!(how(&found.verdict), (signal(15), Why::TimedOut), "{shell}");
        found
    } else {
        kill("-KILL", &record(host, &one, "self")[1]);
        let found = host.wait(&one);
        assert_eq!(found.verdict, Verdict::Killed { why: Why::TimedOut, out_of_memory: false }, "{shell}");
        found
    };
    let child = String::from_utf8(found.out.bytes).unwrap();
    eventually("nothing of it runs", || !Path::new("/proc").join(child.trim()).exists());
}

#[test]
fn program_whose_watch_was_killed_is_ended_by_whoever_looks() {
    let hosts = Host::of_every_shell();
    std::thread::scope(|scope| {
        for (shell, host) in &hosts {
            for is_supervised in [true, false] {
                scope.spawn(move || unwatch(shell, host, is_supervised));
            }
        }
    });
}

#[test]
fn group_without_a_watch_is_killed_when_its_leader_alone_listens() {
    let host = Host::new();
    for (number, is_supervised) in [(1, true), (2, false)] {
        let one = attempt(number);
        let terms = Terms { timeout: Duration::from_secs(2), ..TERMS };
        let script = "#!/bin/sh\n(trap '' TERM; echo $(exec sh -c 'echo $PPID'); exec tail -f /dev/null) & wait";
        let program = Program::Script { bytes: &Arc::from(script.as_bytes()), args: &[] };
        host.start_on(&terms, program, &one).unwrap();
        eventually("the script is up", || host.look(&one, 0, 0, 9).out.bytes.ends_with(b"\n"));
        kill("-KILL", &watch(&host, &one));
        let leader = Path::new("/proc").join(&record(&host, &one, "leader")[0]);
        if !is_supervised {
            kill("-KILL", &record(&host, &one, "self")[1]);
            eventually("its leader has ended", || {
                host.verdict(&one);
                !leader.exists()
            });
            assert!(matches!(host.verdict(&one), Verdict::Running { supervised: false, .. }));
            let asked = record(&host, &one, "why")[1].parse::<f64>().unwrap();
            forge(&host, &one, "why", 1, &format!("{:.2} ", asked - 14.0));
        }
        let found = host.wait(&one);
        let child = String::from_utf8(found.out.bytes).unwrap();
        eventually("nothing of it runs", || !Path::new("/proc").join(child.trim()).exists());
        assert!(!leader.exists());
    }
}

#[test]
fn program_without_a_watch_that_does_not_listen_is_killed() {
    let (host, one) = (Host::new(), attempt(1));
    let terms = Terms { timeout: Duration::from_secs(2), ..TERMS };
    let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\ntrap '' TERM; echo up; while :; do sleep 0.1; done");
    host.start_on(&terms, Program::Script { bytes: &script, args: &[] }, &one).unwrap();
    eventually("the script is up", || host.look(&one, 0, 0, 9).out.bytes == b"up\n");
    kill("-KILL", &watch(&host, &one));
    eventually("it was asked to end", || {
        record(&host, &one, "why").first().is_some_and(|why| why == "timed_out") || {
            assert!(matches!(host.verdict(&one), Verdict::Running { .. }));
            false
        }
    });
    // Ten seconds are a long time for a test.
    let asked = record(&host, &one, "why")[1].parse::<f64>().unwrap();
    assert!(asked > 14.0, "this machine was started just now");
    forge(&host, &one, "why", 1, &format!("{:.2} ", asked - 14.0));
    assert_eq!(how(&host.wait(&one).verdict), (signal(9), Why::TimedOut));
}

#[test]
fn supervisor_that_waits_for_the_output_is_woken_by_whoever_looks_where_its_watch_was_killed() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        // Who holds the output open does not go.
        up(&host, "#!/bin/sh\nsetsid tail -f /dev/null &\necho up; while [ ! -e go ]; do sleep 0.01; done", &one);
        let watch = watch(&host, &one);
        // Stopped, it is there when its supervisor looks for it, and never says that time passes.
        kill("-STOP", &watch);
        std::fs::write(host.dir("home").join("go"), "").unwrap();
        let leader = Path::new("/proc").join(&record(&host, &one, "leader")[0]);
        eventually("its end was noticed", || !leader.exists());
        kill("-KILL", &watch);
        assert!(matches!(host.verdict(&one), Verdict::Running { supervised: true, .. }), "{shell}");
        forge(&host, &one, "beat", 0, "1.00");
        let found = host.wait(&one);
        assert_eq!((how(&found.verdict), found.out), ((How::Exit(0), Why::Itself), whole(b"up\n")), "{shell}");
        for survivor in host.cancel(&one).named {
            kill("-KILL", &survivor.pid.to_string());
        }
    }
}

#[test]
fn end_for_want_of_memory_is_named_whoever_counts_and_where() {
    for (shell, host) in Host::of_every_shell() {
        let host = host.stand_in("/proc/vmstat", "pgfault 7\noom_kill 3\ndrop_pagecache 0\n");
        let vmstat = host.stand_ins[0].1.clone();
        let tell = |kills: u32| std::fs::write(&vmstat, format!("pgfault 9\noom_kill {kills}\nballoon 0\n")).unwrap();
        let memory = How::Signal { number: 9, out_of_memory: true };
        for (number, kills, expected) in [(1, 3, signal(9)), (2, 4, memory)] {
            let one = attempt(number);
            up(&host, WAITING, &one);
            eventually("its watch has counted", || record(&host, &one, "beat").len() == 2);
            tell(kills);
            kill("-KILL", &record(&host, &one, "leader")[0]);
            assert_eq!(how(&host.wait(&one).verdict), (expected, Why::Itself), "{shell}: {kills}");
        }
        let three = attempt(3);
        up(&host, WAITING, &three);
        eventually("its watch has counted", || record(&host, &three, "beat").len() == 2);
        kill("-KILL", &record(&host, &three, "self")[1]);
        kill("-KILL", &record(&host, &three, "leader")[0]);
        tell(5);
        let expected = Verdict::Killed { why: Why::Itself, out_of_memory: true };
        assert_eq!(host.wait(&three).verdict, expected, "{shell}");
    }
}

#[test]
fn program_of_another_user_is_started_seen_and_ended_as_that_user() {
    let allowed = Command::new("sudo").args(["-n", "-u", "nobody", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        skip::skipped("no `sudo` to `nobody` without a password");
        return;
    }
    let (host, one, nobody) = (Host::new(), attempt(1), Sudo::User("nobody".to_owned()));
    for (dir, mode) in [(host.root.path(), 0o755), (&host.dir("spare"), 0o1777)] {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\nid -un; exec tail -f /dev/null");
    let detached = Detached::new(Program::Script { bytes: &script, args: &[] }, &nobody, &TERMS).unwrap();
    let first = token();
    let answer = host.ask(detached.parcel(&first, &one, &[]).unwrap()).unwrap();
    assert_eq!(read_start(&first, &answer), Ok(Started::Now));
    let asks = [Ask::Look { attempt: one.clone(), out: 0, err: 0, most: 99 }];
    let look = || {
        let token = token();
        let answer = host.ask(collect::parcel(&nobody, &token, &asks).unwrap()).unwrap();
        collect::read(&token, &asks, &answer).unwrap().remove(0)
    };
    eventually("the script is up", || look().out.bytes == b"nobody\n");
    let second = token();
    let answer = host.ask(cancel::parcel(&nobody, &second, &one).unwrap()).unwrap();
    assert_eq!(cancel::read(&second, &one, &answer).unwrap().deed, cancel::Deed::Signalled);
    assert_eq!(how(&look().verdict), (signal(15), Why::Cancelled));
}

/// Cause: it ran for ever, and sent its signals to whoever had the number next.
#[test]
fn timer_that_stands_in_for_a_watch_ends_with_its_supervisor() {
    // Others sleep by themselves, and so without a process that shows.
    for (shell, host) in Host::of_every_shell().into_iter().filter(|(shell, _)| ["dash", "bash"].contains(shell)) {
        let one = attempt(1);
        // Who holds the output open has it waited for.
        up(&host, "#!/bin/sh\nsetsid sleep 60 &\necho up; while [ ! -e go ]; do sleep 0.01; done", &one);
        let (first, supervisor) = (watch(&host, &one), record(&host, &one, "self")[1].clone());
        kill("-KILL", &first);
        std::fs::write(host.dir("home").join("go"), "").unwrap();
        let parent = |process: &str| {
            let stat = std::fs::read_to_string(Path::new("/proc").join(process).join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).unwrap_or_default().to_owned()
        };
        let timers = || {
            let naps = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
                std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x002\0")
            });
            naps.map(|nap| parent(&nap.file_name().into_string().unwrap())).collect::<Vec<_>>()
        };
        let mut timer = None;
        eventually("its supervisor has a timer", || {
            timer = timers().into_iter().find(|timer| *timer != first && parent(timer) == supervisor);
            timer.is_some()
        });
        kill("-KILL", &supervisor);
        let timer = Path::new("/proc").join(timer.unwrap());
        eventually(&format!("the timer has ended: {shell}"), || !timer.exists());
    }
}
