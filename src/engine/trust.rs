//! Which host keys are trusted: checked before anything secret is sent, always.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::access::Seen;
use super::clock::Clock;
use super::records::Runs;
use crate::adapter::ssh::{Distrust, Expect, Expectation, HostKey};
use crate::domain::id::InstanceId;
use crate::domain::job::HostKeyPolicy;
use crate::domain::known_hosts::{InvalidPublicKey, KnownHosts, PublicKey, identity};
use crate::domain::layout::{self, Key};
use crate::domain::run::{Pin, Target};
use crate::domain::selector::HOST_SCOPE;
use crate::port::{Store, StoreError, Written};

/// What [`Pin::origin`] says of a key that was trusted because it was the first.
pub const FIRST_USE: &str = "first use";

/// What [`Pin::origin`] says of a key that someone vouched for.
pub const IMPORTED: &str = "imported";

/// Where the keys that `strict` believes stand.
const VOUCHED: &str = "known_hosts or an import has";

/// How often a pin may vanish between two looks before that is called a fault.
const LOOKS: u32 = 5;

/// Why a host key is not trusted. Nothing has been sent to the host then.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It is another one than before: the host was built anew, or is not the one it says it is.
    #[error("the host key is {found}; {what} {expected}", expected = join(.expected))]
    Changed {
        /// The instance, as `sshjob trust` names it.
        instance: InstanceId,
        /// The key that was presented.
        found: PublicKey,
        /// Where the others stand, as `pinned on first use is`.
        what: &'static str,
        /// The keys that are trusted.
        expected: Vec<PublicKey>,
    },
    /// Nothing vouches for it, as `strict` demands.
    #[error("the host key is {found}; neither known_hosts nor an imported pin has a key of `{instance}`")]
    Unknown {
        /// The instance, as `sshjob trust` names it.
        instance: InstanceId,
        /// The key that was presented.
        found: PublicKey,
    },
    /// Nobody may have it any more.
    #[error("the host key is {found}, which known_hosts marks as revoked")]
    Revoked {
        /// The key that was presented.
        found: PublicKey,
    },
    /// It is not a key.
    #[error(transparent)]
    Unreadable(#[from] InvalidPublicKey),
    /// It needs what is not built yet.
    #[error("host certificates (`ca`): not yet in this version")]
    NotYet,
    /// It could not be found out.
    #[error("whether the host key is trusted cannot be found out: {0}{cause}", cause = cause(.0))]
    Store(#[from] StoreError),
}

impl TrustError {
    /// What to do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { found, expected, .. } if expected.iter().all(|key| key.kind() != found.kind()) => Some(
                "only keys of other types are known of it; `sshjob trust import FILE` vouches for this one".to_owned(),
            ),
            Self::Changed { instance, what, .. } => {
                let or = if *what == VOUCHED { "mend known_hosts or " } else { "" };
                Some(format!("if the host was built anew, {or}`sshjob trust forget {instance}`"))
            }
            Self::Unknown { .. } => Some("`sshjob trust import FILE` vouches for it".to_owned()),
            Self::Revoked { .. } | Self::Unreadable(_) | Self::NotYet | Self::Store(_) => None,
        }
    }
}

impl From<TrustError> for Distrust {
    fn from(error: TrustError) -> Self {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        let why = format!("{error}{hint}");
        match error {
            TrustError::Store(_) | TrustError::NotYet => Self::Unavailable(why),
            _ => Self::Rejected(why),
        }
    }
}

/// What a host key will be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Any key will do.
    Anything,
    /// The pin of an earlier use.
    Pinned,
    /// What someone vouched for: an import or `known_hosts`.
    Vouched,
    /// Nothing yet: the key will be pinned.
    FirstUse,
    /// Nothing, and so the key will be rejected.
    Nothing,
}

/// Who is trusted.
#[derive(Debug, Clone)]
pub struct Trust<S> {
    runs: Runs<S>,
    policy: HostKeyPolicy,
    known_hosts: Arc<KnownHosts>,
}

impl<S: Store> Trust<S> {
    /// Trust by `policy`, with the pins of a store; `known_hosts` is what `strict` also believes.
    pub const fn new(runs: Runs<S>, policy: HostKeyPolicy, known_hosts: Arc<KnownHosts>) -> Self {
        Self { runs, policy, known_hosts }
    }

    /// Checks the key that `target` presents, as OpenSSH writes it. What is trusted on first use is pinned, durably,
    /// when this returns.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub async fn check(&self, target: &Target, key: &str, now: Timestamp) -> Result<(), TrustError> {
        match self.policy {
            HostKeyPolicy::Off => Ok(()),
            HostKeyPolicy::Ca => Err(TrustError::NotYet),
            HostKeyPolicy::Pinned => self.check_pinned(target, key.parse()?, now).await,
            HostKeyPolicy::Strict => self.check_strict(target, key.parse()?).await,
        }
    }

    /// Says, when a connection is about to be made, what the key of `target` is held against; `seen` is told its
    /// fingerprint.
    pub fn expect(&self, target: Target, clock: Clock, seen: Seen) -> Expect {
        let (trust, target) = (self.clone(), Arc::new(target));
        Arc::new(move || {
            let (trust, target, seen) = (trust.clone(), Arc::clone(&target), Arc::clone(&seen));
            Box::pin(async move {
                let verify = move |key: HostKey| {
                    let _ = seen.set(key.fingerprint.clone());
                    let checked =
                        async move { trust.check(&target, &key.openssh, clock.now()).await.map_err(Distrust::from) };
                    Box::pin(checked) as BoxFuture<'static, _>
                };
                let (known, certificates, learn) = (Vec::new(), false, None);
                Ok(Expectation { known, certificates, verify: Box::new(verify), learn })
            })
        })
    }

    /// What the key of `target` will be held against.
    ///
    /// # Errors
    /// Where its pin cannot be read.
    pub async fn basis(&self, target: &Target) -> Result<Basis, StoreError> {
        let pinned = async || Ok::<_, StoreError>(self.pin(&pin_key(target)).await?.map(|(pin, _)| pin.origin));
        Ok(match self.policy {
            HostKeyPolicy::Off => Basis::Anything,
            HostKeyPolicy::Ca => Basis::Nothing,
            HostKeyPolicy::Pinned => match pinned().await?.as_deref() {
                None => Basis::FirstUse,
                Some(IMPORTED) => Basis::Vouched,
                Some(_) => Basis::Pinned,
            },
            HostKeyPolicy::Strict if !self.known(target).keys.is_empty() => Basis::Vouched,
            HostKeyPolicy::Strict => match pinned().await?.as_deref() {
                Some(IMPORTED) => Basis::Vouched,
                _ => Basis::Nothing,
            },
        })
    }

    async fn check_pinned(&self, target: &Target, found: PublicKey, now: Timestamp) -> Result<(), TrustError> {
        let key = pin_key(target);
        let first = Pin {
            keys: vec![found.as_str().to_owned()],
            address: identity(address(target), target.port).to_string(),
            first_seen: now,
            origin: FIRST_USE.to_owned(),
        };
        for _ in 0..LOOKS {
            if let Some((pin, expected)) = self.pin(&key).await? {
                if expected.contains(&found) {
                    return Ok(());
                }
                let what = if pin.origin == IMPORTED { "imported is" } else { "pinned on first use is" };
                return Err(TrustError::Changed { instance: pin_id(target), found, what, expected });
            }
            // Of any number of workers one wins; the others look at what it has pinned.
            if let Written::Done(_) = self.runs.create(&key, &first).await? {
                return Ok(());
            }
        }
        let why = format!("it came and went {LOOKS} times while it was looked at");
        Err(StoreError::Damaged { at: key.to_string(), why }.into())
    }

    async fn check_strict(&self, target: &Target, found: PublicKey) -> Result<(), TrustError> {
        let known = self.known(target);
        if known.revoked.contains(&found) {
            return Err(TrustError::Revoked { found });
        }
        let mut expected = known.keys;
        // What was merely first is what `strict` does not believe.
        if let Some((_, keys)) = self.pin(&pin_key(target)).await?.filter(|(pin, _)| pin.origin == IMPORTED) {
            expected.extend(keys);
        }
        expected.dedup();
        let instance = pin_id(target);
        match expected {
            expected if expected.contains(&found) => Ok(()),
            expected if expected.is_empty() => Err(TrustError::Unknown { instance, found }),
            expected => Err(TrustError::Changed { instance, found, what: VOUCHED, expected }),
        }
    }

    fn known(&self, target: &Target) -> crate::domain::known_hosts::Known {
        self.known_hosts.of(address(target), target.port)
    }

    async fn pin(&self, key: &Key) -> Result<Option<(Pin, Vec<PublicKey>)>, StoreError> {
        let Some((pin, _)) = self.runs.read::<Pin>(key).await? else { return Ok(None) };
        let keys = keys_of(key, &pin)?;
        Ok(Some((pin, keys)))
    }
}

/// The keys of a pin.
///
/// # Errors
/// [`StoreError::Damaged`] where it has none, or one that is none.
pub(super) fn keys_of(at: &Key, pin: &Pin) -> Result<Vec<PublicKey>, StoreError> {
    let damaged = |why| StoreError::Damaged { at: at.to_string(), why };
    if pin.keys.is_empty() {
        return Err(damaged("it holds no key".to_owned()));
    }
    let keys: Result<Vec<PublicKey>, _> = pin.keys.iter().map(|key| key.parse()).collect();
    keys.map_err(|error| damaged(error.to_string()))
}

/// Where the pin of `target` is.
pub fn pin_key(target: &Target) -> Key {
    layout::trust(&target.account, &target.region, &pin_id(target))
}

/// What a pin is kept under: the instance. A host of `-w` is none, but an address and a port, whatever it was called.
fn pin_id(target: &Target) -> InstanceId {
    if target.account != HOST_SCOPE {
        return target.instance.clone();
    }
    identity(address(target), target.port).id().unwrap_or_else(|| target.instance.clone())
}

fn address(target: &Target) -> &str {
    target.address.as_deref().unwrap_or_else(|| target.instance.as_str())
}

fn join(keys: &[PublicKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}
