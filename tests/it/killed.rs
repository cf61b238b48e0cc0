//! `kill -9` of the program itself at random moments, and what the commands then say.

use std::time::Duration;

use crate::support::world::{World, json, said};

/// The words of a run of `script` on all hosts of a world.
fn run<'a>(store: &'a str, script: &'a str) -> [&'a str; 8] {
    ["--store", store, "-o", "json", "run", "-tEnvironment=Dev", "--", script]
}

#[test]
fn killed_at_random_moments_the_run_is_settled_truthfully_and_retried_once() {
    let world = World::new(4);
    std::fs::create_dir(world.path().join("marks")).unwrap();
    // How long a whole run takes here sets the range of the moments.
    let started = std::time::Instant::now();
    assert!(world.sshjob(&run("whole", "true")).status.success());
    let mut whole = started.elapsed();
    let mut seed = [0_u8; 20];
    getrandom::fill(&mut seed).unwrap();
    let (mut killed, mut settled) = (0, 0);
    for (round, byte) in seed.into_iter().enumerate() {
        let store = format!("store-{round}");
        let marks = world.path().join("marks").join(round.to_string());
        let script = format!("echo $SSHJOB_INSTANCE >> {}; sleep 0.1", marks.display());
        let mut child = world.command(&run(&store, &script)).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(byte) / 200.0) + Duration::from_millis(20));
        child.kill().unwrap();
        let in_time = child.wait().unwrap().code().is_none();
        killed += usize::from(in_time);
        if !in_time {
            // Less busy than it was: the next moments come sooner.
            whole = whole.mul_f64(0.8);
        }
        let starts = || std::fs::read_to_string(&marks).unwrap_or_default().lines().count();
        let status = world.sshjob(&["--store", &store, "-o", "json", "status", "last"]);
        if status.status.code() == Some(2) {
            assert_eq!(starts(), 0, "round {round}: started without a run");
            whole = whole.mul_f64(1.1);
            continue;
        }
        settled += 1;
        let run = json(&status);
        let counts = &run["counts"];
        let of = |state: &str| counts[state].as_u64().unwrap_or_default();
        let before = starts() as u64;
        assert_eq!(of("running") + of("pending"), 0, "round {round}: {run}");
        assert!(of("succeeded") <= before && before <= of("succeeded") + of("lost"), "round {round}: {before} {run}");
        assert_eq!(run["state"] == "succeeded", of("succeeded") == 4, "round {round}: {run}");
        let again = world.sshjob(&["--store", &store, "-o", "json", "retry", "last", "--failed"]);
        let planned = of("succeeded") + of("lost") + of("skipped") + of("failed") + of("unreachable");
        if planned == 4 && of("skipped") > 0 {
            assert_eq!(json(&again)["counts"]["succeeded"], of("skipped"), "round {round}");
        }
        let lines = std::fs::read_to_string(&marks).unwrap_or_default();
        let mut hosts: Vec<&str> = lines.lines().collect();
        hosts.sort_unstable();
        hosts.dedup();
        assert_eq!(hosts.len(), lines.lines().count(), "round {round}: started twice\n{lines}");
    }
    assert!(killed >= 5, "only {killed} of 20 were killed before they were done");
    assert!(settled >= 5, "only {settled} of 20 left a run behind");
}

#[test]
fn two_processes_with_one_request_are_one_run_and_start_each_task_once() {
    let world = World::new(6);
    std::fs::create_dir(world.path().join("marks")).unwrap();
    for round in 0..5 {
        let store = format!("store-{round}");
        let marks = world.path().join("marks").join(round.to_string());
        let script = format!("echo $SSHJOB_INSTANCE >> {}", marks.display());
        let both = [(); 2].map(|()| {
            let mut command = world.command(&["--store", &store, "-o", "json", "run", "--id", "the-request"]);
            command.args(["-t", "Environment=Dev", "--", &script]).spawn().unwrap()
        });
        let runs = both.map(|child| json(&child.wait_with_output().unwrap()));
        assert_eq!(runs[0]["run"], runs[1]["run"], "round {round}");
        for run in &runs {
            assert_eq!(run["counts"]["succeeded"], 6, "round {round}: {run}");
        }
        assert_eq!(std::fs::read_to_string(&marks).unwrap().lines().count(), 6, "round {round}");
    }
}

#[test]
fn retry_where_the_only_failure_is_lost_starts_nothing_and_exits_so() {
    let world = World::new(1);
    let started = world.path().join("started");
    rustix::fs::mknodat(rustix::fs::CWD, &started, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut child =
        world.command(&run("store", &format!("echo up > {}; sleep 600", started.display()))).spawn().unwrap();
    assert_eq!(std::fs::read_to_string(&started).unwrap(), "up\n");
    child.kill().unwrap();
    child.wait().unwrap();
    for words in [&["retry", "last", "--failed"][..], &["retry", "last"]] {
        let again = world.sshjob(&[&["--store", "store"], words].concat());
        assert_eq!(again.status.code(), Some(6), "{}", said(&again));
        assert!(said(&again).contains("1 lost, which may have run"), "{}", said(&again));
    }
}
