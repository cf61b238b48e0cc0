//! What ends with the channel, what ends at the limit, and what lives on.

use std::os::unix::process::ExitStatusExt as _;

use super::*;

/// Leader and child both leave a line when they are asked to end; the child's comes from `wait`ing in the same group.
const FAMILY: &str = "trap 'echo leader ended; exit 3' TERM
sh -c 'trap \"echo child ended >child; exit\" TERM; : >ready; while :; do sleep 0.05; done' &
while [ ! -e ready ]; do sleep 0.01; done
: >up
while :; do sleep 0.05; done";

fn is_up(host: &Host) -> bool {
    host.dir("home").join("up").exists()
}

fn start(host: &Host, delivery: &Delivery) -> Session {
    let mut session = host.start(delivery, &[]);
    session.send_all();
    eventually("the script is up", || is_up(host));
    session
}

/// The same as a script and as a command.
fn both(text: &str) -> [Delivery; 2] {
    [script(text, &[]), command(&[b"sh", b"-c", text.as_bytes()])]
}

#[track_caller]
fn assert_family_ends_with_channel(host: &Host) {
    for delivery in both(FAMILY) {
        for file in ["up", "ready", "child"] {
            let _ = std::fs::remove_file(host.dir("home").join(file));
        }
        let mut session = start(host, &delivery);
        session.close();
        let ended = session.end();
        assert_eq!((ended.status.code(), ended.out), (Some(3), b"leader ended\n".to_vec()));
        assert_eq!(std::fs::read(host.dir("home").join("child")).unwrap(), b"child ended\n");
    }
}

#[test]
fn channel_that_closes_ends_the_whole_group() {
    let hosts = BIN_SHELLS.into_iter().filter_map(|shell| Host::new().sh(shell));
    assert!(hosts.inspect(assert_family_ends_with_channel).count() > 0);
}

#[test]
fn server_that_makes_no_group_is_made_up_for() {
    let hosts = BIN_SHELLS.into_iter().filter_map(|shell| Host::new().sh(shell));
    let hosts = hosts.map(|host| Host { leads: false, ..host });
    assert!(hosts.inspect(assert_family_ends_with_channel).count() > 0);
}

/// A `sleep` of our own, so that no test waits: pauses of the grace period pass at once, the limit passes when the
/// file `limit` is there.
fn with_clock(mut host: Host) -> Host {
    let (clock, limit) = (host.dir("bin").join("sleep"), host.dir("limit"));
    let sleep = which("sleep").unwrap();
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = 605 ] || exec {sleep} 0.001\nwhile [ ! -e {limit} ]; do {sleep} 0.01; done\n",
        sleep = sleep.display(),
        limit = limit.display()
    );
    std::fs::write(&clock, text).unwrap();
    std::fs::set_permissions(&clock, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    host.before = format!("PATH={}:$PATH; ", host.dir("bin").display());
    host
}

#[test]
fn script_beyond_its_limit_is_ended_by_the_host() {
    for delivery in both(": >up; exec tail -f /dev/null") {
        let host = with_clock(Host::new());
        let session = start(&host, &delivery);
        std::fs::write(host.dir("limit"), "").unwrap();
        let ended = session.end();
        assert_eq!((ended.started, ended.status.signal()), (true, Some(15)));
    }
}

#[test]
fn script_that_ignores_the_request_is_killed() {
    for delivery in both("trap '' TERM; : >up; tail -f /dev/null; tail -f /dev/null") {
        let host = with_clock(Host::new());
        let mut session = start(&host, &delivery);
        session.close();
        let ended = session.end();
        assert_eq!((ended.started, ended.status.signal()), (true, Some(9)));
    }
}

#[test]
fn signal_to_the_whole_group_does_not_end_its_watchdog() {
    // `kill 0`, as scripts tidy up; with every signal that a program can ignore.
    let text = "signals='HUP INT QUIT ABRT USR1 USR2 PIPE ALRM TERM TSTP TTIN TTOU VTALRM PROF XCPU XFSZ'
trap '' $signals; for signal in $signals; do kill -$signal 0; done; : >up; trap - TERM; exec tail -f /dev/null";
    for delivery in both(text) {
        let host = with_clock(Host::new());
        let session = start(&host, &delivery);
        std::fs::write(host.dir("limit"), "").unwrap();
        let ended = session.end();
        assert_eq!((ended.started, ended.status.signal()), (true, Some(15)));
    }
}

#[test]
fn child_in_the_background_lives_on_after_the_end() {
    for delivery in both("tail -f /dev/null >/dev/null 2>&1 & echo $!") {
        let host = Host::new();
        let ended = host.run(&delivery, &[]);
        let child: u32 = String::from_utf8(ended.out).unwrap().trim().parse().unwrap();
        assert!(Path::new(&format!("/proc/{child}")).exists());
        let killed = Command::new("kill").arg(child.to_string()).status().unwrap();
        assert!(killed.success());
    }
}

#[test]
fn script_that_kills_its_own_group_leaves_nothing_behind() {
    // At once, too: a watchdog that is still on its way out of the group would go with it.
    let hosts = BIN_SHELLS.into_iter().filter_map(|shell| Host::new().sh(shell));
    for host in hosts {
        for _ in 0..20 {
            for delivery in both("kill -9 0") {
                assert_eq!(host.run(&delivery, &[]).status.signal(), Some(9));
            }
        }
    }
}

#[test]
fn script_that_renames_itself_is_found() {
    // The name in /proc/PID/stat is the script's to choose: one that looks like the end of the name must not hide it.
    let Some(python) = which("python3") else {
        skip::missing("python3");
        return;
    };
    let host = Host::new();
    let text = format!(
        "#!{}\nopen('/proc/self/comm', 'w').write('x) S 1 1\\n 1')\nopen('up', 'w')\nimport time\ntime.sleep(600)",
        python.canonicalize().unwrap().display()
    );
    let mut session = start(&host, &script(text, &[]));
    session.close();
    assert_eq!(session.end().status.signal(), Some(15));
}

#[test]
fn user_to_become_runs_and_ends_as_anyone() {
    let allowed = Command::new("sudo").args(["-n", "-u", "nobody", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        skip::skipped("no `sudo` to `nobody` without a password");
        return;
    }
    let delivery = |text: &[u8]| {
        let program = Program::Script { bytes: &Arc::from(text), args: &[] };
        Delivery::new(program, &Sudo::User("nobody".to_owned()), TIMEOUT).unwrap()
    };
    let host = Host::new();
    let ended = host.run(&delivery(b"id -un; cat; exit 5"), &[]);
    assert_eq!((ended.status.code(), ended.out), (Some(5), b"nobody\n".to_vec()));

    let mark = host.dir("mark");
    std::fs::write(&mark, "").unwrap();
    std::fs::set_permissions(&mark, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::set_permissions(host.root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut session =
        host.start(&delivery(format!("echo up >{}; exec tail -f /dev/null", mark.display()).as_bytes()), &[]);
    session.send_all();
    eventually("the script is up", || std::fs::read(&mark).unwrap() == b"up\n");
    session.close();
    assert_eq!(session.end().status.signal(), Some(15));
}
