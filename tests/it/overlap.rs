//! Runs that somebody asks for, beside those that fire: the former have their way at once, the latter mind them.

use std::fs;

use jiff::Timestamp;
use serde_json::json;
use sshjob::domain::id::RunId;
use sshjob::domain::plan::target;
use sshjob::domain::run::{Carrier, RunState, Verdict};
use sshjob::domain::task::Counts;
use sshjob::engine::fire;
use sshjob::engine::reconcile::write_verdict;
use sshjob::engine::records::Runs;
use sshjob::engine::start::{Errand, Request, StartError, Started, commission, start};
use sshjob::port::Inventory as _;

use super::tick::{Rig, fired};
use crate::support::clock;
use crate::support::eventually::{eventually, wait_for};
use crate::support::memory::{Fault, Memory};
use crate::support::scheduler::{Scheduler, marks, write_job};
use crate::support::world::{World, json, said};

fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

/// Asks for a run of the `n`-th job of `rig` at this time, by way of `runs`, as `sshjob run` does.
async fn ask(rig: &Rig, runs: &Runs<Memory>, n: usize, time: &str) -> Result<Started, StartError> {
    let job = rig.jobs[n].job.clone();
    let instances = rig.around.select(&job).await.unwrap();
    let targets = instances.iter().map(|instance| target(&job, instance)).collect();
    let (script, origin) = (b"true".to_vec(), "run".to_owned());
    let (actor, id) = ("ann".to_owned(), time.to_owned());
    start(runs, Request { job, script, origin, actor, id, retry_of: None, targets }, at(time)).await
}

async fn end(rig: &Rig, run: &RunId, state: RunState, time: &str) {
    let record = rig.runs.run(run).await.unwrap().unwrap();
    let (counts, began_at) = (Counts::default(), Some(record.started_at));
    let verdict = Verdict { state, reason: None, counts, began_at, finished_at: at(time) };
    write_verdict(&rig.runs, &record, verdict).await.unwrap();
}

const SKIP: &str = "schedule: '* * * * *'\n";

#[tokio::test(start_paused = true)]
async fn firing_minds_a_run_that_somebody_asked_for_as_it_minds_another_firing() {
    let policies = ["skip", "queue", "replace", "allow"];
    let jobs = policies.map(|policy| (policy, format!("schedule: '* * * * *'\noverlap: {policy}\n")));
    let rig = Rig::new(&jobs.each_ref().map(|(name, text)| (*name, text.as_str())));
    let mut asked = Vec::new();
    for n in 0..policies.len() {
        asked.push(ask(&rig, &rig.runs, n, "12:00:40").await.unwrap().run.run.to_string());
    }
    rig.tick("12:01:00").await;
    let [skip, queue, replace, allow] = asked.as_slice() else { panic!("{asked:?}") };
    let mut expected = [
        format!("{allow} running"),
        "allow-20261122T120100Z running".to_owned(),
        format!("{queue} running"),
        "queue-20261122T120100Z planning".to_owned(),
        format!("{replace} running: cancel asked by run replace-20261122T120100Z"),
        "replace-20261122T120100Z planning".to_owned(),
        format!("{skip} running"),
        format!("skip-20261122T120100Z skipped: overlap: run `{skip}` is still active"),
    ];
    expected.sort();
    assert_eq!(rig.told().await, expected);
    // Once they are over everything goes on, and nothing is left of them.
    for run in &asked {
        end(&rig, &run.parse().unwrap(), RunState::Succeeded, "12:01:10").await;
    }
    rig.tick("12:01:20").await;
    let told = rig.told().await;
    for run in ["queue-20261122T120100Z running", "replace-20261122T120100Z running"] {
        assert!(told.iter().any(|told| told == run), "{told:?}");
    }
    assert_eq!(fired(&rig.tick("12:02:00").await)[3], "skip-20261122T120200Z");
}

#[tokio::test(start_paused = true)]
async fn run_that_somebody_asks_for_has_its_way_while_a_firing_runs_and_is_told_of_it() {
    let rig = Rig::new(&[("a", SKIP)]);
    rig.tick("12:00:00").await;
    let asked = ask(&rig, &rig.runs, 0, "12:00:10").await.unwrap();
    assert_eq!(asked.plan.total(), 1);
    let firing: RunId = "a-20261122T120000Z".parse().unwrap();
    assert_eq!(fire::beside(&rig.runs, &asked.run).await.unwrap(), std::slice::from_ref(&firing));
    end(&rig, &firing, RunState::Succeeded, "12:00:20").await;
    assert_eq!(fire::beside(&rig.runs, &asked.run).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn run_whose_caller_died_holds_up_no_firing() {
    let rig = Rig::new(&[("a", SKIP)]);
    let asked = ask(&rig, &rig.runs, 0, "12:00:10").await.unwrap().run.run.clone();
    // Its lease has lapsed by then.
    assert_eq!(fired(&rig.tick("12:01:00").await), ["a-20261122T120100Z"]);
    let settled = rig.runs.verdict(&asked).await.unwrap().unwrap();
    assert_eq!(settled.reason.as_deref(), Some("the process that drove it ended before it was done"));
}

#[tokio::test(start_paused = true)]
async fn caller_that_dies_at_any_write_holds_up_no_firing() {
    let mut crashes = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorBefore, Fault::ErrorAfter] {
        for n in 1.. {
            let rig = Rig::new(&[("a", SKIP)]);
            let machine = rig.runs.store().reboot().with_fault(n, fault);
            let runs = Runs::new(machine.clone());
            tokio::select! {
                _ = ask(&rig, &runs, 0, "12:00:10") => {}
                () = machine.crashed() => {}
            }
            assert_eq!(fired(&rig.tick("12:01:00").await), ["a-20261122T120100Z"], "{fault:?} at write {n}");
            let (state, _) = fire::read(&rig.runs, &"a".parse().unwrap()).await.unwrap();
            assert_eq!(state.active, ["a-20261122T120100Z".parse().unwrap()], "{fault:?} at write {n}");
            if machine.writes().len() < n {
                break;
            }
            crashes += 1;
        }
    }
    // The request, the mark, the script, the claim, that firings mind it, the targets, the batch, the plan: each in four
    // ways.
    assert_eq!(crashes, 8 * 4);
}

#[tokio::test(start_paused = true)]
async fn runs_that_were_asked_for_are_part_of_what_the_job_usually_does() {
    let rig = Rig::new(&[("a", SKIP)]);
    for (n, state) in
        [RunState::Succeeded, RunState::Succeeded, RunState::Succeeded, RunState::Failed].iter().enumerate()
    {
        let asked = ask(&rig, &rig.runs, 0, &format!("12:00:1{n}")).await.unwrap().run.run.clone();
        end(&rig, &asked, *state, &format!("12:00:2{n}")).await;
    }
    let (state, _) = fire::read(&rig.runs, &"a".parse().unwrap()).await.unwrap();
    assert_eq!(
        (state.last_verdict(at("12:01:00")), state.usual()),
        (Some(RunState::Failed), Some(std::time::Duration::from_secs(10)))
    );
    assert_eq!(state.active, []);
}

#[tokio::test(start_paused = true)]
async fn run_for_an_instance_that_has_started_is_beside_the_schedule() {
    let rig = Rig::new(&[("a", SKIP)]);
    let errand = |id: &str, instance: Option<&str>| Errand {
        job: rig.jobs[0].job.clone(),
        script: b"true".to_vec(),
        actor: "trigger".to_owned(),
        id: id.to_owned(),
        instance: instance.map(|id| id.parse().unwrap()),
        retry: None,
        carrier: Carrier::Functions,
    };
    commission(&rig.runs, errand("one", Some("i-1")), at("12:00:10")).await.unwrap();
    assert_eq!(fired(&rig.tick("12:01:00").await), ["a-20261122T120100Z"]);
    end(&rig, &"a-20261122T120100Z".parse().unwrap(), RunState::Succeeded, "12:01:10").await;
    let asked = commission(&rig.runs, errand("two", None), at("12:01:20")).await.unwrap();
    // Delivered once more it is the same run.
    assert_eq!(commission(&rig.runs, errand("two", None), at("12:01:30")).await.unwrap(), asked);
    let skipped = format!("a-20261122T120200Z: overlap: run `{asked}` is still active");
    assert_eq!(fired(&rig.tick("12:02:00").await), [skipped]);
}

#[tokio::test(start_paused = true)]
async fn job_that_never_fires_leaves_no_state() {
    let rig = Rig::new(&[("a", "")]);
    let asked = ask(&rig, &rig.runs, 0, "12:00:10").await.unwrap().run.run.clone();
    end(&rig, &asked, RunState::Succeeded, "12:00:20").await;
    let state = rig.runs.store().objects().into_iter().map(|(key, _)| key).filter(|key| key.contains("state/jobs"));
    assert_eq!(state.collect::<Vec<_>>(), [] as [String; 0]);
}

#[test]
fn run_and_retry_say_what_goes_on_beside_them_and_the_scheduler_minds_them() {
    const SCRIPT: &str = "echo $SSHJOB_RUN_ID >> $WHERE/marks; until [ -e $WHERE/go ]; do sleep 0.05; done";
    let world = World::new(1);
    write_job(&world, "slow", SCRIPT, "timeout: 10m\n");
    let begun = |count: usize| {
        eventually("that it has begun", || marks(&world.path().join("marks")).len() == count);
    };
    let ask = |words: &[&str]| Scheduler::start(world.command(&[&["--store", "store"], words].concat()));
    let mut first = ask(&["run", "slow"]);
    wait_for(&world.path().join("marks"));
    begun(1);
    let first_run = marks(&world.path().join("marks"))[0].clone();
    let mut second = ask(&["run", "slow"]);
    second.complaint("what goes on", |line| {
        line == format!("run `{first_run}` of job `slow` is not over; this one goes on beside it")
    });
    begun(2);
    let second_run = marks(&world.path().join("marks"))[1].clone();

    // A scheduler that comes now has nothing that is due; in the next minute it has.
    let once = |time: &str| {
        let mut command = world.command(&["--store", "store", "-o", "ndjson", "up", "--once"]);
        clock::at(&mut command, time);
        command.output().unwrap()
    };
    once("2026-11-23 05:00:30");
    let skipped = once("2026-11-23 05:01:01");
    let told = said(&skipped);
    assert!(told.contains(&format!("overlap: run `{second_run}` is still active")), "{told}");
    assert_eq!(marks(&world.path().join("marks")).len(), 2);
    fs::write(world.path().join("go"), "").unwrap();
    assert_eq!((first.end().code(), second.end().code()), (Some(0), Some(0)), "{:?}", first.err());
    assert_eq!(first.err().iter().filter(|line| line.contains("beside")).count(), 0);

    fs::remove_file(world.path().join("go")).unwrap();
    let mut third = ask(&["run", "slow"]);
    begun(3);
    let third_run = marks(&world.path().join("marks"))[2].clone();
    let mut again = ask(&["retry", &first_run]);
    again.complaint("what goes on", |line| line.contains(&format!("run `{third_run}` of job `slow` is not over")));
    fs::write(world.path().join("go"), "").unwrap();
    assert_eq!((third.end().code(), again.end().code()), (Some(0), Some(0)), "{:?}", again.err());
    let ran = once("2026-11-23 05:02:01");
    assert_eq!(ran.status.code(), Some(0), "{}", said(&ran));
    let last = json(&world.sshjob(&["--store", "store", "-o", "json", "status", "slow-20261123T050200Z"]));
    assert_eq!(last["state"], json!("succeeded"));
}
