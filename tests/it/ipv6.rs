//! IPv6: hosts, inventories and jump hosts by address, with a real sshd on `::1`.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use crate::support::key::Login;
use crate::support::sshd::{self, Spec, Sshd};
use crate::support::world::{World, json, said};

/// A host on `::1` that lets `login` in; none where this machine has no such address, which is said aloud.
fn host(login: &Login) -> Option<Sshd> {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("SKIPPED: this machine has no IPv6 loopback address");
        return None;
    };
    let address: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    Some(Sshd::start(Spec { addresses: vec![address], ..Spec::accepting(login.public()) }))
}

/// A world whose project logs in with `login`, and whose inventory lists the host at `port`.
fn world(login: &Login, port: u16) -> World {
    let world = World::new(0);
    let project =
        format!("inventory: {{ file: hosts.yaml }}\nuser: {}\nkey: {}\n", sshd::user(), login.path().display());
    std::fs::write(world.path().join("sshjob.yaml"), project).unwrap();
    let host = |id: &str, field: &str, tag: &str| {
        format!("  - {{ id: {id}, {field}: \"::1\", port: {port}, tags: {{ A: {tag} }} }}\n")
    };
    let inventory = format!("instances:\n{}{}", host("six", "address", "b"), host("only-six", "ipv6", "c"));
    std::fs::write(world.path().join("hosts.yaml"), inventory).unwrap();
    world
}

#[test]
fn address_of_version_six_is_reached_however_it_is_named() {
    let login = Login::fresh();
    let Some(host) = host(&login) else { return };
    let port = host.address().port();
    let world = world(&login, port);
    let (bracketed, port) = (format!("[::1]:{port}"), port.to_string());
    for (words, instance) in [
        (&["-w", &bracketed][..], format!("::1+{port}")),
        (&["-w", "::1", "-p", &port], "::1".to_owned()),
        (&["-w", "[::1]", "-p", &port], "::1".to_owned()),
        (&["-t", "A=b"], "six".to_owned()),
        (&["-t", "A=c", "--address", "ipv6"], "only-six".to_owned()),
        (&["-t", "A=b", "-J", &bracketed], "six".to_owned()),
        (&["-w", &bracketed, "-J", &format!("{}@{bracketed}", sshd::user())], format!("::1+{port}")),
    ] {
        let output = world.sshjob(&[&["run", "-o", "json"], words, &["--", "echo $SSHJOB_INSTANCE"]].concat());
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
        let task = &json(&output)["tasks"][0];
        assert_eq!(task["stdout"].as_str(), Some(format!("{instance}\n").as_str()), "{words:?}");
    }
    let output = world.sshjob(&["run", "--dry-run", "-w", &bracketed, "-J", &bracketed, "--", "true"]);
    let told = said(&output);
    assert!(told.contains(&format!("{bracketed} via {bracketed}")) && told.contains("pinned"), "{told}");
    let output = world.sshjob(&["trust", "forget", &bracketed]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = world.sshjob(&["run", "--dry-run", "-w", &bracketed, "--", "true"]);
    assert!(said(&output).contains("first use"), "{}", said(&output));
}
