//! The users of one machine as the hosts of a project: what differs from host to host is a user's.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Output};

use super::machine::{Machine, Plan};
use super::world::World;

/// A project whose hosts are the users of one machine, all tagged `A: b`.
pub(crate) struct Crowd {
    pub(crate) world: World,
    pub(crate) machine: Machine,
    users: Vec<String>,
}

impl Crowd {
    /// Starts a machine where `users`, each with a login shell, may become others as the lines of sudoers(5) in
    /// `rules` have it; `fill` adds to it. `None`, said aloud, where there can be none.
    pub(crate) fn start(users: &[(&str, &str)], rules: &str, fill: impl FnOnce(&mut Plan)) -> Option<Self> {
        let world = World::new(0);
        let mut plan = Plan::accepting(world.fleet().login().public());
        plan.lines.push("MaxStartups 1000".to_owned());
        plan.setup =
            format!("{}cat >/etc/sudoers <<'RULES'\n{rules}\nRULES\nchmod 440 /etc/sudoers\n", include_str!("sudo.sh"));
        for (user, shell) in users {
            plan.user(user, &format!("$(command -v {shell})"), "");
        }
        fill(&mut plan);
        let machine = Machine::start(&plan)?;
        let users = users.iter().map(|(user, _)| (*user).to_owned()).collect();
        let crowd = Self { world, machine, users };
        crowd.live_at(crowd.machine.address());
        Some(crowd)
    }

    /// Lets the inventory say that all of them are at `address`.
    pub(crate) fn live_at(&self, address: SocketAddr) {
        let (ip, port) = (address.ip(), address.port());
        let mut hosts = String::from("instances:\n");
        for user in &self.users {
            let host = format!("{{ id: {user}, address: {ip}, port: {port}, user: {user}, tags: {{ A: b }} }}");
            writeln!(hosts, "  - {host}").unwrap();
        }
        std::fs::write(self.world.path().join("hosts.yaml"), hosts).unwrap();
    }

    /// Runs `words` after `run`, on all of them.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.world.sshjob(&[&["run", "-t", "A"], words].concat())
    }

    /// Starts `sshjob run` with these words, on all of them, and goes on at once.
    pub(crate) fn start_run(&self, words: &[&str]) -> Child {
        self.world.command(&[&["run", "-t", "A"], words].concat()).spawn().unwrap()
    }
}

/// What a host that has something to say says in the text output, or the line of its end.
pub(crate) fn lines_of(output: &Output, host: &str) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let is_time = |column: &str| column.ends_with('s') && column.starts_with(|c: char| c.is_ascii_digit());
    let mut lines = String::new();
    for line in out.lines().chain(err.lines()) {
        let Some(rest) = line.strip_prefix(host).filter(|rest| rest.starts_with(' ')) else { continue };
        let columns = rest.split("  ").map(str::trim).filter(|column| !column.is_empty() && !is_time(column));
        writeln!(lines, "{host}: {}", columns.collect::<Vec<_>>().join("  ")).unwrap();
    }
    lines
}

/// A word that nobody else uses.
pub(crate) fn token() -> String {
    format!("word-{:016x}", getrandom::u64().unwrap())
}

/// The processes, also those on machines of their own, of whose words one is `word`; the program itself aside.
pub(crate) fn processes_named(word: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_one = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next() != Some(env!("CARGO_BIN_EXE_sshjob").as_bytes()) && words.any(|found| found == word.as_bytes())
    };
    pids.filter(is_one).collect()
}
