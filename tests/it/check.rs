//! `sshjob check`: how far one gets with each host, why no further, and what to do about it.

use crate::support::fault::{Fault, Faulty};
use crate::support::key::Login;
use crate::support::sshd::{self, Spec, Sshd};
use crate::support::world::{World, json, ndjson, said};

/// Text with what differs from run to run taken out of it: times, addresses, the tester's name, fingerprints, gaps.
fn steady(text: &str) -> String {
    let word = |word: &str| match word.trim_matches(['`', ':', ',', '?']) {
        key if key.starts_with("SHA256:") => "KEY".to_owned(),
        address if address.starts_with("127.") => "ADDRESS".to_owned(),
        user if user == sshd::user() => "USER".to_owned(),
        port if port.len() > 3 && port.parse::<u16>().is_ok() => "PORT".to_owned(),
        time if time.ends_with('s') && time.trim_end_matches(['m', 's']).parse::<f64>().is_ok() => "TIME".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn hosts_of_every_kind_tell_where_one_gets_stuck_and_what_to_do() {
    let mut world = World::new(3);
    let (refuses, silent) = (Faulty::start(Fault::Refuses), Faulty::start(Fault::Silent));
    let stranger = Sshd::start(Spec::accepting(Login::fresh().public()));
    let mut spec = Spec::accepting(world.fleet().login().public());
    spec.lines = vec!["ForceCommand echo go away; exit 3".to_owned()];
    let forced = Sshd::start(spec);
    world.add("refuses", refuses.address(), "Environment: Dev");
    world.add("silent", silent.address(), "Environment: Dev");
    world.add("stranger", stranger.address(), "Environment: Dev");
    world.add("forced", forced.address(), "Environment: Dev");
    let first = world.sshjob(&["check", "-t", "Environment=Dev", "--connect-timeout", "2s"]);
    let [out, err] = [&first.stdout, &first.stderr].map(|bytes| steady(&String::from_utf8_lossy(bytes)));
    insta::assert_snapshot!(format!("{out}---\n{err}exit {}\n", first.status.code().unwrap()));
    world.fleet_mut().change_host_keys();
    let second = world.sshjob(&["-o", "ndjson", "check", "-t", "Environment=Dev", "--connect-timeout", "2s"]);
    let states = |state: &str| ndjson(&second).iter().filter(|host| host["state"] == state).count();
    assert_eq!(states("host_key_rejected"), 3, "{}", said(&second));
}

#[test]
fn steps_come_in_order_and_nothing_is_recorded_but_the_pins() {
    let world = World::new(2);
    let output = world.sshjob(&["-o", "json", "check", "-t", "Environment=Dev"]);
    let document = json(&output);
    for host in document["hosts"].as_array().unwrap() {
        let steps: Vec<&str> =
            host["steps"].as_array().unwrap().iter().map(|it| it["step"].as_str().unwrap()).collect();
        assert_eq!(steps, ["tcp", "handshake", "host_key", "login", "shell"], "{}", said(&output));
        assert_eq!((&host["ok"], &host["state"]), (&true.into(), &"succeeded".into()));
    }
    let runs = world.sshjob(&["-o", "json", "runs"]);
    assert_eq!(json(&runs)["runs"], serde_json::json!([]), "{}", said(&runs));
    let pins = world.sshjob(&["trust", "list"]);
    assert_eq!(String::from_utf8_lossy(&pins.stdout).matches("SHA256:").count(), 2, "{}", said(&pins));
}

#[test]
fn selector_that_matches_nothing_is_an_error_unless_it_may() {
    let world = World::new(1);
    let told = |format: &str, flags: &[&str]| {
        let output = world.sshjob(&[&["-q", "-o", format, "check", "-t", "Environment=None"], flags].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(told("json", &[]), (Some(4), String::new()));
    let allowed = ["--allow-empty"];
    assert_eq!(told("json", &allowed), (Some(0), "{\"schema\":\"sshjob/v1\",\"hosts\":[]}\n".to_owned()));
    assert_eq!(told("ndjson", &allowed), (Some(0), String::new()));
    assert_eq!(told("text", &allowed), (Some(0), String::new()));
}

/// Cause: without a step taken, whatever failed was put down to the first one, with the advice for that.
#[test]
fn host_without_such_an_address_gets_its_own_advice_behind_a_jump_host_too() {
    let world = World::new(0);
    world.add("here", "127.0.0.1:1".parse().unwrap(), "Environment: Dev");
    for jump in [&[][..], &["-J", "127.0.0.1:1"]] {
        let words = ["-o", "json", "check", "-t", "Environment=Dev", "--address", "public"];
        let output = world.sshjob(&[&words, jump].concat());
        let host = json(&output)["hosts"][0].clone();
        assert_eq!(host["reason"], "connect: the instance has no public address", "{}", said(&output));
        assert_eq!(host["hint"], "name another kind of address with `--address`", "{}", said(&output));
    }
}

#[test]
fn route_through_a_jump_host_shows_it_as_a_step() {
    let world = World::new(1);
    let bastion = Sshd::start(Spec::accepting(world.fleet().login().public()));
    let jump = bastion.address().to_string();
    let output = world.sshjob(&["-o", "json", "check", "-t", "Environment=Dev", "-J", &jump]);
    assert_eq!(json(&output)["hosts"][0]["steps"][0]["step"], "jump", "{}", said(&output));
    drop(bastion);
    let output = world.sshjob(&["-o", "json", "check", "-t", "Environment=Dev", "-J", &jump]);
    let host = json(&output)["hosts"][0].clone();
    assert_eq!((&host["failed"], &host["state"]), (&"jump".into(), &"unreachable".into()), "{}", said(&output));
    let output = world.sshjob(&["--store", "there", "check", "-t", "Environment=Dev", "-J", &jump]);
    assert!(said(&output).contains("hint: `sshjob --store there check -w` on the jump host"), "{}", said(&output));
}

#[test]
fn check_that_trusts_anyone_says_so_and_its_hints_name_the_store() {
    let mut world = World::new(1);
    let output = world.sshjob(&["--store", "elsewhere", "check", "-t", "Environment=Dev", "--host-key", "off"]);
    let told = steady(&said(&output));
    assert!(told.contains("warning: host keys are not checked"), "{told}");
    assert!(told.contains("TIME TIME off TIME TIME ok"), "{told}");
    let check = ["--store", "elsewhere", "check", "-t", "Environment=Dev"];
    assert_eq!(world.sshjob(&check).status.code(), Some(0));
    world.fleet_mut().change_host_keys();
    let told = said(&world.sshjob(&check));
    assert!(told.contains("`sshjob --store elsewhere trust forget"), "{told}");
    assert!(!told.contains("`sshjob trust"), "{told}");
}
