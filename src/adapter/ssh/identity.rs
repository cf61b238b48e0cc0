//! What proves to a host that we are the user we say we are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::client::{AuthResult, Handle};
use russh::keys::{Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use russh::{MethodKind, MethodSet};

use super::error::told;
use super::handler::Verifier;
use super::{ConnectError, Stage};
use crate::domain::location::Location;

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
}

/// Ways to prove who we are, in the order in which they are tried.
#[derive(Debug, Default)]
pub struct Identities {
    list: Vec<Identity>,
    /// The one that the last host accepted: while keys rotate, others are likely to accept it, too.
    accepted: AtomicUsize,
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
        Self { list: identities.into_iter().collect(), accepted: AtomicUsize::new(0) }
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

/// What a host said to one identity.
enum Answer {
    Accepted,
    Refused { methods: MethodSet, partial: bool },
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

impl Identities {
    /// Authenticates as `user` with the first identity that the host accepts.
    ///
    /// # Errors
    /// [`ConnectError::AuthFailed`] where it accepts none, [`ConnectError::Unreachable`] where the connection breaks.
    pub(super) async fn authenticate(&self, handle: &mut Handle<Verifier>, user: &str) -> Result<(), ConnectError> {
        let mut refused = None;
        let first = self.accepted.load(Ordering::Relaxed);
        for turn in 0..self.list.len() {
            let index = (first + turn) % self.list.len();
            let Some(identity) = self.list.get(index) else { continue };
            match identity.prove(handle, user).await? {
                Answer::Accepted => {
                    self.accepted.store(index, Ordering::Relaxed);
                    return Ok(());
                }
                // A connection that ends unanswered looks to the library like a refusal without a way out.
                Answer::Refused { methods, .. } if methods.is_empty() && refused.is_none() && handle.is_closed() => {
                    return Err(broken(&russh::Error::Disconnect));
                }
                Answer::Refused { methods, partial } => {
                    let goes_on = methods.contains(&MethodKind::PublicKey);
                    refused = Some((methods, partial));
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        Err(ConnectError::AuthFailed { why: format!("user `{user}`: {}{}", self.tried(), wanted(refused)) })
    }

    fn tried(&self) -> String {
        match self.list.as_slice() {
            [] => "no private key is configured".to_owned(),
            [one] => format!("the host refuses the key {}", one.fingerprint()),
            many => format!("the host refuses all {} keys", many.len()),
        }
    }
}

impl Identity {
    async fn prove(&self, handle: &mut Handle<Verifier>, user: &str) -> Result<Answer, ConnectError> {
        match self {
            Self::Key { key, certificate } => {
                if let Some(certificate) = certificate {
                    let certificate = certificate.as_ref().clone();
                    let answer = handle.authenticate_openssh_cert(user, Arc::clone(key), certificate).await;
                    match answer.map_err(|error| broken(&error))?.into() {
                        Answer::Refused { methods, .. } if methods.contains(&MethodKind::PublicKey) => {}
                        answer => return Ok(answer),
                    }
                }
                // SHA-1 signatures are never made: a server that knows neither SHA-2 form is refused.
                let hash = if key.algorithm().is_rsa() {
                    let supported = handle.best_supported_rsa_hash().await.map_err(|error| broken(&error))?;
                    Some(supported.flatten().unwrap_or(HashAlg::Sha256))
                } else {
                    None
                };
                let answer =
                    handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(key), hash)).await;
                Ok(answer.map_err(|error| broken(&error))?.into())
            }
        }
    }

    fn fingerprint(&self) -> String {
        match self {
            Self::Key { key, .. } => key.public_key().fingerprint(HashAlg::Sha256).to_string(),
        }
    }
}

/// What the host would rather have.
fn wanted(refused: Option<(MethodSet, bool)>) -> String {
    match refused {
        Some((_, true)) => "; it wants a second factor".to_owned(),
        Some((methods, false)) if !methods.is_empty() && !methods.contains(&MethodKind::PublicKey) => {
            let methods: Vec<&str> = methods.iter().map(Into::into).collect();
            format!("; it accepts {}", methods.join(", "))
        }
        _ => String::new(),
    }
}

/// What broke an established connection before anything was started.
fn broken(error: &russh::Error) -> ConnectError {
    ConnectError::Unreachable { stage: Stage::Authentication, why: told(error) }
}
