//! What must be true of every world once its time of trouble is over.

use jiff::Timestamp;
use sshjob::domain::firing::{Fate, Why};
use sshjob::domain::id::{JobName, RunId};
use sshjob::domain::job::notify::Channel;
use sshjob::domain::job::{Job, Overlap};
use sshjob::domain::run::{Carrier, Outcomes, Plan, RunRecord, RunState, Verdict};
use sshjob::domain::task::{Counts, TaskState};
use sshjob::engine::fire::Scheduled;

use super::jobs::Edited;
use super::{Decision, State, Told, is_on_demand, rollout};

/// What is wrong with the world.
pub(crate) fn check(state: &State, jobs: &[Edited], wrong: &mut Vec<String>) {
    let cursor = state.cursor();
    let is_mad = state.decisions.values().flatten().any(|decision| decision.is_mad);
    let mut asked = 0;
    for job in jobs {
        let name = &job.now.job.name;
        let decisions = state.decisions.get(name).map(Vec::as_slice).unwrap_or_default();
        let until = cursor.as_ref().and_then(|cursor| cursor.of(name));
        if let (Some(first), Some(until)) = (state.known_since.get(name), until) {
            check_firings(job, decisions, (*first, until), state, wrong);
        }
        let claimed = state.claimed(name);
        let decided: Vec<RunId> = decisions.iter().map(|it| RunId::of_firing(name, it.decided.at)).collect();
        // The last may be under way.
        for run in decided.iter().rev().skip(1).filter(|run| !claimed.contains(*run)) {
            wrong.push(format!("{run} was decided, and there is no record of it"));
        }
        let mut ends: Vec<(Timestamp, &RunId)> = Vec::new();
        for run in &claimed {
            check_run(state, name, run, wrong);
            check_notice(state, run, wrong);
            if is_on_demand(run) {
                asked += 1;
                continue;
            }
            if state.ghosts.contains(run) {
                continue;
            }
            if !decided.contains(run) {
                wrong.push(format!("{run} was decided by nobody"));
            }
            let verdict = state.verdicts.get(run).copied();
            let first_start = state.log.iter().filter(|start| start.run == *run).map(|start| start.at).min();
            if let (Some(start), false, false) = (first_start, job.may_overlap(), is_mad) {
                for (end, earlier) in &ends {
                    if *end > start {
                        wrong.push(format!("{run} started before {earlier} had ended"));
                    }
                }
            }
            ends.push((verdict.unwrap_or(Timestamp::MAX), run));
        }
    }
    if asked > state.asked {
        wrong.push(format!("people asked for {} runs, and there are {asked}", state.asked));
    }
}

/// Every firing is decided exactly once, and nothing else is.
fn check_firings(
    job: &Edited,
    decisions: &[Decision],
    (first, until): (Timestamp, Timestamp),
    state: &State,
    wrong: &mut Vec<String>,
) {
    let was_set_back = state.has_mad_clock();
    let Scheduled { job: Job { name, schedule, .. }, calendar } = &job.now;
    let firings = calendar.between(first, until, 10_000);
    let is_mad = decisions.iter().any(|decision| decision.is_mad);
    for firing in &firings {
        let covers = |decision: &&Decision| match decision.decided.fate {
            Fate::Run => decision.decided.at == firing.at,
            Fate::Skip(_) => decision.decided.at <= firing.at && firing.at <= decision.decided.until,
        };
        let (mad, covering): (Vec<&Decision>, Vec<&Decision>) =
            decisions.iter().filter(covers).partition(|decision| decision.is_mad);
        // What a clock that was wrong has decided may be decided again, and so may what it has overwritten.
        if covering.len() != 1 && !(is_mad && covering.len() + mad.len() > 0) {
            wrong.push(format!("the firing of {name} at {} was decided {} times", firing.at, covering.len()));
        }
        let Some(decision) = covering.first() else { continue };
        let is_allowed = match &decision.decided.fate {
            Fate::Run => {
                let may_run = decision.is_alone || job.either(|job| job.schedule.overlap != Overlap::Skip);
                may_run && firing.blackout.is_none() && job.either(|job| !job.schedule.paused)
            }
            Fate::Skip(Why::Paused) => job.either(|job| job.schedule.paused),
            Fate::Skip(Why::Overlap(other)) => {
                // It was not over when whoever decided this began to look; but what a clock that was wrong has skipped may be
                // decided again, to run.
                let ended = state.verdicts.get(other).copied();
                let was_active = ended.is_none_or(|ended| decision.since <= ended);
                let was_active = was_active || is_mad || state.ghosts.contains(other);
                was_active && job.either(|job| job.schedule.overlap == Overlap::Skip)
            }
            Fate::Skip(Why::Missed(_)) => {
                let deadline = [&job.now, &job.before].map(|it| it.job.schedule.deadline.0).into_iter().min().unwrap();
                firing.due + deadline < decision.now
            }
            Fate::Skip(Why::Blackout(_)) => firing.blackout.is_some(),
            Fate::Skip(Why::Crowded) => was_set_back,
        };
        if !is_allowed {
            let fate = &decision.decided.fate;
            wrong.push(format!("the firing of {name} at {} is {fate:?}, by no policy of {schedule:?}", firing.at));
        }
    }
    for Decision { decided, is_mad: by_mad, .. } in decisions {
        let is_one = firings.iter().any(|firing| firing.at == decided.at);
        // Where the cursor was set back, that may be to before the job was known.
        let is_before = was_set_back && decided.at <= first;
        if !is_one && !by_mad && !is_before && calendar.due(decided.at) <= until {
            wrong.push(format!("{name} does not fire at {}, and yet that was decided", decided.at));
        }
    }
}

/// A run has ended, its tasks add up, and what they say is what their hosts know.
fn check_run(state: &State, name: &JobName, run: &RunId, wrong: &mut Vec<String>) {
    let read = |what: &str| state.stored(&format!("runs/{name}/{run}/{what}"));
    let record: RunRecord = serde_json::from_slice(read("run.json").unwrap()).unwrap();
    let Some(verdict) = read("result.json") else {
        // One that fired in the last moments may be under way.
        if !state.objects.contains_key(&format!("active/{name}/{run}")) {
            wrong.push(format!("{run} is not active, and has no verdict"));
        }
        if record.skipped.is_none() && !state.objects.contains_key(&format!("blobs/{}", record.script.sha256)) {
            wrong.push(format!("{run} has lost its script"));
        }
        return;
    };
    let verdict: Verdict = serde_json::from_slice(verdict).unwrap();
    if state.ghosts.contains(run) {
        // That nothing started twice is looked at when it starts.
        return;
    }
    let starts: Vec<_> = state.log.iter().filter(|start| start.run == *run).collect();
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
                // Its worker had no more time; nobody else ends anything by the clock here.
                TaskState::TimedOut => last.is_some() && record.carrier == Carrier::Functions,
                TaskState::Unreachable | TaskState::AuthFailed => last.is_none(),
                TaskState::Skipped => mine().count() == 0 || task.attempt > 0,
                TaskState::Cancelled => task.started_at.is_some() || last.is_none(),
                TaskState::Lost => true,
                _ => false,
            };
            if !is_true || mine().any(|start| start.attempt > task.attempt) {
                wrong.push(format!("{run} on {instance} is {:?}, and its host knows {last:?}", task.state));
            }
            // Nobody may have lost the script, and who leaves leaves its work to another.
            let reason = task.reason.as_deref().unwrap_or_default();
            if reason.starts_with("nothing could be started") || reason.starts_with("the scheduler is going") {
                wrong.push(format!("{run} on {instance} is {:?}: {reason}", task.state));
            }
            if task.attempt > record.job.retries.attempts {
                wrong.push(format!("{run} on {instance} had {} attempts", task.attempt));
            }
        }
    }
    rollout::check(state, &record, &plan, &starts, wrong);
    if counts != verdict.counts || counts.total() != plan.total() {
        wrong.push(format!("{run}: the verdict counts {:?}, and the tasks {counts:?}", verdict.counts));
    }
}

/// People were told of the end of a run, and once, but for what went wrong in who told them.
fn check_notice(state: &State, run: &RunId, wrong: &mut Vec<String>) {
    let record: RunRecord =
        serde_json::from_slice(state.stored(&format!("runs/{}/{run}/run.json", run.job())).unwrap()).unwrap();
    let told = state.told.get(run).map(Vec::as_slice).unwrap_or_default();
    let Some(rule) = record.job.notify.as_deref() else {
        if !told.is_empty() {
            wrong.push(format!("people were told of {run}, which nobody wanted to hear"));
        }
        return;
    };
    let is_left = |key: &str| state.objects.contains_key(key);
    let is_settled = state.verdicts.contains_key(run) && !is_left(&format!("active/{}/{run}", run.job()));
    let is_skipped = state
        .stored(&format!("runs/{}/{run}/result.json", run.job()))
        .is_some_and(|verdict| serde_json::from_slice::<Verdict>(verdict).unwrap().state == RunState::Skipped);
    let is_excused = state.faults.keys().any(|fault| fault.starts_with("a clock was")) || state.ghosts.contains(run);
    for channel in rule.channels() {
        let heard: Vec<&Told> = told.iter().filter(|told| told.channel == channel).collect();
        let ends: Vec<&&Told> = heard.iter().filter(|told| told.is_end).collect();
        let concerns = channel != Channel::Ping || !is_skipped;
        if is_settled && concerns && ends.is_empty() && !is_left(&format!("outbox/{run}.json")) {
            wrong.push(format!("nobody was told by {channel} of the end of {run}"));
        }
        let is_sure = |told: &&Told| !is_excused && told.process.faults() == told.faults;
        if !is_excused && ends.len() > 1 + ends.iter().filter(|told| !is_sure(told)).count() {
            wrong.push(format!("people were told {} times by {channel} of the end of {run}", ends.len()));
        }
        if heard.iter().skip_while(|told| !told.is_end).any(|told| !told.is_end && is_sure(told)) {
            wrong.push(format!("people were told by {channel} of the start of {run} after its end"));
        }
    }
}
