//! A host that is really restarted: all of its processes are gone, its disk is not.

use std::fs;

use serde_json::{Value, json};

use super::{owned, task};
use crate::support::eventually::wait_for;
use crate::support::machine::{Machine, Plan};
use crate::support::world::{World, json, said};

/// What a machine does at each of its starts: its root lives on its disk, and it has been booted as this says.
fn booting_as(boot: &str) -> String {
    format!(
        "{boot} >/run/boot_id; mount --bind /run/boot_id /proc/sys/kernel/random/boot_id\n\
         sed -i 's,^root:.*,root:x:0:0::/run/machine/disk:/bin/sh,' /etc/passwd\n"
    )
}

/// A world with one host, called `host`, that can be restarted; `None`, said aloud, where there can be none.
fn host_booting_as(boot: &str) -> Option<(World, Machine)> {
    let world = World::new(0);
    let mut plan = Plan::accepting(world.fleet().login().public());
    plan.has_disk = true;
    plan.setup = booting_as(boot);
    let machine = Machine::start(&plan)?;
    let (ip, port) = (machine.address().ip(), machine.address().port());
    let host = format!("{{ id: host, address: {ip}, port: {port}, user: root, tags: {{ Environment: Dev }} }}");
    fs::write(world.path().join("hosts.yaml"), format!("instances:\n  - {host}\n")).unwrap();
    Some((world, machine))
}

/// Starts `script`, in a store of its own, and waits until it has made the file `mark` on the disk.
fn start(world: &World, machine: &Machine, store: &str, script: &str, mark: &str) -> Value {
    let words = ["--store", store, "-o", "json", "run", "-d", "-t", "Environment=Dev", "--", script];
    let output = world.sshjob(&words);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    wait_for(&machine.disk().join(mark));
    json(&output)
}

/// The state of the only task in `store`, at its end: with its reason, its exit status and its output.
fn end(world: &World, store: &str) -> Value {
    let output = world.sshjob(&["--store", store, "-o", "json", "status", "last", "--wait"]);
    let run = json(&output);
    let task = task(&run, "host");
    json!([task["state"], task["reason"], task["exit_code"], task["stdout"]])
}

#[test]
fn what_ran_on_a_host_that_was_restarted_is_lost_and_what_had_ended_is_not() {
    let Some((world, mut machine)) = host_booting_as("cat /proc/sys/kernel/random/uuid") else { return };
    let stays = "echo begun; (setsid sleep 1000 &); touch up; exec sleep 1000";
    let run = start(&world, &machine, "runs", stays, "up");
    start(&world, &machine, "cancelled", "echo begun; touch up-too; exec sleep 1000", "up-too");
    let ended = start(&world, &machine, "ends", "echo all of it; touch done; exit 3", "done");
    let place = owned(&machine.disk(), &ended, "host");
    wait_for(&place.join("status"));
    let stands = json(&world.sshjob(&["--store", "runs", "-o", "json", "status", "last"]));
    assert_eq!(stands["counts"], json!({"running": 1}), "{stands:#}");
    machine.restart();
    assert_eq!(end(&world, "runs"), json!(["lost", "rebooted", null, "begun\n"]), "{run:#}");
    assert_eq!(end(&world, "ends"), json!(["failed", null, 3, "all of it\n"]));
    let cancelled = world.sshjob(&["--store", "cancelled", "-o", "json", "cancel", "last"]);
    let told = json(&cancelled);
    let told = (&task(&told, "host")["state"], &task(&told, "host")["reason"]);
    assert_eq!(told, (&json!("lost"), &json!("rebooted")), "{}", said(&cancelled));
    // It is a host like any other again, with nothing left of what was before.
    assert!(!place.exists());
    start(&world, &machine, "again", "echo again; touch again", "again");
    assert_eq!(end(&world, "again"), json!(["succeeded", null, 0, "again\n"]));
    assert_eq!(fs::read_dir(machine.disk().join(".sshjob")).unwrap().count(), 0);
}

#[test]
fn what_ran_in_a_container_that_was_restarted_is_lost_though_its_numbers_are_others_now() {
    // The boot is the same: only the processes are others, and have the numbers of those that are gone.
    let Some((world, mut machine)) = host_booting_as("cat /proc/sys/kernel/random/boot_id") else { return };
    start(&world, &machine, "runs", "echo begun; touch up; exec sleep 1000", "up");
    machine.restart();
    // As many processes as there were before, and more.
    for n in 0..3 {
        start(
            &world,
            &machine,
            &format!("other-{n}"),
            &format!("touch other-{n}; exec sleep 1000"),
            &format!("other-{n}"),
        );
    }
    let cancelled = world.sshjob(&["--store", "runs", "-o", "json", "cancel", "last"]);
    let told = json(&cancelled);
    let told = (&task(&told, "host")["state"], &task(&told, "host")["reason"], &task(&told, "host")["stdout"]);
    assert_eq!(told, (&json!("lost"), &json!("killed"), &json!("begun\n")), "{}", said(&cancelled));
    for n in 0..3 {
        let stands = json(&world.sshjob(&["--store", &format!("other-{n}"), "-o", "json", "status", "last"]));
        assert_eq!(stands["counts"], json!({"running": 1}), "nobody else is ended: {stands:#}");
    }
}
