//! What a detached attempt needs of a machine, and what it leaves there.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::RecvTimeoutError;

use super::*;

/// All files below a directory, with their modes.
fn files(dir: &Path) -> Vec<(PathBuf, u32)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| {
        let mode = path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
        let below = if path.is_dir() { files(&path) } else { Vec::new() };
        below.into_iter().chain([(path, mode)])
    });
    below.collect()
}

#[test]
fn everything_is_private_and_no_file_holds_a_secret() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        host.start("#!/bin/sh\n[ ${#SECRET} = 17 ]", &one).unwrap();
        assert_eq!(how(&host.wait(&one).verdict).0, How::Exit(0), "{shell}");
        let files = files(&host.dir("home"));
        assert!(files.len() > 10, "{shell}");
        for (path, mode) in files {
            assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{shell}: {}", path.display());
            if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(6).any(|window| window == b"hidden"), "{shell}: {}", path.display());
            }
        }
    }
}

#[test]
fn program_sees_an_ordinary_process() {
    // End of file on standard input, no stray descriptor, no signal ignored, the user's own umask and directory, no
    // variable of ours.
    let look = "cat; umask; pwd; ls /proc/self/fd; env | grep -i sshjob_; trap; \
                sed -n 's/^SigIgn:.*\\(........\\)$/\\1/p' /proc/self/status; set -- $(cat /proc/$$/stat); \
                [ \"$1\" = \"$5\" ] && [ \"$1\" = \"$6\" ] && echo leads";
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        let words = ["sh", "-c", look].map(|word| word.as_bytes().to_vec());
        host.start_on(&TERMS, Program::Command(&words), &one).unwrap();
        let mut plain = Command::new("setsid");
        plain.args(["/bin/sh", "-c", look]).current_dir(host.dir("home")).stdin(Stdio::null());
        let plain = plain.env_clear().env("PATH", path()).output().unwrap();
        let found = String::from_utf8(host.wait(&one).out.bytes).unwrap();
        let found: String =
            found.lines().filter(|line| !line.starts_with("SSHJOB_")).flat_map(|line| [line, "\n"]).collect();
        assert_eq!(found, String::from_utf8(plain.stdout).unwrap(), "{shell}");
    }
}

#[test]
fn words_and_variables_arrive_exactly() {
    let nasty: Vec<u8> = (1..=255).collect();
    // What is too large for a variable comes another way.
    let large = "'".repeat(70_000).into_bytes();
    let cases = Host::of_every_shell().into_iter().flat_map(|(shell, host)| {
        let host = std::rc::Rc::new(host);
        [(shell, host.clone(), attempt(1), &b""[..]), (shell, host, attempt(2), &large[..])]
    });
    for (shell, host, one, large) in cases {
        let words = [
            &b"sh"[..],
            b"-c",
            b"printf '<%s>' \"$@\" ${#LARGE}; printf %s \"$dir\" >&2",
            b"sh",
            b"",
            b"-n",
            b"a\n",
            &nasty,
        ];
        let words = words.map(<[u8]>::to_vec);
        let detached = Detached::new(Program::Command(&words), &Sudo::No, &TERMS).unwrap();
        // Names that our own texts could have used.
        let env: [(&str, &[u8]); 5] =
            [("dir", &nasty), ("PATH", path_bytes()), ("IFS", b"st/"), ("HOME", b"/nowhere"), ("LARGE", large)];
        host.ask(detached.parcel(&token(), &one, &env).unwrap()).unwrap();
        let found = host.wait(&one);
        let length = format!("><{}>", large.len());
        assert_eq!(found.out.bytes, [b"<><-n><a\n><", &nasty[..], length.as_bytes()].concat(), "{shell}");
        assert_eq!(found.err.bytes, nasty, "{shell}");
    }
}

fn path_bytes() -> &'static [u8] {
    path().into_encoded_bytes().leak()
}

#[test]
fn program_that_is_missing_is_named_and_leaves_nothing() {
    let host = Host::new();
    let missing = Err(DeliveryError::Program("sshjob-none".to_owned()));
    let words = [b"sshjob-none".to_vec()];
    assert_eq!(host.start_on(&TERMS, Program::Command(&words), &attempt(1)), missing);
    assert_eq!(host.start("#!/usr/bin/env sshjob-none\n", &attempt(1)), missing);
    assert_eq!(host.start("#!/opt/none\n", &attempt(1)), Err(DeliveryError::Program("/opt/none".to_owned())));
    eventually("nothing is left behind", || files(&host.dir("home").join(".sshjob")).is_empty());
}

#[test]
fn home_that_cannot_be_written_is_made_up_for_and_searched_all_the_same() {
    for (shell, host) in Host::of_every_shell() {
        // A file in the way stops even root.
        let root = host.dir("home").join(".sshjob");
        std::fs::write(&root, "").unwrap();
        let one = attempt(1);
        assert_eq!(host.start("#!/bin/sh\necho spare", &one), Ok(Started::Now), "{shell}");
        assert_eq!(host.wait(&one).out, whole(b"spare\n"), "{shell}");
        std::fs::remove_file(&root).unwrap();
        assert_eq!(host.start("#!/bin/sh\necho spare", &one), Ok(Started::Before), "{shell}");
        let spare = std::fs::read_dir(host.dir("spare")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(spare.metadata().unwrap().permissions().mode() & 0o7777, 0o700, "{shell}");
        // A place that others can write is nobody's.
        std::fs::set_permissions(&spare, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(host.verdict(&one), Verdict::Vanished, "{shell}");
        // A link may lead to one.
        let elsewhere = host.dir("elsewhere");
        std::fs::rename(&spare, &elsewhere).unwrap();
        std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&elsewhere, &spare).unwrap();
        assert_eq!(host.verdict(&one), Verdict::Vanished, "{shell}");
        std::fs::write(&root, "").unwrap();
        assert_eq!(host.start("#!/bin/sh", &attempt(2)), Err(DeliveryError::Space), "{shell}");
    }
}

#[test]
fn machine_with_nothing_but_busybox_is_enough() {
    let Some(busybox) = which("busybox") else {
        skip::missing("busybox");
        return;
    };
    let applets = [
        "dd",
        "mkdir",
        "mkfifo",
        "mv",
        "sha256sum",
        "rm",
        "rmdir",
        "sleep",
        "setsid",
        "wc",
        "ls",
        "head",
        "find",
        "grep",
    ];
    let host = Host::new().only(&applets.map(|applet| (applet, busybox.as_path()))).sh("busybox").unwrap();
    let one = attempt(1);
    let terms = Terms { max_output: 10, ..TERMS };
    let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\necho 1234567890; exec sleep 1000");
    let program = Program::Script { bytes: &script, args: &[] };
    assert_eq!(host.start_on(&terms, program, &one), Ok(Started::Now));
    eventually("it has written", || host.look(&one, 0, 0, 99).out.stored == 10);
    assert_eq!(
        host.cancel(&one),
        cancel::Cancelled { deed: cancel::Deed::Signalled, survivors: 0, named: vec![], scanned: true }
    );
    let found = host.wait(&one);
    assert_eq!((how(&found.verdict), found.out.dropped), ((signal(15), Why::Cancelled), Some(1)));
}

#[test]
fn full_disk_costs_output_and_not_the_verdict() {
    for (shell, host) in Host::of_every_shell() {
        let Some(host) = host.small("512k") else { return };
        let one = attempt(1);
        let script = "#!/bin/sh\nhead -c 1000000 /dev/zero; echo err >&2; echo more 2>/dev/null >file; exit 7";
        assert_eq!(host.start(script, &one), Ok(Started::Now), "{shell}");
        let found = host.wait(&one);
        assert_eq!(how(&found.verdict), (How::Exit(7), Why::Itself), "{shell}");
        assert!(found.out.dropped.is_some() && found.out.stored < 512 * 1024, "{shell}: {}", found.out.stored);
        assert!(found.out.bytes.iter().all(|byte| *byte == 0), "{shell}");
        // Not even a start has room here, and what is elsewhere is as good.
        assert_eq!(host.start("#!/bin/sh\necho spare", &attempt(2)), Ok(Started::Now), "{shell}");
        assert_eq!(host.wait(&attempt(2)).out, whole(b"spare\n"), "{shell}");
    }
}

#[test]
fn home_that_is_not_there_hides_what_it_holds_and_nothing_has_vanished() {
    for (shell, mut host) in Host::of_every_shell() {
        host.start("#!/bin/sh", &attempt(1)).unwrap();
        host.wait(&attempt(1));
        // As where a home that is mounted from elsewhere is not.
        host.variables = vec![("HOME", host.dir("unmounted").into())];
        let look = Ask::Look { attempt: attempt(1), out: 0, err: 0, most: 0 };
        let error = host.asked(&[look]).unwrap_err().to_string();
        assert_eq!(error, "the host's answer is that its home cannot be looked into: is it mounted?", "{shell}");
        let token = token();
        let answer = host.ask(cancel::parcel(&Sudo::No, &token, &attempt(1)).unwrap()).unwrap();
        assert_eq!(cancel::read(&token, &attempt(1), &answer).unwrap_err().to_string(), error, "{shell}");
        // What lives elsewhere is seen all the same.
        host.start("#!/bin/sh\nexit 3", &attempt(2)).unwrap();
        assert_eq!(how(&host.wait(&attempt(2)).verdict).0, How::Exit(3), "{shell}");
        host.variables.clear();
        assert_eq!(how(&host.verdict(&attempt(1))).0, How::Exit(0), "{shell}");
    }
}

#[test]
fn shell_that_cannot_count_so_far_refuses_what_it_could_not_watch() {
    for (shell, host) in Host::of_every_shell() {
        let days = |days: u64| Duration::from_hours(days * 24);
        let far = [Terms { max_output: 1 << 31, ..TERMS }, Terms { timeout: days(249), ..TERMS }];
        let near = Terms { max_output: (1 << 31) - 1, timeout: days(248), ..TERMS };
        for (number, terms) in (1..).zip([far[0], far[1], near]) {
            let program = Program::Script { bytes: &Arc::from(*b"#!/bin/sh\necho out"), args: &[] };
            let started = host.start_on(&terms, program, &attempt(number));
            if shell == "mksh" && number < 3 {
                assert_eq!(started, Err(DeliveryError::Bits), "{terms:?}");
                continue;
            }
            assert_eq!(started, Ok(Started::Now), "{shell}: {terms:?}");
            let found = host.wait(&attempt(number));
            assert_eq!((how(&found.verdict).0, found.out), (How::Exit(0), whole(b"out\n")), "{shell}: {terms:?}");
        }
    }
}

#[test]
fn machine_that_is_up_for_a_year_ends_programs_at_their_time() {
    for (shell, host) in Host::of_every_shell() {
        let host = host.stand_in("/proc/uptime", "");
        let uptime = host.stand_ins[0].1.clone();
        let tick = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            let up: f64 = text.split(' ').next().unwrap().parse().unwrap();
            // Renamed: nobody reads half of it.
            std::fs::write(uptime.with_extension("new"), format!("{:.2} 1.00\n", up + 365.0 * 86_400.0)).unwrap();
            std::fs::rename(uptime.with_extension("new"), &uptime).unwrap();
        };
        tick();
        let (going, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            // Ends the clock however this ends.
            let _going = going;
            scope.spawn(move || {
                while ended.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                    tick();
                }
            });
            let terms = Terms { timeout: Duration::from_secs(1), ..TERMS };
            let program = Program::Script { bytes: &Arc::from(*b"#!/bin/sh\nexec sleep 1000"), args: &[] };
            let started = host.start_on(&terms, program, &attempt(1));
            let found = host.wait(&attempt(1));
            assert_eq!(started, Ok(Started::Now), "{shell}");
            let Verdict::Ended { how, why, took, .. } = found.verdict else { panic!("{shell}: {found:?}") };
            assert_eq!((how, why), (signal(15), Why::TimedOut), "{shell}");
            assert!(took >= Duration::from_secs(1) && took < Duration::from_mins(1), "{shell}: {took:?}");
        });
    }
}

#[test]
fn tool_that_is_missing_is_named_and_leaves_nothing() {
    let tools = ["dd", "mkdir", "mkfifo", "mv", "setsid", "sleep", "sh", "wc"];
    for (shell, makes_sessions) in [("dash", true), ("dash", false), ("bash", true)] {
        for missing in ["dd", "mkdir", "mv", "setsid", "sleep"] {
            let there = tools.into_iter().filter(|tool| *tool != missing).map(|tool| (tool, which(tool).unwrap()));
            let there: Vec<(&str, PathBuf)> = there.collect();
            let there: Vec<(&str, &Path)> = there.iter().map(|(name, path)| (*name, path.as_path())).collect();
            let Some(mut host) = Host::new().sh(shell) else { continue };
            host = host.only(&there);
            host.makes_sessions = makes_sessions;
            let started = host.start("#!/bin/sh\necho ran", &attempt(1));
            assert_eq!(started, Err(DeliveryError::Tool(missing.to_owned())), "{shell}, {makes_sessions}");
            host.path = None;
            assert_eq!(host.verdict(&attempt(1)), Verdict::Vanished, "{shell}: {missing}");
        }
    }
}

#[test]
fn unit_of_systemd_runs_the_supervisor_and_is_told_nothing_else() {
    for (shell, mut host) in Host::of_every_shell() {
        let (one, told, ended) = (attempt(1), host.dir("told"), host.dir("ended"));
        // It knows no `--collect`, as systemd of old; it starts what it is told to with nothing of its caller's.
        let text = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >>{}\ncase \" $* \" in *' --collect '*) exit 1 ;; esac\n\
             while case $1 in --*) ;; *) false ;; esac; do shift; done\n\
             (env -i /usr/bin/env setsid -w \"$@\" </dev/null >/dev/null 2>&1; echo $? >{}) >/dev/null 2>&1 &\n",
            told.display(),
            ended.display()
        );
        let stand_in = host.dir("bin").join("systemd-run");
        std::fs::write(&stand_in, text).unwrap();
        std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut dirs = host.dir("bin").into_os_string();
        dirs.push(":");
        dirs.push(path());
        host.path = Some(dirs.into());
        let terms = Terms { unit: true, ..TERMS };
        let script: Arc<[u8]> = Arc::from(*b"#!/bin/sh\n[ ${#SECRET} = 3 ] && pwd && umask && exit 9");
        let detached = Detached::new(Program::Script { bytes: &script, args: &[] }, &Sudo::Root, &terms).unwrap();
        let token = token();
        let answer = host.ask(detached.parcel(&token, &one, &[("SECRET", b"hid")]).unwrap()).unwrap();
        assert_eq!(read_start(&token, &answer), Ok(Started::Now), "{shell}");
        let found = host.wait(&one);
        assert_eq!(how(&found.verdict), (How::Exit(9), Why::Itself), "{shell}");
        let home = host.dir("home");
        assert!(String::from_utf8(found.out.bytes).unwrap().starts_with(home.to_str().unwrap()), "{shell}");
        let place = host.dir("spare").join(format!("sshjob-{token}"));
        let unit = format!("--quiet --unit=sshjob-{token} --property=KillMode=process");
        let run = format!("/bin/sh {}/supervisor\n", place.display());
        let expected = format!("{unit} --collect --property=OOMPolicy=continue {run}{unit} {run}");
        assert_eq!(std::fs::read_to_string(&told).unwrap(), expected, "{shell}");
        assert!(!place.exists(), "{shell}");
        // What is left of the work after the answer is none of it a failed unit's.
        eventually("the unit has ended", || std::fs::read_to_string(&ended).is_ok_and(|status| status == "0\n"));
    }
}
