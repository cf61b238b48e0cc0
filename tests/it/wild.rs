//! Hosts as they really are: what the program says of each, and that it works wherever a script can run.

use crate::support::client;
use crate::support::key::Login;
use crate::support::machine::{Machine, Plan};

#[test]
fn machine_is_one_of_its_own() {
    let login = Login::fresh();
    let mut plan = Plan::accepting(login.public());
    plan.user("ann", "/bin/bash", "echo hello >note");
    let Some(machine) = Machine::start(&plan) else { return };
    let out =
        client::ssh_as("ann", machine.address(), &login.path(), "id -un; cat note; ls -A /tmp /var/tmp /home", b"");
    assert_eq!(
        client::said(&out),
        ("ann\nhello\n/home:\nann\n\n/tmp:\n\n/var/tmp:\n".to_owned(), String::new(), Some(0)),
        "{}",
        machine.log()
    );
}
