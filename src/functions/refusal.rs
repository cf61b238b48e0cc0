//! Why a function did not do what it was asked to, with a name that alarms and people can go by.

use crate::domain::diagnostic::chain;
use crate::engine::start::StartError;
use crate::engine::worker::WorkError;
use crate::port::{KeyReadError, StoreError};

/// Why an event came to nothing. The name is stable; the text is for people, and names nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind it is: the `errorType` of the function's answer.
    pub kind: Kind,
    /// What, where, what was found, what is allowed, what to do.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The event is none that the function knows.
    InvalidEvent,
    /// The job is not in the store, or its file is wrong.
    InvalidJob,
    /// The run, or the batch of it, is not in the store.
    UnknownRun,
    /// A script cannot be had.
    InvalidScript,
    /// A private key cannot be had, or is none that can be used.
    InvalidKey,
    /// A secret cannot be had.
    InvalidSecret,
    /// The same request id stands for another request.
    OtherRequest,
    /// The store does not answer, or says what makes no sense.
    StoreUnavailable,
    /// The place of the keys does not answer.
    KeysUnavailable,
    /// The place of the secrets does not answer.
    SecretsUnavailable,
    /// The inventory does not answer.
    InventoryUnavailable,
    /// A worker cannot be sent for.
    WorkersUnavailable,
    /// A fault of the program.
    Fault,
}

impl Kind {
    /// Whether trying again later may help, and nobody has to mend anything here.
    pub fn is_unavailable(kind: &str) -> bool {
        let all = [
            Self::StoreUnavailable,
            Self::KeysUnavailable,
            Self::SecretsUnavailable,
            Self::InventoryUnavailable,
            Self::WorkersUnavailable,
        ];
        all.iter().any(|one| one.as_str() == kind)
    }

    /// The kind as the answer of a function names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidEvent => "InvalidEvent",
            Self::InvalidJob => "InvalidJob",
            Self::UnknownRun => "UnknownRun",
            Self::InvalidScript => "InvalidScript",
            Self::InvalidKey => "InvalidKey",
            Self::InvalidSecret => "InvalidSecret",
            Self::OtherRequest => "OtherRequest",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::KeysUnavailable => "KeysUnavailable",
            Self::SecretsUnavailable => "SecretsUnavailable",
            Self::InventoryUnavailable => "InventoryUnavailable",
            Self::WorkersUnavailable => "WorkersUnavailable",
            Self::Fault => "Fault",
        }
    }
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(Kind::StoreUnavailable, chain(&error))
    }
}

impl From<WorkError> for Refusal {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Store(error) => Self::new(Kind::StoreUnavailable, chain(&*error)),
            other => Self::new(Kind::Fault, chain(&other)),
        }
    }
}

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => error.into(),
            StartError::OtherRequest { .. } => Self::new(Kind::OtherRequest, error.to_string()),
            StartError::Random(_) => Self::new(Kind::Fault, error.to_string()),
        }
    }
}

impl From<KeyReadError> for Refusal {
    fn from(error: KeyReadError) -> Self {
        match error {
            KeyReadError::Unavailable(why) => Self::new(Kind::KeysUnavailable, why),
            KeyReadError::Refused(why) => Self::new(Kind::InvalidKey, why),
        }
    }
}

#[cfg(feature = "functions")]
impl From<Refusal> for lambda_runtime::Diagnostic {
    fn from(refusal: Refusal) -> Self {
        Self { error_type: refusal.kind.as_str().to_owned(), error_message: refusal.message }
    }
}
