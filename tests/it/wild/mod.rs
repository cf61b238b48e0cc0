//! Hosts as they really are: what the program says of each, and that it works wherever a script can run.

mod logins;

use std::fmt::Write as _;
use std::fs;
use std::process::Output;

use crate::support::client;
use crate::support::key::Login;
use crate::support::machine::{Machine, Plan};
use crate::support::world::World;

/// A script that shows exactly what reached it.
const SCRIPT: &str = "#!/bin/sh\nprintf '<%s>\\n' \"$GREETING\" \"$@\"\necho trouble >&2\n";

/// Arguments that some shell or other would change.
const ARGS: [&str; 4] = ["it's", "a  b", "$HOME `id` \\ !", "*"];

/// A project whose hosts are the users of one machine, and the machine.
struct Wild {
    world: World,
    machine: Machine,
}

impl Wild {
    /// Starts what `fill` makes of a plan, with one host per name in `users`.
    fn start(users: &[&str], fill: impl FnOnce(&mut Plan)) -> Option<Self> {
        let world = World::new(0);
        let mut plan = Plan::accepting(world.fleet().login().public());
        plan.lines.push("MaxStartups 1000".to_owned());
        fill(&mut plan);
        let machine = Machine::start(&plan)?;
        let (ip, port) = (machine.address().ip(), machine.address().port());
        let mut hosts = String::from("instances:\n");
        for user in users {
            let host = format!("{{ id: {user}, address: {ip}, port: {port}, user: {user}, tags: {{ Wild: yes }} }}");
            writeln!(hosts, "  - {host}").unwrap();
        }
        fs::write(world.path().join("hosts.yaml"), hosts).unwrap();
        fs::write(world.path().join("script"), SCRIPT).unwrap();
        Some(Self { world, machine })
    }

    /// Runs the script on every host, with more flags.
    fn run(&self, flags: &[&str]) -> Output {
        let words = ["run", "-t", "Wild", "--group", "-e", "GREETING=grüß\tdich", "--script", "script"];
        self.world.sshjob(&[&words, flags, &["--"], &ARGS].concat())
    }

    /// What the program says on its two outputs, the lines on hosts in the order of their names.
    fn said(&self, output: &Output) -> String {
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        format!("{out}\n{err}\n{}", output.status)
    }
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
