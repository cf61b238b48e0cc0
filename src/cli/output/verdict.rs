//! What a run comes down to: its exit code, and the last line that people read.

use crate::cli::exit::Exit;
use crate::domain::document::RunSummary;
use crate::domain::id::RunId;
use crate::domain::quantity::Span;
use crate::domain::run::RunState;
use crate::domain::task::{Counts, TaskState};
use crate::engine::event::STOPPED_BY_ERRORS;
use crate::engine::tick::NOTHING_MATCHES;

use super::lines::clean;
use super::words::{Style, elapsed, number, tally};

/// How the process ends after a run that stands so: several causes at once give the first in the order of [`Exit`].
///
/// A run that is not finished is no failure, and no task of it is one yet.
pub fn exit(state: RunState, reason: Option<&str>, counts: &Counts) -> Exit {
    if !state.is_final() {
        return Exit::Success;
    }
    let of_run = match state {
        RunState::Skipped if reason == Some(NOTHING_MATCHES) => Exit::NothingMatched,
        RunState::Cancelled => Exit::Interrupted,
        RunState::Failed | RunState::Skipped if counts.errors() == 0 => Exit::Failed,
        _ => Exit::Success,
    };
    let of_stop = if reason.is_some_and(|reason| reason.starts_with(STOPPED_BY_ERRORS)) {
        Exit::MaxErrors
    } else {
        Exit::Success
    };
    let of_tasks = counts.iter().map(|(state, _)| of_task(state));
    of_tasks.chain([of_run, of_stop]).min().unwrap_or(Exit::Success)
}

/// How a process ends that has started a run and leaves it running: by what did not come to run.
pub fn exit_of_released(counts: &Counts) -> Exit {
    let started = |state: &TaskState| !matches!(state, TaskState::Running);
    counts.iter().map(|(state, _)| state).filter(started).map(of_task).min().unwrap_or(Exit::Success)
}

const fn of_task(state: TaskState) -> Exit {
    match state {
        TaskState::Succeeded => Exit::Success,
        TaskState::Cancelled => Exit::Interrupted,
        TaskState::TimedOut => Exit::TimedOut,
        TaskState::Lost => Exit::Lost,
        TaskState::Unreachable | TaskState::AuthFailed | TaskState::HostKeyRejected => Exit::Unreachable,
        // A task that never came to run did not succeed; in a finished run none can still be under way.
        TaskState::Failed | TaskState::Skipped | TaskState::Pending | TaskState::Running => Exit::Failed,
    }
}

/// One line: how the run stands, in counts, and how long it took.
pub fn line(run: &RunSummary, color: bool) -> String {
    let state = Style::of_run(run.state).paint(run.state.as_str(), color);
    let took = run.took().map(|took| format!(" in {}", elapsed(took))).unwrap_or_default();
    let hosts = number(run.counts.total() as usize, "host");
    let reason = run.reason.as_deref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
    format!("{} {state}: {} of {hosts}{took}{reason}\n", run.run, tally(&run.counts))
}

/// What to do next after a run in which not everything succeeded; `host` is one whose output tells most.
pub fn hints(run: &RunSummary, host: Option<&str>, program: &str) -> String {
    let id = &run.run;
    let lost = run.counts.of(TaskState::Lost);
    let logs = host.map(|host| format!("hint: `{program} logs {id} --host {host}` shows all of its output\n"));
    let barred = [TaskState::Unreachable, TaskState::AuthFailed, TaskState::HostKeyRejected];
    let check = if barred.iter().any(|state| run.counts.of(*state) > 0) {
        format!("hint: `{program} check` with the same hosts and login flags says what stands in the way\n")
    } else {
        String::new()
    };
    let login = if run.counts.of(TaskState::AuthFailed) > 0 { "; `-u` and `-i` change how it logs in" } else { "" };
    let retry = if run.counts.errors() > lost {
        format!("hint: `{program} retry {id} --failed` runs it again where it did not succeed{login}\n")
    } else {
        String::new()
    };
    let again = if lost > 0 {
        let hosts = number(lost as usize, "host");
        format!(
            "hint: whether it ran to its end on {hosts} is not known: look there, then `{program} retry {id} --lost` runs it again\n"
        )
    } else {
        String::new()
    };
    logs.unwrap_or_default() + &check + &retry + &again
}

/// What to do with a run that goes on without us, on each host for `timeout` at most.
pub fn hints_of_detached(run: &RunId, timeout: Span, program: &str) -> String {
    format!(
        "hint: `{program} status {run}` tells how it goes on, `{program} logs {run} -f` follows its output\n\
         hint: `{program} cancel {run}` ends it; its hosts end it after {timeout} (`--timeout`)\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: RunState, reason: Option<&str>, states: &[TaskState]) -> u8 {
        exit(state, reason, &states.iter().copied().collect()).code()
    }

    #[test]
    fn exit_of_several_causes_is_the_first_in_order() {
        use TaskState::{
            AuthFailed, Cancelled, Failed, HostKeyRejected, Lost, Skipped, Succeeded, TimedOut, Unreachable,
        };
        let failed = RunState::Failed;
        assert_eq!(of(RunState::Succeeded, None, &[Succeeded, Succeeded]), 0);
        for state in [Unreachable, AuthFailed, HostKeyRejected] {
            assert_eq!(of(failed, None, &[Succeeded, state]), 3);
        }
        assert_eq!(of(failed, None, &[Unreachable, Lost]), 6);
        assert_eq!(of(failed, None, &[Unreachable, Lost, TimedOut]), 124);
        assert_eq!(of(failed, None, &[Unreachable, Lost, TimedOut, Failed]), 1);
        assert_eq!(of(failed, Some("max_errors 1 reached"), &[Failed, Skipped]), 5);
        assert_eq!(of(failed, Some("max_errors 1 reached"), &[Failed, Cancelled]), 130);
        assert_eq!(of(RunState::Cancelled, None, &[Succeeded]), 130);
    }

    #[test]
    fn exit_without_success_is_never_success() {
        assert_eq!(of(RunState::Failed, None, &[]), 1);
        assert_eq!(of(RunState::Skipped, Some("overlap"), &[]), 1);
        assert_eq!(of(RunState::Failed, Some("planned too late"), &[TaskState::Skipped]), 1);
        for state in TaskState::ALL.into_iter().filter(|state| *state != TaskState::Succeeded) {
            assert_ne!(of(RunState::Failed, None, &[state]), 0, "{state}");
        }
    }

    #[test]
    fn exit_of_an_unfinished_run_is_success() {
        assert_eq!(of(RunState::Running, None, &[TaskState::Failed, TaskState::Running]), 0);
    }
}
