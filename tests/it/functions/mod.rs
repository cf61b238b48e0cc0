//! The trigger and the worker, as functions of events, on real sshd hosts.

mod carried;
mod crowd;
mod killed;
mod panicked;
mod refused;
#[cfg(feature = "aws")]
mod reported;
mod retried;
mod unavailable;

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sshjob::domain::id::{InstanceId, RunId};
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::notify::Channel;
use sshjob::domain::job::{Job, Notify};
use sshjob::domain::layout::{Key, RunKeys, Stream};
use sshjob::domain::notice::Notice;
use sshjob::domain::order::{Action, Order};
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::{Clock, Simulated};
use sshjob::engine::records::Runs;
use sshjob::functions::refusal::Refusal;
use sshjob::functions::trigger::Trigger;
use sshjob::functions::worker::WorkerFunction;
use sshjob::port::{
    DispatchError, Dispatcher, Inventory, InventoryError, KeyReadError, Keys, Notifier, NotifyError, Parameters, Store,
};
use zeroize::Zeroizing;

use crate::support::key::Login;
use crate::support::memory::Memory;
use crate::support::sshd;

/// Instances that run at these addresses, of an inventory that does not answer for so many questions.
#[derive(Clone, Default)]
struct Fleet(Vec<SocketAddr>, Arc<AtomicUsize>);

/// The instance at `address`.
fn id(address: &SocketAddr) -> String {
    format!("i-{address}").replace([':', '.'], "-")
}

impl Inventory for Fleet {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        if job.name.as_str().ends_with("-silent") {
            pending::<()>().await;
        }
        if job.name.as_str().ends_with("-invalid") {
            return Err(InventoryError::Invalid("error: it selects nothing".to_owned()));
        }
        if self.1.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let why = "`ec2:DescribeInstances` on `*`: RequestLimitExceeded".to_owned();
            return Err(InventoryError::Unavailable { at: "EC2 in r".to_owned(), why });
        }
        let instance = |address: &SocketAddr| Instance {
            id: id(address).parse().unwrap(),
            account: "1".to_owned(),
            region: "r".to_owned(),
            zone: None,
            launched_at: None,
            addresses: Addresses { private: Some(address.ip().to_string()), ..Addresses::default() },
            tags: [("Role".to_owned(), "web".to_owned())].into(),
            state: InstanceState::Running,
            port: Some(address.port()),
            user: Some(sshd::user()),
        };
        Ok(job.targets.selector.choose(self.0.iter().map(instance).collect()))
    }

    async fn select_one(&self, job: &Job, only: &InstanceId) -> Result<Option<Instance>, InventoryError> {
        let there = self.0.iter().copied().filter(|address| id(address) == only.as_str()).collect();
        Ok(Self(there, Arc::clone(&self.1)).select(job).await?.pop())
    }
}

/// Orders that wait for workers.
#[derive(Clone, Default)]
struct Queue {
    orders: Arc<Mutex<Vec<Order>>>,
    /// Whether it takes none.
    is_denied: bool,
    doom: Arc<Mutex<Option<Doom>>>,
}

/// The end of a machine that sends orders.
#[derive(Clone)]
struct Doom {
    /// How many orders it sends before.
    left: usize,
    /// Whether the one after them is sent yet.
    is_sent: bool,
    machine: Memory,
}

impl Dispatcher for Queue {
    async fn dispatch(&self, order: Order) -> Result<(), DispatchError> {
        if self.is_denied {
            let why = "`lambda:InvokeFunction` on `worker`: denied\nhint: allow it".to_owned();
            return Err(DispatchError { run: order.run, batch: order.batch, why });
        }
        let doom = {
            let mut doom = self.doom.lock().unwrap();
            let now = doom.take_if(|doom| doom.left == 0);
            if let Some(doom) = doom.as_mut() {
                doom.left -= 1;
            }
            now
        };
        if doom.as_ref().is_none_or(|doom| doom.is_sent) {
            self.orders.lock().unwrap().push(order);
        }
        if let Some(doom) = doom {
            doom.machine.crash();
            pending::<()>().await;
        }
        Ok(())
    }
}

/// A bucket of keys.
#[derive(Clone)]
struct Bucket(BTreeMap<&'static str, Vec<u8>>);

impl Keys for Bucket {
    async fn read_key(&self, bucket: &str, key: &str) -> Result<Zeroizing<Vec<u8>>, KeyReadError> {
        if bucket == "down" {
            return Err(KeyReadError::Unavailable("the bucket `down` does not answer".to_owned()));
        }
        if bucket == "foreign" {
            let why = "`s3:GetObject` on `arn:aws:s3:::foreign/dev.pem`: AccessDenied";
            return Err(KeyReadError::Refused(format!("the private key may not be read: {why}")));
        }
        let found = self.0.get(key).cloned().map(Zeroizing::new);
        found.ok_or_else(|| KeyReadError::Refused(format!("there is no `s3://{bucket}/{key}`")))
    }
}

impl Parameters for Bucket {
    async fn read_parameter(&self, path: &str) -> Result<Zeroizing<String>, KeyReadError> {
        match path {
            "/app/token" => Ok(Zeroizing::new("p4r4m".to_owned())),
            "/down" => Err(KeyReadError::Unavailable("parameters are not to be had".to_owned())),
            other => Err(KeyReadError::Refused(format!("there is no parameter `{other}`"))),
        }
    }
}

/// Nobody who listens.
#[derive(Clone)]
struct Silent;

impl Notifier for Silent {
    async fn send(&self, _: &Notice, _: &Notify, _: Channel) -> Result<(), NotifyError> {
        Ok(())
    }
}

struct Pair {
    trigger: Trigger<Memory, Fleet, Queue, Silent>,
    worker: WorkerFunction<Memory, Bucket, Bucket>,
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
        let keys = BTreeMap::from([
            ("dev.pem", key),
            ("garbage.pem", b"hello".to_vec()),
            ("empty.pem", Vec::new()),
            ("locked.pem", login.with_passphrase("swordfish")),
        ]);
        let trigger = Trigger {
            runs: runs.clone(),
            inventory: Fleet(hosts.to_vec(), Arc::default()),
            dispatcher: Queue::default(),
            notifier: Silent,
            clock: noon(0),
            deadline: Timestamp::MAX,
        };
        let variable = |name: &str| (name == "TOKEN").then(|| "s3cr3t".to_owned());
        let keys = Bucket(keys);
        let parameters = keys.clone();
        Self { trigger, worker: WorkerFunction { runs, keys, parameters, variable, clock: noon(0) } }
    }

    /// Another worker, that sees the store through `machine`.
    fn other_worker(&self, machine: &Memory) -> WorkerFunction<Memory, Bucket, Bucket> {
        let WorkerFunction { keys, parameters, variable, clock, .. } = &self.worker;
        let (runs, keys, parameters) = (Runs::new(machine.clone()), keys.clone(), parameters.clone());
        WorkerFunction { runs, keys, parameters, variable: *variable, clock: *clock }
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

    /// Makes a tick, as far as it comes; tells whether the trigger died of it. The next one is another trigger.
    async fn tick_or_die(&mut self) -> bool {
        let machine = self.trigger.runs.store().clone();
        let is_dead = tokio::select! {
            biased;
            () = machine.crashed() => true,
            _ = self.trigger.handle(json!({}), "tick") => false,
        };
        if is_dead {
            self.trigger.runs = Runs::new(machine.reboot());
        }
        is_dead
    }

    async fn ask(&self, event: Value) -> Result<Value, Refusal> {
        self.trigger.handle(event, "request-1").await
    }

    /// What waits for workers.
    fn orders(&self) -> Vec<Order> {
        std::mem::take(&mut *self.trigger.dispatcher.orders.lock().unwrap())
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
