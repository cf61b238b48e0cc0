//! A run as its records tell it, written without running anything; and a console that remembers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use sshjob::adapter::process;
use sshjob::cli::output::console::Console;
use sshjob::domain::id::{InstanceId, RunId};
use sshjob::domain::job::Source;
use sshjob::domain::layout::{self, RunKeys, Stream};
use sshjob::domain::run::{
    Active, BatchTargets, Carrier, Claim, Holder, Outcomes, Plan, RunRecord, RunState, SCHEMA, Target, Verdict,
};
use sshjob::domain::script::{ScriptRef, sha256_hex};
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::event::{Event, Head};
use sshjob::engine::records::Runs;
use sshjob::port::{Store, Written};

use super::memory::Memory;

/// When every tale begins.
pub fn start() -> Timestamp {
    "2026-11-22T22:15:00Z".parse().unwrap()
}

/// The process that started this one: seen to run, so that it is believed to be at work on whatever day the tests run.
fn whoever_tests() -> Holder {
    let pid = std::os::unix::process::parent_id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let started = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    Holder { pid, started, ..process::this().unwrap() }
}

/// A run of two batches at most, of which a test tells what it needs.
#[derive(Clone)]
pub struct Tale {
    pub runs: Runs<Memory>,
    pub run: Arc<RunRecord>,
    pub targets: Vec<Arc<Target>>,
}

impl Tale {
    /// A run that is claimed and planned on `hosts`, and marked as driven by a process that lives for ever.
    pub async fn of(store: &Memory, id: &str, hosts: &[&str]) -> Self {
        let tale = Self::claimed(store, id, hosts).await;
        let keys = RunKeys::new(&tale.run.run);
        let targets: Vec<Target> = tale.targets.iter().map(|target| (**target).clone()).collect();
        let (first, second) = targets.split_at(targets.len().div_ceil(2));
        for (n, batch) in [(0, first), (1, second)] {
            tale.write(&keys.targets(n), &BatchTargets { targets: batch.to_vec() }).await;
        }
        let sizes = [first.len(), second.len()].map(|size| u32::try_from(size).unwrap());
        let plan =
            Plan { batches: sizes.to_vec(), waves: vec![(0, 2)], max_concurrency: 10, max_errors: None, sealed: None };
        tale.write(&keys.plan(), &plan).await;
        tale
    }

    /// A run that is claimed, not planned.
    pub async fn claimed(store: &Memory, id: &str, hosts: &[&str]) -> Self {
        Self::claimed_at(store, id, hosts, start()).await
    }

    /// A run that was claimed then.
    pub async fn claimed_at(store: &Memory, id: &str, hosts: &[&str], started_at: Timestamp) -> Self {
        let run: RunId = id.parse().unwrap();
        let script = b"#!/bin/sh\necho hello\n";
        let mut job = super::rig::job(Source::Run("echo hello".to_owned()));
        job.name = run.job();
        job.retries.attempts = 2;
        let record = RunRecord {
            schema: SCHEMA.to_owned(),
            run: run.clone(),
            job,
            script: ScriptRef { sha256: sha256_hex(script), bytes: script.len() as u64, origin: "run".to_owned() },
            actor: "alice".to_owned(),
            retry_of: None,
            scheduled_for: None,
            started_at,
            plan_before: start(),
            carrier: Carrier::Caller,
            instance: None,
            skipped: None,
        };
        let targets = hosts.iter().map(|host| Arc::new(target(host))).collect();
        let tale = Self { runs: Runs::new(store.clone()), run: Arc::new(record), targets };
        let _ = store.create(&layout::blob(&tale.run.script.sha256), script.to_vec()).await.unwrap();
        let driver = Claim { nonce: "n".to_owned(), expires_at: start(), holder: Some(whoever_tests()), turn: 0 };
        tale.write(&layout::active(&run), &Active { driver: Some(driver), wave: None }).await;
        tale.write(&RunKeys::new(&run).run(), &*tale.run).await;
        tale
    }

    async fn write<T: serde::Serialize + Sync>(&self, key: &layout::Key, record: &T) {
        assert!(matches!(self.runs.create(key, record).await.unwrap(), Written::Done(_)), "{key} exists");
    }

    /// Writes what has become of tasks.
    pub async fn outcomes(&self, tasks: &[(&str, TaskRecord)]) {
        let half = self.targets.len().div_ceil(2);
        for (n, batch) in [(0, &self.targets[..half]), (1, &self.targets[half..])] {
            let here = |host: &str| batch.iter().any(|target| target.instance.as_str() == host);
            let told = tasks.iter().filter(|(host, _)| here(host));
            let tasks: BTreeMap<InstanceId, TaskRecord> =
                told.map(|(host, record)| (host.parse().unwrap(), record.clone())).collect();
            let outcomes = Outcomes { owner: "n".to_owned(), tasks };
            self.write(&RunKeys::new(&self.run.run).outcomes(n), &outcomes).await;
        }
    }

    /// Writes pieces of output, each at its offset.
    pub async fn output(&self, host: &str, attempt: u32, stream: Stream, pieces: &[(u64, &[u8])]) {
        for (offset, bytes) in pieces {
            let key = RunKeys::new(&self.run.run).output(&host.parse().unwrap(), attempt, stream, *offset);
            let _ = self.runs.store().create(&key, bytes.to_vec()).await.unwrap();
        }
    }

    /// Writes the verdict over tasks in these states, and takes the run's mark away.
    pub async fn ended(&self, state: RunState, reason: Option<&str>, states: &[TaskState]) -> Verdict {
        let verdict = verdict(state, reason, states);
        self.write(&RunKeys::new(&self.run.run).result(), &verdict).await;
        self.runs.store().remove(&layout::active(&self.run.run)).await.unwrap();
        verdict
    }

    /// The task on `host` has finished, and its event brings all of its output.
    pub fn finished(&self, host: &str, record: TaskRecord, stdout: &[u8], stderr: &[u8]) -> Event {
        let head = |bytes: &[u8]| Head { bytes: bytes.to_vec(), complete: true };
        let mut record = record;
        (record.stdout_bytes, record.stderr_bytes) = (stdout.len() as u64, stderr.len() as u64);
        let target = self.targets.iter().find(|target| target.instance.as_str() == host).unwrap();
        Event::TaskFinished { target: Arc::clone(target), record, stdout: head(stdout), stderr: head(stderr) }
    }

    /// The run has started.
    pub fn started(&self) -> Event {
        Event::Started { run: Arc::clone(&self.run), targets: u32::try_from(self.targets.len()).unwrap() }
    }
}

/// A verdict 3.2 seconds after the start.
pub fn verdict(state: RunState, reason: Option<&str>, states: &[TaskState]) -> Verdict {
    let finished_at = start() + SignedDuration::from_millis(3200);
    let counts = states.iter().copied().collect();
    Verdict { state, reason: reason.map(str::to_owned), counts, began_at: Some(start()), finished_at }
}

fn target(host: &str) -> Target {
    Target {
        instance: host.parse().unwrap(),
        account: "local".to_owned(),
        region: "local".to_owned(),
        name: None,
        address: Some("127.0.1.1".to_owned()),
        address_kind: None,
        port: 22,
        user: "deploy".to_owned(),
        jump: None,
        keys: Vec::new(),
    }
}

/// A task that ran 0.2 seconds and ended in `state`; one that failed did so with status 1.
pub fn ran(state: TaskState) -> TaskRecord {
    TaskRecord {
        state,
        exit_code: match state {
            TaskState::Succeeded => Some(0),
            TaskState::Failed => Some(1),
            _ => None,
        },
        attempt: 1,
        started_at: Some(start()),
        finished_at: state.is_final().then(|| start() + SignedDuration::from_millis(200)),
        ..TaskRecord::pending()
    }
}

/// A task that never started, because of `reason`.
pub fn never(state: TaskState, reason: &str) -> TaskRecord {
    TaskRecord::pending().ended(state, reason, start())
}

/// Everything that was written to one stream.
#[derive(Debug, Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// It as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A console whose streams are remembered: standard output and standard error.
pub fn console(terminal: bool) -> (Console, Captured, Captured) {
    let (out, err) = (Captured::default(), Captured::default());
    (Console::with(out.clone(), err.clone(), terminal), out, err)
}
