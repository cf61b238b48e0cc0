//! Hosts that lie, flood and stall: each ends in its own state, and none succeeds that has not.

use std::fmt::Write as _;

use crate::support::hostile::{Deed, Hostiles};
use crate::support::world::{World, json, said};

#[test]
fn hostile_host_ends_as_told() {
    let deeds = [Deed::Behaves];
    let world = World::new(1);
    let hosts = Hostiles::start(&deeds);
    for (deed, at) in deeds.iter().zip(hosts.addresses()) {
        world.add(&format!("{deed:?}"), *at, "Kind: hostile");
    }
    let output = world.sshjob(&[
        "run",
        "-t",
        "Kind=hostile",
        "--connect-timeout",
        "5s",
        "--timeout",
        "5s",
        "-o",
        "json",
        "--",
        "true",
    ]);
    eprintln!("{}", said(&output));
    let run = json(&output);
    let mut told = String::new();
    for task in run["tasks"].as_array().unwrap() {
        writeln!(told, "{}: {} {} {}", task["instance"], task["state"], task["exit_code"], task["reason"]).unwrap();
    }
    panic!("{told}");
}
