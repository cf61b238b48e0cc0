//! Pinned host keys as people manage them: listed, forgotten, imported.

use jiff::Timestamp;

use super::records::Runs;
use super::trust::{IMPORTED, keys_of};
use crate::domain::id::InstanceId;
use crate::domain::known_hosts::PublicKey;
use crate::domain::layout::{self, Key};
use crate::domain::run::Pin;
use crate::port::{Store, StoreError, Written};

/// How many keys are listed at a time.
const PAGE: usize = 1000;

/// How many keys one instance may have: a host has one of each of a handful of types, twice while they rotate.
const MAX_KEYS: usize = 64;

/// How often a pin may change under our hands before that is called a fault.
const TRIES: u32 = 5;

/// Whose key is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The account, `local` of an inventory file, or `host` of `-w`.
    pub account: String,
    /// The region, likewise.
    pub region: String,
    /// The instance; of `-w` the address, and the port where it is not 22.
    pub instance: InstanceId,
    key: Key,
}

impl Place {
    /// The place of an instance's pin.
    pub fn new(account: &str, region: &str, instance: InstanceId) -> Self {
        let key = layout::trust(account, region, &instance);
        // As the store spells them: both may hold characters that a key cannot.
        Self::of(key.clone()).unwrap_or(Self { account: account.into(), region: region.into(), instance, key })
    }

    /// Reads the key of a pin; `None` where it is another key.
    fn of(key: Key) -> Option<Self> {
        let mut parts = key.as_str().strip_prefix("trust/")?.split('/');
        let (account, region) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let instance = parts.next()?.strip_suffix(".json")?.parse().ok()?;
        parts.next().is_none().then_some(Self { account, region, instance, key })
    }
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// There was no pin.
    New,
    /// So many keys were added to those that were imported before.
    Added(usize),
    /// The pin of first use was confirmed: its key is among the imported ones.
    Confirmed,
    /// The pin of first use had another key, which is trusted no more.
    Replaced(Vec<PublicKey>),
    /// The keys had been imported before.
    Unchanged,
}

/// Lists where pins are, in order.
///
/// # Errors
/// Where the store cannot be read.
pub async fn places<S: Store>(runs: &Runs<S>) -> Result<Vec<Place>, StoreError> {
    let mut places = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = runs.store().list("trust/", after.as_ref(), PAGE).await?;
        let Some(last) = page.last().cloned() else { return Ok(places) };
        places.extend(page.into_iter().filter_map(Place::of));
        after = Some(last);
    }
}

/// Reads a pin and its keys; `None` where it is gone.
///
/// # Errors
/// Where the store cannot be read or the pin is damaged.
pub async fn read<S: Store>(runs: &Runs<S>, place: &Place) -> Result<Option<(Pin, Vec<PublicKey>)>, StoreError> {
    let Some((pin, _)) = runs.read::<Pin>(&place.key).await? else { return Ok(None) };
    let keys = keys_of(&place.key, &pin)?;
    Ok(Some((pin, keys)))
}

/// Removes a pin, a damaged one, too.
///
/// # Errors
/// Where the store cannot be written.
pub async fn forget<S: Store>(runs: &Runs<S>, place: &Place) -> Result<(), StoreError> {
    runs.store().remove(&place.key).await
}

/// Pins `keys`, for which someone vouches, seen at `address`.
///
/// # Errors
/// Where the store cannot be read or written, the pin there is damaged, or would hold too many keys.
pub async fn import<S: Store>(
    runs: &Runs<S>,
    place: &Place,
    address: &str,
    keys: &[PublicKey],
    now: Timestamp,
) -> Result<Imported, StoreError> {
    let damaged = |why: String| StoreError::Damaged { at: place.key.to_string(), why };
    for _ in 0..TRIES {
        let Some((old, version)) = runs.read::<Pin>(&place.key).await? else {
            let pin = Pin {
                keys: keys.iter().map(|key| key.as_str().to_owned()).collect(),
                address: address.to_owned(),
                first_seen: now,
                origin: IMPORTED.to_owned(),
            };
            match runs.create(&place.key, &pin).await? {
                Written::Done(_) => return Ok(Imported::New),
                Written::Conflict => continue,
            }
        };
        let old_keys = keys_of(&place.key, &old)?;
        let (merged, outcome) = merge(&old.origin, old_keys, keys);
        if merged.len() > MAX_KEYS {
            return Err(damaged(format!("it would hold {} keys; at most {MAX_KEYS} are allowed", merged.len())));
        }
        if outcome == Imported::Unchanged {
            return Ok(outcome);
        }
        let keys = merged.iter().map(|key| key.as_str().to_owned()).collect();
        let pin = Pin { keys, origin: IMPORTED.to_owned(), ..old };
        if let Written::Done(_) = runs.swap(&place.key, &version, &pin).await? {
            return Ok(outcome);
        }
    }
    Err(damaged(format!("it was changed {TRIES} times while it was being written")))
}

/// Adds `keys` to a pin that holds the key `by`, by which its host has proven them; returns how many were new.
///
/// A pin that no longer holds `by`, or is gone, is left alone: somebody has thought better of it. Keys that a host no
/// longer announces stay: only people forget.
///
/// # Errors
/// Where the store cannot be read or written, or the pin there is damaged.
pub async fn add<S: Store>(runs: &Runs<S>, at: &Key, by: &PublicKey, keys: &[PublicKey]) -> Result<usize, StoreError> {
    for _ in 0..TRIES {
        let Some((pin, version)) = runs.read::<Pin>(at).await? else { return Ok(0) };
        let mut all = keys_of(at, &pin)?;
        let before = all.len();
        for key in keys {
            if all.len() < MAX_KEYS && all.contains(by) && !all.contains(key) {
                all.push(key.clone());
            }
        }
        let count = all.len().saturating_sub(before);
        if count == 0 {
            return Ok(0);
        }
        let pin = Pin { keys: all.iter().map(|key| key.as_str().to_owned()).collect(), ..pin };
        if let Written::Done(_) = runs.swap(at, &version, &pin).await? {
            return Ok(count);
        }
    }
    let why = format!("it was changed {TRIES} times while it was being written");
    Err(StoreError::Damaged { at: at.to_string(), why })
}

/// What is trusted after an import of `new`: with earlier imports, but never with what was merely first.
fn merge(origin: &str, old: Vec<PublicKey>, new: &[PublicKey]) -> (Vec<PublicKey>, Imported) {
    if origin != IMPORTED {
        let distrusted: Vec<PublicKey> = old.into_iter().filter(|key| !new.contains(key)).collect();
        let outcome = if distrusted.is_empty() { Imported::Confirmed } else { Imported::Replaced(distrusted) };
        return (new.to_vec(), outcome);
    }
    let added: Vec<PublicKey> = new.iter().filter(|key| !old.contains(key)).cloned().collect();
    let outcome = if added.is_empty() { Imported::Unchanged } else { Imported::Added(added.len()) };
    ([old, added].concat(), outcome)
}
