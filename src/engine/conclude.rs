//! What has become of a detached task, by what its host tells.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::listen::patience;
use crate::domain::detached::collect::{Found, How, Verdict, Why};
use crate::domain::run::RunRecord;
use crate::domain::task::{TaskRecord, TaskState};

/// How long a start may still be on its way that its host has not confirmed, once all of it was to be delivered.
const START_MAY_COME: SignedDuration = SignedDuration::from_mins(2);

/// What a task is, by what its host has told and all of its output stored.
pub(super) fn conclude(mut record: TaskRecord, found: &Found, run: &RunRecord, now: Timestamp) -> TaskRecord {
    let job = &run.job;
    let ended_at = |ago: Option<Duration>| {
        let ago = ago.and_then(|ago| SignedDuration::try_from(ago).ok()).unwrap_or_default();
        now.checked_sub(ago).unwrap_or(now)
    };
    let confirmed = record.confirmed || found.verdict != Verdict::Vanished;
    let (state, reason, finished_at) = match &found.verdict {
        Verdict::Running { supervised, .. } => {
            record.confirmed = confirmed;
            record.reason = (!supervised).then(|| "its supervisor is gone: how it ends will not be known".to_owned());
            return record;
        }
        Verdict::Vanished if !confirmed => {
            let since = record.started_at.unwrap_or(now);
            if now.duration_since(since) < start_may_come(run) {
                return record;
            }
            (
                TaskState::Lost,
                Some("vanished: its host knows nothing of it, and never confirmed its start".to_owned()),
                now,
            )
        }
        Verdict::Vanished => (TaskState::Lost, Some("vanished".to_owned()), now),
        Verdict::Rebooted => (TaskState::Lost, Some("rebooted".to_owned()), now),
        Verdict::Killed { why: Why::Cancelled, .. } => (TaskState::Cancelled, Some(UNKNOWN_END.to_owned()), now),
        Verdict::Killed { why: Why::TimedOut, .. } => (TaskState::TimedOut, Some(UNKNOWN_END.to_owned()), now),
        Verdict::Killed { why: Why::Itself, out_of_memory } => {
            let memory = if *out_of_memory { ": the host ran out of memory" } else { "" };
            (TaskState::Lost, Some(format!("killed{memory}")), now)
        }
        Verdict::Ended { how, why, ago, .. } => {
            let mut reason = None;
            let accepted = match how {
                How::Exit(code) => {
                    record.exit_code = Some(u32::from(*code));
                    job.ok_exit_codes.contains(code)
                }
                How::Signal { number, out_of_memory } => {
                    record.signal = Some(signal(*number));
                    reason = out_of_memory.then(|| "the host ran out of memory".to_owned());
                    false
                }
            };
            let state = match why {
                Why::Cancelled => TaskState::Cancelled,
                Why::TimedOut => {
                    reason = Some(format!("ran longer than {}", job.timeout));
                    TaskState::TimedOut
                }
                Why::Itself if accepted => TaskState::Succeeded,
                Why::Itself => TaskState::Failed,
            };
            (state, reason, ended_at(*ago))
        }
    };
    record.truncated = found.out.dropped.is_some() || found.err.dropped.is_some();
    record.stdout_bytes = record.stdout_bytes.saturating_add(found.out.dropped.unwrap_or_default());
    record.stderr_bytes = record.stderr_bytes.saturating_add(found.err.dropped.unwrap_or_default());
    record.confirmed = confirmed;
    record.state = state;
    record.reason = reason;
    record.finished_at = Some(finished_at.max(record.started_at.unwrap_or(finished_at)));
    record
}

/// What is said of a script that was ended, and whose supervisor did not live to tell its status.
const UNKNOWN_END: &str = "its exit status is not known";

/// A signal's name without `SIG`, by its number on Linux; its number where it has none that is the same everywhere.
fn signal(number: u8) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// Until when a start that was never confirmed may still come true: its delivery is as slow as its link.
fn start_may_come(run: &RunRecord) -> SignedDuration {
    let delivery = patience(run.job.login.connect_timeout.0, run.script.bytes);
    SignedDuration::try_from(delivery).unwrap_or(SignedDuration::MAX).saturating_add(START_MAY_COME)
}
