//! A store that kills its own process with SIGKILL at a chosen write: a crash at an exact step.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sshjob::domain::layout::Key;
use sshjob::port::{Object, Store, StoreError, Version, Written};

/// When to die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Just before this write.
    Before(At),
    /// Just after it.
    After(At),
}

/// One of the writes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// The n-th, from 1: which one that is differs from run to run.
    Nth(usize),
    /// The first whose key contains this.
    Key(String),
}

/// As in `before:3` and `after:result.json`.
impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (when, at) = text.split_once(':').ok_or_else(|| text.to_owned())?;
        let at = at.parse().map_or_else(|_| At::Key(at.to_owned()), At::Nth);
        match when {
            "before" => Ok(Self::Before(at)),
            "after" => Ok(Self::After(at)),
            _ => Err(text.to_owned()),
        }
    }
}

impl At {
    fn is(&self, n: usize, key: &Key) -> bool {
        match self {
            Self::Nth(nth) => *nth == n,
            Self::Key(part) => key.as_str().contains(part),
        }
    }
}

/// A store in front of another.
#[derive(Debug, Clone)]
pub(crate) struct Killer<S> {
    inner: S,
    moment: Moment,
    writes: Arc<AtomicUsize>,
}

impl<S> Killer<S> {
    /// Kills the process at `moment`.
    pub(crate) fn new(inner: S, moment: Moment) -> Self {
        Self { inner, moment, writes: Arc::default() }
    }

    fn begin(&self, what: &str, key: &Key) -> usize {
        let n = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if matches!(&self.moment, Moment::Before(at) if at.is(n, key)) {
            die(&format!("before {what} {key}"));
        }
        n
    }

    fn end(&self, n: usize, what: &str, key: &Key) {
        if matches!(&self.moment, Moment::After(at) if at.is(n, key)) {
            die(&format!("after {what} {key}"));
        }
    }
}

fn die(step: &str) {
    eprintln!("killed {step}");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    // The signal arrives before any other instruction of this thread that matters.
    loop {
        std::thread::park();
    }
}

impl<S: Store> Store for Killer<S> {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let n = self.begin("create", key);
        let written = self.inner.create(key, bytes).await;
        self.end(n, "create", key);
        written
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let n = self.begin("swap", key);
        let written = self.inner.swap(key, expected, bytes).await;
        self.end(n, "swap", key);
        written
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let n = self.begin("remove", key);
        let removed = self.inner.remove(key).await;
        self.end(n, "remove", key);
        removed
    }
}
