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
    /// The end of what it says before its version, as long as that has not come.
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
        use ConnectError::{AuthFailed, Unreachable};
        use Stage::{Authentication, Handshake};
        let words = self.words();
        let greeting = line(&String::from_utf8_lossy(&words.greeting));
        let farewell = words.farewell.as_ref().map(|(_, why)| why.as_str());
        let said = farewell.filter(|why| !why.is_empty()).unwrap_or(&words.banner);
        let said = if said.is_empty() { String::new() } else { format!("; it says: {said}") };
        match error {
            Unreachable { stage: Handshake, .. } if !greeting.is_empty() => {
                Unreachable { stage: Handshake, why: format!("the host says `{greeting}` instead of its version") }
            }
            Unreachable { stage: Handshake, why } if !words.has_version => {
                let causes = "is its `MaxStartups` reached, or is this address banned?";
                Unreachable { stage: Handshake, why: format!("{why} before its version: {causes}") }
            }
            Unreachable { stage: Authentication, why } if words.refuse() => {
                AuthFailed { why: format!("user `{user}`: {why}{said}") }
            }
            Unreachable { stage, why } => Unreachable { stage, why: format!("{why}{said}") },
            AuthFailed { why } => AuthFailed { why: format!("{why}{said}") },
            other => other,
        }
    }
}

impl Words {
    /// Whether they are those of a host that refuses us.
    fn refuse(&self) -> bool {
        match &self.farewell {
            Some((code, _)) => !matches!(code, Disconnect::TooManyConnections | Disconnect::ServiceNotAvailable),
            None => !self.banner.is_empty() && !self.banner.contains("pam_nologin"),
        }
    }
}

/// A host's text as one line for people, and nothing in it that a terminal would obey.
fn line(text: &str) -> String {
    let text: String = text.chars().take(KEPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_off(stage: Stage) -> ConnectError {
        ConnectError::Unreachable { stage, why: "the host closed the connection".to_owned() }
    }

    fn told(said: &Said, stage: Stage) -> String {
        let error = said.explain(cut_off(stage), "ann");
        let kind = if matches!(error, ConnectError::AuthFailed { .. }) { "auth_failed" } else { "unreachable" };
        format!("{kind} {error}")
    }

    #[test]
    fn greeting_is_told_where_no_version_follows() {
        let said = Said::default();
        assert_eq!(
            told(&said, Stage::Handshake),
            "unreachable SSH handshake: the host closed the connection before its version: is its `MaxStartups` \
             reached, or is this address banned?"
        );
        for packet in [&b"HTTP/1.1 400 Bad Request\r\nNot"[..], b" SSH-like\x1b\r\n"] {
            said.greets(packet);
        }
        let instead = "unreachable SSH handshake: the host says `HTTP/1.1 400 Bad Request Not SSH-like` instead of its \
                       version";
        assert_eq!(told(&said, Stage::Handshake), instead);
        for packet in [&b"SS"[..], b"H-2.0-x\r\n", b"and keys"] {
            said.greets(packet);
        }
        assert_eq!(told(&said, Stage::Handshake), "unreachable SSH handshake: the host closed the connection");
    }

    #[test]
    fn greeting_without_end_is_not_kept() {
        let said = Said::default();
        (0..1000).for_each(|_| said.greets(&[b'x'; 1000]));
        assert_eq!(said.words().greeting.len(), KEPT);
        said.shows(&"y".repeat(1_000_000));
        assert_eq!(said.words().banner.len(), KEPT);
    }

    #[test]
    fn host_that_hangs_up_with_a_word_has_refused_and_one_without_has_not() {
        let silent = Said::default();
        assert_eq!(told(&silent, Stage::Authentication), "unreachable authentication: the host closed the connection");
        let expired = Said::default();
        expired.shows("Members only.\n");
        expired.shows("Your account\nhas expired.\n");
        let why = "auth_failed user `ann`: the host closed the connection; it says: Your account has expired.";
        assert_eq!(told(&expired, Stage::Authentication), why);
        let booting = Said::default();
        booting.shows("System is booting up. See pam_nologin(8).");
        assert!(told(&booting, Stage::Authentication).starts_with("unreachable authentication: "));
        for (code, kind) in
            [(Disconnect::ProtocolError, "auth_failed"), (Disconnect::TooManyConnections, "unreachable")]
        {
            let said = Said::default();
            said.hangs_up(code, "Too many.");
            let told = told(&said, Stage::Authentication);
            assert!(told.starts_with(kind) && told.ends_with("; it says: Too many."), "{told}");
        }
    }
}
