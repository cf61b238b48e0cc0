//! Which host keys are trusted: checked before anything secret is sent, always.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::access::Seen;
use super::clock::Clock;
use super::pins;
use super::records::Runs;
use crate::adapter::ssh::{Distrust, Expect, Expectation, HostKey, Learn};
use crate::domain::id::InstanceId;
use crate::domain::job::HostKeyPolicy;
use crate::domain::known_hosts::{KnownHosts, PublicKey, identity};
use crate::domain::layout::{self, Key};
use crate::domain::run::{Pin, Target};
use crate::domain::selector::{HOST_SCOPE, Host};
pub use crate::domain::trust::Basis;
use crate::domain::trust::{Evidence, Pinned, Presented, Rejection, Trusted};
use crate::port::{Store, StoreError, Written};

/// What [`Pin::origin`] says of a key that was trusted because it was the first.
pub const FIRST_USE: &str = "first use";

/// What [`Pin::origin`] says of a key that someone vouched for.
pub const IMPORTED: &str = "imported";

/// How often a pin may vanish between two looks before that is called a fault.
const LOOKS: u32 = 5;

/// So many pins are looked up one by one.
const FEW: usize = 1000;

/// The most pins that are listed.
const MAX_PINS: usize = 1_000_000;

/// What a task says first where trust is not known.
pub const UNKNOWN: &str = "whether the host key is trusted cannot be found out";

/// Why a host key is not trusted. Nothing has been sent to the host then.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// What is known of the host speaks against it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be found out.
    #[error("{unknown}: {0}{cause}", unknown = UNKNOWN, cause = cause(.0))]
    Store(#[from] StoreError),
}

impl From<TrustError> for Distrust {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Store(_) => Self::Unavailable(error.to_string()),
            TrustError::Rejected(rejection) => {
                let hint = rejection.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                Self::Rejected(format!("{rejection}{hint}"))
            }
        }
    }
}

/// Who is trusted.
#[derive(Debug, Clone)]
pub struct Trust<S> {
    runs: Runs<S>,
    policy: HostKeyPolicy,
    known_hosts: Arc<KnownHosts>,
    authorities: Arc<[PublicKey]>,
}

impl<S: Store> Trust<S> {
    /// Trust by `policy`, with the pins of a store. `known_hosts` is what `strict` also believes, and says which keys are
    /// revoked; its authorities and these ones are what `ca` believes.
    pub fn new(
        runs: Runs<S>,
        policy: HostKeyPolicy,
        known_hosts: Arc<KnownHosts>,
        authorities: impl IntoIterator<Item = PublicKey>,
    ) -> Self {
        Self { runs, policy, known_hosts, authorities: authorities.into_iter().collect() }
    }

    /// Says, when a connection is about to be made, what the key of `target` is held against; `seen` is told its
    /// fingerprint.
    pub fn expect(&self, target: Target, clock: Clock, seen: Seen) -> Expect {
        let (trust, target) = (self.clone(), Arc::new(target));
        Arc::new(move || {
            let (trust, target, seen) = (trust.clone(), Arc::clone(&target), Arc::clone(&seen));
            Box::pin(async move {
                let evidence = trust.look(&target).await.map_err(|error| Distrust::from(TrustError::from(error)))?;
                let (known, certificates) = (evidence.known_types(), evidence.wants_certificate());
                let verify = move |key: HostKey| {
                    let _ = seen.set(key.fingerprint.clone());
                    let judged = async move { trust.judge(&target, evidence, &key, clock.now()).await };
                    Box::pin(judged) as BoxFuture<'static, _>
                };
                Ok(Expectation { known, certificates, verify: Box::new(verify) })
            })
        })
    }

    /// Looks up what is known of `target` before it presents a key: at most one read of the store.
    ///
    /// # Errors
    /// Where its pin cannot be read.
    pub async fn look(&self, target: &Target) -> Result<Evidence, StoreError> {
        let pinned = if self.minds_pins() { self.pinned(&pin_key(target)).await? } else { None };
        Ok(self.evidence(target, pinned))
    }

    /// Whether what is pinned counts.
    const fn minds_pins(&self) -> bool {
        matches!(self.policy, HostKeyPolicy::Pinned | HostKeyPolicy::Strict)
    }

    fn evidence(&self, target: &Target, pinned: Option<Pinned>) -> Evidence {
        let mut known = self.known_hosts.of(address(target), target.port);
        if self.policy == HostKeyPolicy::Ca {
            known.authorities.extend(self.authorities.iter().cloned());
        }
        Evidence { policy: self.policy, instance: pin_id(target), names: names(target), pinned, known }
    }

    /// What the key of each of `targets` will be held against, in their order.
    ///
    /// Of many, those that have a pin are found out by a list: most have none before their first run.
    ///
    /// # Errors
    /// Where a pin cannot be read.
    pub async fn bases(&self, targets: &[&Target]) -> Result<Vec<Basis>, StoreError> {
        let pins: Option<HashSet<Key>> = if self.minds_pins() && targets.len() > FEW {
            let pins = self.runs.store().list("trust/", None, MAX_PINS).await?;
            (pins.len() < MAX_PINS).then(|| pins.into_iter().collect())
        } else {
            None
        };
        let mut bases = Vec::with_capacity(targets.len());
        for target in targets {
            let is_unpinned = pins.as_ref().is_some_and(|pins| !pins.contains(&pin_key(target)));
            let evidence = if is_unpinned { self.evidence(target, None) } else { self.look(target).await? };
            bases.push(evidence.basis());
        }
        Ok(bases)
    }

    /// Decides, by what was known of `target` before, on what it presents. What is trusted on first use is pinned,
    /// durably, when this returns: the only write.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub async fn accept(
        &self,
        target: &Target,
        mut evidence: Evidence,
        presented: &Presented,
        now: Timestamp,
    ) -> Result<(Trusted, Evidence), TrustError> {
        let key = pin_key(target);
        let first = Pin {
            keys: vec![presented.key.as_str().to_owned()],
            address: identity(address(target), target.port).to_string(),
            first_seen: now,
            origin: FIRST_USE.to_owned(),
        };
        for _ in 0..LOOKS {
            let trusted = evidence.judge(presented, now)?;
            if trusted != Trusted::First {
                return Ok((trusted, evidence));
            }
            // Of any number of workers one wins; the others look at what it has pinned.
            if let Written::Done(_) = self.runs.create(&key, &first).await? {
                return Ok((trusted, evidence));
            }
            evidence.pinned = self.pinned(&key).await?;
        }
        let why = format!("it came and went {LOOKS} times while it was looked at");
        Err(StoreError::Damaged { at: key.to_string(), why }.into())
    }

    async fn judge(
        self,
        target: &Target,
        evidence: Evidence,
        key: &HostKey,
        now: Timestamp,
    ) -> Result<Option<Learn>, Distrust> {
        if self.policy == HostKeyPolicy::Off {
            return Ok(None);
        }
        let presented = Presented::read(&key.openssh, key.certificate.as_deref());
        let presented = presented.map_err(|rejection| Distrust::from(TrustError::from(rejection)))?;
        let (trusted, evidence) = self.accept(target, evidence, &presented, now).await?;
        // What is vouched for elsewhere is kept up there.
        let learns = matches!(trusted, Trusted::First | Trusted::Pinned);
        Ok(learns.then(|| self.learn(target, evidence, presented.key)))
    }

    /// Adds to the pin that `key` is in what else its host proves to have.
    fn learn(self, target: &Target, evidence: Evidence, key: PublicKey) -> Learn {
        let (at, instance) = (pin_key(target), evidence.instance);
        let pinned = evidence.pinned.into_iter().flat_map(|pinned| pinned.keys);
        let known = pinned.chain(evidence.known.revoked).chain([key.clone()]).map(|key| key.as_str().to_owned());
        let tell = move |keys: Vec<HostKey>| {
            let noted = async move {
                let keys: Vec<PublicKey> = keys.iter().filter_map(|key| key.openssh.parse().ok()).collect();
                match pins::add(&self.runs, &at, &key, &keys).await {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(%instance, "pinned {count} more of its host keys, which it has proven"),
                    Err(error) => tracing::warn!(%instance, "its further host keys could not be pinned: {error}"),
                }
            };
            Box::pin(noted) as BoxFuture<'static, ()>
        };
        Learn { known: known.collect(), tell: Box::new(tell) }
    }

    async fn pinned(&self, key: &Key) -> Result<Option<Pinned>, StoreError> {
        let Some((pin, _)) = self.runs.read::<Pin>(key).await? else { return Ok(None) };
        Ok(Some(Pinned { keys: keys_of(key, &pin)?, vouched: pin.origin == IMPORTED }))
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

/// What a certificate may call `target`: by its address, or by the id that the inventory has for it. A `Name` tag is
/// anybody's to set.
fn names(target: &Target) -> Vec<String> {
    let mut names = vec![address(target).to_owned()];
    let id = if target.account == HOST_SCOPE {
        // A host of `-w` is called as it was typed; the port is no part of a name.
        let known = identity(address(target), target.port).id();
        known.and_then(|_| target.instance.as_str().parse::<Host>().ok()).map(|host| host.host)
    } else {
        Some(target.instance.to_string())
    };
    names.extend(id.filter(|id| !id.eq_ignore_ascii_case(address(target))));
    names
}

fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}
