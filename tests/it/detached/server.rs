//! The same through a real OpenSSH server.

use super::*;
use crate::support::client::ssh;
use crate::support::key::Login;
use crate::support::sshd::{Spec, Sshd};

/// Sends a parcel by OpenSSH's client and returns the answer.
fn send(sshd: &Sshd, login: &Login, parcel: &Parcel, token: &Token) -> Vec<u8> {
    let input = [&parcel.head[..], &parcel.script[..]].concat();
    let output = ssh(sshd.address(), &login.path(), &parcel.command, &input);
    Reader::new(token).feed(&output.stdout).unwrap().to_vec()
}

fn look(sshd: &Sshd, login: &Login, attempt: &Attempt) -> Found {
    let (token, asks) = (token(), [Ask::Look { attempt: attempt.clone(), out: 0, err: 0, most: collect::MAX_PIECE }]);
    let parcel = collect::parcel(&Sudo::No, &token, &asks).unwrap();
    collect::read(&token, &asks, &send(sshd, login, &parcel, &token)).unwrap().remove(0)
}

#[test]
fn program_outlives_its_channel_and_its_server() {
    let login = Login::fresh();
    let mut sshd = Sshd::start(Spec::accepting(login.public()));
    let one = attempt(1);
    // It holds its output open, and would hold the channel with it.
    let script: Arc<[u8]> =
        Arc::from(*b"#!/bin/sh\necho up; echo err >&2; while [ ! -e \"$HOME/go\" ]; do sleep 0.01; done; echo late");
    let detached = Detached::new(Program::Script { bytes: &script, args: &[] }, &Sudo::No, &TERMS).unwrap();
    for expected in [Started::Now, Started::Before] {
        let token = token();
        let answer = send(&sshd, &login, &detached.parcel(&token, &one, &[]).unwrap(), &token);
        assert_eq!(read_start(&token, &answer), Ok(expected));
    }
    assert!(matches!(look(&sshd, &login, &one).verdict, Verdict::Running { supervised: true, .. }));
    sshd.restart(|_| {});
    assert!(matches!(look(&sshd, &login, &one).verdict, Verdict::Running { supervised: true, .. }));
    std::fs::write(sshd.home().join("go"), "").unwrap();
    eventually("it has ended", || !matches!(look(&sshd, &login, &one).verdict, Verdict::Running { .. }));
    let found = look(&sshd, &login, &one);
    assert_eq!(
        (how(&found.verdict), found.out, found.err),
        ((How::Exit(0), Why::Itself), whole(b"up\nlate\n"), whole(b"err\n"))
    );
}

#[test]
fn program_is_ended_through_its_server() {
    let login = Login::fresh();
    let sshd = Sshd::start(Spec::accepting(login.public()));
    let (one, first, second) = (attempt(1), token(), token());
    let words = ["tail", "-f", "/dev/null"].map(|word| word.as_bytes().to_vec());
    let detached = Detached::new(Program::Command(&words), &Sudo::No, &TERMS).unwrap();
    let answer = send(&sshd, &login, &detached.parcel(&first, &one, &[]).unwrap(), &first);
    assert_eq!(read_start(&first, &answer), Ok(Started::Now));
    let answer = send(&sshd, &login, &cancel::parcel(&Sudo::No, &second, &one).unwrap(), &second);
    let expected = cancel::Cancelled { deed: cancel::Deed::Signalled, survivors: 0, named: Vec::new(), scanned: true };
    assert_eq!(cancel::read(&second, &one, &answer), Ok(expected));
    assert_eq!(how(&look(&sshd, &login, &one).verdict), (signal(15), Why::Cancelled));
}
