//! What removes old runs, in an order in which a crash leaves nothing that lies.
//!
//! Of a run the mark `active/` goes first, so that no tick takes it for one that is being claimed; then the claim, and
//! with it the run is gone from every list; then everything else, the verdict last. What a crash leaves has no claim,
//! and the next pruning removes it.
//!
//! Meanwhile runs are created: each is marked before it looks whether its script is there. So the marks are listed again
//! before scripts go and after they went, and a run that appeared between the two is given back its script.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::document::RunSummary;
use crate::domain::id::{JobName, RunId};
use crate::domain::layout::{self, Key, RunKeys};
use crate::domain::run::Verdict;
use crate::port::{Store, StoreError};

use super::history::ids;
use super::records::Runs;

/// How many names are asked for at a time; what S3 gives at most.
const PAGE: usize = 1000;

/// How many objects are removed at a time: each waits for the disk.
const REMOVALS: usize = 16;

/// What nothing refers to is kept this long, in case its run is just being claimed: that takes seconds.
const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// Which finished runs are old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Those that finished longer ago than this; none means whenever they finished.
    pub older_than: Option<Duration>,
    /// Not the newest so many of each job.
    pub keep: usize,
}

/// What is to be removed, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Old {
    /// Finished runs, newest first.
    pub runs: Vec<RunSummary>,
    /// What is left of runs that were being removed when the machine stopped.
    pub leftovers: Vec<RunId>,
    /// Scripts that no run refers to, by their SHA-256.
    pub scripts: Vec<String>,
    /// Runs that cannot be read, with what is wrong; they stay, and so do all scripts, because they may refer to any.
    pub damaged: Vec<String>,
}

/// `state/unreferenced.json`: the scripts that no run referred to, and since when that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Unreferenced(BTreeMap<String, Timestamp>);

/// What is in a store, as far as pruning cares.
#[derive(Debug, Default)]
struct Survey {
    old: Old,
    /// The scripts of runs that stay.
    used: BTreeSet<String>,
    /// The scripts of runs that go.
    freed: BTreeSet<String>,
    /// Runs that are being claimed at this moment.
    claiming: bool,
}

/// Finds what is old, and removes it unless `dry`.
///
/// # Errors
/// Where the store cannot be read or written. What was removed until then is removed whole, or is a leftover.
pub async fn prune<S: Store>(runs: &Runs<S>, policy: Policy, now: Timestamp, dry: bool) -> Result<Old, StoreError> {
    let mut survey = survey(runs, policy, now).await?;
    if !dry {
        for run in survey.old.runs.iter().map(|run| &run.run).chain(&survey.old.leftovers) {
            remove_run(runs.store(), run).await?;
        }
        forget_requests(runs.store(), &survey.old, now).await?;
    }
    survey.old.scripts = scripts(runs, &survey, now, dry).await?;
    if !dry {
        survey.old.scripts = remove_scripts(runs, &survey.old.scripts).await?;
    }
    Ok(survey.old)
}

/// Removes those of `scripts` that no run refers to even now; returns them.
async fn remove_scripts<S: Store>(runs: &Runs<S>, scripts: &[String]) -> Result<Vec<String>, StoreError> {
    let store = runs.store();
    let mut removed = Vec::new();
    // So few at a time because their bytes are kept until it is sure that they can go.
    for some in scripts.chunks(REMOVALS) {
        let before = active(store).await?;
        let Some(used) = scripts_of(runs, &before).await? else { return Ok(removed) };
        let mut taken = Vec::new();
        for sha256 in some.iter().filter(|sha256| !used.contains(*sha256)) {
            let key = layout::blob(sha256);
            let Some(script) = store.get(&key).await? else { continue };
            store.remove(&key).await?;
            taken.push((sha256, key, script.bytes));
        }
        let appeared: BTreeSet<RunId> = active(store).await?.difference(&before).cloned().collect();
        let used = scripts_of(runs, &appeared).await?;
        for (sha256, key, script) in taken {
            if used.as_ref().is_some_and(|used| !used.contains(sha256)) {
                removed.push(sha256.clone());
            } else {
                store.create(&key, script).await?;
            }
        }
    }
    Ok(removed)
}

/// The scripts of the runs `marked`; none where one of them is just being claimed, or cannot be read, so that its script
/// may be any.
async fn scripts_of<S: Store>(
    runs: &Runs<S>,
    marked: &BTreeSet<RunId>,
) -> Result<Option<BTreeSet<String>>, StoreError> {
    let mut used = BTreeSet::new();
    for run in marked {
        match runs.run(run).await {
            Ok(Some(record)) => used.insert(record.script.sha256),
            Ok(None) | Err(StoreError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    Ok(Some(used))
}

/// Looks at every run.
async fn survey<S: Store>(runs: &Runs<S>, policy: Policy, now: Timestamp) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    let active = active(runs.store()).await?;
    // The notice of an end is written before the mark goes: looked for after it, none is missed.
    let untold = all(runs.store(), layout::OUTBOX).await?;
    let untold: BTreeSet<Key> = untold.into_iter().collect();
    let mut finished: HashMap<JobName, usize> = HashMap::new();
    let all = ids(runs, None).await?;
    survey.claiming = active.iter().any(|run| !all.contains(run));
    for run in all {
        let (record, verdict) = match (runs.run(&run).await, runs.verdict(&run).await) {
            (Ok(record), Ok(verdict)) => (record, verdict),
            (Err(StoreError::Damaged { at, why }), _) | (_, Err(StoreError::Damaged { at, why })) => {
                survey.old.damaged.push(StoreError::Damaged { at, why }.to_string());
                continue;
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let Some(record) = record else {
            if active.contains(&run) {
                survey.claiming = true;
            } else {
                survey.old.leftovers.push(run);
            }
            continue;
        };
        let sha256 = record.script.sha256.clone();
        match verdict {
            // One that is marked has its end before it, though it has its verdict; of one in the outbox people are still to
            // be told.
            Some(verdict)
                if !active.contains(&run)
                    && !untold.contains(&layout::outbox(&run))
                    && is_old(&verdict, policy, now, finished.entry(run.job()).or_default()) =>
            {
                let Verdict { state, reason, counts, finished_at, .. } = verdict;
                survey.old.runs.push(RunSummary::new(&record, state, reason, Some(finished_at), counts));
                survey.freed.insert(sha256);
            }
            _ => {
                survey.used.insert(sha256);
            }
        }
    }
    Ok(survey)
}

/// Whether a run with this verdict is old, after `newer` finished runs of its job were seen.
fn is_old(verdict: &Verdict, policy: Policy, now: Timestamp, newer: &mut usize) -> bool {
    *newer += 1;
    let age = Duration::try_from(now.duration_since(verdict.finished_at)).unwrap_or_default();
    *newer > policy.keep && policy.older_than.is_none_or(|limit| age >= limit)
}

/// The runs that are marked as not finished.
async fn active<S: Store>(store: &S) -> Result<BTreeSet<RunId>, StoreError> {
    let keys = all(store, "active/").await?;
    Ok(keys.iter().filter_map(|key| key.as_str().rsplit('/').next()?.parse().ok()).collect())
}

/// Every key that starts with `prefix`.
async fn all<S: Store>(store: &S, prefix: &str) -> Result<Vec<Key>, StoreError> {
    let mut keys: Vec<Key> = Vec::new();
    loop {
        let page = store.list(prefix, keys.last(), PAGE).await?;
        if page.is_empty() {
            return Ok(keys);
        }
        keys.extend(page);
    }
}

/// Removes a run, in the order that the module's documentation explains.
async fn remove_run<S: Store>(store: &S, run: &RunId) -> Result<(), StoreError> {
    let keys = RunKeys::new(run);
    store.remove(&layout::active(run)).await?;
    store.remove(&keys.run()).await?;
    let mut after = None;
    loop {
        let page = store.list(&keys.prefix(), after.as_ref(), PAGE).await?;
        let Some(last) = page.last().cloned() else { break };
        let rest: Vec<Key> = page.into_iter().filter(|key| *key != keys.result()).collect();
        let removals = stream::iter(rest).map(|key| async move { store.remove(&key).await });
        removals.buffer_unordered(REMOVALS).try_collect::<()>().await?;
        after = Some(last);
    }
    store.remove(&keys.result()).await
}

/// Forgets which requests became runs that are gone.
async fn forget_requests<S: Store>(store: &S, old: &Old, now: Timestamp) -> Result<(), StoreError> {
    let removed: BTreeSet<&RunId> = old.runs.iter().map(|run| &run.run).collect();
    let recent = recent(now);
    for key in all(store, "state/requests/").await? {
        let Some(object) = store.get(&key).await? else { continue };
        let Ok(run) = serde_json::from_slice::<RunId>(&object.bytes) else { continue };
        let claimed = store.get(&RunKeys::new(&run).run()).await?.is_some();
        if removed.contains(&run) || !claimed && run.time() < recent.as_str() {
            store.remove(&key).await?;
        }
    }
    Ok(())
}

/// The time before which nothing is just being claimed, as in run ids.
fn recent(now: Timestamp) -> String {
    let at = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The scripts that can go: those that only removed runs used, and those that nothing has used for [`GRACE`].
async fn scripts<S: Store>(
    runs: &Runs<S>,
    survey: &Survey,
    now: Timestamp,
    dry: bool,
) -> Result<Vec<String>, StoreError> {
    if survey.claiming || !survey.old.damaged.is_empty() {
        return Ok(Vec::new());
    }
    let Some(key) = Key::parse("state/unreferenced.json") else { return Ok(Vec::new()) };
    let (known, version) = match runs.read::<Unreferenced>(&key).await? {
        Some((known, version)) => (known, Some(version)),
        None => (Unreferenced::default(), None),
    };
    let blobs = all(runs.store(), "blobs/").await?;
    let unused = blobs.iter().filter_map(|key| key.as_str().strip_prefix("blobs/"));
    let unused = unused.filter(|sha256| !survey.used.contains(*sha256));
    let (mut gone, mut waiting) = (Vec::new(), Unreferenced::default());
    for sha256 in unused {
        let since = known.0.get(sha256).copied().unwrap_or(now);
        if survey.freed.contains(sha256) || now.duration_since(since) >= GRACE {
            gone.push(sha256.to_owned());
        } else {
            waiting.0.insert(sha256.to_owned(), since);
        }
    }
    if !dry && waiting != known {
        // Where another pruning was faster, what it knows is as good.
        let _ = match version {
            Some(version) => runs.swap(&key, &version, &waiting).await?,
            None => runs.create(&key, &waiting).await?,
        };
    }
    Ok(gone)
}
