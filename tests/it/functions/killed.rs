//! Triggers and workers that are killed at every write, and orders that come twice: a firing is one run, an attempt
//! starts at most once, and every task ends in one true state. The hosts' own files are the witness.

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::SignedDuration;
use sshjob::domain::id::RunId;
use sshjob::domain::task::TaskState;
use sshjob::engine::records::Runs;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

use super::{Doom, Pair, firing, id};
use crate::support::memory::Fault;
use crate::support::simulation::rng::Rng;
use crate::support::sshd::SshdFleet;

/// How many stories are told at a time; they mostly wait.
const AT_A_TIME: usize = 4;

/// More writes than any of them makes.
const MANY: usize = 60;

/// A firing at noon of a job that leaves a mark on its host when it starts.
async fn pair_of(fleet: &SshdFleet, marks: &Path, more: &str) -> Pair {
    let mut pair = Pair::new(&fleet.addresses(), fleet.login());
    let script = format!("run: 'echo started >>{}/$SSHJOB_INSTANCE; echo output'\n", marks.display());
    pair.job("once", &format!("schedule: '0 12 * * *'\n{script}{more}")).await;
    pair.set_time(-60);
    pair.tick().await;
    pair.set_time(0);
    pair
}

/// How often the script has started on each host, by the host's own account, in the order of the hosts.
fn starts(fleet: &SshdFleet, marks: &Path) -> Vec<usize> {
    let count = |at| std::fs::read_to_string(marks.join(id(at))).unwrap_or_default().lines().count();
    fleet.addresses().iter().map(count).collect()
}

/// Goes on by a minute at a time until the run has its verdict; every order comes twice.
async fn go_on(pair: &mut Pair, run: &RunId, told: &str) {
    for minute in 1..30 {
        for order in pair.orders() {
            let (first, second) = tokio::join!(pair.work(&order), pair.work(&order));
            first.unwrap();
            second.unwrap();
        }
        pair.set_time(60 * minute);
        pair.tick().await;
        if pair.verdict(run).await.is_some() {
            return;
        }
    }
    panic!("{told}: {:?}", pair.states(run).await);
}

/// Checks that one run came to its end, and what it says against what the hosts say; returns how many tasks are lost.
async fn check(pair: &Pair, fleet: &SshdFleet, marks: &Path, told: &str) -> usize {
    let run = firing("once");
    let objects = pair.runs().store().objects();
    let of_kind = |kind: &str| objects.iter().filter(|(key, _)| key.contains(kind)).count();
    assert_eq!((of_kind("/run.json"), of_kind("/result.json"), of_kind("active/")), (1, 1, 0), "{told}");
    let mut lost = 0;
    let mut tasks = std::collections::BTreeMap::new();
    for n in 0..u32::try_from(pair.runs().plan(&run).await.unwrap().unwrap().batches.len()).unwrap() {
        tasks.extend(pair.runs().outcomes(&run, n).await.unwrap().unwrap().0.tasks);
    }
    for (address, starts) in fleet.addresses().iter().zip(starts(fleet, marks)) {
        let task = &tasks[&id(address).parse().unwrap()];
        match task.state {
            TaskState::Succeeded => assert_eq!(starts, 1, "{told}: {address} succeeded"),
            TaskState::Lost => {
                assert!(starts <= 1, "{told}: {address} is lost and started {starts} times");
                lost += 1;
            }
            other => panic!("{told}: {address} is {other}: {:?}", task.reason),
        }
    }
    let verdict = pair.runs().verdict(&run).await.unwrap().unwrap();
    assert_eq!(verdict.counts.total() as usize, fleet.addresses().len(), "{told}");
    assert_eq!(verdict.counts.of(TaskState::Lost) as usize, lost, "{told}");
    lost
}

/// Where a trigger dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    AtWrite(usize, Fault),
    AtDispatch(usize, bool),
}

/// Tells the story of a trigger that dies; returns whether it did.
async fn trigger_dies(fleet: &SshdFleet, death: Death) -> bool {
    let marks = tempfile::tempdir().unwrap();
    let mut pair = pair_of(fleet, marks.path(), "hosts_per_worker: 1\nrollout: { max_concurrency: 2 }\n").await;
    let machine = pair.runs().store().reboot();
    let machine = match death {
        Death::AtWrite(n, fault) => machine.with_fault(n, fault),
        Death::AtDispatch(left, is_sent) => {
            let doom = Doom { left, is_sent, machine: machine.clone() };
            *pair.trigger.dispatcher.doom.lock().unwrap() = Some(doom);
            machine
        }
    };
    pair.trigger.runs = Runs::new(machine);
    let (mut has_died, run, told) = (false, firing("once"), format!("{death:?}"));
    for minute in 0..10 {
        pair.set_time(60 * minute);
        has_died |= pair.tick_or_die().await;
        for order in pair.orders() {
            let (first, second) = tokio::join!(pair.work(&order), pair.work(&order));
            first.unwrap();
            second.unwrap();
        }
    }
    assert_eq!(pair.verdict(&run).await.as_deref(), Some("succeeded"), "{told}: {:?}", pair.states(&run).await);
    assert_eq!(check(&pair, fleet, marks.path(), &told).await, 0);
    has_died
}

#[tokio::test(flavor = "multi_thread")]
async fn trigger_killed_at_every_write_and_dispatch_makes_one_run_and_starts_nothing_twice() {
    let fleet = SshdFleet::same(3);
    let mut died = 0;
    for n in (1..MANY).step_by(2) {
        let faults = [Fault::CrashBefore, Fault::CrashAfter];
        let deaths = [n, n + 1].into_iter().flat_map(|n| faults.map(|fault| Death::AtWrite(n, fault)));
        let died_here = tell_all(&fleet, deaths).await;
        died += died_here;
        if died_here == 0 {
            break;
        }
    }
    let deaths = (0..3).flat_map(|n| [false, true].map(|is_sent| Death::AtDispatch(n, is_sent)));
    let died_sending = tell_all(&fleet, deaths).await;
    assert!(died >= 30 && died_sending == 6, "{died} and {died_sending}");
}

/// Tells stories of triggers that die, side by side; returns how many did.
async fn tell_all(fleet: &SshdFleet, deaths: impl Iterator<Item = Death>) -> usize {
    let stories = stream::iter(deaths.map(|death| trigger_dies(fleet, death))).buffered(AT_A_TIME);
    stories.filter(|has_died| std::future::ready(*has_died)).count().await
}

/// When a worker dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    AtWrite(usize, Fault),
    After(Duration),
}

/// Tells the story of a worker that dies; returns whether it did, and how many tasks are lost for it.
async fn worker_dies(fleet: &SshdFleet, moment: Moment, mode: &str) -> (bool, usize) {
    let marks = tempfile::tempdir().unwrap();
    let mut pair = pair_of(fleet, marks.path(), mode).await;
    pair.tick().await;
    let [order] = pair.orders().try_into().unwrap();
    let machine = match moment {
        Moment::AtWrite(n, fault) => pair.runs().store().reboot().with_fault(n, fault),
        Moment::After(_) => pair.runs().store().reboot(),
    };
    // A runtime of its own, whose end takes everything with it, as that of a process does.
    let process = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (worker, event) = (pair.other_worker(&machine), serde_json::to_value(&order).unwrap());
    let deadline = worker.clock.now() + SignedDuration::from_mins(15);
    let working = process.spawn(async move { worker.handle(event, deadline).await });
    let end = async {
        match moment {
            Moment::AtWrite(..) => machine.crashed().await,
            Moment::After(time) => sleep(time).await,
        }
    };
    let has_died = tokio::select! {
        biased;
        () = end => true,
        done = working => { done.unwrap().unwrap(); false }
    };
    machine.crash();
    process.shutdown_background();
    let told = format!("{moment:?} {mode}");
    // The same event again, as Lambda does after a worker that died.
    pair.work(&order).await.unwrap();
    go_on(&mut pair, &firing("once"), &told).await;
    fleet.wait_until_idle();
    (has_died, check(&pair, fleet, marks.path(), &told).await)
}

async fn sweep(fleet: &SshdFleet, mode: &str) -> (usize, usize) {
    let writes = |n| [Fault::CrashBefore, Fault::CrashAfter].map(|fault| Moment::AtWrite(n, fault));
    let (mut died, mut lost) = (0, 0);
    for n in 1..MANY {
        let mut all_survive = true;
        for moment in writes(n) {
            let (has_died, lost_here) = worker_dies(fleet, moment, mode).await;
            all_survive &= !has_died;
            died += usize::from(has_died);
            lost += lost_here;
        }
        if all_survive {
            return (died, lost);
        }
    }
    panic!("a worker makes more than {MANY} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_at_every_write_starts_nothing_twice_and_loses_only_what_may_have_started() {
    let fleet = SshdFleet::same(3);
    let (died, lost) = sweep(&fleet, "").await;
    assert!(died >= 12 && lost > 0 && lost < 3 * died, "{died} died, {lost} lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_at_every_write_of_a_detached_job_starts_nothing_twice() {
    let fleet = SshdFleet::same(3);
    let (died, _) = sweep(&fleet, "mode: detached\n").await;
    assert!(died >= 8, "{died}");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_at_twenty_moments_starts_nothing_twice() {
    let fleet = SshdFleet::same(3);
    let begun = Instant::now();
    let (_, lost) = worker_dies(&fleet, Moment::After(Duration::from_mins(10)), "").await;
    assert_eq!(lost, 0);
    let whole = usize::try_from(begun.elapsed().as_micros()).unwrap();
    let mut rng = Rng::new(20_261_123);
    for _ in 0..20 {
        let moment = Moment::After(Duration::from_micros(u64::try_from(rng.below(whole)).unwrap()));
        let story = timeout(Duration::from_mins(5), worker_dies(&fleet, moment, ""));
        story.await.unwrap();
    }
}
