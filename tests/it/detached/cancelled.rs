//! Whoever is asked to end: it ends, with all that is its own, and what survives is named.

use super::killed::{forge, kill, record, up, watch};
use super::*;

#[test]
fn cancelled_program_ends_with_its_group_and_what_left_it_is_named() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        // Who is to have left has left before it is up.
        let script = "#!/bin/sh\n: >left\ntail -f /dev/null &\n\
                      setsid sh -c 'echo >>left; exec tail -f /dev/null' </dev/null >/dev/null 2>&1 &\n\
                      setsid sh -c 'echo >>left; exec sleep 1000' </dev/null >/dev/null 2>&1 &\n\
                      while [ \"$(wc -l <left)\" -lt 2 ]; do sleep 0.01; done; echo up; wait";
        up(&host, script, &one);
        let cancelled = host.cancel(&one);
        let mut names: Vec<&str> = cancelled.named.iter().map(|survivor| &*survivor.name).collect();
        names.sort_unstable();
        assert_eq!(
            (cancelled.deed, cancelled.survivors, cancelled.scanned),
            (cancel::Deed::Signalled, 2, true),
            "{shell}"
        );
        assert_eq!(names, ["sleep", "tail"], "{shell}");
        assert_eq!(how(&host.verdict(&one)), (signal(15), Why::Cancelled), "{shell}");
        for survivor in cancelled.named {
            kill("-KILL", &survivor.pid.to_string());
        }
        eventually("nothing is left", || host.cancel(&one).survivors == 0);
        assert_eq!(host.cancel(&one).deed, cancel::Deed::Over, "{shell}");
        assert_eq!(host.cancel(&attempt(2)).deed, cancel::Deed::Vanished, "{shell}");
    }
}

#[test]
fn cancel_that_is_cut_is_carried_on_by_whoever_looks() {
    for (shell, host) in Host::of_every_shell() {
        let one = attempt(1);
        up(&host, "#!/bin/sh\ntrap '' TERM; echo up; while :; do sleep 0.1; done", &one);
        kill("-KILL", &watch(&host, &one));
        let mut session = host.open(cancel::parcel(&Sudo::No, &token(), &one).unwrap());
        session.send_all();
        eventually("it was asked to end", || record(&host, &one, "why").first().is_some_and(|why| why == "cancelled"));
        let group = rustix::process::Pid::from_child(&session.child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        session.child.wait().unwrap();
        assert!(matches!(host.verdict(&one), Verdict::Running { .. }), "{shell}: its ten seconds are not over");
        let asked = record(&host, &one, "why")[1].parse::<f64>().unwrap();
        forge(&host, &one, "why", 1, &format!("{:.2} ", asked - 14.0));
        assert_eq!(how(&host.wait(&one).verdict), (signal(9), Why::Cancelled), "{shell}");
    }
}

#[test]
fn cancel_that_is_cut_leaves_no_child_behind_that_ignores_the_request() {
    for (shell, mut host) in Host::of_every_shell() {
        // Pauses of the grace period pass at once for those that come later.
        let instant = "#!/bin/sh\n[ \"$1\" = 0.2 ] || exec /bin/sleep \"$1\"\n";
        std::fs::write(host.dir("bin").join("sleep"), instant).unwrap();
        std::fs::set_permissions(host.dir("bin").join("sleep"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let mut dirs = host.dir("bin").into_os_string();
        dirs.push(":");
        dirs.push(path());
        host.path = Some(dirs.into());
        let one = attempt(1);
        let child = "(trap '' TERM; while :; do sleep 0.1; done) >/dev/null 2>&1 & echo $! >child";
        up(&host, &format!("#!/bin/sh\n{child}; echo up; trap 'exit 3' TERM; while :; do sleep 0.1; done"), &one);
        // As one that asked and was cut.
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let why = format!("cancelled {} \n", uptime.split(' ').next().unwrap());
        std::fs::write(host.home_of(&one).join("why"), why).unwrap();
        let child = std::fs::read_to_string(host.dir("home").join("child")).unwrap();
        kill("-TERM", &record(&host, &one, "leader")[0]);
        eventually("nobody of it is left", || !Path::new("/proc").join(child.trim()).exists());
        assert_eq!(how(&host.wait(&one).verdict), (How::Exit(3), Why::Cancelled), "{shell}");
    }
}

#[test]
fn grace_is_ten_seconds_where_sleep_knows_whole_ones_alone() {
    let Some(mut host) = Host::new().sh("dash") else { return };
    let (one, naps) = (attempt(1), host.dir("naps"));
    let text = format!(
        "#!/bin/sh\ncase $1 in *[!0-9]*) exit 1 ;; esac\necho >>{}\nexec {} \"$1\"\n",
        naps.display(),
        which("sleep").unwrap().display()
    );
    let stand_in = host.dir("bin").join("sleep");
    std::fs::write(&stand_in, text).unwrap();
    std::fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    up(&host, "#!/bin/sh\ntrap '' TERM; echo up; while :; do sleep 0.1; done", &one);
    let mut dirs = host.dir("bin").into_os_string();
    dirs.push(":");
    dirs.push(path());
    host.path = Some(dirs.into());
    assert_eq!(host.cancel(&one).deed, cancel::Deed::Signalled);
    assert_eq!(how(&host.wait(&one).verdict), (signal(9), Why::Cancelled));
    // Ten until it is killed, and at most six until its supervisor has said so and it is gone.
    let naps = std::fs::read_to_string(naps).unwrap().lines().count();
    assert!((10..=16).contains(&naps), "{naps}");
}

#[test]
fn what_was_killed_and_takes_a_moment_to_be_gone_is_no_survivor() {
    let (host, one) = (Host::new(), attempt(1));
    // Much memory takes long to be given back.
    let script = "#!/bin/sh\n(trap '' TERM; dd if=/dev/zero bs=600M count=1 | { head -c 1 >full; exec sleep 1000; }) &\n\
                  while [ ! -s full ]; do sleep 0.1; done; echo up; wait";
    up(&host, script, &one);
    let cancelled = host.cancel(&one);
    assert_eq!((cancelled.deed, cancelled.survivors), (cancel::Deed::Signalled, 0), "{:?}", cancelled.named);
}
