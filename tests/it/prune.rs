use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sshjob::domain::layout::{self, Key, RunKeys};
use sshjob::domain::run::RunState;
use sshjob::domain::task::TaskState;
use sshjob::engine::ledger::{Ledger, LedgerError};
use sshjob::engine::prune::{Old, Policy, prune};
use sshjob::engine::records::Runs;
use sshjob::port::{Object, Store, StoreError, Version, Written};

use crate::support::memory::Memory;
use crate::support::tale::{Tale, start};

const OLD: &str = "hello-20261122T221500Z";
const NEW: &str = "hello-20261122T231500Z";

/// When a run is claimed that shares the script which is being removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Just before the scripts that can go are looked for.
    BeforeScripts,
    /// Just before the script is removed.
    BeforeRemoval,
    /// Just before the script is removed; and then its claim is not written yet.
    HalfBeforeRemoval,
}

/// A store in which somebody claims a run meanwhile.
#[derive(Clone)]
struct Busy {
    store: Memory,
    moment: Moment,
}

impl Busy {
    /// Claims [`NEW`] in the order in which runs are claimed.
    async fn claim(&self) {
        let tale = Tale::of(&Memory::default(), NEW, &["web-1"]).await;
        let runs = Runs::new(self.store.clone());
        let (mark, _) = tale.runs.active(&tale.run.run).await.unwrap().unwrap();
        if runs.create(&layout::active(&tale.run.run), &mark).await.unwrap() == Written::Conflict {
            return;
        }
        let blob = layout::blob(&tale.run.script.sha256);
        let bytes = tale.runs.store().get(&blob).await.unwrap().unwrap().bytes;
        assert_eq!(self.store.create(&blob, bytes).await.unwrap(), Written::Conflict, "it shares the script");
        if self.moment != Moment::HalfBeforeRemoval {
            let _ = runs.create(&RunKeys::new(&tale.run.run).run(), &*tale.run).await.unwrap();
        }
    }
}

impl Store for Busy {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        if key.as_str() == "state/unreferenced.json" && self.moment == Moment::BeforeScripts {
            self.claim().await;
        }
        self.store.get(key).await
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.store.create(key, bytes).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        self.store.swap(key, expected, bytes).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.store.list(prefix, after, limit).await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        if key.as_str().starts_with("blobs/") && self.moment != Moment::BeforeScripts {
            self.claim().await;
        }
        self.store.remove(key).await
    }
}

async fn prune_all<S: Store>(store: &S) -> Old {
    let later: Timestamp = start() + SignedDuration::from_hours(1);
    prune(&Runs::new(store.clone()), Policy { older_than: None, keep: 0 }, later, false).await.unwrap()
}

/// A run that has ended.
async fn ended(store: &Memory) -> Arc<sshjob::domain::run::RunRecord> {
    let tale = Tale::of(store, OLD, &["web-1"]).await;
    tale.ended(RunState::Skipped, None, &[TaskState::Skipped]).await;
    tale.run
}

#[tokio::test]
async fn run_that_is_marked_stays_though_it_has_ended() {
    let store = Memory::default();
    let run = ended(&store).await;
    let mark = layout::active(&run.run);
    let _ = store.create(&mark, b"{}".to_vec()).await.unwrap();
    assert_eq!(prune_all(&store).await, Old::default());
    store.remove(&mark).await.unwrap();
    assert_eq!(prune_all(&store).await.runs.len(), 1);
}

/// Cause: what people were still to be told of was pruned, and nobody was told.
#[tokio::test]
async fn run_that_people_are_still_to_be_told_of_stays() {
    let store = Memory::default();
    let run = ended(&store).await;
    let notice = layout::outbox(&run.run);
    let _ = store.create(&notice, b"{}".to_vec()).await.unwrap();
    assert_eq!(prune_all(&store).await, Old::default());
    store.remove(&notice).await.unwrap();
    assert_eq!(prune_all(&store).await.runs.len(), 1);
}

#[tokio::test]
async fn script_stays_that_a_run_shares_which_is_claimed_meanwhile() {
    for moment in [Moment::BeforeScripts, Moment::BeforeRemoval, Moment::HalfBeforeRemoval] {
        let store = Memory::default();
        let run = ended(&store).await;
        let old = prune_all(&Busy { store: store.clone(), moment }).await;
        assert_eq!((old.runs.len(), old.scripts.as_slice()), (1, &[][..]));
        assert!(store.get(&layout::blob(&run.script.sha256)).await.unwrap().is_some());
    }
}

/// Cause: who slept while others ran a batch, and the run was pruned, would have run it again.
#[tokio::test]
async fn worker_that_slept_while_its_run_was_pruned_gets_no_outcomes_to_write() {
    let store = Memory::default();
    let run = ended(&store).await;
    assert_eq!(prune_all(&store).await.runs.len(), 1);
    let woken = Ledger::open(Runs::new(store.clone()), &run.run, 0, 1, "nonce").await;
    assert!(matches!(woken, Err(LedgerError::Fenced)));
}
