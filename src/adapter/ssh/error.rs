//! Why nothing was started on a host, in words that name what to look at.

use std::fmt;

use super::algorithms::nothing_in_common;
use russh::ChannelOpenFailure;

/// The step at which a connection is, or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reaching the last jump host.
    Jump,
    /// Name look-up and TCP.
    Connect,
    /// The host key.
    HostKey,
    /// Version and key exchange.
    Handshake,
    /// User authentication.
    Authentication,
    /// Opening the channel.
    Channel,
    /// The login shell.
    Shell,
    /// Becoming another user.
    Sudo,
}

impl Stage {
    /// The stage in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jump => "jump host",
            Self::Connect => "connect",
            Self::HostKey => "host key",
            Self::Handshake => "SSH handshake",
            Self::Authentication => "authentication",
            Self::Channel => "opening a channel",
            Self::Shell => "login shell",
            Self::Sudo => "sudo",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why nothing was started on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No connection, or it broke or stalled before a channel was open.
    #[error("{stage}: {why}")]
    Unreachable {
        /// Where it got stuck.
        stage: Stage,
        /// What was seen.
        why: String,
    },
    /// The host refused every key.
    #[error("{why}")]
    AuthFailed {
        /// What the host would accept.
        why: String,
    },
    /// The host key is not the one that is trusted.
    #[error("{why}")]
    HostKeyRejected {
        /// Both fingerprints, and what to do.
        why: String,
    },
    /// Whether the host key is trusted could not be found out.
    #[error("{why}")]
    TrustUnavailable {
        /// What went wrong.
        why: String,
    },
}

impl ConnectError {
    /// The same, of a jump host on the way.
    pub(super) fn of_jump(self, jump: &impl fmt::Display) -> Self {
        let of = |why: String| format!("jump host `{jump}`: {why}");
        match self {
            Self::Unreachable { stage, why } => {
                Self::Unreachable { stage: Stage::Connect, why: of(format!("{stage}: {why}")) }
            }
            Self::AuthFailed { why } => Self::AuthFailed { why: of(why) },
            Self::HostKeyRejected { why } => Self::HostKeyRejected { why: of(why) },
            Self::TrustUnavailable { why } => Self::TrustUnavailable { why: of(why) },
        }
    }
}

/// Why a host key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// It is not the one that is trusted; with both fingerprints, and what to do.
    Rejected(String),
    /// It could not be found out.
    Unavailable(String),
}

impl From<Distrust> for ConnectError {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::Rejected(why) => Self::HostKeyRejected { why },
            Distrust::Unavailable(why) => Self::TrustUnavailable { why },
        }
    }
}

/// An I/O error without the operating system's number.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The library's errors in words that name what to look at.
pub(super) fn told(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, ours, theirs } => nothing_in_common(kind, ours, theirs),
        russh::Error::IO(error) => plain(error),
        russh::Error::HUP | russh::Error::Disconnect | russh::Error::SendError => {
            "the host closed the connection".to_owned()
        }
        russh::Error::KeepaliveTimeout => "the host no longer answers".to_owned(),
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed) => {
            "the host opens no session: does `MaxSessions` of its sshd allow one?".to_owned()
        }
        russh::Error::ChannelOpenFailure(reason) => format!("the host refuses it: {reason:?}"),
        other => shown(&other.to_string(), 200),
    }
}

/// A host's words, in part: no more than `most` characters, and none that a terminal would obey.
fn shown(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect::<String>().to_lowercase()
}

/// Why a jump host does not open a connection to the host behind it.
pub(super) fn not_forwarded(error: &russh::Error) -> String {
    let why = match error {
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => {
            "it forbids forwarding (`AllowTcpForwarding` or `PermitOpen` of its sshd)".to_owned()
        }
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed) => {
            "no connection (closed port, no route or unknown name)".to_owned()
        }
        other => told(other),
    };
    format!("the jump host cannot reach it: {why}")
}
