//! How states, counts and times are said to people.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::hostrange;
use crate::domain::run::RunState;
use crate::domain::task::{Counts, TaskRecord, TaskState};

/// How a word is painted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// Nobody knows, or somebody decided.
    Doubtful,
    /// It is on its way.
    Busy,
    /// It matters less.
    Dim,
}

impl Style {
    /// `text` painted so, where `color` says that there is colour (ECMA-48, SGR).
    pub fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Bad => 31,
            Self::Doubtful => 33,
            Self::Busy => 36,
            Self::Dim => 2,
        };
        if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// How a task in `state` is painted.
    pub const fn of_task(state: TaskState) -> Self {
        match state {
            TaskState::Succeeded => Self::Good,
            TaskState::Failed
            | TaskState::TimedOut
            | TaskState::Unreachable
            | TaskState::AuthFailed
            | TaskState::HostKeyRejected => Self::Bad,
            TaskState::Lost | TaskState::Cancelled | TaskState::Skipped => Self::Doubtful,
            TaskState::Running => Self::Busy,
            TaskState::Pending => Self::Dim,
        }
    }

    /// How a run in `state` is painted.
    pub const fn of_run(state: RunState) -> Self {
        match state {
            RunState::Succeeded => Self::Good,
            RunState::Failed => Self::Bad,
            RunState::Cancelled | RunState::Skipped | RunState::Paused => Self::Doubtful,
            RunState::Planning | RunState::Running => Self::Busy,
        }
    }
}

/// A span of time, as precisely as people want to know: `85ms`, `3.2s`, `1m05s`, `2h03m`, `3d04h`.
pub fn elapsed(time: Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.as_millis());
    match seconds {
        0 if milliseconds < 100 => format!("{milliseconds}ms"),
        0..60 => format!("{seconds}.{}s", time.subsec_millis() / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The states that occur with their counts: `8 succeeded, 1 failed, 1 timed out`.
pub fn tally(counts: &Counts) -> String {
    let parts: Vec<String> =
        counts.iter().map(|(state, count)| format!("{count} {}", state.as_str().replace('_', " "))).collect();
    if parts.is_empty() { "no tasks".to_owned() } else { parts.join(", ") }
}

/// `1 host`, `2 hosts`.
pub fn number(count: usize, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

/// The names of hosts on one line.
pub fn fold<H: AsRef<str>>(hosts: &[H]) -> String {
    hostrange::fold(&hosts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// An instant, to the second, in UTC.
pub fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How the script ended: `exit 1`, `signal KILL`, or nothing where it did not end by itself.
pub fn ending(record: &TaskRecord) -> String {
    match (&record.signal, record.exit_code) {
        (Some(signal), _) => format!("signal {}", super::lines::clean(signal)),
        (None, Some(code)) => format!("exit {code}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_grows_coarser_with_length() {
        let said = [85, 200, 3240, 65_000, 7_380_000, 273_600_000].map(|ms| elapsed(Duration::from_millis(ms)));
        assert_eq!(said, ["85ms", "0.2s", "3.2s", "1m05s", "2h03m", "3d04h"]);
    }

    #[test]
    fn tally_lists_what_occurs_in_order() {
        let counts = [TaskState::TimedOut, TaskState::Succeeded, TaskState::Succeeded].into_iter().collect();
        assert_eq!(tally(&counts), "2 succeeded, 1 timed out");
        assert_eq!(tally(&Counts::default()), "no tasks");
    }
}
