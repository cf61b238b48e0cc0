//! A host on which nobody ends a script any more, and which says for ever that it runs.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sshjob::adapter::dir::Dir;

use super::{age, directory, kill_group, number, only_run, start, task, wait, wait_for};
use crate::support::world::{World, json, said};

/// Who belongs to the session of a supervisor: itself, its watch and its pumps.
fn session(supervisor: i32) -> Vec<Pid> {
    let belongs = |process: &Path| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)?.parse().ok()) == Some(supervisor)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(|it| belongs(it));
    processes.filter_map(|it| Pid::from_raw(it.file_name()?.to_str()?.parse().ok()?)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn script_whose_supervisor_and_watch_are_stopped_is_lost_long_after_its_time() {
    let world = World::new(1);
    let run = start(&world, &["--timeout", "1s"], "touch $WHERE/$SSHJOB_INSTANCE; exec sleep 600");
    wait_for(&world.path().join("host-0"));
    let attempt = directory(&world, &run, "host-0");
    let own = attempt.join("self");
    let session = session(number(&own, 1));
    let send = |signal| {
        for pid in &session {
            let _ = kill_process(*pid, signal);
        }
    };
    send(Signal::STOP);
    // As if it ran since its host was booted, which is longer ago than its time and all that is granted beyond it.
    let text = fs::read_to_string(&own).unwrap();
    let mut words: Vec<_> = text.split(' ').collect();
    words[4] = "1.00";
    fs::write(&own, words.join(" ")).unwrap();
    for _ in 0..2 {
        let status = world.sshjob(&["-o", "json", "status", "last"]);
        let stands = json(&status);
        assert_eq!(
            (status.status.code(), &task(&stands, "host-0")["state"]),
            (Some(0), &json!("running")),
            "{stands:#}"
        );
    }
    let store = Dir::open(world.path().join(".local/state/sshjob")).unwrap();
    age(&store, &only_run(&store).await.unwrap()).await;
    let output = wait(&world);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    let ended = json(&output);
    let reason = json!("worker: said to run on its host, long after its `timeout` of 1s");
    let told = (&task(&ended, "host-0")["state"], &task(&ended, "host-0")["reason"]);
    assert_eq!(told, (&json!("lost"), &reason), "{ended:#}");
    assert!(own.exists(), "what nobody could see the end of is there to be looked at");
    send(Signal::KILL);
    // It was asked to end, and may have done so.
    if Path::new("/proc").join(number(&attempt.join("leader"), 0).to_string()).exists() {
        kill_group(&attempt);
    }
}
