//! Background processes that hold a script's output open when the script has ended.

use serde_json::{Value, json};

use super::*;
use crate::support::world;

/// Runs `script`; what is told of its only task: state, reason, output, its size, and whether any of it is missing.
fn told(script: &str) -> Value {
    let world = World::new(1);
    fs::write(world.path().join("script"), format!("#!/bin/sh\n{script}\n")).unwrap();
    let run = world::json(&world.sshjob(&["run", "-t", "Environment", "-o", "json", "--script", "script"]));
    let task = &run["tasks"][0];
    json!([task["state"], task["reason"], task["stdout"], task["stdout_bytes"], task["truncated"]])
}

#[test]
fn background_process_that_holds_the_output_is_told_of() {
    let reason = "a background process still holds the output open";
    assert_eq!(told("sleep 60 &\necho done"), json!(["succeeded", reason, "done\n", 5, false]));
    assert_eq!(told("sleep 60 >/dev/null 2>&1 &\necho done"), json!(["succeeded", null, "done\n", 5, false]));
}

#[test]
fn background_process_is_heard_while_it_prints() {
    // Longer in all than a silent one is listened to, and never silent for long; it begins when the script has ended.
    let script = "script=$$
        {
            while kill -0 $script 2>/dev/null; do sleep 0.05; done
            for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo $n; sleep 0.2; done
            exec sleep 60
        } &
        echo done";
    let reason = "a background process still holds the output open";
    let output = "done\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n";
    assert_eq!(told(script), json!(["succeeded", reason, output, output.len(), false]));
}

#[test]
fn background_process_that_ends_leaves_nothing_to_tell() {
    let script = "script=$$\n{ while kill -0 $script 2>/dev/null; do sleep 0.05; done; echo last; } &\necho done";
    assert_eq!(told(script), json!(["succeeded", null, "done\nlast\n", 10, false]));
}
