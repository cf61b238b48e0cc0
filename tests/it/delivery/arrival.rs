//! What does not arrive whole does not run; what cannot be put anywhere says so; nothing stays behind.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A script that leaves a trace, so that one that ran cannot hide.
fn tracing_script(host: &Host) -> (Delivery, PathBuf) {
    let trace = host.dir("trace");
    (script(format!("#!/bin/sh\ntouch '{}'\necho ran\n# {}\n", trace.display(), "x".repeat(20_000)), &[]), trace)
}

#[test]
fn delivery_cut_anywhere_never_runs() {
    let host = Host::new();
    let (delivery, trace) = tracing_script(&host);
    let whole = delivery.parcel(&token(), &[]).unwrap();
    let (head, all) = (whole.head.len(), whole.head.len() + whole.script.len());
    let steps = (0..40).map(|n| all * n / 40);
    for cut in steps.chain([1, head - 1, head, head + 1, all - 1]) {
        let mut session = host.start(&delivery, &[]);
        let sent = [&session.parcel.head[..], &session.parcel.script[..]].concat();
        session.send(&sent[..cut]);
        session.close();
        let ended = session.end();
        ended.assert_never_started();
        let expected = if cut < head { DeliveryError::Cut } else { DeliveryError::Hash };
        assert_eq!((ended.status.code(), ended.refusal), (Some(126), Some(expected)), "cut at {cut} of {all}");
        assert!(!trace.exists(), "cut at {cut} of {all}");
    }
}

#[test]
fn delivery_robbed_of_bytes_never_runs() {
    let host = Host::new();
    let (delivery, trace) = tracing_script(&host);
    let head = delivery.parcel(&token(), &[]).unwrap().head.len();
    // A login file that reads standard input takes some; the rest moves up.
    for (from, length) in [(0, 1), (0, 40), (head / 2, 1), (head - 10, 10), (head - 1, 2), (head + 50, 1)] {
        let mut session = host.start(&delivery, &[]);
        let mut sent = [&session.parcel.head[..], &session.parcel.script[..]].concat();
        sent.drain(from..from + length);
        session.send(&sent);
        session.close();
        session.end().assert_never_started();
        assert!(!trace.exists(), "{length} bytes at {from}");
    }
}

#[test]
fn script_changed_on_the_way_never_runs() {
    let host = Host::new();
    let (delivery, trace) = tracing_script(&host);
    let mut session = host.start(&delivery, &[]);
    let (head, mut script) = (session.parcel.head.clone(), session.parcel.script.to_vec());
    *script.last_mut().unwrap() ^= 1;
    session.send(&head);
    session.send(&script);
    let ended = session.end();
    ended.assert_never_started();
    assert_eq!(ended.refusal, Some(DeliveryError::Hash));
    assert!(!trace.exists());
}

#[test]
fn noise_of_login_files_is_no_output() {
    let mut host = Host::new();
    host.before = "echo welcome; printf 'no line end'; printf 'on both' >&2; ".to_owned();
    let ended = host.run(&script("echo out; echo err >&2", &[]), &[]);
    assert_eq!((ended.out, ended.err), (b"out\n".to_vec(), b"err\n".to_vec()));
}

#[test]
fn places_that_cannot_be_used_are_passed_over() {
    for make in [
        (|tmp: &Path| std::fs::remove_dir(tmp).unwrap()) as fn(&Path),
        |tmp| {
            std::fs::remove_dir(tmp).unwrap();
            std::fs::write(tmp, "a file").unwrap();
        },
        // Root may write here all the same: then it is no test, and no failure.
        |tmp| std::fs::set_permissions(tmp, PermissionsExt::from_mode(0o500)).unwrap(),
    ] {
        let host = Host::new();
        make(&host.dir("tmp"));
        assert_eq!(host.run(&script("echo ran", &[]), &[]).out, b"ran\n");
    }
}

#[test]
fn name_that_is_taken_is_passed_over() {
    let host = Host::new();
    let (token, elsewhere) = (token(), host.dir("home").join("elsewhere"));
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, host.dir("tmp").join(format!(".sshjob-{token}"))).unwrap();
    let parcel = script("echo \"$0\"", &[]).parcel(&token, &[]).unwrap();
    let mut session = host.start_parcel(token.clone(), parcel);
    session.send_all();
    eventually("the script has ended", || session.child.try_wait().unwrap().is_some());
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    std::fs::remove_file(host.dir("tmp").join(format!(".sshjob-{token}"))).unwrap();
    assert_eq!(String::from_utf8(session.end().out).unwrap(), format!("/tmp/.sshjob-{token}/script\n"));
}

/// Runs `login` in a mount namespace of its own; `None`, said aloud, where the system does not allow that.
fn with_mounts(mut host: Host, mounts: &str) -> Option<Host> {
    let unshare = ["--user", "--map-root-user", "--mount"];
    let allowed = Command::new("unshare").args(unshare).args(["sh", "-c", "mount -t tmpfs none /mnt"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        skip::skipped("this system allows no mount in a namespace of one's own");
        return None;
    }
    let login = host.dir("bin").join("login");
    let sh = format!("#!/bin/sh\nexec unshare {} sh -c '{mounts}; exec sh \"$@\"' sh \"$@\"\n", unshare.join(" "));
    std::fs::write(&login, sh).unwrap();
    std::fs::set_permissions(&login, PermissionsExt::from_mode(0o755)).unwrap();
    host.login = login;
    Some(host)
}

const FULL: &str = "mount -t tmpfs -o size=64k none \"$1\" && head -c 65536 /dev/zero >\"$1/filler\" 2>/dev/null";

#[test]
fn full_directory_is_passed_over() {
    let mounts = format!("fill() {{ {FULL}; }}; fill \"$TMPDIR\"; mount -t tmpfs -o ro none /tmp; fill /var/tmp");
    // The home lies below /tmp and is hidden by the mount: the last resort is taken.
    let Some(host) = with_mounts(Host::new(), &mounts) else { return };
    let text = format!("echo \"${{0%%.*}}\"\n# {}\n", "x".repeat(100_000));
    assert_eq!(String::from_utf8(host.run(&script(text, &[]), &[]).out).unwrap(), "/dev/shm/\n");
}

#[test]
fn machine_without_room_refuses_scripts_and_runs_commands() {
    let mounts = format!("fill() {{ {FULL}; }}; for d in /var/tmp /dev/shm /tmp; do fill $d; done");
    let Some(host) = with_mounts(Host::new(), &mounts) else { return };
    let ended = host.run(&script("echo ran", &[]), &[]);
    ended.assert_never_started();
    assert_eq!((ended.status.code(), ended.refusal), (Some(126), Some(DeliveryError::Space)));
    assert_eq!(host.run(&command(&[b"echo", b"ran"]), &[]).out, b"ran\n");
}

#[test]
fn machine_with_nothing_but_busybox_is_enough() {
    let Some(busybox) = which("busybox") else {
        skip::missing("busybox");
        return;
    };
    let applets = ["dd", "mkdir", "sha256sum", "rm", "sleep", "setsid", "cat", "env"];
    let host = Host::new().only(&applets.map(|applet| (applet, busybox.as_path()))).sh("busybox").unwrap();
    let text = format!("#!/usr/bin/env cat\n{}", "line\n".repeat(10_000));
    let ended = host.run(&script(&text, &[]), &[]);
    assert_eq!(ended.refusal, None);
    assert!(ended.out == text.as_bytes());
}

#[test]
fn tool_that_is_missing_is_named() {
    let tools = ["dd", "mkdir", "sha256sum", "rm", "sleep", "setsid"];
    for missing in ["dd", "mkdir", "sha256sum", "rm"] {
        let there: Vec<(&str, PathBuf)> =
            tools.into_iter().filter(|tool| *tool != missing).map(|tool| (tool, which(tool).unwrap())).collect();
        let there: Vec<(&str, &Path)> = there.iter().map(|(name, path)| (*name, path.as_path())).collect();
        let ended = Host::new().only(&there).run(&script("echo ran", &[]), &[]);
        ended.assert_never_started();
        assert_eq!(ended.refusal, Some(DeliveryError::Tool(missing.to_owned())));
    }
}

#[test]
fn machine_without_setsid_still_runs() {
    let tools = ["dd", "mkdir", "sha256sum", "rm", "sleep"].map(|tool| (tool, which(tool).unwrap()));
    let there: Vec<(&str, &Path)> = tools.iter().map(|(name, path)| (*name, path.as_path())).collect();
    for leads in [true, false] {
        let mut host = Host::new().only(&there);
        host.leads = leads;
        assert_eq!(host.run(&script("echo ran", &[]), &[]).out, b"ran\n");
    }
}

#[test]
fn program_that_is_missing_is_named() {
    let host = Host::new();
    for (delivery, name) in [
        (script("#!/opt/no such/sh\necho ran", &[]), "/opt/no"),
        (script("#!/usr/bin/env sshjob-none\necho ran", &[]), "sshjob-none"),
        (script("#!/tmp\necho ran", &[]), "/tmp"),
        (command(&[b"sshjob-none", b"x"]), "sshjob-none"),
    ] {
        let ended = host.run(&delivery, &[]);
        ended.assert_never_started();
        assert_eq!((ended.status.code(), ended.refusal), (Some(127), Some(DeliveryError::Program(name.to_owned()))));
    }
}
