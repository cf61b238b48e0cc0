//! `kill -9` of the program itself at random moments, and what the commands then say.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::loopback;
use crate::support::sshd::{self, SshdFleet};

/// The program, in a world of its own.
struct World {
    folder: tempfile::TempDir,
    fleet: SshdFleet,
}

impl World {
    fn new(hosts: usize) -> Self {
        let (folder, fleet) = (tempfile::tempdir().unwrap(), SshdFleet::same(hosts));
        let names: Vec<String> = (0..hosts).map(|n| format!("host-{n}")).collect();
        let hosts = names.iter().zip(fleet.addresses()).map(|(name, at)| (name.as_str(), at, "Environment: Dev"));
        std::fs::write(folder.path().join("hosts.yaml"), loopback::inventory(hosts)).unwrap();
        std::fs::create_dir(folder.path().join("marks")).unwrap();
        Self { folder, fleet }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, store: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sshjob"));
        // Before the words: what follows a `--` of theirs is the remote command's.
        command.args(["--store", store, "-o", "json"]).args(words).current_dir(self.path()).stdin(Stdio::null());
        command.env_remove("SSHJOB_INVENTORY").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, store: &str, words: &[&str]) -> Output {
        self.command(store, words).output().unwrap()
    }

    fn run_words(&self, script: &str) -> Vec<String> {
        let key = self.fleet.login().path().display().to_string();
        let words = [
            "run",
            "-t",
            "Environment=Dev",
            "--inventory",
            "hosts.yaml",
            "-u",
            &sshd::user(),
            "-i",
            &key,
            "--",
            script,
        ];
        words.map(str::to_owned).to_vec()
    }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn killed_at_random_moments_the_run_is_settled_truthfully_and_retried_once() {
    let world = World::new(4);
    // How long a whole run takes here sets the range of the moments.
    let started = std::time::Instant::now();
    let words = world.run_words("true");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert!(world.run("whole", &words).status.success());
    let whole = started.elapsed();
    let mut seed = [0_u8; 20];
    getrandom::fill(&mut seed).unwrap();
    let mut killed = 0;
    for (round, byte) in seed.into_iter().enumerate() {
        let store = format!("store-{round}");
        let marks = world.path().join("marks").join(round.to_string());
        let words = world.run_words(&format!("echo $SSHJOB_INSTANCE >> {}; sleep 0.1", marks.display()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = world.command(&store, &words).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(byte) / 200.0) + Duration::from_millis(20));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().code().is_none());
        let starts = || std::fs::read_to_string(&marks).unwrap_or_default().lines().count();
        let status = world.run(&store, &["status", "last"]);
        if status.status.code() == Some(2) {
            assert_eq!(starts(), 0, "round {round}: started without a run");
            continue;
        }
        let run = json(&status);
        let counts = &run["counts"];
        let of = |state: &str| counts[state].as_u64().unwrap_or_default();
        let before = starts() as u64;
        assert_eq!(of("running") + of("pending"), 0, "round {round}: {run}");
        assert!(of("succeeded") <= before && before <= of("succeeded") + of("lost"), "round {round}: {before} {run}");
        assert_eq!(run["state"] == "succeeded", of("succeeded") == 4, "round {round}: {run}");
        let again = world.run(&store, &["retry", "last", "--failed"]);
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
}
