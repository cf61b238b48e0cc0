//! Faults on the wire: a connection to a real sshd is cut, changed, delayed or stalled around every packet of it.
//!
//! What really happened is told by a file on the host, to which the script adds the number of its attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use sshjob::domain::job::Job;
use sshjob::domain::layout::RunKeys;
use sshjob::domain::quantity::{Amount, Span};
use sshjob::domain::run::Outcomes;
use sshjob::domain::task::TaskState;
use sshjob::engine::event::Event;
use sshjob::engine::records::Runs;

use crate::support::key::Login;
use crate::support::memory::Memory;
use crate::support::proxy::{Fault, Proxies, Way, Wrong};
use crate::support::rig::{self, Done};
use crate::support::speaker::number;
use crate::support::sshd::{Spec, Sshd};

/// A host, and the folder of the files that its scripts write to.
struct Scene {
    login: Login,
    host: Sshd,
    witnesses: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let login = Login::fresh();
        let host = Sshd::start(Spec::accepting(login.public()));
        Self { login, host, witnesses: tempfile::tempdir().unwrap() }
    }

    /// A script that says where and in which attempt it runs, and has some output; what never started is tried again.
    fn job(&self, timeout: Duration) -> Job {
        let text = "echo $SSHJOB_ATTEMPT >> $WITNESSES/$SSHJOB_INSTANCE; head -c 20000 /dev/zero | tr '\\0' x";
        let mut job = rig::script(&format!("{text}\n{}", "# padding\n".repeat(3000)));
        job.env.insert("WITNESSES".to_owned(), self.witnesses.path().display().to_string());
        job.timeout = Span(timeout);
        job.retries.attempts = 10;
        job.retries.delay = Span(Duration::from_millis(10));
        job
    }

    /// Runs `job` on a way for each fault.
    async fn run(&self, store: &Memory, job: Job, faults: &[Option<Fault>]) -> (Done, Proxies) {
        let proxies = Proxies::start(self.host.address(), faults);
        let request = rig::request(job, proxies.addresses(), "one");
        (rig::run(store, request, &self.login).await.unwrap(), proxies)
    }

    /// Where packets end in a sound connection, in bytes from its beginning: on the way there, and on the way back.
    async fn packets(&self) -> [Vec<usize>; 2] {
        let (done, proxies) = self.run(&Memory::default(), self.job(Duration::from_secs(20)), &[None]).await;
        assert_eq!(done.state(proxies.addresses()[0]), (TaskState::Succeeded, String::new()));
        let record = proxies.record();
        [packet_ends(&record.there), packet_ends(&record.back)]
    }
}

/// Where packets end. AES-GCM, which we prefer, leaves their lengths readable.
fn packet_ends(bytes: &[u8]) -> Vec<usize> {
    let mut end = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (mut ends, mut tag) = (vec![end], 0);
    while end < bytes.len() {
        let length = u32::from_be_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
        let renewed = tag == 0 && bytes[end + 5] == number::NEWKEYS;
        end += 4 + length + tag;
        ends.push(end);
        if renewed {
            tag = 16;
        }
    }
    assert_eq!(end, bytes.len(), "lengths are readable: {ends:?}");
    ends
}

/// `wrongs`, each at a distance from every end of a packet, and in the middle of the largest packet.
fn around(packets: &[Vec<usize>; 2], wrongs: &[(Wrong, isize)]) -> Vec<Option<Fault>> {
    let mut faults = Vec::new();
    for (way, ends) in [Way::There, Way::Back].into_iter().zip(packets) {
        let total = *ends.last().unwrap();
        let largest = ends.windows(2).max_by_key(|pair| pair[1] - pair[0]).unwrap();
        for at in ends.iter().copied().chain([0, usize::midpoint(largest[0], largest[1])]) {
            let points = wrongs.iter().filter_map(|(wrong, by)| Some((*wrong, at.checked_add_signed(*by)?)));
            let points = points.filter(|(_, after)| *after < total);
            faults.extend(points.map(|(wrong, after)| Some(Fault { way, after, wrong })));
        }
    }
    faults
}

/// Holds what the engine says of each task against what the host says; returns how often each thing happened.
fn compare(
    scene: &Scene,
    done: &Done,
    proxies: Proxies,
    faults: &[Option<Fault>],
    packets: &[Vec<usize>; 2],
) -> BTreeMap<String, u32> {
    let instances: Vec<String> = proxies.addresses().iter().map(|at| rig::target(*at).instance.to_string()).collect();
    // What a stalled way still holds open ends with it.
    drop(proxies);
    scene.host.wait_until_idle();
    let mut retried: BTreeMap<String, Vec<TaskState>> = BTreeMap::new();
    for event in &done.events {
        if let Event::TaskRetried { target, record, .. } = event {
            retried.entry(target.instance.to_string()).or_default().push(record.state);
        }
    }
    let tasks: BTreeMap<_, _> = done.tasks().into_iter().map(|(id, record, output)| (id, (record, output))).collect();
    let (mut seen, mut wrong) = (BTreeMap::new(), Vec::new());
    for (fault, instance) in faults.iter().flatten().zip(&instances) {
        let (record, output) = &tasks[instance];
        let starts = std::fs::read_to_string(scene.witnesses.path().join(instance)).unwrap_or_default();
        let this = format!("{}\n", record.attempt);
        let told_truly = match record.state {
            TaskState::Succeeded => starts == this && (record.truncated || output.len() == 20_000),
            TaskState::TimedOut => starts == this,
            TaskState::Lost => starts.is_empty() || starts == this,
            _ => false,
        };
        // Only what certainly never started was tried again, and before the keys are there nothing can have started.
        let earlier = retried.remove(instance).unwrap_or_default();
        let only_unreachable = earlier.iter().all(|state| *state == TaskState::Unreachable);
        let keyless = fault.after < packets[usize::from(fault.way == Way::Back)][3];
        if !told_truly || !only_unreachable || (keyless && record.state != TaskState::Succeeded) {
            wrong.push(format!("{fault:?}: {earlier:?}, then {record:?}; started: {starts:?}"));
        }
        let first = earlier.first().copied().unwrap_or(record.state);
        *seen.entry(format!("{:?} {first}", fault.wrong)).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    seen
}

/// Runs into all these faults at once, `most` at a time.
async fn assert_truth(wrongs: &[(Wrong, isize)], connect: u64, timeout: u64, most: u32) -> BTreeMap<String, u32> {
    let scene = Scene::new();
    let packets = scene.packets().await;
    let faults = around(&packets, wrongs);
    let mut job = scene.job(Duration::from_secs(timeout));
    job.login.connect_timeout = Span(Duration::from_secs(connect));
    job.rollout.max_concurrency = Amount::Count(most);
    let (store, mut batches) = (Memory::default(), 0);
    let (done, proxies) = scene.run(&store, job, &faults).await;
    let seen = compare(&scene, &done, proxies, &faults, &packets);
    let (keys, runs, mut stored) = (RunKeys::new(&done.started.run.run), Runs::new(store), BTreeMap::new());
    while let Some((batch, _)) = runs.read::<Outcomes>(&keys.outcomes(batches)).await.unwrap() {
        stored.extend(batch.tasks.into_iter().map(|(instance, record)| (instance.to_string(), record)));
        batches += 1;
    }
    let told: BTreeMap<_, _> = done.tasks().into_iter().map(|(instance, record, _)| (instance, record)).collect();
    assert_eq!(stored, told);
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_cut_or_changed_at_any_packet_ends_in_the_truth_and_starts_nothing_twice() {
    let wrongs =
        [(Wrong::Cut, -1), (Wrong::Cut, 0), (Wrong::Cut, 1), (Wrong::Flip, -1), (Wrong::Flip, 0), (Wrong::Flip, 8)];
    let seen = assert_truth(&wrongs, 20, 60, 16).await;
    for each in ["Cut unreachable", "Cut lost", "Cut succeeded", "Flip unreachable", "Flip lost"] {
        assert!(seen.contains_key(each), "no {each}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_delayed_or_stalled_at_any_packet_ends_in_the_truth_and_starts_nothing_twice() {
    let seen = assert_truth(&[(Wrong::Delay, 0), (Wrong::Stall, 0)], 3, 2, 100).await;
    for each in ["Delay succeeded", "Stall unreachable", "Stall lost", "Stall timed_out"] {
        assert!(seen.contains_key(each), "no {each}: {seen:?}");
    }
}
