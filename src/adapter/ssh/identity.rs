//! What proves to a host that we are the user we say we are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::time::timeout;

use super::agent::{Agent, AgentError, Held, Signer, Unsigned};
use super::certificate;
use super::error::told;
use super::handler::Verifier;
use super::{ConnectError, Stage};
use crate::domain::location::Location;

/// A host that tells which RSA signatures it takes does so right behind the key exchange (RFC 8308, section 2.4), in the
/// same packet most often; this long allows for the next. One that tells nothing is not worth a round trip's wait.
const SIGNATURES_TOLD: Duration = Duration::from_millis(50);

/// One way to prove who we are.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A private key in memory, alone or as certified.
    Key {
        /// The key.
        key: Arc<PrivateKey>,
        /// What an authority says of it; tried before the bare key.
        certificate: Option<Box<Certificate>>,
    },
    /// A key that an agent holds, alone or as certified.
    Agent {
        /// The agent.
        agent: Agent,
        /// What it holds: a key, or a certificate with its key.
        held: Box<Held>,
        /// What an authority says of the key; tried before what the agent holds.
        certificate: Option<Box<Certificate>>,
    },
}

/// Ways to prove who we are, in the order in which they are tried.
#[derive(Debug, Default)]
pub struct Identities {
    list: Vec<Identity>,
    /// The one that the last host accepted: while keys rotate, others are likely to accept it, too.
    accepted: AtomicUsize,
    /// What could not be used; told when nothing else is accepted.
    unusable: Vec<String>,
}

/// The identities of a run: the usual ones, and those of hosts that have their own.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    usual: Arc<Identities>,
    others: HashMap<Vec<Location>, Arc<Identities>>,
}

impl From<PrivateKey> for Identity {
    fn from(key: PrivateKey) -> Self {
        Self::Key { key: Arc::new(key), certificate: None }
    }
}

impl FromIterator<Identity> for Identities {
    fn from_iter<I: IntoIterator<Item = Identity>>(identities: I) -> Self {
        Self { list: identities.into_iter().collect(), accepted: AtomicUsize::new(0), unusable: Vec::new() }
    }
}

impl Keyring {
    /// A key ring with `usual` identities.
    pub fn new(usual: Identities) -> Self {
        Self { usual: Arc::new(usual), others: HashMap::new() }
    }

    /// Adds the identities that are found at `keys`.
    pub fn add(&mut self, keys: Vec<Location>, identities: Identities) {
        self.others.insert(keys, Arc::new(identities));
    }

    /// The identities that are found at `keys`; the usual ones where `keys` is empty.
    pub fn of(&self, keys: &[Location]) -> Arc<Identities> {
        self.others.get(keys).map_or_else(|| Arc::clone(&self.usual), Arc::clone)
    }
}

/// What came of showing one identity to a host.
enum Answer {
    Accepted,
    Refused {
        methods: MethodSet,
        partial: bool,
    },
    /// It was not shown: the agent did not sign.
    Unsigned(AgentError),
}

impl From<AuthResult> for Answer {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::Accepted,
            AuthResult::Failure { remaining_methods, partial_success } => {
                Self::Refused { methods: remaining_methods, partial: partial_success }
            }
        }
    }
}

impl Answer {
    /// Whether the host refuses this and will look at another key.
    fn asks_for_more(&self) -> bool {
        matches!(self, Self::Refused { methods, .. } if methods.contains(&MethodKind::PublicKey))
    }
}

/// Why nothing but keys is ever offered.
const NOBODY: &str = "nobody is there to give it";

/// What was done so far to log in to a host.
#[derive(Default)]
struct Attempts {
    refused: Vec<String>,
    unsigned: Vec<String>,
    agent_is_down: bool,
    /// What was accepted, and was not enough.
    not_enough: Option<String>,
    /// What the host wants next.
    wanted: Vec<MethodKind>,
}

impl Identities {
    /// The same, with what could not be used, for people to know when nothing else is accepted.
    #[must_use]
    pub fn without(mut self, unusable: Vec<String>) -> Self {
        self.unusable = unusable;
        self
    }

    /// Authenticates as `user` with the first identity that the host accepts.
    ///
    /// # Errors
    /// [`ConnectError::AuthFailed`] where it accepts none, [`ConnectError::Unreachable`] where the connection breaks.
    pub(super) async fn authenticate(&self, handle: &mut Handle<Verifier>, user: &str) -> Result<(), ConnectError> {
        let failed = |why: String| ConnectError::AuthFailed { why: format!("user `{user}`: {why}") };
        let mut attempts = Attempts::default();
        let first = self.accepted.load(Ordering::Relaxed);
        for turn in 0..self.list.len() {
            let index = (first + turn) % self.list.len();
            let Some(identity) = self.list.get(index) else { continue };
            if attempts.agent_is_down && matches!(identity, Identity::Agent { .. }) {
                continue;
            }
            let answer = match identity.prove(handle, user).await {
                // Some hosts refuse a key and then hang up without a word.
                Err(ConnectError::Unreachable { .. }) if handle.is_closed() && !attempts.refused.is_empty() => {
                    return Err(failed(self.no_more_keys(&attempts, false)));
                }
                answer => answer?,
            };
            match answer {
                Answer::Accepted => {
                    tracing::debug!(user, key = %identity.fingerprint(), "the host accepts the key");
                    self.accepted.store(index, Ordering::Relaxed);
                    return Ok(());
                }
                Answer::Refused { methods, partial } => {
                    tracing::debug!(user, key = %identity.fingerprint(), "the host refuses the key");
                    attempts.refused.push(identity.told());
                    if methods.is_empty() && handle.is_closed() {
                        // One that says why it hangs up, or has refused a key before, has seen too many of them: that
                        // is a refusal, and not to be tried again.
                        let said_so = handle.await.is_ok();
                        let is_refusal = said_so || attempts.refused.len() > 1;
                        let broken = || broken(&russh::Error::Disconnect);
                        return Err(if is_refusal { failed(self.no_more_keys(&attempts, said_so)) } else { broken() });
                    }
                    if partial {
                        attempts.refused.pop();
                        attempts.not_enough = Some(identity.fingerprint());
                    }
                    attempts.wanted = methods.to_vec();
                    if !attempts.wanted.contains(&MethodKind::PublicKey) {
                        break;
                    }
                }
                Answer::Unsigned(error) => {
                    attempts.agent_is_down = error.is_lasting();
                    attempts.unsigned.push(format!("{error} (key {})", identity.fingerprint()));
                }
            }
        }
        Err(failed(format!("{}{}", self.tried(&attempts), self.notes())))
    }

    fn no_more_keys(&self, attempts: &Attempts, said_so: bool) -> String {
        let (tried, all) = (attempts.refused.len(), self.list.len());
        let keys = if tried == 1 { "1 key".to_owned() } else { format!("{tried} keys") };
        let what = if said_so { "takes no more keys" } else { "closed the connection" };
        let hint = if all > 1 { "; name the right one with `-i` or `key`" } else { "" };
        format!("the host {what} after {keys} of {all} (`MaxAuthTries`){hint}{}", self.notes())
    }

    fn tried(&self, attempts: &Attempts) -> String {
        let takes_keys = attempts.wanted.contains(&MethodKind::PublicKey);
        let named = attempts.wanted.iter().map(Into::into).collect::<Vec<&str>>().join(" or ");
        match &attempts.not_enough {
            Some(key) if takes_keys => return format!("the host accepts the key {key}, and wants another one as well"),
            Some(key) => {
                return format!("the host accepts the key {key}, and wants a second factor ({named}): {NOBODY}");
            }
            None if !takes_keys && !named.is_empty() => {
                return format!("the host takes no key of this user, it wants {named}: {NOBODY}");
            }
            None => {}
        }
        let refused = match attempts.refused.as_slice() {
            [] if attempts.unsigned.is_empty() => Some("no private key is configured".to_owned()),
            [] => None,
            [one] => Some(format!("the host refuses the key {one}")),
            many if many.len() == self.list.len() => Some(format!("the host refuses all {} keys", many.len())),
            many => Some(format!("the host refuses {} keys", many.len())),
        };
        refused.into_iter().chain(attempts.unsigned.first().cloned()).collect::<Vec<_>>().join("; ")
    }

    fn notes(&self) -> String {
        self.unusable.iter().flat_map(|note| ["; ", note]).collect()
    }
}

impl Identity {
    async fn prove(&self, handle: &mut Handle<Verifier>, user: &str) -> Result<Answer, ConnectError> {
        match self {
            Self::Key { key, certificate } => {
                if let Some(certificate) = certificate {
                    let certificate = certificate.as_ref().clone();
                    let answer = handle.authenticate_openssh_cert(user, Arc::clone(key), certificate).await;
                    let answer = Answer::from(answer.map_err(|error| broken(&error))?);
                    if !answer.asks_for_more() {
                        return Ok(answer);
                    }
                }
                let hash = signature_hash(handle, &key.algorithm()).await?;
                let answer =
                    handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(key), hash)).await;
                Ok(answer.map_err(|error| broken(&error))?.into())
            }
            Self::Agent { agent, held, certificate } => {
                let mut signer = agent.signer(held);
                if let Some(certificate) = certificate {
                    let answer = present(handle, user, certificate, &mut signer).await?;
                    if !answer.asks_for_more() {
                        return Ok(answer);
                    }
                }
                match held.as_ref() {
                    Held::Certificate { certificate, .. } => present(handle, user, certificate, &mut signer).await,
                    Held::PublicKey { key, .. } => {
                        let hash = signature_hash(handle, &key.algorithm()).await?;
                        signed(handle.authenticate_publickey_with(user, key.clone(), hash, &mut signer).await)
                    }
                }
            }
        }
    }

    /// The public half of the key.
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Key { key, .. } => key.public_key().clone(),
            Self::Agent { held, .. } => held.public_key().into_owned(),
        }
    }

    fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Key { certificate, .. } => certificate.as_deref(),
            Self::Agent { certificate: Some(certificate), .. } => Some(certificate),
            Self::Agent { held, .. } => match held.as_ref() {
                Held::Certificate { certificate, .. } => Some(certificate),
                Held::PublicKey { .. } => None,
            },
        }
    }

    /// The key, for people, with what is certified of it.
    fn told(&self) -> String {
        let certified = self.certificate().map(|it| format!(" and its certificate ({})", certificate::told(it)));
        self.fingerprint() + &certified.unwrap_or_default()
    }

    fn fingerprint(&self) -> String {
        self.public_key().fingerprint(HashAlg::Sha256).to_string()
    }
}

/// Shows a certificate that an agent holds to the host.
async fn present(
    handle: &mut Handle<Verifier>,
    user: &str,
    certificate: &Certificate,
    signer: &mut Signer<'_>,
) -> Result<Answer, ConnectError> {
    let hash = signature_hash(handle, &certificate.algorithm()).await?;
    signed(handle.authenticate_certificate_with(user, certificate.clone(), hash, signer).await)
}

fn signed(result: Result<AuthResult, Unsigned>) -> Result<Answer, ConnectError> {
    match result {
        Ok(result) => Ok(result.into()),
        Err(Unsigned::Agent(error)) => Ok(Answer::Unsigned(error)),
        Err(Unsigned::Broken(_)) => Err(broken(&russh::Error::SendError)),
    }
}

/// The hash that a signature of this algorithm is made with, where there is a choice. SHA-1 signatures are never made:
/// a server that knows neither SHA-2 form is refused.
async fn signature_hash(handle: &Handle<Verifier>, algorithm: &Algorithm) -> Result<Option<HashAlg>, ConnectError> {
    if !matches!(algorithm, Algorithm::Rsa { .. }) {
        return Ok(None);
    }
    let told = timeout(SIGNATURES_TOLD, handle.best_supported_rsa_hash()).await;
    let supported = told.unwrap_or(Ok(None)).map_err(|error| broken(&error))?;
    Ok(Some(supported.flatten().unwrap_or(HashAlg::Sha256)))
}

/// What broke an established connection before anything was started.
fn broken(error: &russh::Error) -> ConnectError {
    ConnectError::Unreachable { stage: Stage::Authentication, why: told(error) }
}
