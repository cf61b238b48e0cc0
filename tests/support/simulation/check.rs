//! What must be true of every world once it has come to rest, whatever went wrong in it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sshjob::domain::firing::{Cursor, Decided, Fate, Why};
use sshjob::domain::id::{JobName, RunId};
use sshjob::domain::job::Overlap;
use sshjob::domain::run::{Outcomes, Plan, RunRecord, RunState, Verdict};
use sshjob::domain::task::{Counts, TaskState};
use sshjob::engine::fire::Scheduled;

use super::State;

/// What must be true of every world.
pub(crate) fn check(state: &State, jobs: &[Scheduled], wrong: &mut Vec<String>) {
    let read = |key: &str| state.objects.get(key).map(|(bytes, _)| bytes.as_slice());
    let Some(first) = state.first_cursor else { return };
    let cursor: Cursor = serde_json::from_slice(read("state/cursor.json").unwrap()).unwrap();
    for scheduled in jobs {
        let name = &scheduled.job.name;
        let decisions = state.decisions.get(name).map(Vec::as_slice).unwrap_or_default();
        let until = cursor.behind.get(name).copied().unwrap_or(cursor.ticked);
        check_firings(scheduled, decisions, (first, until), wrong);
        let prefix = format!("runs/{name}/");
        let claims = state.objects.keys().filter(|key| key.starts_with(&prefix) && key.ends_with("/run.json"));
        let claimed: BTreeSet<&str> = claims.map(|key| key.split('/').nth(2).unwrap()).collect();
        let decided: BTreeSet<String> =
            decisions.iter().map(|decided| RunId::of_firing(name, decided.at).to_string()).collect();
        for run in &claimed {
            if !decided.contains(*run) {
                wrong.push(format!("{run} was decided by nobody"));
            }
        }
        let mut ends: Vec<(Timestamp, &str)> = Vec::new();
        for run in &claimed {
            check_run(state, name, run, wrong);
            let verdict = state.verdicts.get(&run.parse::<RunId>().unwrap()).copied();
            let first_start = state.log.iter().filter(|start| start.run.as_str() == *run).map(|start| start.at).min();
            if let (Some(start), true) = (first_start, scheduled.job.schedule.overlap != Overlap::Allow) {
                for (end, earlier) in &ends {
                    if *end > start {
                        wrong.push(format!("{run} started before {earlier} had ended"));
                    }
                }
            }
            ends.push((verdict.unwrap_or(Timestamp::MAX), run));
        }
    }
}

/// Every firing is decided exactly once, and nothing else is.
fn check_firings(
    scheduled: &Scheduled,
    decisions: &[Decided],
    (first, until): (Timestamp, Timestamp),
    wrong: &mut Vec<String>,
) {
    let name = &scheduled.job.name;
    let firings = scheduled.calendar.between(first, until, 10_000);
    for firing in &firings {
        let covering = decisions.iter().filter(|decided| match decided.fate {
            Fate::Run => decided.at == firing.at,
            Fate::Skip(_) => decided.at <= firing.at && firing.at <= decided.until,
        });
        let covering: Vec<&Decided> = covering.collect();
        if covering.len() != 1 {
            wrong.push(format!("the firing of {name} at {} was decided {} times", firing.at, covering.len()));
        }
        let Some(Decided { fate: Fate::Skip(why), .. }) = covering.first() else { continue };
        let schedule = &scheduled.job.schedule;
        let is_allowed = match why {
            Why::Paused => schedule.paused,
            Why::Overlap(_) => schedule.overlap == Overlap::Skip,
            Why::Missed(_) => true,
            Why::Blackout(_) | Why::Crowded => false,
        };
        if !is_allowed {
            wrong.push(format!("the firing of {name} at {} was skipped by no policy of it: {why:?}", firing.at));
        }
    }
    for decided in decisions {
        let is_one = firings.iter().any(|firing| firing.at == decided.at);
        if !is_one && decided.at <= until {
            wrong.push(format!("{name} does not fire at {}, and yet that was decided", decided.at));
        }
    }
}

/// A run has ended, its tasks add up, and what they say is what their hosts know.
fn check_run(state: &State, name: &JobName, run: &str, wrong: &mut Vec<String>) {
    let read = |what: &str| state.objects.get(&format!("runs/{name}/{run}/{what}")).map(|(bytes, _)| bytes.as_slice());
    let record: RunRecord = serde_json::from_slice(read("run.json").unwrap()).unwrap();
    let Some(verdict) = read("result.json") else {
        // One that fired in the last moments may be under way.
        if !state.objects.contains_key(&format!("active/{name}/{run}")) {
            wrong.push(format!("{run} is not active, and has no verdict"));
        }
        return;
    };
    let verdict: Verdict = serde_json::from_slice(verdict).unwrap();
    let starts: Vec<_> = state.log.iter().filter(|start| start.run.as_str() == run).collect();
    let Some(plan) = read("plan.json") else {
        if verdict.state != RunState::Skipped || !starts.is_empty() || record.skipped.is_none() {
            wrong.push(format!("{run} is {:?} without a plan", verdict.state));
        }
        return;
    };
    let plan: Plan = serde_json::from_slice(plan).unwrap();
    if let Some(sealed) = &plan.sealed {
        // Of fifty hosts nearly all are listed: none of a group is what a broken inventory says.
        if sealed.reason.starts_with("no running instance") {
            wrong.push(format!("{run} took a fleet for empty"));
        }
        if verdict.state != sealed.state || !starts.is_empty() {
            wrong.push(format!("{run} was sealed as {:?} and is {:?}", sealed.state, verdict.state));
        }
        return;
    }
    let mut counts = Counts::default();
    for n in 0..plan.batches.len() {
        let Some(outcomes) = read(&format!("batches/{n}.json")) else {
            wrong.push(format!("{run} has ended without its batch {n}"));
            continue;
        };
        let outcomes: Outcomes = serde_json::from_slice(outcomes).unwrap();
        for (instance, task) in &outcomes.tasks {
            counts.add(task.state);
            let mine = || starts.iter().filter(|start| start.instance == *instance);
            let last = mine().find(|start| start.attempt == task.attempt);
            let is_true = match task.state {
                TaskState::Succeeded => last.is_some_and(|start| start.code == 0),
                TaskState::Failed => last.is_some_and(|start| start.code != 0),
                TaskState::Unreachable | TaskState::AuthFailed => last.is_none(),
                TaskState::Skipped => mine().count() == 0 || task.attempt > 0,
                TaskState::Lost | TaskState::Cancelled => true,
                _ => false,
            };
            if !is_true {
                wrong.push(format!("{run} on {instance} is {:?}, and its host knows {last:?}", task.state));
            }
            if task.attempt > record.job.retries.attempts {
                wrong.push(format!("{run} on {instance} had {} attempts", task.attempt));
            }
        }
    }
    if counts != verdict.counts || counts.total() != plan.total() {
        wrong.push(format!("{run}: the verdict counts {:?}, and the tasks {counts:?}", verdict.counts));
    }
}

/// Every write of the engine was cut off before and after it, and everything else went wrong, too.
pub(crate) fn check_reach(faults: &BTreeMap<String, u64>) {
    let creates = ["active", "blobs", "run.json", "state", "cursor", "targets", "plan.json", "claim", "outcomes"];
    let creates = creates.into_iter().chain(["control.json", "result.json"]).map(|kind| format!("create {kind}"));
    let swaps = ["active", "state", "cursor", "claim", "outcomes"].map(|kind| format!("swap {kind}"));
    for step in creates.chain(swaps).chain(["remove active".to_owned()]) {
        for fault in ["died before", "died after", "failed before", "failed after"] {
            assert!(faults.contains_key(&format!("{fault} {step}")), "nothing {fault} {step}");
        }
    }
    for fault in [
        "a clock was an hour ahead",
        "a connection was lost",
        "a host came or went",
        "a host went down or up",
        "a script could not be read",
        "a tick came twice",
        "a tick was dropped",
        "a tick was late",
        "delivery broke off",
        "died after a start",
        "died at any moment",
        "died before a start",
        "failed to read",
        "the answer to a start was lost",
        "the inventory was throttled",
    ] {
        assert!(faults.contains_key(fault), "{fault}: never");
    }
}
