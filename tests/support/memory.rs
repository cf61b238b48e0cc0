//! A store in memory: deterministic, with faults where a test wants them.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sshjob::domain::layout::Key;
use sshjob::port::{Object, Store, StoreError, Version, Written};
use tokio::sync::watch;
use tokio::time::Instant;

/// What happens at a chosen write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing is written.
    ErrorBefore,
    /// It is written, and yet the caller is told that it failed.
    ErrorAfter,
    /// The caller's machine dies before the write.
    CrashBefore,
    /// The caller's machine dies after the write.
    CrashAfter,
}

/// A write as the store saw it, refused ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A conditional create.
    Create(Key),
    /// A compare-and-swap.
    Swap(Key),
    /// A removal.
    Remove(Key),
}

/// One machine's view of a store in memory. Clones are the same machine; [`Memory::reboot`] is another one.
#[derive(Debug, Clone)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
    machine: Arc<Mutex<Machine>>,
    crashed: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct Shared {
    objects: BTreeMap<String, (Vec<u8>, u64)>,
    /// Versions are never used twice, also for equal contents.
    last_version: u64,
}

#[derive(Debug, Default)]
struct Machine {
    writes: Vec<Write>,
    /// Faults by the number of the write, from 1.
    faults: BTreeMap<usize, Fault>,
    /// A fault at the next write whose key contains this.
    fault_at: Option<(&'static str, Fault)>,
    /// How many calls there were, reads included.
    calls: usize,
    /// From which call on, counted from 1, nothing answers, and for how long.
    outage: Option<(usize, Duration)>,
    down_until: Option<Instant>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::on(Arc::default())
    }
}

impl Memory {
    fn on(shared: Arc<Mutex<Shared>>) -> Self {
        Self { shared, machine: Arc::default(), crashed: Arc::new(watch::Sender::new(false)) }
    }

    /// The same objects, seen from a machine that is alive, has written nothing and expects no fault.
    pub fn reboot(&self) -> Self {
        Self::on(Arc::clone(&self.shared))
    }

    /// Makes the `n`-th write (from 1) of this machine go wrong.
    #[must_use]
    pub fn with_fault(self, n: usize, fault: Fault) -> Self {
        self.machine.lock().unwrap().faults.insert(n, fault);
        self
    }

    /// Makes the first write of this machine whose key contains `part` go wrong: the number of a write differs from run
    /// to run where things happen side by side.
    #[must_use]
    pub fn with_fault_at(self, part: &'static str, fault: Fault) -> Self {
        self.machine.lock().unwrap().fault_at = Some((part, fault));
        self
    }

    /// Lets this machine find the store unavailable from its `n`-th call (from 1) on, for so long.
    #[must_use]
    pub fn with_outage(self, n: usize, lasts: Duration) -> Self {
        self.machine.lock().unwrap().outage = Some((n, lasts));
        self
    }

    /// Whether the outage has begun.
    pub fn has_been_down(&self) -> bool {
        self.machine.lock().unwrap().down_until.is_some()
    }

    /// Ends this machine now.
    pub fn crash(&self) {
        self.crashed.send_replace(true);
    }

    /// The writes that this machine has attempted so far.
    pub fn writes(&self) -> Vec<Write> {
        self.machine.lock().unwrap().writes.clone()
    }

    /// How many calls this machine has made so far, reads included.
    pub fn calls(&self) -> usize {
        self.machine.lock().unwrap().calls
    }

    /// Everything that is stored, in order.
    pub fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let shared = self.shared.lock().unwrap();
        shared.objects.iter().map(|(key, (bytes, _))| (key.clone(), bytes.clone())).collect()
    }

    /// Waits for this machine's crash. No call of a crashed machine ever returns: race the code under test against
    /// this, and drop it, as a crash would.
    pub async fn crashed(&self) {
        // The sender lives as long as `self`.
        let _ = self.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Begins a call.
    async fn begin(&self, action: &'static str, at: &str) -> Result<(), StoreError> {
        if *self.crashed.borrow() {
            pending::<()>().await;
        }
        let mut machine = self.machine.lock().unwrap();
        machine.calls += 1;
        if let Some((n, lasts)) = machine.outage
            && machine.calls == n
        {
            machine.down_until = Some(Instant::now() + lasts);
        }
        if machine.down_until.is_some_and(|until| Instant::now() < until) {
            let source = io::Error::other("503 Slow Down");
            return Err(StoreError::Unavailable { action, at: at.to_owned(), source });
        }
        Ok(())
    }

    /// Does one write, together with the fault that is due for it.
    async fn write<T>(&self, write: Write, work: impl FnOnce(&mut Shared) -> T) -> Result<T, StoreError> {
        let (Write::Create(key) | Write::Swap(key) | Write::Remove(key)) = write.clone();
        self.begin("write", key.as_str()).await?;
        let fault = {
            let mut machine = self.machine.lock().unwrap();
            machine.writes.push(write);
            let n = machine.writes.len();
            let here = machine.fault_at.take_if(|(part, _)| key.as_str().contains(*part));
            machine.faults.get(&n).copied().or(here.map(|(_, fault)| fault))
        };
        let before = matches!(fault, Some(Fault::ErrorBefore | Fault::CrashBefore));
        let done = (!before).then(|| work(&mut self.shared.lock().unwrap()));
        if matches!(fault, Some(Fault::CrashBefore | Fault::CrashAfter)) {
            self.crashed.send_replace(true);
            pending::<()>().await;
        }
        match (done, fault) {
            (Some(done), None) => Ok(done),
            _ => Err(StoreError::Unavailable {
                action: "write",
                at: key.to_string(),
                source: io::Error::other("injected by the test"),
            }),
        }
    }
}

impl Shared {
    fn put(&mut self, key: &Key, bytes: Vec<u8>) -> Written {
        self.last_version += 1;
        self.objects.insert(key.to_string(), (bytes, self.last_version));
        Written::Done(Version(self.last_version.to_string()))
    }
}

impl Store for Memory {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.begin("read", key.as_str()).await?;
        let shared = self.shared.lock().unwrap();
        let object = shared.objects.get(key.as_str());
        Ok(object.map(|(bytes, version)| Object { bytes: bytes.clone(), version: Version(version.to_string()) }))
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let create = |shared: &mut Shared| {
            if shared.objects.contains_key(key.as_str()) { Written::Conflict } else { shared.put(key, bytes) }
        };
        self.write(Write::Create(key.clone()), create).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let swap = |shared: &mut Shared| match shared.objects.get(key.as_str()) {
            Some((_, version)) if version.to_string() == expected.0 => shared.put(key, bytes),
            _ => Written::Conflict,
        };
        self.write(Write::Swap(key.clone()), swap).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.begin("list", prefix).await?;
        let shared = self.shared.lock().unwrap();
        let keys = shared.objects.keys().filter(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after.as_str()));
        Ok(keys.take(limit).filter_map(|key| Key::parse(key)).collect())
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let remove = |shared: &mut Shared| {
            shared.objects.remove(key.as_str());
        };
        self.write(Write::Remove(key.clone()), remove).await
    }
}
