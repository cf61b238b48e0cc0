//! What a host says beside the protocol: before its version, in banners, and when it hangs up.
//!
//! It is all that is ever heard of why an account is closed or a connection is one too many, so it is shown with what
//! went wrong. Nothing else depends on it but one thing, see [`Said::explain`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use russh::Disconnect;

use super::{ConnectError, Stage};

/// Bytes that are kept of each: a line or two for people.
const KEPT: usize = 300;

/// A host's own words, gathered while a connection is made.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<Words>);

#[derive(Debug, Default)]
struct Words {
    /// Lines before its version, as far as the version has not come.
    greeting: Vec<u8>,
    has_version: bool,
    /// The last banner: the first is often a general one, what matters comes last.
    banner: String,
    farewell: Option<(Disconnect, String)>,
}

impl Said {
    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what arrives, as far as it comes before the host's version.
    pub(super) fn greets(&self, bytes: &[u8]) {
        let mut words = self.words();
        if words.has_version {
            return;
        }
        words.greeting.extend_from_slice(bytes);
        // The version begins a line (RFC 4253, section 4.2).
        let begins_line = |at: usize| at == 0 || words.greeting.get(at - 1) == Some(&b'\n');
        if words.greeting.windows(4).enumerate().any(|(at, text)| text == b"SSH-" && begins_line(at)) {
            words.has_version = true;
            words.greeting.clear();
        }
        let excess = words.greeting.len().saturating_sub(KEPT);
        words.greeting.drain(..excess);
    }

    /// Hears a banner.
    pub(super) fn shows(&self, banner: &str) {
        self.words().banner = line(banner);
    }

    /// Hears why the host hangs up.
    pub(super) fn hangs_up(&self, code: Disconnect, why: &str) {
        self.words().farewell = Some((code, line(why)));
    }

    /// Adds what the host said to why there is no connection.
    ///
    /// A host that has said something during authentication and then hangs up has refused us, as where an account has
    /// expired: were it taken for a broken connection, it would be tried again, and sshd bans whoever fails often. A
    /// host that is booting or going down says so in the same way, and names `pam_nologin(8)` as systemd has it.
    pub(super) fn explain(&self, error: ConnectError, user: &str) -> ConnectError {
        let words = self.words();
        let refused = match &words.farewell {
            Some((code, _)) => !matches!(code, Disconnect::TooManyConnections | Disconnect::ServiceNotAvailable),
            None => !words.banner.is_empty() && !words.banner.contains("pam_nologin"),
        };
        let greeting = line(&String::from_utf8_lossy(&words.greeting));
        let farewell = words.farewell.as_ref().map(|(_, why)| why.as_str()).unwrap_or_default();
        let in_words = [greeting.as_str(), words.banner.as_str(), farewell];
        let said = in_words.into_iter().rfind(|text| !text.is_empty());
        let said = said.map(|text| format!("; it says: {text}")).unwrap_or_default();
        match error {
            ConnectError::Unreachable { stage: Stage::Authentication, why } if refused => {
                ConnectError::AuthFailed { why: format!("user `{user}`: {why}{said}") }
            }
            ConnectError::Unreachable { stage: Stage::Handshake, why } if !words.has_version && said.is_empty() => {
                let causes = "is its `MaxStartups` reached, or is this address banned?";
                ConnectError::Unreachable {
                    stage: Stage::Handshake,
                    why: format!("{why} before it said anything: {causes}"),
                }
            }
            ConnectError::Unreachable { stage, why } => {
                ConnectError::Unreachable { stage, why: format!("{why}{said}") }
            }
            ConnectError::AuthFailed { why } => ConnectError::AuthFailed { why: format!("{why}{said}") },
            other => other,
        }
    }
}

/// A host's text as one line for people, and nothing in it that a terminal would obey.
fn line(text: &str) -> String {
    let text: String = text.chars().take(KEPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
