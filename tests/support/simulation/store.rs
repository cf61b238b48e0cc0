//! The store of a simulated world: one for all of its processes, slow, and unreliable towards each of them.

use std::collections::BTreeSet;
use std::io;

use sshjob::domain::cursor::Cursor;
use sshjob::domain::firing::{Decided, Fate, JobState};
use sshjob::domain::id::{JobName, RunId};
use sshjob::domain::layout::Key;
use sshjob::domain::run::{Control, Outcomes};
use sshjob::domain::task::TaskState;
use sshjob::port::{Object, Store, StoreError, Version, Written};
use tokio::time::Instant;

use super::{Decision, Process, State};

/// The store as one process sees it.
#[derive(Clone)]
pub(crate) struct SimStore(pub(crate) Process);

/// A kind of write: what is done, and to what kind of object. Between two of them a process may die.
pub(crate) type Step = (&'static str, &'static str);

/// What kind of object a key names.
pub(crate) fn kind(key: &str) -> &'static str {
    let (folder, rest) = key.split_once('/').unwrap();
    let (_, last) = key.rsplit_once('/').unwrap();
    match folder {
        "active" => "active",
        "blobs" => "blobs",
        "outbox" => "outbox",
        "state" if rest.starts_with("jobs/") => "state",
        "state" if rest.starts_with("requests/") => "requests",
        "state" if last == "cursor.json" => "cursor",
        "state" if last == "unreferenced.json" => "unreferenced",
        "runs" if last.ends_with(".targets.json") => "targets",
        "runs" if last.rsplit_once('.').is_some_and(|(_, ending)| ending == "claim") => "claim",
        "runs" if last.starts_with("selected.") => "selected",
        "runs" if last.starts_with(|c: char| c.is_ascii_digit()) => "outcomes",
        "runs" if last == "run.json" => "run.json",
        "runs" if last == "plan.json" => "plan.json",
        "runs" if last == "control.json" => "control.json",
        "runs" if last == "result.json" => "result.json",
        "runs" if last == "told.json" => "told.json",
        "runs" if last == "trouble.json" => "trouble.json",
        _ => panic!("nobody has said yet what `{key}` is, and what may go wrong when it is written"),
    }
}

/// How often something goes wrong with a write: what is written seldom fails the more often, so that every write is cut
/// off in some world.
pub(crate) fn often(step: &str, kind: &str) -> usize {
    match (step, kind) {
        ("remove", kind) if kind != "active" => 8,
        (_, "active" | "claim" | "outcomes" | "targets") => 1,
        _ => 4,
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

    fn luck(&self, step: &'static str, key: &Key) -> Luck {
        let mut state = self.0.world.state();
        let kind = kind(key.as_str());
        let name = |what: &str| format!("{what} {step} {kind}");
        let often = often(step, kind);
        if !state.is_calm {
            *state.steps.entry((step, kind)).or_default() += 1;
        }
        if state.strikes(3 * often, || name("died before")) {
            Luck::DiesBefore
        } else if state.strikes(3 * often, || name("died after")) {
            Luck::DiesAfter
        } else if state.strikes(2 * often, || name("failed before")) {
            Luck::FailsBefore
        } else if state.strikes(2 * often, || name("failed after")) {
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
        let stall = {
            let mut state = self.0.world.state();
            state.strikes(1, || "stalled".to_owned()).then(|| state.rng.below(300_000))
        };
        if let Some(stall) = stall {
            self.0.stall(stall);
        }
        let failed = || StoreError::Unavailable {
            action: step,
            at: key.to_string(),
            source: io::Error::other("a fault of the simulation"),
        };
        let luck = self.luck(step, key);
        if !matches!(luck, Luck::Good) {
            self.0.fault();
        }
        match luck {
            Luck::DiesBefore => self.0.kill(),
            Luck::FailsBefore => return Err(failed()),
            Luck::Good | Luck::FailsAfter | Luck::DiesAfter => {}
        }
        self.0.live_on().await;
        let written = apply(&mut self.0.world.state());
        self.0.world.tell(|| {
            let object =
                self.0.world.state().objects.get(key.as_str()).map(|(bytes, _)| bytes.clone()).unwrap_or_default();
            format!("{step} {key}: {written:?} {}", String::from_utf8_lossy(&object).trim_end())
        });
        if matches!(luck, Luck::DiesAfter) {
            self.0.kill();
        }
        self.0.world.pause(20).await;
        self.0.live_on().await;
        if matches!(luck, Luck::FailsAfter) { Err(failed()) } else { Ok(written) }
    }
}

impl State {
    fn put(&mut self, key: &Key, bytes: Vec<u8>, writer: &Process) -> Written {
        self.watch(key, &bytes, writer);
        self.last_version += 1;
        let version = self.last_version;
        self.objects.insert(key.to_string(), (bytes, version));
        Written::Done(Version(version.to_string()))
    }

    /// Looks at what is written: what was decided, and whether anything is that must never be.
    fn watch(&mut self, key: &Key, bytes: &[u8], writer: &Process) {
        match kind(key.as_str()) {
            "state" => {
                let job = key.as_str().strip_prefix("state/jobs/").and_then(|name| name.strip_suffix(".json"));
                let Some(job) = job.map(|job| job.parse::<JobName>().unwrap()) else { return };
                self.watch_decisions(&job, serde_json::from_slice(bytes).unwrap(), writer);
            }
            "cursor" => {
                if writer.is_mad() {
                    return;
                }
                let cursor: Cursor = serde_json::from_slice(bytes).unwrap();
                let may_be_set_back = self.has_mad_clock();
                for job in cursor.known.iter().chain(cursor.behind.keys()) {
                    let since = cursor.of(job).unwrap();
                    let first = self.known_since.entry(job.clone()).or_insert(since);
                    // What a clock found first that was an hour ahead is decided from there on, although the cursor may be
                    // set back for the sake of one that was days ahead.
                    if !may_be_set_back {
                        *first = since.min(*first);
                    }
                }
            }
            "run.json" if self.pruned.contains_key(key.as_str()) => {
                self.ghosts.insert(key.as_str().split('/').nth(2).unwrap().parse().unwrap());
                self.hit("claimed again after it was pruned".to_owned());
            }
            "result.json" => {
                let run: RunId = key.as_str().split('/').nth(2).unwrap().parse().unwrap();
                // Of one that was pruned, who slept may write it again.
                self.verdicts.entry(run).or_insert_with(|| writer.world.now());
            }
            "outcomes" if self.is_removed(key) => {
                // Whoever slept until its run was pruned finds out when it has its outcomes, and writes nothing into them.
                if !serde_json::from_slice::<Outcomes>(bytes).unwrap().tasks.is_empty() {
                    self.violations.push(format!("{key}: it was written after its run was pruned"));
                }
                self.hit("outcomes of a run that was pruned".to_owned());
            }
            "outcomes" if self.watches_tasks => {
                self.watch_outcomes(key, serde_json::from_slice(bytes).unwrap(), writer);
            }
            "control.json" => {
                let control: Control = serde_json::from_slice(bytes).unwrap();
                let run: RunId = key.as_str().split('/').nth(2).unwrap().parse().unwrap();
                if control.paused && !control.cancelled {
                    self.paused.entry(run).or_insert_with(Instant::now);
                } else {
                    self.paused.remove(&run);
                }
            }
            _ => {}
        }
    }
}

impl State {
    /// Looks at what has become of the tasks of a batch.
    fn watch_outcomes(&mut self, key: &Key, new: Outcomes, writer: &Process) {
        let run: RunId = key.as_str().split('/').nth(2).unwrap().parse().unwrap();
        let old = self.outcomes.get(key.as_str()).map(|old| &old.tasks);
        let is_over = |instance| old.and_then(|old| old.get(instance)).is_some_and(|task| task.state.is_final());
        for (instance, record) in &new.tasks {
            let counts = record.state.is_final()
                && !matches!(record.state, TaskState::Succeeded | TaskState::Skipped | TaskState::Cancelled);
            if counts && !is_over(instance) {
                self.errors.entry(run.clone()).or_default().push(writer.world.now());
            }
        }
        for (instance, record) in old.into_iter().flatten().filter(|(_, record)| record.state.is_final()) {
            if new.tasks.get(instance) != Some(record) {
                self.violations.push(format!("{key}: the final record of {instance} has changed"));
            }
        }
        self.outcomes.insert(key.to_string(), new);
    }

    /// Looks at what was decided of a job.
    fn watch_decisions(&mut self, job: &JobName, state: JobState, writer: &Process) {
        let is_mad = writer.is_mad();
        let before = self.job_states.insert(job.clone(), state.clone()).unwrap_or_default();
        let Some(decided) = state.decided else { return };
        // A run that somebody asks for joins those of the firings, and decides nothing.
        let of_firing = RunId::of_firing(job, decided.at);
        let is_new = |run: &RunId| *run == of_firing && !before.active.contains(run);
        if state.active.iter().collect::<BTreeSet<_>>().len() < state.active.len() {
            self.violations.push(format!("{job}: a run is active twice: {:?}", state.active));
        }
        let known = self.decisions.entry(job.clone()).or_default();
        if let Some(last) = &before.decided {
            if *last == decided && !state.active.iter().any(is_new) {
                return;
            }
            let is_same = Decided { until: decided.until, ..last.clone() } == decided;
            if let (Some(longer), Fate::Skip(_), true) =
                (known.last_mut(), &decided.fate, is_same && last.until < decided.until)
            {
                longer.is_mad |= is_mad;
                longer.decided = decided;
                return;
            }
            if decided.until < last.until && !is_mad && !known.last().is_some_and(|last| last.is_mad) {
                self.violations.push(format!("{job}: {} was decided after {last:?}", decided.at));
            }
        }
        let (since, now) = (writer.ticking_since(), writer.world.clock(writer.ahead).now());
        known.push(Decision { decided, is_alone: state.active.len() <= 1, is_mad, since, now });
    }

    /// Whether the run that `key` is of was pruned, and not claimed again since.
    fn is_removed(&self, key: &Key) -> bool {
        let (run, _) = key.as_str().split_once("/batches/").unwrap();
        let claim = format!("{run}/run.json");
        self.pruned.contains_key(&claim) && !self.objects.contains_key(&claim)
    }

    /// Keeps what there is of a run that is being pruned.
    fn keep_run(&mut self, claim: &Key) {
        let prefix = claim.as_str().trim_end_matches("run.json").to_owned();
        let of_run = self.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let of_run: Vec<_> = of_run.map(|(key, (bytes, _))| (key.clone(), bytes.clone())).collect();
        self.pruned.extend(of_run);
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
        let create = |state: &mut State| {
            if state.objects.contains_key(key.as_str()) { Written::Conflict } else { state.put(key, bytes, &self.0) }
        };
        self.write("create", key, create).await
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let swap = |state: &mut State| match state.objects.get(key.as_str()) {
            Some((_, version)) if version.to_string() == expected.0 => state.put(key, bytes, &self.0),
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
            if kind(key.as_str()) == "run.json" {
                state.keep_run(key);
            }
            state.objects.remove(key.as_str());
            Written::Conflict
        };
        self.write("remove", key, remove).await.map(drop)
    }
}
