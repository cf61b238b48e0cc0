//! Servers that take no more connections, or go away.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;

use super::*;

/// Runs the job `wild`, and calls `seen` with every line of what is said of it.
fn follow(wild: &Wild, mut seen: impl FnMut(&str)) -> String {
    let mut child = wild.world.command(&["run", "wild"]).spawn().unwrap();
    let (mut out, mut said) = (String::new(), String::new());
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        seen(&line);
        writeln!(said, "{line}").unwrap();
    }
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.wait().unwrap();
    out + &said
}

#[test]
fn connection_one_too_many_is_tried_again() {
    let one = |plan: &mut Plan| plan.lines = vec!["UsePAM yes".to_owned(), "MaxStartups 1".to_owned()];
    let Some(wild) = Wild::start(&[user("anyone")], one) else { return };
    let connect = || {
        let held = TcpStream::connect(wild.machine.address()).unwrap();
        // It counts from the moment when sshd speaks.
        assert_eq!(held.peek(&mut [0]).unwrap(), 1);
        held
    };
    let held = connect();
    insta::assert_snapshot!(wild.table(&wild.run(&[])), @r"
    anyone: unreachable  SSH handshake: the host says `Exceeded MaxStartups` instead of its version
    ");

    let job = "targets: { tags: { Wild: yes } }\nrun: echo in\nretries: { attempts: 20, delay: 10ms }\n";
    fs::create_dir(wild.world.path().join("jobs")).unwrap();
    fs::write(wild.world.path().join("jobs/wild.yaml"), job).unwrap();
    let mut held = Some(held);
    let said = follow(&wild, |_| drop(held.take()));
    assert!(said.starts_with("anyone | in\n") && said.contains("(attempt 2 in 10ms)"), "{said}");
}
