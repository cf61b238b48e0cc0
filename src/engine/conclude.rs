//! What has become of a detached task, by what its host tells.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::listen::patience;
use crate::domain::detached::collect::{Found, How, Piece, Verdict, Why};
use crate::domain::job::Mode;
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
    let (state, mut reason, finished_at) = match &found.verdict {
        Verdict::Running { supervised, elapsed, .. } => {
            record.confirmed = confirmed;
            record.reason = (!supervised).then(|| "its supervisor is gone: how it ends will not be known".to_owned());
            if !is_given_up(&mut record, *elapsed, run, now) {
                return record;
            }
            let reason = format!("worker: said to run on its host, long after its `timeout` of {}", job.timeout);
            (TaskState::Lost, Some(reason), now)
        }
        Verdict::Vanished if !confirmed => {
            if now.duration_since(began(&mut record, run, now)) < start_may_come(run) {
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
    // What is beyond the limit was dropped as agreed.
    let unstored = |piece: &Piece| piece.dropped.filter(|_| piece.stored < job.max_output.0);
    (record.stdout_unstored, record.stderr_unstored) = (unstored(&found.out), unstored(&found.err));
    if record.stdout_unstored.or(record.stderr_unstored).is_some() {
        reason = Some(reason.map_or_else(|| UNSTORED.to_owned(), |reason| format!("{reason}; {UNSTORED}")));
    }
    record.confirmed = confirmed;
    record.state = state;
    record.reason = reason;
    record.finished_at = Some(finished_at.max(record.started_at.unwrap_or(finished_at)));
    record
}

/// How long past its timeout a script may be before its host, asked in vain for as long, is given up: a restart takes
/// minutes, and so does the network of a machine that wakes up to ask.
const GIVE_UP_AFTER: Duration = Duration::from_mins(10);

/// How long a script may still be said to run when its time is over: it has ten seconds to end and, where processes that
/// nobody can ask hold its output, its supervisor waits as long again.
const ENDS_WITHIN: Duration = Duration::from_mins(1);

/// Notes of a script that its host says has run for `elapsed` since when it must be over; tells whether that has gone on
/// for [`GIVE_UP_AFTER`], in which whoever looks ends what still listens.
///
/// A host may lie, and whoever is to end the script there may be stopped. Our own clock may have been set, and the one of
/// a machine that was paused stood still: by ours alone it must be over after twice as long, and is given up after once
/// more.
fn is_given_up(record: &mut TaskRecord, elapsed: Duration, run: &RunRecord, now: Timestamp) -> bool {
    let limit = run.job.timeout.0.saturating_add(ENDS_WITHIN);
    let by_its_clock = elapsed > limit;
    if !by_its_clock && now <= later(began(record, run, now), limit.saturating_mul(2)) {
        return false;
    }
    let since = record.overdue_since.map_or(now, |since| since.min(now));
    record.overdue_since = Some(since);
    now >= later(since, if by_its_clock { GIVE_UP_AFTER } else { GIVE_UP_AFTER.max(limit) })
}

/// How often it is noted that a host was heard of that has nothing new to tell: a write for each batch.
const NOTE_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// What is noted of a task whose host has just answered; `is_news` tells that it is written anyway.
pub(super) fn heard(mut record: TaskRecord, is_news: bool, now: Timestamp) -> TaskRecord {
    let is_due = record.heard_at.is_none_or(|at| now.duration_since(at).abs() >= NOTE_EVERY);
    if is_news || is_due || record.unheard_since.is_some() {
        record.heard_at = Some(now);
        record.unheard_since = None;
    }
    record
}

/// What is noted of a task whose host could not be asked, because of `why`: since when that is so and, once its script
/// must be over for long, that it is lost.
///
/// Its script has its timeout; then it is asked for [`GIVE_UP_AFTER`] in vain, whoever asks. So a first look by somebody
/// whose network is down loses nothing.
pub(super) fn unheard(mut record: TaskRecord, why: &str, run: &RunRecord, now: Timestamp) -> TaskRecord {
    let since = record.unheard_since.map_or(now, |since| since.min(now));
    record.unheard_since = Some(since);
    let must_end = later(began(&mut record, run, now), run.job.timeout.0);
    give_up(record, later(since.max(must_end), GIVE_UP_AFTER), why, run, now)
}

/// What is noted of a task whose host we have not what it takes to ask, because of `why`: that it is lost, once the host
/// has forgotten what it could tell.
pub(super) fn unasked(mut record: TaskRecord, why: &str, run: &RunRecord, now: Timestamp) -> TaskRecord {
    let Mode::Detached { keep, .. } = run.job.mode else { return record };
    let must_end = later(began(&mut record, run, now), run.job.timeout.0);
    let forgotten = later(must_end, keep.0).max(later(must_end, GIVE_UP_AFTER));
    give_up(record, forgotten, why, run, now)
}

/// When a task has begun. Nothing has begun in the future: our clock was set back, and what is left to wait counts from
/// now.
fn began(record: &mut TaskRecord, run: &RunRecord, now: Timestamp) -> Timestamp {
    let at = record.started_at.unwrap_or(run.started_at);
    if at > now {
        record.started_at = Some(now);
    }
    at.min(now)
}

fn give_up(record: TaskRecord, at: Timestamp, why: &str, run: &RunRecord, now: Timestamp) -> TaskRecord {
    if now < at {
        return record;
    }
    let started = record.started_at.unwrap_or(run.started_at);
    let last = record.heard_at.unwrap_or(started).strftime("%Y-%m-%dT%H:%M:%SZ");
    let heard = if record.confirmed || record.heard_at.is_some() {
        "last heard of at"
    } else {
        "never heard of since its start at"
    };
    record.ended(TaskState::Lost, format!("vanished: {heard} {last}; its host cannot be asked: {why}"), now)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

/// What is said of a script that was ended, and whose supervisor did not live to tell its status.
const UNKNOWN_END: &str = "its exit status is not known";

/// What is said of a script of which the host dropped output that was to be stored.
const UNSTORED: &str = "output was not all stored: is the host's disk full?";

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::file::JobFile;
    use crate::domain::job::resolve::Layers;
    use crate::domain::run::{Carrier, SCHEMA};
    use crate::domain::script::ScriptRef;

    fn run() -> RunRecord {
        let text = "targets: { hosts: a }\nrun: x\nmode: detached\ntimeout: 1h\n";
        let job = Layers::default().resolve(JobFile::parse(text, "x.yaml", "x").unwrap()).unwrap();
        RunRecord {
            schema: SCHEMA.to_owned(),
            run: "x-20261123T120000Z".parse().unwrap(),
            job,
            script: ScriptRef { sha256: String::new(), bytes: 0, origin: String::new() },
            actor: String::new(),
            retry_of: None,
            scheduled_for: None,
            started_at: at("12:00:00"),
            plan_before: at("12:10:00"),
            carrier: Carrier::Scheduler,
            skipped: None,
            instance: None,
        }
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-11-23T{time}Z").parse().unwrap()
    }

    fn running() -> TaskRecord {
        let started_at = Some(at("12:00:00"));
        TaskRecord { state: TaskState::Running, attempt: 1, started_at, confirmed: true, ..TaskRecord::pending() }
    }

    #[test]
    fn start_that_is_not_confirmed_is_neither_lost_at_once_nor_waited_for_without_end_when_our_clock_is_set_back() {
        let found = Found { verdict: Verdict::Vanished, out: Piece::default(), err: Piece::default() };
        let started_at = Some(at("12:00:00"));
        let record =
            TaskRecord { state: TaskState::Running, attempt: 1, started_at, confirmed: false, ..TaskRecord::pending() };
        let record = conclude(record, &found, &run(), at("10:00:00"));
        assert_eq!((record.state, record.started_at), (TaskState::Running, Some(at("10:00:00"))));
        let record = conclude(record, &found, &run(), at("11:00:00"));
        assert_eq!((record.state, record.finished_at), (TaskState::Lost, Some(at("11:00:00"))));
    }

    #[test]
    fn host_that_stays_silent_past_its_script_s_time_is_given_up_and_one_look_gives_up_none() {
        let run = run();
        // The first to look for a day may have no network.
        let first = unheard(running(), "no route", &run, at("23:00:00"));
        assert_eq!((first.state, first.unheard_since), (TaskState::Running, Some(at("23:00:00"))));
        let still = unheard(first.clone(), "no route", &run, at("23:09:59"));
        assert_eq!(still.state, TaskState::Running);
        let lost = unheard(still, "no route", &run, at("23:10:00"));
        assert_eq!(lost.state, TaskState::Lost);
        let why = "vanished: last heard of at 2026-11-23T12:00:00Z; its host cannot be asked: no route";
        assert_eq!(lost.reason.as_deref(), Some(why));
        // Who answers in between is asked from the start again.
        let back = heard(first, false, at("23:05:00"));
        assert_eq!((back.unheard_since, back.heard_at), (None, Some(at("23:05:00"))));
    }

    #[test]
    fn host_is_never_given_up_while_its_script_may_run() {
        let run = run();
        let silent = unheard(running(), "no route", &run, at("12:00:01"));
        assert_eq!(unheard(silent.clone(), "no route", &run, at("13:09:59")).state, TaskState::Running);
        assert_eq!(unheard(silent, "no route", &run, at("13:10:00")).state, TaskState::Lost);
    }

    /// What a host says of a script that runs there for so long.
    fn said_to_run_for(elapsed: Duration) -> Found {
        let verdict = Verdict::Running { elapsed, supervised: true, beat: Some(Duration::ZERO) };
        Found { verdict, out: Piece::default(), err: Piece::default() }
    }

    #[test]
    fn script_that_is_said_to_run_long_after_its_time_is_lost_and_the_first_look_at_it_loses_none() {
        let run = run();
        let look = |record: TaskRecord, minutes, time| {
            conclude(record, &said_to_run_for(Duration::from_mins(minutes)), &run, at(time))
        };
        assert_eq!(look(running(), 60, "13:00:00").overdue_since, None);
        // Nobody has looked for half a day, and what is to be done about it begins now.
        let first = look(running(), 660, "23:00:00");
        assert_eq!((first.state, first.overdue_since), (TaskState::Running, Some(at("23:00:00"))));
        let still = look(first, 669, "23:09:59");
        assert_eq!(still.state, TaskState::Running);
        let lost = look(still, 670, "23:10:00");
        assert_eq!((lost.state, lost.finished_at), (TaskState::Lost, Some(at("23:10:00"))));
        let why = "worker: said to run on its host, long after its `timeout` of 1h";
        assert_eq!(lost.reason.as_deref(), Some(why));
    }

    #[test]
    fn host_that_says_that_no_time_passes_is_not_believed_without_end() {
        let run = run();
        let look = |record, time| conclude(record, &said_to_run_for(Duration::ZERO), &run, at(time));
        // A machine that was paused as long as its script may run says so with every right.
        assert_eq!(look(running(), "14:02:00").overdue_since, None);
        let overdue = look(running(), "14:02:01");
        assert_eq!(overdue.overdue_since, Some(at("14:02:01")));
        // Or our own clock was ahead for a while.
        assert_eq!(look(overdue.clone(), "15:03:00").state, TaskState::Running);
        assert_eq!(look(overdue, "15:03:01").state, TaskState::Lost);
    }

    #[test]
    fn output_that_the_host_could_not_store_is_counted_and_named_and_what_is_beyond_the_limit_was_agreed() {
        let run = run();
        let ended = |why| Verdict::Ended { how: How::Exit(0), why, took: Duration::ZERO, ago: None };
        let piece = |stored, dropped| Piece { bytes: Vec::new(), stored, dropped };
        let conclude = |verdict, out| {
            let found = Found { verdict, out, err: Piece::default() };
            conclude(TaskRecord { stdout_bytes: found.out.stored, ..running() }, &found, &run, at("12:30:00"))
        };
        let full = conclude(ended(Why::Itself), piece(5, Some(3)));
        assert_eq!((full.state, full.truncated, full.stdout_bytes), (TaskState::Succeeded, true, 8));
        assert_eq!((full.stdout_unstored, full.reason.as_deref()), (Some(3), Some(UNSTORED)));
        let late = conclude(ended(Why::TimedOut), piece(5, Some(0)));
        assert_eq!(late.reason, Some(format!("ran longer than 1h; {UNSTORED}")));
        let beyond = conclude(ended(Why::Itself), piece(run.job.max_output.0, Some(3)));
        assert_eq!((beyond.truncated, beyond.stdout_unstored, beyond.reason), (true, None, None));
    }

    #[test]
    fn host_that_cannot_be_asked_is_not_waited_for_without_end_when_our_clock_is_set_back() {
        let run = run();
        for ask in [unheard, unasked] {
            let record = ask(running(), "no route", &run, at("01:00:00"));
            assert_eq!((record.state, record.started_at), (TaskState::Running, Some(at("01:00:00"))));
        }
        let silent = unheard(running(), "no route", &run, at("01:00:00"));
        assert_eq!(unheard(silent, "no route", &run, at("02:10:00")).state, TaskState::Lost);
    }
}
