//! Hosts as they really are: the exact line that the program says of each, and that every one that can run a script
//! runs it exactly.
//!
//! A host here is a user of one machine: users differ in login shell, start-up files, account, home and in what sshd
//! makes of them.

mod certificates;
mod detached;
mod hangs;
mod logins;
mod places;
mod servers;
mod trailing;

use std::fmt::Write as _;
use std::fs;
use std::process::Output;

use crate::support::client;
use crate::support::key::Login;
use crate::support::machine::{Machine, Plan};
use crate::support::skip;
use crate::support::world::{World, said};

/// A script that shows exactly what reached it.
const SCRIPT: &str = "#!/bin/sh\nprintf '<%s>\\n' \"$GREETING\" \"$@\"\necho trouble >&2\n";

/// What it is told, some of which one shell or another would change.
const GREETING: &str = "grüß\tdich";
const ARGS: [&str; 4] = ["it's", "a  b", "$HOME `id` \\ !", "*"];

/// A host.
#[derive(Clone, Copy)]
struct User {
    name: &'static str,
    /// Login shell, by its name or path.
    shell: &'static str,
    /// The fields of shadow(5) from the password on.
    shadow: &'static str,
    /// What root does in the home.
    setup: &'static str,
    /// What sshd is told of the user alone.
    sshd: &'static str,
}

/// A user of whom nothing is special.
const fn user(name: &'static str) -> User {
    User { name, shell: "bash", shadow: "*:19000:0:99999:7:::", setup: "", sshd: "" }
}

/// A project whose hosts are the users of one machine, and the machine.
struct Wild {
    world: World,
    machine: Machine,
    users: Vec<&'static str>,
}

impl Wild {
    /// Starts a machine with `users`, for the rest as `fill` has it. `None`, said aloud, where there can be none.
    fn start(users: &[User], fill: impl FnOnce(&mut Plan)) -> Option<Self> {
        let world = World::new(0);
        let mut plan = Plan::accepting(world.fleet().login().public());
        // All at once are one host here.
        plan.lines.push("MaxStartups 1000".to_owned());
        fill(&mut plan);
        for user in users {
            plan.user_with(user.name, &format!("$(command -v {0} || echo {0})", user.shell), user.shadow, user.setup);
            if !user.sshd.is_empty() {
                plan.only_for(user.name, &[user.sshd]);
            }
        }
        let machine = Machine::start(&plan)?;
        let users: Vec<&str> = users.iter().map(|user| user.name).collect();
        let (ip, port) = (machine.address().ip(), machine.address().port());
        let mut hosts = String::from("instances:\n");
        for user in &users {
            let host = format!("{{ id: {user}, address: {ip}, port: {port}, user: {user}, tags: {{ Wild: yes }} }}");
            writeln!(hosts, "  - {host}").unwrap();
        }
        fs::write(world.path().join("hosts.yaml"), hosts).unwrap();
        fs::write(world.path().join("script"), SCRIPT).unwrap();
        Some(Self { world, machine, users })
    }

    /// Runs the script on every host, with more flags.
    fn run(&self, flags: &[&str]) -> Output {
        let greeting = format!("GREETING={GREETING}");
        let words = ["run", "-t", "Wild", "-e", &greeting, "--script", "script"];
        self.world.sshjob(&[&words, flags, &["--"], &ARGS].concat())
    }

    /// What the program says of each host: `succeeded` where it says nothing and the output is right, else its line.
    fn table(&self, output: &Output) -> String {
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let mut table = String::new();
        for user in &self.users {
            let (out, err) = (of_host(&out, &format!("{user} | ")), of_host(&err, &format!("{user} ! ")));
            let line = if let Some(line) = line(user, output) {
                assert_eq!((out.as_str(), err.as_str()), ("", ""), "{line}");
                line
            } else {
                let words = [&[GREETING], &ARGS[..]].concat();
                let expected = (format!("<{}>\n", words.join(">\n<")), "trouble\n".to_owned());
                assert_eq!((out, err), expected, "{user}\n{}\n{}", said(output), self.machine.log());
                "succeeded".to_owned()
            };
            writeln!(table, "{user}: {line}").unwrap();
        }
        table
    }
}

/// The lines that begin with `mark`, without it.
fn of_host(text: &str, mark: &str) -> String {
    text.split_inclusive('\n').filter_map(|line| line.strip_prefix(mark)).collect()
}

/// The line on a host that did not succeed: columns two blanks apart, without what differs each time.
fn line(user: &str, output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix("  "))?;
    let is_time = |column: &str| column.ends_with('s') && column.starts_with(|c: char| c.is_ascii_digit());
    let columns = line.split("  ").map(str::trim).filter(|column| !column.is_empty() && !is_time(column));
    let mut line = columns.collect::<Vec<_>>().join("  ");
    let fingerprints: Vec<usize> = line.match_indices("SHA256:").map(|(at, mark)| at + mark.len()).collect();
    for at in fingerprints.into_iter().rev() {
        // 32 bytes in base64.
        line.replace_range(at..at + 43, "…");
    }
    Some(line)
}

#[test]
fn machine_is_one_of_its_own() {
    let login = Login::fresh();
    let mut plan = Plan::accepting(login.public());
    plan.user("ann", "/bin/bash", "echo hello >note");
    let Some(machine) = Machine::start(&plan) else { return };
    let command = "id -un; cat note; ls -A /tmp /var/tmp /home";
    let said = client::said(&client::ssh_as("ann", machine.address(), &login.path(), command, b""));
    let expected = "ann\nhello\n/home:\nann\n\n/tmp:\n\n/var/tmp:\n";
    assert_eq!(said, (expected.to_owned(), String::new(), Some(0)), "{}", machine.log());
}
