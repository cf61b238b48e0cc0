//! What a start costs a host, counted by strace: programs, at 1.5 ms of CPU time each, rather than time itself.

use super::*;

/// The programs that were started by an answered parcel, to the end of all that it set going, and how many processes.
/// Naps, of which there are more where the machine is busy, are left out.
fn started_by(host: &mut Host, parcel: Parcel) -> (Vec<String>, usize) {
    let traces = tempfile::tempdir().unwrap();
    host.traces = Some(traces.path().join("of"));
    host.ask(parcel).unwrap();
    host.traces = None;
    let traces = std::fs::read_dir(traces.path()).unwrap().map(|trace| std::fs::read(trace.unwrap().path()).unwrap());
    let traces: Vec<String> = traces.map(|trace| String::from_utf8_lossy(&trace).into_owned()).collect();
    let program = |line: &str| {
        let path = line.strip_prefix("execve(\"")?.strip_suffix(" = 0")?.split('"').next()?;
        Path::new(path).file_name().map(|name| name.to_str().unwrap().to_owned())
    };
    let programs = traces.iter().flat_map(|trace| trace.lines().filter_map(program));
    let mut programs: Vec<String> = programs.filter(|name| name != "sleep").collect();
    programs.sort_unstable();
    (programs, traces.len())
}

#[test]
fn start_takes_no_more_programs_than_it_must() {
    let traceable = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !traceable.is_ok_and(|output| output.status.success()) {
        skip::skipped("no `strace` that may trace; tests/run installs it");
        return;
    }
    let Some(mut host) = Host::new().sh("dash") else { return };
    // What was once needed where the home could not be written costs nothing any more.
    std::fs::create_dir_all(host.dir("spare").join(format!("sshjob-{}", rustix::process::getuid().as_raw()))).unwrap();
    // The first attempt of a user makes a directory more.
    host.start("#!/bin/sh", &attempt(1)).unwrap();
    host.wait(&attempt(1));
    host.asked(&[Ask::Forget(attempt(1))]).unwrap();
    let words = [b"true".to_vec()];
    let script: Arc<[u8]> = Arc::from(&b"#!/bin/sh\n"[..]);
    let command = ["dd", "dd", "mkdir", "mv", "setsid", "sh", "sh", "true"];
    let small_script = ["dd", "dd", "mkdir", "mv", "setsid", "sh", "sh", "sh"];
    let commands = (Program::Command(&words), command);
    let scripts = (Program::Script { bytes: &script, args: &[] }, small_script);
    for (number, makes_sessions, (program, expected)) in
        [(2, true, commands), (3, false, commands), (4, true, scripts), (5, false, scripts)]
    {
        host.makes_sessions = makes_sessions;
        let detached = Detached::new(program, &Sudo::No, &TERMS).unwrap();
        let parcel = detached.parcel(&token(), &attempt(number), &[]).unwrap();
        let (mut programs, processes) = started_by(&mut host, parcel);
        // Some versions have no pipe to give to themselves.
        programs.retain(|program| program != "mkfifo");
        // The session is made by the server, which this test plays, or by us, in a shell of its own.
        let mut expected = expected.to_vec();
        expected.extend_from_slice(if makes_sessions { &["setsid"] } else { &["setsid", "sh"] });
        expected.sort_unstable();
        assert_eq!(programs, expected, "{makes_sessions}");
        // Where the machine is busy another nap is taken.
        assert!(processes <= 18, "{processes}");
        // Where there is another, it is looked whether it is to go.
        host.asked(&[Ask::Forget(attempt(number))]).unwrap();
    }
}
