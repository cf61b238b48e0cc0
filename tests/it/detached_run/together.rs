//! Several at one thing: two processes with one request, and hosts that share one home.

use super::{directory, start, wait};
use crate::support::world::{World, json, said};

#[test]
fn two_processes_with_one_request_start_each_task_once() {
    let world = World::new(3);
    std::fs::create_dir(world.path().join("marks")).unwrap();
    let round = |round: usize| {
        let (store, id) = (format!("store-{round}"), format!("request {round}"));
        let marks = world.path().join("marks").join(round.to_string());
        let script = format!("echo $SSHJOB_INSTANCE >> {}", marks.display());
        let both = [(); 2].map(|()| {
            let mut command = world.command(&["--store", &store, "-o", "json", "run", "-d", "--id", &id]);
            command.args(["-t", "Environment=Dev", "--", &script]).spawn().unwrap()
        });
        let outputs = both.map(|child| child.wait_with_output().unwrap());
        let told = outputs.each_ref().map(json);
        assert_eq!(told[0]["run"], told[1]["run"], "round {round}");
        for (output, run) in outputs.iter().zip(&told) {
            assert_eq!(output.status.code(), Some(0), "round {round}: {}", said(output));
            assert_eq!(run["tasks"].as_array().unwrap().len(), 3, "round {round}: {run:#}");
        }
        let status = world.sshjob(&["--store", &store, "-o", "json", "status", "last", "--wait"]);
        assert_eq!(json(&status)["counts"]["succeeded"], 3, "round {round}: {}", said(&status));
        let mut starts: Vec<_> = std::fs::read_to_string(&marks).unwrap().lines().map(str::to_owned).collect();
        starts.sort();
        assert_eq!(starts, ["host-0", "host-1", "host-2"], "round {round}");
    };
    // Two at a time: they mostly wait.
    std::thread::scope(|scope| {
        for half in 0..2 {
            let round = &round;
            scope.spawn(move || (half * 10..half * 10 + 10).for_each(round));
        }
    });
}

#[test]
fn hosts_that_share_a_home_never_meet() {
    let world = World::new(4);
    let run = start(&world, &[], "echo $SSHJOB_INSTANCE; while [ ! -e $WHERE/go ]; do sleep 0.05; done");
    for n in 0..4 {
        assert!(directory(&world, &run, &format!("host-{n}")).is_dir(), "one home, and a directory each");
    }
    std::fs::write(world.path().join("go"), "").unwrap();
    let output = wait(&world);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for task in json(&output)["tasks"].as_array().unwrap() {
        assert_eq!(task["stdout"], format!("{}\n", task["instance"].as_str().unwrap()), "{task:#}");
    }
}
