//! Exit codes, and the errors that carry them.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use super::output::lines::clean;
use crate::port::StoreError;

/// How the process ends. Several at once: the first in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// 130: cancelled or interrupted.
    Interrupted,
    /// 7: the store, the inventory or a function is unavailable.
    Unavailable,
    /// 5: stopped by `max_errors`.
    MaxErrors,
    /// 1: some task failed.
    Failed,
    /// 124: some task timed out.
    TimedOut,
    /// 6: some task is lost.
    Lost,
    /// 3: some host was unreachable, refused us or was rejected.
    Unreachable,
    /// 4: nothing matched.
    NothingMatched,
    /// 2: usage or configuration.
    Usage,
    /// 0: all succeeded.
    Success,
}

impl Exit {
    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NothingMatched => 4,
            Self::MaxErrors => 5,
            Self::Lost => 6,
            Self::Unavailable => 7,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error for the person who must act: what, where, what was found, what is allowed; then what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fail {
    /// How the process ends.
    pub exit: Exit,
    /// One error, or several that are complete in themselves (each with its own `error:` and `hint:`).
    pub message: String,
    /// What to do, if there is something.
    pub hint: Option<String>,
}

impl Fail {
    /// An error without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// A mistake in usage or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error on one line, for where it is one of many things that are told.
    pub fn text(&self) -> String {
        let hint = self.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
        clean(&format!("{}{hint}", self.message.trim_start_matches("error: ")))
    }

    /// Writes the error to standard error and returns the exit code.
    pub fn report(&self) -> ExitCode {
        // Where even standard error is gone the exit code still tells.
        let _ = std::io::stderr().lock().write_all(self.told().as_bytes());
        self.exit.into()
    }

    /// The error as people are told it, with what to do.
    pub fn told(&self) -> String {
        let mut text = String::new();
        if !self.message.starts_with("error: ") {
            text.push_str("error: ");
        }
        text.push_str(self.message.trim_end());
        text.push('\n');
        if let Some(hint) = &self.hint {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
        text
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}");
        match error {
            StoreError::Unavailable { source, .. } => Self { exit: Exit::Unavailable, message, hint: hint_of(&source) },
            StoreError::Damaged { .. } => Self::new(Exit::Unavailable, message),
        }
    }
}

/// What to do about a store whose system answered `error`.
fn hint_of(error: &io::Error) -> Option<String> {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "give your user the right to write there, or name another store with `--store`"
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => "name a directory of its own with `--store`",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room, with `sshjob prune` for one, or name another store with `--store`"
        }
        ErrorKind::TimedOut => "end or continue the process that holds it, and try again",
        _ => return None,
    };
    Some(hint.to_owned())
}
