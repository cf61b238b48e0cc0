//! The store of a simulated world: one for all of its processes, slow, and unreliable towards each of them.

use std::io;

use sshjob::domain::firing::{Cursor, JobState};
use sshjob::domain::id::RunId;
use sshjob::domain::layout::Key;
use sshjob::domain::run::Outcomes;
use sshjob::port::{Object, Store, StoreError, Version, Written};

use super::{Process, State};

/// The store as one process sees it.
#[derive(Clone)]
pub(crate) struct SimStore(pub(crate) Process);

/// What kind of object a key names: the steps between which a process may die.
fn kind(key: &Key) -> String {
    let last = key.as_str().rsplit('/').next().unwrap_or_default();
    match key.as_str().split('/').next().unwrap_or_default() {
        "runs" if last.ends_with(".targets.json") => "targets".to_owned(),
        "runs" if last.rsplit('.').next() == Some("claim") => "claim".to_owned(),
        "runs" if last.starts_with(|c: char| c.is_ascii_digit()) => "outcomes".to_owned(),
        "runs" => last.to_owned(),
        "state" if last == "cursor.json" => "cursor".to_owned(),
        other => other.to_owned(),
    }
}

/// What is decided of a call before it is made.
enum Luck {
    Good,
    /// It fails, and nothing is done.
    FailsBefore,
    /// It is done, and yet it fails.
    FailsAfter,
    DiesBefore,
    DiesAfter,
}

impl SimStore {
    async fn begin(&self) {
        self.0.live_on().await;
        self.0.world.pause(20).await;
        self.0.live_on().await;
    }

    fn luck(&self, step: &str, key: &Key) -> Luck {
        let mut state = self.0.world.state();
        let name = |what: &str| format!("{what} {step} {}", kind(key));
        if state.strikes(3, || name("died before")) {
            Luck::DiesBefore
        } else if state.strikes(3, || name("died after")) {
            Luck::DiesAfter
        } else if state.strikes(2, || name("failed before")) {
            Luck::FailsBefore
        } else if state.strikes(2, || name("failed after")) {
            Luck::FailsAfter
        } else {
            Luck::Good
        }
    }

    async fn write(
        &self,
        step: &'static str,
        key: &Key,
        apply: impl FnOnce(&mut State) -> Written,
    ) -> Result<Written, StoreError> {
        self.begin().await;
        let failed = || StoreError::Unavailable {
            action: step,
            at: key.to_string(),
            source: io::Error::other("a fault of the simulation"),
        };
        let luck = self.luck(step, key);
        match luck {
            Luck::DiesBefore => self.0.kill(),
            Luck::FailsBefore => return Err(failed()),
            Luck::Good | Luck::FailsAfter | Luck::DiesAfter => {}
        }
        self.0.live_on().await;
        let written = apply(&mut self.0.world.state());
        if matches!(luck, Luck::DiesAfter) {
            self.0.kill();
        }
        self.0.world.pause(20).await;
        self.0.live_on().await;
        if matches!(luck, Luck::FailsAfter) { Err(failed()) } else { Ok(written) }
    }
}

impl State {
    fn put(&mut self, key: &Key, bytes: Vec<u8>, now: jiff::Timestamp) -> Written {
        self.watch(key, &bytes, now);
        self.last_version += 1;
        let version = self.last_version;
        self.objects.insert(key.to_string(), (bytes, version));
        Written::Done(Version(version.to_string()))
    }

    /// Looks at what is written: what was decided, and whether anything is that must never be.
    fn watch(&mut self, key: &Key, bytes: &[u8], now: jiff::Timestamp) {
        match kind(key).as_str() {
            "state" => {
                let Ok(state) = serde_json::from_slice::<JobState>(bytes) else { return };
                let Some(decided) = state.decided else { return };
                let job = key.as_str().rsplit('/').next().unwrap().trim_end_matches(".json").parse().unwrap();
                let known = self.decisions.entry(job).or_default();
                if known.last().is_some_and(|last| decided.until < last.until) {
                    self.violations.push(format!("{key}: {} was decided after {:?}", decided.at, known.last()));
                }
                match known.last_mut() {
                    Some(last) if last.at == decided.at => *last = decided,
                    _ => known.push(decided),
                }
            }
            "cursor" => {
                let cursor: Cursor = serde_json::from_slice(bytes).unwrap();
                self.first_cursor.get_or_insert(cursor.ticked);
            }
            "result.json" => {
                let run: RunId = key.as_str().split('/').nth(2).unwrap().parse().unwrap();
                self.verdicts.insert(run, now);
            }
            "outcomes" => {
                let new: Outcomes = serde_json::from_slice(bytes).unwrap();
                let old = self.outcomes.get(key.as_str()).map(|old| &old.tasks).into_iter().flatten();
                for (instance, record) in old.filter(|(_, record)| record.state.is_final()) {
                    if new.tasks.get(instance) != Some(record) {
                        self.violations.push(format!("{key}: the final record of {instance} has changed"));
                    }
                }
                self.outcomes.insert(key.to_string(), new);
            }
            _ => {}
        }
    }
}

impl Store for SimStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.begin().await;
        let mut state = self.0.world.state();
        if state.strikes(1, || "failed to read".to_owned()) {
            let source = io::Error::other("a fault of the simulation");
            return Err(StoreError::Unavailable { action: "read", at: key.to_string(), source });
        }
        let found = state.objects.get(key.as_str());
        Ok(found.map(|(bytes, version)| Object { bytes: bytes.clone(), version: Version(version.to_string()) }))
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let now = self.0.world.now();
        let create = |state: &mut State| {
            if state.objects.contains_key(key.as_str()) { Written::Conflict } else { state.put(key, bytes, now) }
        };
        self.write("create", key, create).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let now = self.0.world.now();
        let swap = |state: &mut State| match state.objects.get(key.as_str()) {
            Some((_, version)) if version.to_string() == expected.0 => state.put(key, bytes, now),
            _ => Written::Conflict,
        };
        self.write("swap", key, swap).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.begin().await;
        let state = self.0.world.state();
        let keys =
            state.objects.range(prefix.to_owned()..).map(|(key, _)| key).take_while(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after.as_str()));
        Ok(keys.take(limit).map(|key| Key::parse(key).unwrap()).collect())
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let remove = |state: &mut State| {
            state.objects.remove(key.as_str());
            Written::Conflict
        };
        self.write("remove", key, remove).await.map(drop)
    }
}
