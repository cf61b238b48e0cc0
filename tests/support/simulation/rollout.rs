//! What must be true of rolling runs: errors and a canary that fails stop them.

use std::collections::BTreeSet;

use sshjob::domain::id::InstanceId;
use sshjob::domain::layout::RunKeys;
use sshjob::domain::run::{BatchTargets, Carrier, Outcomes, Plan, RunRecord};
use sshjob::domain::task::TaskState;

use super::{Start, State};

/// What is wrong with the rollout of a run that is over.
pub(crate) fn check(state: &State, record: &RunRecord, plan: &Plan, starts: &[&Start], wrong: &mut Vec<String>) {
    check_canary(state, record, plan, starts, wrong);
    // Of functions each counts by itself, and the trigger between two waves.
    if record.carrier == Carrier::Scheduler {
        check_errors(state, record, plan, starts, wrong);
    }
}

/// Where a canary did not succeed, no other task started.
fn check_canary(state: &State, record: &RunRecord, plan: &Plan, starts: &[&Start], wrong: &mut Vec<String>) {
    let [(from, to), _, ..] = plan.waves[..] else { return };
    if record.job.rollout.canary.of(plan.total()) == 0 {
        return;
    }
    let keys = RunKeys::new(&record.run);
    let (mut canaries, mut succeeded) = (BTreeSet::<InstanceId>::new(), BTreeSet::new());
    for n in from..to {
        let targets: BatchTargets = serde_json::from_slice(state.stored(keys.targets(n).as_str()).unwrap()).unwrap();
        canaries.extend(targets.targets.into_iter().map(|target| target.instance));
        let outcomes: Outcomes = serde_json::from_slice(state.stored(keys.outcomes(n).as_str()).unwrap()).unwrap();
        let tasks = outcomes.tasks.into_iter().filter(|(_, task)| task.state == TaskState::Succeeded);
        succeeded.extend(tasks.map(|(instance, _)| instance));
    }
    if succeeded != canaries && starts.iter().any(|start| !canaries.contains(&start.instance)) {
        wrong.push(format!("{} went on although its canary did not succeed", record.run));
    }
}

/// Once more errors were written down than the run tolerates, only those start that were let through before.
fn check_errors(state: &State, record: &RunRecord, plan: &Plan, starts: &[&Start], wrong: &mut Vec<String>) {
    let Some(allowed) = plan.max_errors else { return };
    let errors = state.errors.get(&record.run).map(Vec::as_slice).unwrap_or_default();
    let Some(stopped) = errors.get(allowed as usize) else { return };
    let late = starts.iter().filter(|start| start.at > *stopped).count();
    // Those of a driver, and of another that was held up while that took the run from it.
    if late > 2 * plan.max_concurrency as usize {
        wrong.push(format!("{}: {late} tasks started after more than {allowed} errors", record.run));
    }
}
