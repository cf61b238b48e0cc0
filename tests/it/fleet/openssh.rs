//! Real daemons: judged by the plain `ssh` client.

use std::net::TcpStream;

use crate::support::client::{greet, said, ssh};
use crate::support::key::Login;
use crate::support::sshd::{Spec, Sshd, SshdFleet};

#[test]
fn daemon_runs_a_command_with_its_input() {
    let login = Login::fresh();
    let host = Sshd::start(Spec::accepting(login.public()));
    let output = ssh(host.address(), &login.path(), "cat; echo to stderr >&2; exit 7", b"some input\n");
    assert_eq!(said(&output), ("some input\n".into(), "to stderr\n".into(), Some(7)));
    assert!(host.log().contains("Accepted publickey for "), "{}", host.log());
}

#[test]
fn daemon_rejects_another_key() {
    let login = Login::fresh();
    let host = Sshd::start(Spec::accepting(Login::fresh().public()));
    let output = ssh(host.address(), &login.path(), "true", b"");
    let (stdout, stderr, status) = said(&output);
    assert_eq!((stdout.as_str(), status), ("", Some(255)));
    assert!(stderr.trim_end().ends_with("Permission denied (publickey)."), "{stderr}");
}

#[test]
fn daemon_has_a_home_of_its_own() {
    let login = Login::fresh();
    let host = Sshd::start(Spec::accepting(login.public()));
    let output = ssh(host.address(), &login.path(), "echo \"$HOME\"", b"");
    assert_eq!(said(&output), (format!("{}\n", host.home().display()), String::new(), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_restarted_with_another_host_key_shows_it_at_the_same_address() {
    let mut host = Sshd::start(Spec::accepting(Login::fresh().public()));
    let (_, first) = greet(host.address()).await.unwrap();
    assert_eq!(first.key_data(), host.host_key().key_data());
    let address = host.address();
    host.restart(|spec| spec.host_key = crate::support::key::fresh());
    let (_, second) = greet(address).await.unwrap();
    assert_eq!(second.key_data(), host.host_key().key_data());
    assert_ne!(first.key_data(), second.key_data());
}

#[test]
fn daemon_dropped_takes_its_sessions_with_it() {
    let login = Login::fresh();
    let host = Sshd::start(Spec::accepting(login.public()));
    let (address, key) = (host.address(), login.path());
    let session = std::thread::spawn(move || ssh(address, &key, "echo started; exec sleep 1000", b""));
    while !host.log().contains("Starting session: command") {
        std::thread::yield_now();
    }
    drop(host);
    assert_eq!(session.join().unwrap().status.code(), Some(255));
    TcpStream::connect(address).unwrap_err();
}

#[test]
fn fleet_of_same_hosts_answers_at_every_address() {
    let fleet = SshdFleet::same(20);
    let addresses = fleet.addresses();
    assert_eq!(addresses.len(), 20);
    for address in [addresses[0], addresses[15], addresses[16], addresses[19]] {
        let output = ssh(address, &fleet.login().path(), "echo $SSH_CONNECTION | cut -d' ' -f3", b"");
        assert_eq!(said(&output), (format!("{}\n", address.ip()), String::new(), Some(0)));
    }
}
