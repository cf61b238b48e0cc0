use std::sync::Arc;
use std::time::Duration;

use sshjob::domain::layout::RunKeys;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::ledger::Ledger;
use sshjob::engine::records::Runs;
use tokio::time::Instant;

use crate::support::memory::{Memory, Write};
use crate::support::tale::Tale;

/// Two batches of a tale share its hosts: the first has the first half.
const HOSTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn intent() -> TaskRecord {
    TaskRecord { attempt: 1, state: TaskState::Running, ..TaskRecord::pending() }
}

fn end() -> TaskRecord {
    TaskRecord { state: TaskState::Succeeded, ..intent() }
}

struct Book {
    store: Memory,
    ledger: Ledger,
}

impl Book {
    async fn open() -> Arc<Self> {
        let store = Memory::default();
        let tale = Tale::of(&store, "hello-20261122T221500Z", &HOSTS).await;
        let (ledger, known) = Ledger::open(Runs::new(store.clone()), &tale.run.run, 0, 3, "n").await.unwrap();
        assert!(known.is_empty());
        Arc::new(Self { store, ledger })
    }

    /// Records after so many milliseconds; returns how many after the call it was written.
    async fn record(self: Arc<Self>, after: u64, host: &str, record: TaskRecord) -> u128 {
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(after)).await;
        let kept = self.ledger.record(&host.parse().unwrap(), record.clone()).await.unwrap();
        assert_eq!(kept, record);
        begun.elapsed().as_millis()
    }

    fn swaps(&self) -> usize {
        let key = RunKeys::new(&"hello-20261122T221500Z".parse().unwrap()).outcomes(0);
        self.store.writes().into_iter().filter(|write| *write == Write::Swap(key.clone())).count()
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_soon_after_another_is_written_with_it() {
    let book = Book::open().await;
    let record = |after, host, record| Arc::clone(&book).record(after, host, record);
    // The first intent waits for nobody, the next for a moment after it.
    assert_eq!(tokio::join!(record(0, "a", intent()), record(0, "b", intent()), record(1, "c", intent())), (0, 0, 40));
    let before = book.swaps();
    // Nobody else ends in that time.
    assert_eq!(record(0, "a", end()).await, 40);
    // The last one has nobody to wait for, and takes who waits along.
    assert_eq!(tokio::join!(record(0, "b", end()), record(20, "c", end())), (20, 20));
    assert_eq!(book.swaps(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn intent_after_a_pause_waits_for_nothing_and_takes_along_who_does() {
    let book = Book::open().await;
    let record = |after, host, record| Arc::clone(&book).record(after, host, record);
    assert_eq!(record(0, "a", intent()).await, 0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = book.swaps();
    assert_eq!(tokio::join!(record(0, "a", end()), record(10, "b", intent())), (10, 10));
    assert_eq!(book.swaps(), before + 1);
    // Who runs without us is nobody to wait for.
    let confirmed = TaskRecord { confirmed: true, ..intent() };
    assert_eq!(tokio::join!(record(0, "b", confirmed), record(10, "c", end())), (10, 10));
    assert_eq!(book.swaps(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn ends_that_wait_are_written_when_the_batch_is_dropped() {
    let book = Book::open().await;
    let record = |host, record| Arc::clone(&book).record(0, host, record);
    tokio::join!(record("a", intent()), record("b", intent()));
    let before = book.swaps();
    let waiting = tokio::spawn(record("a", end()));
    tokio::time::sleep(Duration::from_millis(10)).await;
    waiting.abort();
    drop(waiting);
    drop(book.clone());
    let store = book.store.clone();
    drop(book);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let swaps = store.writes().into_iter().filter(|write| matches!(write, Write::Swap(_))).count();
    assert_eq!(swaps, before + 1);
}
