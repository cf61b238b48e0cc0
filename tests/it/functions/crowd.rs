//! Many instances, and an inventory that is asked too often.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use sshjob::domain::id::RunId;
use sshjob::domain::instance::Instance;
use sshjob::domain::job::Job;
use sshjob::domain::run::{Plan, Target};
use sshjob::engine::records::Runs;
use sshjob::functions::trigger::Trigger;
use sshjob::port::{Inventory, InventoryError, Store};

#[cfg(feature = "aws")]
use super::{Clock, Key, Silent, named};
use super::{Fleet, Pair, firing, id};
use crate::support::key::Login;
use crate::support::memory::Fault;

/// More than any order has, in bytes; an asynchronous invocation may carry a million.
const MAX_ORDER: usize = 300;

fn addresses(count: u32) -> Vec<SocketAddr> {
    (1..=count).map(|n| (Ipv4Addr::from(0x7f00_0000 + n), 22).into()).collect()
}

/// The plan of `run` and the targets of its batches.
async fn planned<S: Store>(runs: &Runs<S>, run: &RunId) -> (Plan, Vec<Vec<Target>>) {
    let plan = runs.plan(run).await.unwrap().unwrap();
    let mut batches = Vec::new();
    for n in 0..u32::try_from(plan.batches.len()).unwrap() {
        batches.push(runs.targets(run, n).await.unwrap().unwrap().targets);
    }
    let sizes: Vec<u32> = batches.iter().map(|targets| u32::try_from(targets.len()).unwrap()).collect();
    assert_eq!(plan.batches, sizes);
    (plan, batches)
}

/// The instances of all batches; none is in two.
fn instances(batches: &[Vec<Target>]) -> BTreeSet<String> {
    let all: Vec<String> = batches.iter().flatten().map(|target| target.instance.to_string()).collect();
    let distinct: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(all.len(), distinct.len(), "an instance is in two batches");
    distinct
}

#[tokio::test(start_paused = true)]
async fn thousand_instances_are_sent_for_and_none_is_missed_or_doubled() {
    let hosts = addresses(1000);
    let pair = Pair::new(&hosts, &Login::fresh());
    pair.job("wide", "schedule: '* * * * *'\nrun: x\n").await;
    let other = pair.trigger.clone();
    // Two triggers have the same tick.
    let (_, done) = tokio::join!(pair.tick(), other.handle(json!({}), "tick"));
    done.unwrap();
    let orders = pair.orders();
    let sent: BTreeSet<u32> = orders.iter().map(|order| order.batch).collect();
    assert_eq!(sent, (0..20).collect());
    let largest = orders.iter().map(|order| serde_json::to_vec(order).unwrap().len()).max().unwrap();
    // Whatever the size of the batch.
    assert!(largest < MAX_ORDER, "{largest}");
    let (_, batches) = planned(pair.runs(), &firing("wide")).await;
    assert_eq!(instances(&batches), hosts.iter().map(id).collect());
}

#[tokio::test(start_paused = true)]
async fn planners_that_select_differently_and_die_anywhere_agree_on_one_plan() {
    let all = addresses(1200);
    let run = firing("wide");
    let job = "schedule: '0 12 * * *'\nrun: x\nhosts_per_worker: 200\nrollout: { canary: 10, max_concurrency: 400 }\n";
    let mut faults = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorAfter] {
        for n in 1.. {
            let mut pair = Pair::new(&all[..1100], &Login::fresh());
            pair.job("wide", job).await;
            pair.set_time(-60);
            pair.tick().await;
            let machine = pair.runs().store().reboot().with_fault(n, fault);
            pair.trigger.runs = Runs::new(machine.clone());
            pair.set_time(0);
            pair.tick_or_die().await;
            // Some have gone by the next tick, and others have come.
            pair.trigger.inventory = Fleet(all[50..].to_vec(), std::sync::Arc::default());
            for minute in 1..4 {
                pair.set_time(60 * minute);
                pair.tick_or_die().await;
            }
            let (plan, batches) = planned(pair.runs(), &run).await;
            let known = instances(&batches);
            for selected in [&all[..1100], &all[50..]] {
                let missing = selected.iter().filter(|at| !known.contains(&id(at))).count();
                assert!(
                    missing == 0 || known.len() < all.len(),
                    "{fault:?} at write {n}: {missing} of {}",
                    known.len()
                );
            }
            assert!(known.len() >= 1100, "{fault:?} at write {n}: {}", known.len());
            let sizes = plan.waves.iter().map(|(from, to)| plan.batches[*from as usize..*to as usize].iter().sum());
            let sizes: Vec<u32> = sizes.collect();
            assert!(sizes[0] == 10 && sizes.iter().all(|size| *size <= 400), "{fault:?} at write {n}: {sizes:?}");
            let runs = pair.runs().store().objects().into_iter().filter(|(key, _)| key.ends_with("/run.json")).count();
            assert_eq!(runs, 1, "{fault:?} at write {n}");
            if machine.writes().len() < n {
                break;
            }
            faults += 1;
        }
    }
    assert!(faults > 40, "{faults}");
}

#[tokio::test(start_paused = true)]
async fn inventory_that_is_asked_too_often_is_no_empty_fleet_and_the_run_comes_later() {
    let mut pair = Pair::new(&addresses(3), &Login::fresh());
    pair.job("late", "schedule: '0 12 * * *'\nrun: x\n").await;
    pair.trigger.inventory.1.store(3, Ordering::SeqCst);
    let run = firing("late");
    for minute in 0..3 {
        pair.set_time(60 * minute);
        assert_eq!(pair.tick().await["sent"], 0);
        assert!(pair.runs().plan(&run).await.unwrap().is_none());
        assert_eq!(pair.verdict(&run).await, None);
    }
    pair.set_time(180);
    assert_eq!(pair.tick().await["sent"], 1);
    assert_eq!(pair.runs().plan(&run).await.unwrap().unwrap().total(), 3);
}

#[tokio::test(start_paused = true)]
async fn inventory_that_never_answers_is_the_cause_that_the_run_fails_with_at_its_deadline() {
    let mut pair = Pair::new(&addresses(3), &Login::fresh());
    pair.job("never", "schedule: '0 12 * * *'\nrun: x\n").await;
    pair.trigger.inventory.1.store(usize::MAX, Ordering::SeqCst);
    for minute in 0..=10 {
        pair.set_time(60 * minute);
        pair.tick().await;
        assert_eq!(pair.verdict(&firing("never")).await, None);
    }
    pair.set_time(660);
    pair.tick().await;
    let why = "failed: cannot read the inventory `EC2 in r`: `ec2:DescribeInstances` on `*`: RequestLimitExceeded";
    assert_eq!(pair.verdict(&firing("never")).await.as_deref(), Some(why));
    assert!(pair.orders().is_empty());
}

/// An inventory that answers after this time.
#[derive(Clone)]
struct Slow(Fleet, Duration);

impl Inventory for Slow {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        tokio::time::sleep(self.1).await;
        self.0.select(job).await
    }
}

#[tokio::test(start_paused = true)]
async fn inventory_that_takes_long_is_waited_for_as_the_function_has_time() {
    let run = firing("large");
    for (minutes, is_planned) in [(2, false), (5, true)] {
        let pair = Pair::new(&addresses(3), &Login::fresh());
        pair.job("large", "schedule: '0 12 * * *'\nrun: x\n").await;
        let Trigger { runs, inventory, dispatcher, notifier, clock, .. } = pair.trigger.clone();
        let deadline = clock.now() + Duration::from_mins(minutes);
        let inventory = Slow(inventory, Duration::from_secs(100));
        let trigger = Trigger { runs, inventory, dispatcher, notifier, clock, deadline };
        trigger.handle(json!({}), "tick").await.unwrap();
        let plan = pair.runs().plan(&run).await.unwrap();
        assert_eq!(plan.map(|plan| plan.total()), is_planned.then_some(3), "{minutes} min");
        assert_eq!(pair.verdict(&run).await, None);
    }
}

/// The same over the protocols: EC2's pages, orders to Lambda, the store in S3.
#[cfg(feature = "aws")]
#[tokio::test(flavor = "multi_thread")]
async fn thousand_instances_of_ec2_are_sent_for_over_real_protocols() {
    use crate::aws::{bucket, crowd, dispatcher};
    use crate::support::hook::{Answer, Hook};
    use sshjob::domain::order::Order;

    let Some((_s3, store)) = bucket().await else { return };
    // More than fit on one page.
    let Some((_ec2, way, inventory, expected)) = crowd(1040).await else { return };
    let hook = Hook::start(Answer::Status("202 Accepted", String::new()));
    let job = "targets: { tags: { Role: web } }\nkey: s3://keys/dev.pem\nrun: x\n";
    store.create(&Key::parse("jobs/wide.yaml").unwrap(), job.into()).await.unwrap();
    let runs = Runs::new(store);
    let dispatcher = dispatcher(&hook).await;
    let (clock, deadline) = (Clock::System, jiff::Timestamp::MAX);
    let trigger = Trigger { runs: runs.clone(), inventory, dispatcher, notifier: Silent, clock, deadline };
    let event = json!({ "job": "wide", "id": "one" });
    let run = named(&Box::pin(trigger.handle(event.clone(), "a")).await.unwrap());
    // It comes twice.
    assert_eq!(named(&Box::pin(trigger.handle(event, "b")).await.unwrap()), run);
    // Eleven reservations, and the end of a page is not the end of the list.
    assert_eq!(way.seen().len(), 3);
    let (_, batches) = planned(&runs, &run).await;
    assert_eq!(instances(&batches), expected);
    let received = hook.received();
    let orders = received.iter().map(|request| serde_json::from_str::<Order>(&request.body).unwrap());
    let sent: BTreeSet<u32> = orders.map(|order| order.batch).collect();
    assert_eq!(sent, (0..21).collect());
    assert!(received.iter().all(|request| request.body.len() < MAX_ORDER));
}
