//! Who works on what: claims with a lease, and how a dead holder's claim is taken over.

use std::time::Duration;

use jiff::Timestamp;

use super::records::Runs;
use crate::adapter::process;
use crate::domain::layout::Key;
use crate::domain::run::Claim;
use crate::port::{Store, StoreError, Written};

/// How long a driver on a machine without functions is believed to live after its last sign of life.
pub const LEASE: Duration = Duration::from_secs(30);

/// What came of claiming a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The batch is ours: nobody had it before, or its earlier holder is dead.
    Ours,
    /// Somebody who may be alive has it.
    Held(Claim),
}

/// Claims `key` for `ours`, unless somebody holds it who may be alive.
///
/// `lapsed` tells that the holder of any claim is known to be dead, whatever the claim says.
///
/// # Errors
/// Where the store does not answer; whether the claim was written is then unknown.
pub async fn claim<S: Store>(
    runs: &Runs<S>,
    key: &Key,
    ours: &Claim,
    now: Timestamp,
    lapsed: bool,
) -> Result<Claimed, StoreError> {
    if let Written::Done(_) = runs.create(key, ours).await? {
        return Ok(Claimed::Ours);
    }
    loop {
        let Some((held, version)) = runs.read::<Claim>(key).await? else {
            return match runs.create(key, ours).await? {
                Written::Done(_) => Ok(Claimed::Ours),
                Written::Conflict => continue,
            };
        };
        // An earlier try of ours may have written without our hearing of it.
        if held.nonce == ours.nonce {
            return Ok(Claimed::Ours);
        }
        if !lapsed && !is_dead(&held, now) {
            return Ok(Claimed::Held(held));
        }
        let ours = Claim { turn: held.turn.saturating_add(1), ..ours.clone() };
        if let Written::Done(_) = runs.swap(key, &version, &ours).await? {
            return Ok(Claimed::Ours);
        }
    }
}

/// Ends the claim `nonce` on `key` as of `now`: its holder is done, and whoever comes next need not wait.
///
/// # Errors
/// Where the store does not answer; the claim then ends by itself.
pub async fn release<S: Store>(runs: &Runs<S>, key: &Key, nonce: &str, now: Timestamp) -> Result<(), StoreError> {
    if let Some((held, version)) = runs.read::<Claim>(key).await?
        && held.nonce == nonce
        && now < held.expires_at
    {
        // Where somebody else has it by now there is nothing to give up.
        runs.swap(key, &version, &Claim { expires_at: now, holder: None, ..held }).await?;
    }
    Ok(())
}

/// Whether `nonce` still has the claim `key`.
///
/// A claim that was taken over never comes back: while this holds, whatever others wrote under their own claims is
/// older than ours.
///
/// # Errors
/// Where the store does not answer.
pub async fn holds<S: Store>(runs: &Runs<S>, key: &Key, nonce: &str) -> Result<bool, StoreError> {
    Ok(runs.read::<Claim>(key).await?.is_some_and(|(held, _)| held.nonce == nonce))
}

/// Whether the holder of a claim can no longer be at work: its time is over, or its process is gone.
pub fn is_dead(claim: &Claim, now: Timestamp) -> bool {
    claim.expires_at <= now || claim.holder.as_ref().is_some_and(process::has_ended)
}
