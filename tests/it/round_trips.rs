//! How often sshjob waits for a host's answer, from TCP's first packet to the exit status.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use russh::client::AuthResult;
use russh::keys::{Certificate, PrivateKey};

use crate::support::client;
use crate::support::flights::round_trips;
use crate::support::key;
use crate::support::sshd::{self, Spec, Sshd};
use crate::support::world::{World, said};

/// Counts again, more patiently, while the count is above `expected`: a busy machine can only make it too high.
fn fewest(to: SocketAddr, expected: usize, client: impl Fn(SocketAddr)) -> usize {
    let mut fewest = usize::MAX;
    // The longest is short enough for every deadline of both ends.
    for silence in [40, 80, 160, 320, 320, 320, 320, 320] {
        fewest = fewest.min(round_trips(to, Duration::from_millis(silence), &client));
        if fewest <= expected {
            break;
        }
    }
    fewest
}

/// Runs `true` on the host at `address`, which is new to the world.
fn run(world: &World, address: SocketAddr, flags: &[&str]) {
    let role = format!("port-{}", address.port());
    world.add(&role, address, &format!("Role: {role}"));
    let tag = format!("Role={role}");
    let output = world.sshjob(&[&["run", "-t", &tag], flags, &["--", "true"]].concat());
    assert!(output.status.success(), "{}", said(&output));
}

/// A path as a word of a command line.
fn word(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn task_takes_seven_round_trips_and_ssh_more() {
    let world = World::new(1);
    let to = world.fleet().addresses()[0];
    let sshjob = fewest(to, 7, |address| run(&world, address, &[]));
    let ssh = fewest(to, 9, |address| {
        let output = client::ssh(address, &world.fleet().login().path(), "true", b"");
        assert!(output.status.success(), "{}", said(&output));
    });
    assert_eq!(sshjob, 7);
    assert!(ssh > sshjob, "`ssh` takes {ssh} round trips");
}

#[test]
fn refused_key_takes_one_round_trip_more() {
    let world = World::new(1);
    let (refused, accepted) = (key::Login::fresh(), word(&world.fleet().login().path()));
    let refused = word(&refused.path());
    let to = world.fleet().addresses()[0];
    let sshjob = fewest(to, 8, |address| run(&world, address, &["-i", &refused, "-i", &accepted]));
    assert_eq!(sshjob, 8);
}

/// An RSA key's certificate names a hash, which must be the one that it signs with; others have no choice.
#[test]
fn certificate_of_any_type_logs_in_with_the_fourth_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let authority = word(&folder.path().join("authority"));
    let keygen = |words: &[&str]| {
        let output = Command::new("ssh-keygen").arg("-q").args(words).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    keygen(&["-t", "ed25519", "-N", "", "-f", &authority]);
    let trusted = format!("TrustedUserCAKeys {authority}.pub");
    let host = Sshd::start(Spec { lines: vec![trusted], ..Spec::accepting(key::fresh().public_key()) });
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let path = word(&folder.path().join(kind));
        keygen(&["-t", kind, "-N", "", "-f", &path]);
        keygen(&["-s", &authority, "-I", kind, "-n", &sshd::user(), &format!("{path}.pub")]);
        let key = Arc::new(PrivateKey::read_openssh_file(Path::new(&path)).unwrap());
        let certificate = Certificate::read_file(Path::new(&format!("{path}-cert.pub"))).unwrap();
        let log_in = async |address| {
            let (mut session, _) = client::greet(address).await.unwrap();
            let (key, certificate) = (Arc::clone(&key), certificate.clone());
            let answer = session.authenticate_openssh_cert(sshd::user(), key, certificate).await.unwrap();
            assert_eq!(answer, AuthResult::Success, "{kind}: {}", host.log());
        };
        let round_trips = fewest(host.address(), 4, |address| {
            // With its runtime the connection ends.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(log_in(address));
        });
        assert_eq!(round_trips, 4, "{kind}");
    }
}
