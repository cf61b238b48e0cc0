//! What a delivery costs a host, counted by strace: programs, at 1 ms of CPU time each, and processes, at 0.2 ms, rather
//! than time itself.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// The programs that were started by a delivery, to the end of all that it set going, and how many processes.
fn started_by(delivery: &Delivery) -> Option<(Vec<String>, usize)> {
    let traceable = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !traceable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no `strace` that may trace; tests/run installs it");
        return None;
    }
    let mut host = Host::new().sh("dash")?;
    let (login, traces) = (host.dir("bin").join("login"), tempfile::tempdir().unwrap());
    // With `-D` the login shell is the process that was started, as on a host, and strace looks on from beside.
    let trace = "strace -D -f -ff -qq -e trace=execve -e signal=none";
    let text = format!("#!/bin/sh\nexec {trace} -o {}/of sh \"$@\"\n", traces.path().display());
    std::fs::write(&login, text).unwrap();
    std::fs::set_permissions(&login, PermissionsExt::from_mode(0o755)).unwrap();
    host.login = login;
    let ended = host.run(delivery, &[("SSHJOB_RUN_ID", b"hello-20261122T221500Z")]);
    assert_eq!((ended.started, ended.status.code()), (true, Some(0)), "{ended:?}");
    let traces = std::fs::read_dir(traces.path()).unwrap().map(|trace| std::fs::read(trace.unwrap().path()).unwrap());
    let traces: Vec<String> = traces.map(|trace| String::from_utf8_lossy(&trace).into_owned()).collect();
    let program = |line: &str| {
        let path = line.strip_prefix("execve(\"")?.strip_suffix(" = 0")?.split('"').next()?;
        Path::new(path).file_name().map(|name| name.to_str().unwrap().to_owned())
    };
    let mut programs: Vec<String> = traces.iter().flat_map(|trace| trace.lines().filter_map(program)).collect();
    // The timer of what is over at once may be ended before it is a program.
    programs.retain(|program| program != "sleep");
    programs.sort_unstable();
    Some((programs, traces.len()))
}

#[test]
fn delivery_takes_no_more_programs_than_it_must() {
    // The login shell is one `sh`, what reads the delivery another, and the script's own a third.
    let Some(command) = started_by(&command(&[b"true"])) else { return };
    assert_eq!(command, (["setsid", "sh", "sh", "sh", "true"].map(str::to_owned).into(), 6));
    let script = started_by(&script("#!/bin/sh\n:", &[])).unwrap();
    let programs = ["dd", "mkdir", "rm", "setsid", "sh", "sh", "sh", "sh", "sha256sum"];
    assert_eq!(script, (programs.map(str::to_owned).into(), 10));
}
