//! The trigger and the worker, as functions of events, on real sshd hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sshjob::domain::id::RunId;
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::notify::Channel;
use sshjob::domain::job::{Job, Notify};
use sshjob::domain::layout::{self, Key, RunKeys, Stream};
use sshjob::domain::notice::Notice;
use sshjob::domain::order::{Action, Order};
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::{Clock, Simulated};
use sshjob::engine::control;
use sshjob::engine::records::Runs;
use sshjob::functions::refusal::{Kind, Refusal};
use sshjob::functions::trigger::Trigger;
use sshjob::functions::worker::WorkerFunction;
use sshjob::port::{
    DispatchError, Dispatcher, Inventory, InventoryError, KeyReadError, Keys, Notifier, NotifyError, Store,
};
use zeroize::Zeroizing;

use crate::support::key::Login;
use crate::support::memory::Memory;
use crate::support::sshd::{self, SshdFleet};

/// Instances that run at these addresses.
#[derive(Clone, Default)]
struct Fleet(Vec<SocketAddr>);

/// The instance at `address`.
fn id(address: &SocketAddr) -> String {
    format!("i-{address}").replace([':', '.'], "-")
}

impl Inventory for Fleet {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        if job.name.as_str().ends_with("-invalid") {
            return Err(InventoryError::Invalid("error: it selects nothing".to_owned()));
        }
        let instance = |address: &SocketAddr| Instance {
            id: id(address).parse().unwrap(),
            account: "1".to_owned(),
            region: "r".to_owned(),
            zone: None,
            addresses: Addresses { private: Some(address.ip().to_string()), ..Addresses::default() },
            tags: [("Role".to_owned(), "web".to_owned())].into(),
            state: InstanceState::Running,
            port: Some(address.port()),
            user: Some(sshd::user()),
        };
        Ok(job.targets.selector.choose(self.0.iter().map(instance).collect()))
    }
}

/// Orders that wait for workers.
#[derive(Clone, Default)]
struct Queue(Arc<Mutex<Vec<Order>>>);

impl Dispatcher for Queue {
    async fn dispatch(&self, order: Order) -> Result<(), DispatchError> {
        self.0.lock().unwrap().push(order);
        Ok(())
    }
}

/// A bucket of keys.
struct Bucket(BTreeMap<&'static str, Vec<u8>>);

impl Keys for Bucket {
    async fn read_key(&self, bucket: &str, key: &str) -> Result<Zeroizing<Vec<u8>>, KeyReadError> {
        if bucket == "down" {
            return Err(KeyReadError::Unavailable("the bucket `down` does not answer".to_owned()));
        }
        let found = self.0.get(key).cloned().map(Zeroizing::new);
        found.ok_or_else(|| KeyReadError::Refused(format!("there is no `s3://{bucket}/{key}`")))
    }
}

/// Nobody who listens.
struct Silent;

impl Notifier for Silent {
    async fn send(&self, _: &Notice, _: &Notify, _: Channel) -> Result<(), NotifyError> {
        Ok(())
    }
}

struct Pair {
    trigger: Trigger<Memory, Fleet, Queue, Silent>,
    worker: WorkerFunction<Memory, Bucket>,
}

/// What time it is `seconds` after noon, passing as it does.
fn noon(seconds: i64) -> Clock {
    let noon: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let epoch = noon + SignedDuration::from_secs(seconds);
    Clock::Simulated(Simulated { epoch, since: tokio::time::Instant::now(), ahead: SignedDuration::ZERO })
}

impl Pair {
    fn new(hosts: &[SocketAddr], login: &Login) -> Self {
        let runs = Runs::new(Memory::default());
        let key = std::fs::read(login.path()).unwrap();
        let keys = BTreeMap::from([("dev.pem", key), ("garbage.pem", b"hello".to_vec())]);
        let trigger = Trigger {
            runs: runs.clone(),
            inventory: Fleet(hosts.to_vec()),
            dispatcher: Queue::default(),
            notifier: Silent,
            clock: noon(0),
        };
        let variable = |name: &str| (name == "TOKEN").then(|| "s3cr3t".to_owned());
        Self { trigger, worker: WorkerFunction { runs, keys: Bucket(keys), variable, clock: noon(0) } }
    }

    fn runs(&self) -> &Runs<Memory> {
        &self.worker.runs
    }

    async fn put(&self, key: &str, text: &str) {
        self.runs().store().create(&Key::parse(key).unwrap(), text.into()).await.unwrap();
    }

    async fn job(&self, name: &str, text: &str) {
        let text = format!("targets: {{ tags: {{ Role: web }} }}\nkey: s3://keys/dev.pem\n{text}");
        self.put(&format!("jobs/{name}.yaml"), &text).await;
    }

    /// Both functions from now on find that it is so many seconds after noon.
    fn set_time(&mut self, seconds: i64) {
        (self.trigger.clock, self.worker.clock) = (noon(seconds), noon(seconds));
    }

    async fn tick(&self) -> Value {
        let Clock::Simulated(it) = self.trigger.clock else { unreachable!("its time is set") };
        self.trigger.handle(json!({ "time": it.epoch }), "tick").await.unwrap()
    }

    async fn ask(&self, event: Value) -> Result<Value, Refusal> {
        self.trigger.handle(event, "request-1").await
    }

    /// What waits for workers.
    fn orders(&self) -> Vec<Order> {
        std::mem::take(&mut *self.trigger.dispatcher.0.lock().unwrap())
    }

    async fn work(&self, order: &Order) -> Result<Value, Refusal> {
        self.work_until(order, self.worker.clock.now() + SignedDuration::from_mins(15)).await
    }

    async fn work_until(&self, order: &Order, deadline: Timestamp) -> Result<Value, Refusal> {
        self.worker.handle(serde_json::to_value(order).unwrap(), deadline).await
    }

    /// Carries out what waits, one after the other; returns which batches of which run these were.
    async fn work_all(&self) -> Vec<(Action, u32)> {
        let orders = self.orders();
        for order in &orders {
            self.work(order).await.unwrap();
        }
        orders.iter().map(|order| (order.action, order.batch)).collect()
    }

    async fn tasks(&self, run: &RunId) -> Vec<TaskRecord> {
        let mut tasks = Vec::new();
        for n in 0..self.runs().plan(run).await.unwrap().map_or(0, |plan| plan.batches.len()) {
            let outcomes = self.runs().outcomes(run, u32::try_from(n).unwrap()).await.unwrap();
            tasks.extend(
                outcomes.map(|(outcomes, _)| outcomes.tasks.into_values().collect::<Vec<_>>()).unwrap_or_default(),
            );
        }
        tasks
    }

    async fn states(&self, run: &RunId) -> Vec<(TaskState, String)> {
        let tasks = self.tasks(run).await;
        tasks.into_iter().map(|task| (task.state, task.reason.unwrap_or_default())).collect()
    }

    async fn verdict(&self, run: &RunId) -> Option<String> {
        let verdict = self.runs().verdict(run).await.unwrap()?;
        let reason = verdict.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(format!("{}{reason}", verdict.state.as_str()))
    }

    async fn output(&self, run: &RunId, instance: &str) -> String {
        let prefix = RunKeys::new(run).output_prefix(&instance.parse().unwrap(), 1, Stream::Out);
        let mut bytes = Vec::new();
        for key in self.runs().store().list(&prefix, None, 1000).await.unwrap() {
            bytes.extend(self.runs().store().get(&key).await.unwrap().unwrap().bytes);
        }
        String::from_utf8(bytes).unwrap()
    }
}

fn run_id(text: &str) -> RunId {
    text.parse().unwrap()
}

fn firing(job: &str) -> RunId {
    run_id(&format!("{job}-20261123T120000Z"))
}

/// The run that an answer names.
fn named(answer: &Value) -> RunId {
    run_id(answer["run"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn firing_is_planned_sent_for_run_and_judged_at_the_next_tick() {
    let fleet = SshdFleet::same(3);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.put("scripts/hello.sh", "#!/bin/sh\necho \"hello $1 $GREETING $TOKEN\"\n").await;
    let job = "schedule: '* * * * *'\nscript: scripts/hello.sh\nargs: [you]\nenv: { GREETING: hi }\nhosts_per_worker: 2\n\
               secrets: { TOKEN: 'env:TOKEN' }\n";
    pair.job("hello", job).await;
    assert_eq!(pair.tick().await, json!({ "fired": 1, "sent": 2, "troubles": 0, "invalid_jobs": 0 }));
    let run = firing("hello");
    // Every order comes twice.
    for order in pair.orders() {
        let (first, second) = tokio::join!(pair.work(&order), pair.work(&order));
        first.unwrap();
        second.unwrap();
        let again = pair.work(&order).await.unwrap();
        assert_eq!(again["done"], "nothing: every task is final");
    }
    assert_eq!(pair.states(&run).await, vec![(TaskState::Succeeded, String::new()); 3]);
    for address in fleet.addresses() {
        assert_eq!(pair.output(&run, &id(&address)).await, "hello you hi s3cr3t\n");
    }
    assert_eq!(pair.verdict(&run).await, None);
    pair.set_time(30);
    assert_eq!(pair.tick().await["sent"], 0);
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("succeeded"));
    assert!(pair.runs().active(&run).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_workers_have_done_is_in_the_way_of_no_firing() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("minutely", "schedule: '* * * * *'\noverlap: skip\nrun: 'true'\n").await;
    for minute in 0..3 {
        pair.set_time(60 * minute);
        assert_eq!(pair.tick().await["sent"], 1);
        pair.work_all().await;
        let run = run_id(&format!("minutely-20261123T120{minute}00Z"));
        // Nobody has put together yet what its workers have done.
        assert_eq!(pair.verdict(&run).await, None);
    }
    for minute in 0..2 {
        let run = run_id(&format!("minutely-20261123T120{minute}00Z"));
        let verdict = pair.runs().verdict(&run).await.unwrap().unwrap();
        let last = pair.tasks(&run).await.into_iter().filter_map(|task| task.finished_at).max();
        // It took as long as its tasks, not until somebody came to see.
        assert_eq!((verdict.state.as_str(), Some(verdict.finished_at)), ("succeeded", last));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_job_is_started_once_and_collected_at_later_ticks() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let job = format!(
        "schedule: '* * * * *'\nmode: detached\nrun: 'until [ -e {} ]; do sleep 0.1; done; echo done'\n",
        gate.display()
    );
    pair.job("late", &job).await;
    pair.tick().await;
    let run = firing("late");
    assert_eq!(pair.work_all().await, [(Action::Run, 0)]);
    assert_eq!(pair.states(&run).await, vec![(TaskState::Running, String::new()); 2]);
    pair.set_time(30);
    pair.tick().await;
    assert_eq!(pair.work_all().await, [(Action::Collect, 0)]);
    assert_eq!(pair.verdict(&run).await, None);
    std::fs::write(&gate, "").unwrap();
    let mut round = 0;
    while pair.verdict(&run).await.is_none() {
        round += 1;
        assert!(round < 200, "{:?}", pair.states(&run).await);
        pair.ask(json!({ "reconcile": run })).await.unwrap();
        pair.work_all().await;
    }
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("succeeded"));
    assert_eq!(pair.output(&run, &id(&fleet.addresses()[0])).await, "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_run_opens_a_wave_per_tick_and_stops_at_errors() {
    let fleet = SshdFleet::same(5);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    let job = "schedule: '* * * * *'\nrun: 'exit 1'\nrollout: { max_concurrency: 2, max_errors: 1 }\noverlap: allow\n";
    pair.job("roll", job).await;
    let canary = "schedule: '0 * * * *'\nrun: 'exit 1'\nrollout: { canary: 1 }\n";
    pair.job("bird", canary).await;
    pair.tick().await;
    let sent: Vec<_> = pair.orders();
    assert_eq!(sent.len(), 2);
    for order in sent {
        pair.work(&order).await.unwrap();
    }
    pair.set_time(20);
    pair.tick().await;
    let skipped = |why: &str| (TaskState::Skipped, why.to_owned());
    let why = "max_errors exceeded: more than 1 did not succeed";
    let states = pair.states(&firing("roll")).await;
    assert_eq!(states.iter().filter(|state| **state == skipped(why)).count(), 3, "{states:?}");
    assert_eq!(pair.verdict(&firing("roll")).await.unwrap(), format!("failed: {why}"));
    let why = "max_errors exceeded: the canary did not succeed";
    assert_eq!(pair.verdict(&firing("bird")).await.unwrap(), format!("failed: {why}"));
    assert!(pair.orders().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_whose_time_is_over_ends_what_runs_and_leaves_the_rest_to_another() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("slow", "schedule: '* * * * *'\nrun: 'echo begun; sleep 1000'\n").await;
    pair.tick().await;
    let [order] = pair.orders().try_into().unwrap();
    pair.work_until(&order, pair.worker.clock.now() + SignedDuration::from_secs(6)).await.unwrap();
    let ended = "ended, for the time of its worker was over";
    let states = pair.states(&firing("slow")).await;
    assert!(states.iter().all(|(state, why)| *state == TaskState::TimedOut && why.starts_with(ended)), "{states:?}");
    fleet.wait_until_idle();
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_is_cancelled_ends_in_its_worker() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("long", "schedule: '* * * * *'\nrun: 'sleep 1000'\nrollout: { max_concurrency: 1 }\n").await;
    pair.tick().await;
    let run = firing("long");
    let [order] = pair.orders().try_into().unwrap();
    control::cancel(pair.runs(), &run, "ann").await.unwrap();
    pair.work(&order).await.unwrap();
    pair.ask(json!({ "reconcile": run })).await.unwrap();
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("cancelled"));
    assert_eq!(pair.states(&run).await, vec![(TaskState::Cancelled, "cancelled before it started".to_owned()); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_of_a_dead_worker_goes_to_another_which_starts_nothing_twice() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("once", "schedule: '* * * * *'\nrun: 'echo here; sleep 0.5'\nhosts_per_worker: 2\n").await;
    pair.tick().await;
    let run = firing("once");
    let [order] = pair.orders().try_into().unwrap();
    // The first worker dies when its first intents are written.
    let dying = {
        let worker = pair.work(&order);
        tokio::select! {
            done = worker => panic!("{done:?}"),
            () = async {
                while !pair.tasks(&run).await.iter().any(|task| task.state == TaskState::Running) {
                    tokio::task::yield_now().await;
                }
            } => pair.tasks(&run).await,
        }
    };
    let begun = dying.iter().filter(|task| task.state == TaskState::Running).count();
    pair.set_time(60);
    // Its claim holds to the end of its time.
    assert_eq!(pair.tick().await["sent"], 0);
    pair.set_time(901);
    pair.tick().await;
    assert_eq!(pair.work_all().await, [(Action::Run, 0)]);
    let states = pair.states(&run).await;
    let lost = states.iter().filter(|state| **state == (TaskState::Lost, "worker".to_owned())).count();
    assert!(lost >= begun && states.iter().all(|(state, _)| state.is_final()), "{states:?}");
    pair.set_time(902);
    pair.tick().await;
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_that_is_too_old_does_nothing() {
    let fleet = SshdFleet::same(1);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("old", "schedule: '* * * * *'\nrun: 'echo never'\n").await;
    pair.tick().await;
    let [order] = pair.orders().try_into().unwrap();
    pair.set_time(100);
    assert_eq!(pair.work(&order).await.unwrap()["done"], "nothing: the order is too old");
    assert!(pair.tasks(&firing("old")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn request_delivered_twice_is_one_run() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("ask", "run: 'echo asked'\n").await;
    let first = pair.ask(json!({ "job": "ask", "id": "a" })).await.unwrap();
    let second = pair.ask(json!({ "job": "ask", "id": "a" })).await.unwrap();
    assert_eq!(named(&first), named(&second));
    // The same invocation, tried again by Lambda.
    let third = named(&pair.ask(json!({ "job": "ask" })).await.unwrap());
    assert_eq!(third, named(&pair.ask(json!({ "job": "ask" })).await.unwrap()));
    assert_ne!(third, named(&first));
    pair.work_all().await;
    pair.tick().await;
    assert_eq!(pair.verdict(&third).await.as_deref(), Some("succeeded"));
    let other = pair.ask(json!({ "job": "ask", "id": "a", "tags": { "Role": "db" } })).await.unwrap_err();
    assert_eq!(other.kind, Kind::OtherRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_that_starts_is_run_on_once_and_alone() {
    let fleet = SshdFleet::same(2);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("greet", "on: [instance-running]\nrun: 'echo welcome'\n").await;
    pair.job("else", "run: 'echo no'\n").await;
    let instance = id(&fleet.addresses()[1]);
    let event = json!({ "source": "aws.ec2", "id": "e-1", "detail": { "instance-id": instance, "state": "running" } });
    let first = pair.ask(event.clone()).await.unwrap();
    assert_eq!(pair.ask(event).await.unwrap()["runs"][0]["run"], first["runs"][0]["run"]);
    pair.work_all().await;
    let run = named(&first["runs"][0]);
    assert_eq!(pair.states(&run).await, [(TaskState::Succeeded, String::new())]);
    assert_eq!(pair.output(&run, &instance).await, "welcome\n");
    let stranger = json!({ "source": "aws.ec2", "id": "e-2", "detail": { "instance-id": "i-9", "state": "running" } });
    assert_eq!(pair.ask(stranger).await.unwrap(), json!({ "runs": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_by_name_and_nothing_is_half_done() {
    let fleet = SshdFleet::same(1);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("gone", "script: scripts/gone.sh\n").await;
    pair.job("wrong", "runn: x\n").await;
    pair.put("jobs/all.yaml", "targets: {}\nkey: s3://keys/dev.pem\nrun: x\n").await;
    pair.job("late", "schedule: '0 * * * *'\nrun: x\ntimeout: 1h\n").await;
    pair.job("secret", "run: x\nsecrets: { A: 'env:NONE' }\n").await;
    pair.put("jobs/key.yaml", "targets: { tags: { Role: web } }\nkey: s3://keys/none.pem\nrun: x\n").await;
    pair.put("jobs/garbage.yaml", "targets: { tags: { Role: web } }\nkey: s3://keys/garbage.pem\nrun: x\n").await;
    pair.put("jobs/file.yaml", "targets: { tags: { Role: web } }\nkey: dev.pem\nrun: x\n").await;
    pair.put("jobs/down.yaml", "targets: { tags: { Role: web } }\nkey: s3://down/dev.pem\nrun: x\n").await;
    for (event, kind) in [
        (json!({ "job": "none" }), Kind::InvalidJob),
        (json!({ "job": "wrong" }), Kind::InvalidJob),
        (json!({ "job": "all" }), Kind::InvalidJob),
        (json!({ "job": "late" }), Kind::InvalidJob),
        (json!({ "job": "gone" }), Kind::InvalidScript),
        (json!({ "reconcile": "hello-20261123T120000Z" }), Kind::UnknownRun),
        (json!({ "what": 1 }), Kind::InvalidEvent),
    ] {
        let refusal = pair.ask(event.clone()).await.unwrap_err();
        assert_eq!(refusal.kind, kind, "{event}: {refusal}");
    }
    assert!(pair.runs().store().list("runs/", None, 10).await.unwrap().is_empty());
    assert!(pair.runs().store().list(layout::ACTIVE, None, 10).await.unwrap().is_empty());
    for (job, kind) in [
        ("secret", Kind::InvalidSecret),
        ("key", Kind::InvalidKey),
        ("garbage", Kind::InvalidKey),
        ("file", Kind::InvalidKey),
    ] {
        let run = named(&pair.ask(json!({ "job": job, "id": job })).await.unwrap());
        let [order] = pair.orders().try_into().unwrap();
        assert_eq!(pair.work(&order).await.unwrap_err().kind, kind, "{job}");
        // Told once: what is tried again finds everything closed.
        pair.work(&order).await.unwrap();
        let [(state, reason)] = pair.states(&run).await.try_into().unwrap();
        assert_eq!(state, TaskState::Skipped);
        assert!(reason.starts_with("nothing could be started: "), "{reason}");
    }
    let run = named(&pair.ask(json!({ "job": "down", "id": "down" })).await.unwrap());
    let [order] = pair.orders().try_into().unwrap();
    assert_eq!(pair.work(&order).await.unwrap_err().kind, Kind::KeysUnavailable);
    assert!(pair.tasks(&run).await.is_empty(), "it may answer at the next tick");
    assert_eq!(
        pair.worker.handle(json!({ "action": "run" }), Timestamp::MAX).await.unwrap_err().kind,
        Kind::InvalidEvent
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn job_that_is_wrong_holds_up_no_other() {
    let fleet = SshdFleet::same(1);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("good", "schedule: '* * * * *'\nrun: x\n").await;
    pair.job("bad", "schedule: '* * * * *'\nrunn: x\n").await;
    assert_eq!(pair.tick().await, json!({ "fired": 1, "sent": 1, "troubles": 0, "invalid_jobs": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_of_a_paused_run_leaves_what_has_not_started_to_the_next() {
    let fleet = SshdFleet::same(2);
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("calm", "schedule: '* * * * *'\nrun: 'echo on'\n").await;
    pair.tick().await;
    let run = firing("calm");
    let [order] = pair.orders().try_into().unwrap();
    control::pause(pair.runs(), &run, "ann").await.unwrap();
    // It returns, long before its time is over, and as often as it is sent for.
    for _ in 0..4 {
        pair.work(&order).await.unwrap();
    }
    assert!(pair.tasks(&run).await.iter().all(|task| task.state == TaskState::Pending));
    control::resume(pair.runs(), &run, "ann").await.unwrap();
    pair.set_time(30);
    pair.tick().await;
    assert_eq!(pair.work_all().await, [(Action::Run, 0)]);
    assert_eq!(pair.states(&run).await, vec![(TaskState::Succeeded, String::new()); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_that_starts_is_welcomed_though_another_job_cannot_be_selected() {
    let fleet = SshdFleet::same(1);
    let pair = Pair::new(&fleet.addresses(), fleet.login());
    pair.job("a", "on: [instance-running]\nrun: 'echo a'\n").await;
    pair.job("b-invalid", "on: [instance-running]\nrun: 'echo b'\n").await;
    pair.job("c", "on: [instance-running]\nrun: 'echo c'\n").await;
    let instance = id(&fleet.addresses()[0]);
    let event = json!({ "source": "aws.ec2", "id": "e-1", "detail": { "instance-id": instance, "state": "running" } });
    let started = pair.ask(event).await.unwrap();
    assert_eq!(started["runs"].as_array().unwrap().len(), 2, "{started}");
}
