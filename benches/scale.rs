//! What a run on 100,000 instances costs the trigger, and a host-run the account, under the limits of AWS:
//! `cargo bench --no-default-features --bench scale`.
//!
//! The engine is the real one. What it talks to are stand-ins that keep to the limits and answer as late as the real
//! ones do, in simulated time; `docs/scale.md` says where each number comes from.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark reads the clock, prints, and may give up"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sshjob::domain::id::{InstanceId, RunId};
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::notify::Channel;
use sshjob::domain::job::{Job, Notify as Rule};
use sshjob::domain::layout::{self, Key, RunKeys, Stream};
use sshjob::domain::notice::Notice;
use sshjob::domain::order::Order;
use sshjob::domain::run::{BatchTargets, Claim, Outcomes, RunRecord};
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::clock::{Clock, Simulated};
use sshjob::engine::gate::Gate;
use sshjob::engine::records::Runs;
use sshjob::engine::task::{Attempt, Fleet, Task};
use sshjob::engine::worker::{Secrets, Worker};
use sshjob::functions::trigger::Trigger;
use sshjob::port::{
    DispatchError, Dispatcher, Inventory, InventoryError, Notifier, NotifyError, Object, Store, StoreError, Version,
    Written,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

const INSTANCES: u32 = 100_000;

/// What `DescribeInstances` gives at a time, and how long that takes.
const PAGE: u32 = 1000;
const PAGE_LATENCY: Duration = Duration::from_millis(250);

/// Requests of `DescribeInstances`: at once, and in a second then.
const DESCRIBE_BURST: u32 = 100;
const DESCRIBE_PER_SECOND: u32 = 20;

const WRITE_LATENCY: Duration = Duration::from_millis(25);
const READ_LATENCY: Duration = Duration::from_millis(15);

/// Requests that S3 takes of one prefix in a second.
const WRITES_PER_SECOND: u32 = 3500;
const READS_PER_SECOND: u32 = 5500;

const INVOKE_LATENCY: Duration = Duration::from_millis(30);

/// What an asynchronous invocation may carry, in bytes.
const MAX_PAYLOAD: usize = 1_000_000;

/// Environments that a function gets at once, and again every ten seconds.
const ENVIRONMENTS: u32 = 1000;

/// Dollars: for a gigabyte-second on arm64, and for a million requests of each kind.
const GB_SECOND: f64 = 0.000_013_333_4;
const INVOCATIONS: f64 = 0.20;
const WRITES: f64 = 5.00;
const READS: f64 = 0.40;

/// Gigabytes of a worker.
const MEMORY: f64 = 0.25;

/// What a host takes before its script runs: the way there and back, several times; and work of the worker's processor.
const CONNECT: Duration = Duration::from_millis(300);
const HANDSHAKE: Duration = Duration::from_millis(20);

/// Requests that are let through at a pace; a few may come at once.
struct Pace {
    every: Duration,
    burst: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(per_second: u32, burst: u32) -> Self {
        let every = Duration::from_secs(1) / per_second;
        Self { every, burst: every * burst, next: Mutex::new(Instant::now()) }
    }

    async fn wait(&self) {
        let turn = {
            let mut next = self.next.lock().unwrap();
            *next = (*next).max(Instant::now()) + self.every;
            *next
        };
        sleep_until(turn.checked_sub(self.burst).unwrap_or(turn)).await;
    }
}

/// S3: as late, and at most as fast.
#[derive(Clone)]
struct Bucket(Arc<Shared>);

struct Shared {
    objects: Mutex<BTreeMap<String, (Vec<u8>, u64)>>,
    counts: Mutex<Counted>,
    reads: Pace,
    writes: Pace,
}

#[derive(Debug, Default, Clone)]
struct Counted {
    writes: BTreeMap<&'static str, u64>,
    reads: u64,
    lists: u64,
    planned: Option<Instant>,
}

impl Counted {
    fn all_writes(&self) -> u64 {
        self.writes.values().sum()
    }
}

impl Bucket {
    fn new() -> Self {
        let (reads, writes) = (Pace::new(READS_PER_SECOND, 1), Pace::new(WRITES_PER_SECOND, 1));
        Self(Arc::new(Shared { objects: Mutex::default(), counts: Mutex::default(), reads, writes }))
    }

    /// What was asked since the last time.
    fn counted(&self) -> Counted {
        std::mem::take(&mut self.0.counts.lock().unwrap())
    }

    async fn write<T>(&self, key: &Key, done: impl FnOnce(&mut BTreeMap<String, (Vec<u8>, u64)>, u64) -> T) -> T {
        self.0.writes.wait().await;
        sleep(WRITE_LATENCY).await;
        let version = {
            let mut counts = self.0.counts.lock().unwrap();
            *counts.writes.entry(kind(key)).or_default() += 1;
            if kind(key) == "plan" {
                counts.planned = Some(Instant::now());
            }
            counts.all_writes() + u64::from(INSTANCES) * counts.reads
        };
        done(&mut self.0.objects.lock().unwrap(), version)
    }
}

fn kind(key: &Key) -> &'static str {
    let key = key.as_str();
    match key.rsplit('/').next().unwrap() {
        _ if key.contains("/output/") => "output",
        name if name.ends_with(".targets.json") => "targets",
        _ if key.contains("/batches/") && key.rsplit('.').next() == Some("claim") => "claims",
        name if name.starts_with("selected.") => "selected",
        "plan.json" => "plan",
        _ if key.contains("/batches/") => "outcomes",
        _ => "other",
    }
}

impl Store for Bucket {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.0.reads.wait().await;
        sleep(READ_LATENCY).await;
        self.0.counts.lock().unwrap().reads += 1;
        let objects = self.0.objects.lock().unwrap();
        let found = objects.get(key.as_str());
        Ok(found.map(|(bytes, version)| Object { bytes: bytes.clone(), version: Version(version.to_string()) }))
    }

    async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let create = |objects: &mut BTreeMap<String, (Vec<u8>, u64)>, version: u64| {
            if objects.contains_key(key.as_str()) {
                return Written::Conflict;
            }
            objects.insert(key.to_string(), (bytes, version));
            Written::Done(Version(version.to_string()))
        };
        Ok(self.write(key, create).await)
    }

    async fn swap(&self, key: &Key, expected: &Version, bytes: Vec<u8>) -> Result<Written, StoreError> {
        let swap = |objects: &mut BTreeMap<String, (Vec<u8>, u64)>, version: u64| match objects.get_mut(key.as_str()) {
            Some(object) if object.1.to_string() == expected.0 => {
                *object = (bytes, version);
                Written::Done(Version(version.to_string()))
            }
            _ => Written::Conflict,
        };
        Ok(self.write(key, swap).await)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        sleep(READ_LATENCY).await;
        self.0.counts.lock().unwrap().lists += 1;
        let objects = self.0.objects.lock().unwrap();
        let keys = objects.keys().filter(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after.as_str()));
        Ok(keys.take(limit).filter_map(|key| Key::parse(key)).collect())
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        self.write(key, |objects, _| drop(objects.remove(key.as_str()))).await;
        Ok(())
    }
}

/// EC2: page after page, each at the pace of its bucket.
struct Ec2 {
    pace: Pace,
    selected: Mutex<Option<Instant>>,
}

impl Inventory for Ec2 {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        let mut found: BTreeMap<InstanceId, Instance> = BTreeMap::new();
        for page in 0..INSTANCES / PAGE {
            self.pace.wait().await;
            sleep(PAGE_LATENCY).await;
            found
                .extend((page * PAGE..(page + 1) * PAGE).map(instance).map(|instance| (instance.id.clone(), instance)));
        }
        let chosen = job.targets.selector.choose(found.into_values().collect());
        *self.selected.lock().unwrap() = Some(Instant::now());
        Ok(chosen)
    }
}

/// An instance of an autoscaled fleet, with the tags that such ones have.
fn instance(n: u32) -> Instance {
    let scattered = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let tags = [
        ("Name", format!("web-production-{n}")),
        ("Environment", "Production".to_owned()),
        ("Role", "web".to_owned()),
        ("Team", "payments-platform".to_owned()),
        ("CostCenter", "4711-0815".to_owned()),
        ("aws:autoscaling:groupName", format!("web-production-asg-{}", n % 40)),
        ("aws:ec2launchtemplate:id", "lt-0123456789abcdef0".to_owned()),
        ("aws:ec2launchtemplate:version", "42".to_owned()),
        ("aws:cloudformation:stack-name", "web-production".to_owned()),
        ("aws:cloudformation:logical-id", "WebServerGroup".to_owned()),
    ];
    Instance {
        id: format!("i-0{scattered:016x}").parse().unwrap(),
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
        zone: Some("us-east-1a".to_owned()),
        launched_at: None,
        addresses: Addresses {
            private: Some(std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()),
            dns: Some(format!("ip-10-{}-{}-{}.ec2.internal", n >> 16, (n >> 8) & 255, n & 255)),
            ..Addresses::default()
        },
        tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        state: InstanceState::Running,
        port: None,
        user: None,
    }
}

/// Lambda's queue: takes orders of the allowed size.
#[derive(Clone, Default)]
struct Lambda(Arc<Mutex<Vec<(Order, usize)>>>);

impl Dispatcher for Lambda {
    async fn dispatch(&self, order: Order) -> Result<(), DispatchError> {
        let bytes = serde_json::to_vec(&order).unwrap().len();
        assert!(bytes <= MAX_PAYLOAD, "an order of {bytes} bytes");
        sleep(INVOKE_LATENCY).await;
        self.0.lock().unwrap().push((order, bytes));
        Ok(())
    }
}

struct Silent;

impl Notifier for Silent {
    async fn send(&self, _: &Notice, _: &Rule, _: Channel) -> Result<(), NotifyError> {
        Ok(())
    }
}

/// Hosts whose script takes so long and prints a line, or nothing.
#[derive(Clone)]
struct Hosts {
    takes: Duration,
    prints: bool,
}

impl Fleet<Bucket> for Hosts {
    type Ready = ();

    async fn reach(&self, task: &Task<'_, Bucket, Self>, _: &mut TaskRecord) -> Result<(), (TaskState, String)> {
        let Target { account, region, instance } = Target::of(task);
        // The host key is compared with the one that is pinned.
        let pin = task.worker.runs.store().get(&layout::trust(account, region, instance)).await;
        sleep(CONNECT).await;
        pin.map(drop).map_err(|error| (TaskState::Unreachable, error.to_string()))
    }

    async fn run(&self, task: &Task<'_, Bucket, Self>, (): (), record: TaskRecord) -> Attempt {
        sleep(self.takes).await;
        if self.prints {
            let prefix = RunKeys::new(&task.batch.run.run).output_prefix(&task.target.instance, 1, Stream::Out);
            let piece = Key::parse(&format!("{prefix}0")).unwrap();
            task.worker.runs.store().create(&piece, b"done\n".to_vec()).await.unwrap();
        }
        let finished_at = Some(task.worker.clock.now());
        TaskRecord { state: TaskState::Succeeded, exit_code: Some(0), finished_at, ..record }.into()
    }

    async fn look_after(&self, _: &Runs<Bucket>, _: &RunRecord, _: Clock) {}
}

struct Target<'a> {
    account: &'a str,
    region: &'a str,
    instance: &'a InstanceId,
}

impl<'a> Target<'a> {
    fn of(task: &Task<'a, Bucket, Hosts>) -> Self {
        Self { account: &task.target.account, region: &task.target.region, instance: &task.target.instance }
    }
}

type Function = Trigger<Bucket, Ec2, Lambda, Silent>;

async fn trigger(hosts_per_worker: u32) -> Function {
    let runs = Runs::new(Bucket::new());
    let job = format!(
        "schedule: '0 12 * * *'\ntargets: {{ tags: {{ Environment: Production }} }}\nkey: s3://keys/dev.pem\n\
         run: 'systemctl reload web'\nhosts_per_worker: {hosts_per_worker}\n"
    );
    runs.store().create(&Key::parse("jobs/reload.yaml").unwrap(), job.into_bytes()).await.unwrap();
    let since = Instant::now();
    let epoch: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    Trigger {
        runs,
        inventory: Ec2 { pace: Pace::new(DESCRIBE_PER_SECOND, DESCRIBE_BURST), selected: Mutex::default() },
        dispatcher: Lambda::default(),
        notifier: Silent,
        clock: Clock::Simulated(Simulated { epoch, since, ahead: SignedDuration::ZERO }),
        deadline: epoch + Duration::from_mins(5),
    }
}

/// Sends workers for 100,000 instances, and judges the run when they are done.
async fn fan_out() -> Function {
    let trigger = trigger(50).await;
    trigger.runs.store().counted();
    let (begun, worked) = (Instant::now(), std::time::Instant::now());
    trigger.handle(json!({ "time": "2026-11-23T12:00:00Z" }), "tick").await.unwrap();
    let (took, worked) = (begun.elapsed(), worked.elapsed());
    let counted = trigger.runs.store().counted();
    let selected = trigger.inventory.selected.lock().unwrap().unwrap() - begun;
    let planned = counted.planned.unwrap() - begun;
    let orders = std::mem::take(&mut *trigger.dispatcher.0.lock().unwrap());
    let batches: BTreeSet<u32> = orders.iter().map(|(order, _)| order.batch).collect();
    assert_eq!((orders.len(), batches.len()), (2000, 2000), "each batch is sent for once");
    println!("a run on {INSTANCES} instances, from one trigger:");
    println!("  selected after        {:6.1} s", selected.as_secs_f64());
    println!("  planned after         {:6.1} s", planned.as_secs_f64());
    println!("  dispatched after      {:6.1} s", took.as_secs_f64());
    println!("  work of one processor {:6.1} s", worked.as_secs_f64());
    println!("  objects written       {:6}   {:?}", counted.all_writes(), counted.writes);
    println!("  objects read          {:6}   {} lists", counted.reads, counted.lists);
    println!("  largest order         {:6} bytes", orders.iter().map(|(_, bytes)| bytes).max().unwrap());
    println!("  peak memory           {:6} MiB", peak_memory());
    for quota in [1000, 2000] {
        for job in [2.0, 60.0] {
            let last = last_begins(2000, quota, job);
            println!("  quota {quota}, job of {job:2} s: last worker begins after {last:.0} s more");
        }
    }
    let run = orders.first().unwrap().0.run.clone();
    assert_partition(&trigger, &run).await;
    finish(&trigger, &run).await;
    trigger.runs.store().counted();
    let begun = Instant::now();
    trigger.handle(json!({}), "tick").await.unwrap();
    let counted = trigger.runs.store().counted();
    assert!(trigger.runs.verdict(&run).await.unwrap().is_some(), "it is over");
    println!("the tick that judges it: {:.1} s, {} reads", begun.elapsed().as_secs_f64(), counted.reads);
    println!("  peak memory           {:6} MiB", peak_memory());
    trigger
}

/// No instance is missed, none is in two batches.
async fn assert_partition(trigger: &Function, run: &RunId) {
    let mut seen = BTreeSet::new();
    for n in 0..2000 {
        for target in trigger.runs.targets(run, n).await.unwrap().unwrap().targets {
            assert!(seen.insert(target.instance), "an instance is in two batches");
        }
    }
    assert_eq!(seen.len(), INSTANCES as usize);
}

/// Writes what workers write that have done everything.
async fn finish(trigger: &Function, run: &RunId) {
    let (keys, now) = (RunKeys::new(run), trigger.clock.now());
    let done = TaskRecord {
        state: TaskState::Succeeded,
        attempt: 1,
        exit_code: Some(0),
        started_at: Some(now),
        finished_at: Some(now),
        host_key: Some("SHA256:uNiVztksCsDhcc0u9e8BrrJXVGDrIgIp1hjvX1x9pWs".to_owned()),
        ..TaskRecord::pending()
    };
    for n in 0..2000 {
        let BatchTargets { targets } = trigger.runs.targets(run, n).await.unwrap().unwrap();
        let claim = Claim { nonce: "n".to_owned(), expires_at: now, holder: None, turn: 0 };
        trigger.runs.create(&keys.claim(n), &claim).await.unwrap();
        let tasks = targets.into_iter().map(|target| (target.instance, done.clone())).collect();
        trigger.runs.create(&keys.outcomes(n), &Outcomes { owner: "n".to_owned(), tasks }).await.unwrap();
    }
}

/// When the last of so many workers begins, in seconds: a thousand environments come at once and then every ten seconds,
/// up to the account's quota; one that is free takes the next order.
fn last_begins(workers: u32, quota: u32, job: f64) -> f64 {
    let takes = job + batch_overhead(50);
    let mut free: Vec<f64> = (0..quota).map(|n| f64::from(n / ENVIRONMENTS) * 10.0).collect();
    let mut last = 0.0_f64;
    for _ in 0..workers {
        free.sort_by(f64::total_cmp);
        let first = free.first_mut().unwrap();
        last = last.max(*first);
        *first += takes;
    }
    last
}

fn batch_overhead(hosts: u32) -> f64 {
    CONNECT.as_secs_f64() + (HANDSHAKE * hosts).as_secs_f64()
}

/// Requests and seconds of one invocation of a worker.
struct Invocation {
    writes: u64,
    reads: u64,
    seconds: f64,
}

/// Runs a batch of so many hosts with the real worker.
async fn work(trigger: &Function, hosts: u32, takes: Duration, prints: bool) -> Invocation {
    let (runs, clock) = (trigger.runs.clone(), trigger.clock);
    let found = runs.store().list("runs/", None, usize::MAX).await.unwrap();
    let run: RunId = found.first().unwrap().as_str().split('/').nth(2).unwrap().parse().unwrap();
    // A batch of a number that no plan has, so that it is not done yet.
    let n = 1_000_000 + hosts * 1000 + u32::try_from(takes.as_secs()).unwrap() * 2 + u32::from(prints);
    let template = runs.targets(&run, 0).await.unwrap().unwrap().targets.remove(0);
    let target = |n| sshjob::domain::run::Target { instance: instance(n).id, ..template.clone() };
    let batch = BatchTargets { targets: (0..hosts).map(target).collect() };
    runs.create(&RunKeys::new(&run).targets(n), &batch).await.unwrap();
    let (events, mut heard) = mpsc::channel(64);
    runs.store().counted();
    let begun = Instant::now();
    // As the worker function does first: the claim, the verdict, the targets, the outcomes, the plan, and the key.
    let record = runs.run(&run).await.unwrap().unwrap();
    let _ = runs.verdict(&run).await.unwrap();
    let _ = runs.targets(&run, n).await.unwrap();
    let _ = runs.outcomes(&run, n).await.unwrap();
    let _ = runs.plan(&run).await.unwrap();
    let _ = runs.run(&run).await.unwrap();
    let worker = Worker {
        runs: runs.clone(),
        clock,
        events,
        access: Hosts { takes, prints },
        secrets: Arc::new(Secrets::new()),
        gate: Gate::new(hosts, None),
        batch_ended: Arc::new(Notify::new()),
    };
    let deadline = clock.now() + SignedDuration::from_mins(15);
    let working = async move { worker.run_until(&record, n, deadline).await };
    let hearing = async move { while heard.recv().await.is_some() {} };
    tokio::join!(working, hearing).0.unwrap();
    let counted = runs.store().counted();
    let seconds = begun.elapsed().as_secs_f64() + (HANDSHAKE * hosts).as_secs_f64();
    Invocation { writes: counted.all_writes(), reads: counted.reads, seconds }
}

/// What a million host-runs cost, in dollars.
struct Cost {
    time: f64,
    invocations: f64,
    store: f64,
}

impl Cost {
    fn of(hosts: u32, invocation: &Invocation) -> Self {
        let batches = 1.0 / f64::from(hosts);
        // The trigger's: of the batch its targets, a thousandth part of what is agreed on, and at two ticks a look at its
        // outcomes and its claim.
        let writes = (invocation.writes as f64 + 1.0) * batches + 0.001;
        let reads = (invocation.reads as f64 + 4.0) * batches;
        Self {
            time: invocation.seconds * MEMORY * batches * GB_SECOND * 1e6,
            invocations: batches * INVOCATIONS,
            store: writes * WRITES + reads * READS,
        }
    }

    /// One environment per host, that reads the key and stays until the job has ended.
    fn of_original(job: f64) -> Self {
        let seconds = job + CONNECT.as_secs_f64() + HANDSHAKE.as_secs_f64() + READ_LATENCY.as_secs_f64();
        Self { time: seconds * MEMORY * GB_SECOND * 1e6, invocations: INVOCATIONS, store: READS }
    }

    fn sum(&self) -> f64 {
        self.time + self.invocations + self.store
    }
}

async fn price(trigger: &Function) {
    println!("a million host-runs, in dollars (time + invocations + store = sum; share of the original):");
    for (takes, prints) in [(2, false), (2, true), (60, false), (60, true)] {
        let original = Cost::of_original(f64::from(takes));
        let what = if prints { "prints a line" } else { "prints nothing" };
        println!("  job of {takes} s that {what}; original: {:.2}", original.sum());
        for hosts in [1, 10, 50, 100, 200] {
            let invocation = work(trigger, hosts, Duration::from_secs(u64::try_from(takes).unwrap()), prints).await;
            let cost = Cost::of(hosts, &invocation);
            println!(
                "    {hosts:3} hosts per worker: {:7.2} + {:5.2} + {:5.2} = {:7.2}  {:5.1} %  ({} writes, {} reads, {:.1} s)",
                cost.time,
                cost.invocations,
                cost.store,
                cost.sum(),
                100.0 * cost.sum() / original.sum(),
                invocation.writes,
                invocation.reads,
                invocation.seconds,
            );
        }
    }
}

/// The most memory that this process has had, in MiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    tokio::time::pause();
    let trigger = fan_out().await;
    price(&trigger).await;
}
