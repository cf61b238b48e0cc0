//! The program itself, in a world of its own: a folder with a project, a home, and sshd hosts that let it in.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::loopback;
use super::sshd::{self, SshdFleet};

/// A folder, and the hosts that its inventory lists: `host-0`, `host-1` …, all tagged `Environment: Dev`.
pub(crate) struct World {
    folder: tempfile::TempDir,
    fleet: SshdFleet,
}

impl World {
    /// Starts `hosts` hosts, and writes a project that knows how to reach them.
    pub(crate) fn new(hosts: usize) -> Self {
        let (folder, fleet) = (tempfile::tempdir().unwrap(), SshdFleet::same(hosts));
        let names: Vec<String> = (0..hosts).map(|n| format!("host-{n}")).collect();
        let hosts = names.iter().zip(fleet.addresses()).map(|(name, at)| (name.as_str(), at, "Environment: Dev"));
        std::fs::write(folder.path().join("hosts.yaml"), loopback::inventory(hosts)).unwrap();
        let (user, key) = (sshd::user(), fleet.login().path());
        let project = format!("inventory: {{ file: hosts.yaml }}\nuser: {user}\nkey: {}\n", key.display());
        std::fs::write(folder.path().join("sshjob.yaml"), project).unwrap();
        Self { folder, fleet }
    }

    /// Adds a host to the inventory, with tags as `Role: web`.
    pub(crate) fn add(&self, id: &str, at: SocketAddr, tags: &str) {
        let path = self.path().join("hosts.yaml");
        let mut yaml = std::fs::read_to_string(&path).unwrap();
        let line = loopback::inventory([(id, at, tags)]);
        write!(yaml, "{}", line.split_once('\n').unwrap().1).unwrap();
        std::fs::write(path, yaml).unwrap();
    }

    /// The project's folder, which is the home as well.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The hosts.
    pub(crate) fn fleet(&self) -> &SshdFleet {
        &self.fleet
    }

    /// The hosts, to be changed.
    pub(crate) fn fleet_mut(&mut self) -> &mut SshdFleet {
        &mut self.fleet
    }

    /// `sshjob` with these words, yet to be started: in the folder, with nothing of the tester's environment.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sshjob"));
        command.args(words).current_dir(self.path()).env_clear().env("HOME", self.path()).env("USER", "tester");
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What `sshjob` with these words says, and how it ends.
    pub(crate) fn sshjob(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

/// The one document that is on standard output.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// The documents that are on standard output, one per line.
pub(crate) fn ndjson(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// All that was said, for whoever must find out why.
pub(crate) fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}\n{err}", output.status)
}
