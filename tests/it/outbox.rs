//! Whoever is to be told is told, whatever crashes or is down, and as good as never twice.

mod many;
mod worth;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use sshjob::domain::id::RunId;
use sshjob::domain::job::Notify;
use sshjob::domain::job::notify::Channel;
use sshjob::domain::layout::{self, Key, OUTBOX, RunKeys, active};
use sshjob::domain::notice::Notice;
use sshjob::domain::notice::text::NoticeDocument;
use sshjob::domain::run::{Active, RunRecord, RunState, Verdict};
use sshjob::domain::task::TaskState;
use sshjob::engine::notify::{self, Delivery, Trouble, deliver};
use sshjob::engine::reconcile::write_verdict;
use sshjob::engine::records::Runs;
use sshjob::port::{Notifier, NotifyError, Store as _, StoreError, Written};
use tokio::sync::Notify as Signal;

use super::notify::{end, record};
use super::tick::Rig;
use crate::support::memory::{Fault, Memory};

const BOTH: &str = "{ on: [failure, success], webhook: \"https://a.example\", slack: \"https://b.example\" }";
const PING: &str = "{ ping: \"https://a.example\" }";

/// A post office that counts, and refuses what a test says.
#[derive(Clone, Default)]
struct Post {
    sent: Arc<Mutex<Vec<(Channel, RunState)>>>,
    down: Arc<Mutex<Vec<Channel>>>,
    /// While set, nothing is taken until the second signal; the first tells that somebody waits.
    held: Option<Arc<(Signal, Signal)>>,
}

impl Post {
    fn down(&self, channels: &[Channel]) {
        *self.down.lock().unwrap() = channels.to_vec();
    }

    fn sent(&self) -> Vec<(Channel, RunState)> {
        self.sent.lock().unwrap().clone()
    }

    fn counts(&self) -> BTreeMap<Channel, usize> {
        let mut counts = BTreeMap::new();
        self.sent().iter().for_each(|(channel, _)| *counts.entry(*channel).or_default() += 1);
        counts
    }
}

impl Notifier for Post {
    async fn send(&self, notice: &Notice, _rule: &Notify, channel: Channel) -> Result<(), NotifyError> {
        if let Some(held) = &self.held {
            held.0.notify_one();
            held.1.notified().await;
        }
        if self.down.lock().unwrap().contains(&channel) {
            return Err(NotifyError("it is down".to_owned()));
        }
        self.sent.lock().unwrap().push((channel, notice.state));
        Ok(())
    }
}

fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-11-22T22:16:31Z".parse().unwrap();
    start + Duration::from_secs(seconds)
}

fn outbox(store: &Memory) -> Vec<String> {
    let keys = store.objects().into_iter().map(|(key, _)| key);
    keys.filter(|key| key.starts_with(OUTBOX)).collect()
}

/// Writes down the run, as whoever starts one, and what people are to be told of it.
async fn enqueue(runs: &Runs<Memory>, record: &RunRecord, notice: Notice, now: Timestamp) -> Result<(), StoreError> {
    runs.create(&RunKeys::new(&record.run).run(), record).await?;
    notify::enqueue(runs, record, notice, now).await
}

/// Claims the run, and marks it as active.
async fn activate(runs: &Runs<Memory>, record: &RunRecord) {
    runs.create(&RunKeys::new(&record.run).run(), record).await.unwrap();
    runs.create(&active(&record.run), &Active { driver: None, wave: None }).await.unwrap();
}

async fn deactivate(runs: &Runs<Memory>, record: &RunRecord) {
    runs.store().remove(&active(&record.run)).await.unwrap();
}

/// Writes a verdict as an engine does: the verdict, the notice, then the mark goes. Done again it changes nothing.
async fn finish(runs: &Runs<Memory>, record: &RunRecord) -> Result<(), StoreError> {
    if runs.active(&record.run).await?.is_none() {
        return Ok(());
    }
    runs.store().create(&RunKeys::new(&record.run).result(), b"{}".to_vec()).await?;
    notify::enqueue(runs, record, end(record, RunState::Failed), at(0)).await?;
    runs.store().remove(&active(&record.run)).await
}

/// Does `work` until it is done or its machine has crashed.
async fn until_crash<T>(store: &Memory, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = store.crashed() => None,
    }
}

/// Puts the end of a run of this minute into the outbox.
async fn put(runs: &Runs<Memory>, notify: &str, job: &str, minute: u32) {
    let record = record(notify);
    let run = format!("{job}-20261122T22{minute:02}00Z").parse().unwrap();
    let record = RunRecord { run, ..record };
    enqueue(runs, &record, end(&record, RunState::Failed), at(0)).await.unwrap();
}

#[tokio::test]
async fn verdict_is_told_once_by_every_channel_and_leaves_nothing() {
    let (store, post) = (Memory::default(), Post::default());
    let (runs, record) = (Runs::new(store.clone()), record(BOTH));
    activate(&runs, &record).await;
    finish(&runs, &record).await.unwrap();
    assert_eq!(outbox(&store), ["outbox/rotate-logs-20261122T221500Z.json"]);
    let delivery = deliver(&runs, &post, at(0)).await.unwrap();
    let told = [Channel::Webhook, Channel::Slack].map(|channel| (record.run.clone(), channel)).to_vec();
    assert_eq!(delivery, Delivery { told, ..Delivery::default() });
    assert_eq!(deliver(&runs, &post, at(1)).await.unwrap(), Delivery::default());
    assert_eq!(post.counts(), BTreeMap::from([(Channel::Webhook, 1), (Channel::Slack, 1)]));
    assert_eq!(outbox(&store), [] as [&str; 0]);
}

#[tokio::test]
async fn what_nobody_wants_to_hear_is_not_written() {
    let store = Memory::default();
    let runs = Runs::new(store.clone());
    let quiet = record("{ on: [slow], slow_after: 10m, webhook: \"https://a.example\" }");
    notify::enqueue(&runs, &quiet, end(&quiet, RunState::Failed), at(0)).await.unwrap();
    notify::enqueue(&runs, &quiet, Notice::started(&quiet), at(0)).await.unwrap();
    let silent = RunRecord { job: sshjob::domain::job::Job { notify: None, ..quiet.job.clone() }, ..quiet };
    notify::enqueue(&runs, &silent, end(&silent, RunState::Failed), at(0)).await.unwrap();
    let skipped = record(PING);
    notify::enqueue(&runs, &skipped, end(&skipped, RunState::Skipped), at(0)).await.unwrap();
    assert_eq!(store.writes(), []);
}

#[tokio::test]
async fn server_that_is_down_is_tried_again_ever_later_and_given_up_after_a_day() {
    let (store, post) = (Memory::default(), Post::default());
    let (runs, record) = (Runs::new(store.clone()), record(BOTH));
    activate(&runs, &record).await;
    finish(&runs, &record).await.unwrap();
    post.down(&[Channel::Slack]);
    let (mut now, mut pauses) = (at(0), Vec::new());
    let last = loop {
        let delivery = deliver(&runs, &post, now).await.unwrap();
        let Some(next) = delivery.next else { break delivery };
        pauses.push(next.duration_since(now).as_secs());
        let early = deliver(&runs, &post, next - Duration::from_millis(1)).await.unwrap();
        assert_eq!(early, Delivery { next: Some(next), ..Delivery::default() });
        now = next;
    };
    assert_eq!(pauses[..8], [30, 60, 120, 240, 480, 960, 1920, 3600]);
    assert!(pauses[8..].iter().all(|pause| *pause == 3600), "{pauses:?}");
    let trouble = Trouble {
        run: record.run.clone(),
        channel: Some(Channel::Slack),
        why: "it is down".to_owned(),
        given_up: true,
    };
    assert_eq!(last.troubles, [trouble]);
    let age = now.duration_since(at(0)).as_hours();
    assert_eq!((age, post.counts()), (24, BTreeMap::from([(Channel::Webhook, 1)])));
    assert_eq!(outbox(&store), [] as [&str; 0]);
}

/// Cause: whose clock was days ahead gave up at the first failure.
#[tokio::test]
async fn clock_that_is_days_ahead_gives_nobody_up_at_once() {
    let (store, post) = (Memory::default(), Post::default());
    let (runs, record) = (Runs::new(store.clone()), record(BOTH));
    activate(&runs, &record).await;
    finish(&runs, &record).await.unwrap();
    post.down(&[Channel::Slack]);
    let ahead = deliver(&runs, &post, at(3 * 86_400)).await.unwrap();
    assert_eq!(ahead.troubles.iter().map(|it| it.given_up).collect::<Vec<_>>(), [false]);
    post.down(&[]);
    assert_eq!(deliver(&runs, &post, at(1)).await.unwrap().told, [(record.run, Channel::Slack)]);
}

#[tokio::test]
async fn server_that_comes_back_is_told_once() {
    let (store, post) = (Memory::default(), Post::default());
    let (runs, record) = (Runs::new(store.clone()), record(BOTH));
    activate(&runs, &record).await;
    finish(&runs, &record).await.unwrap();
    post.down(&[Channel::Slack, Channel::Webhook]);
    deliver(&runs, &post, at(0)).await.unwrap();
    post.down(&[]);
    assert_eq!(deliver(&runs, &post, at(29)).await.unwrap().told, []);
    // A clock that was set back by a year is no reason to wait for a year.
    let back = at(0) - Duration::from_hours(24 * 365);
    assert_eq!(deliver(&runs, &post, back).await.unwrap().told.len(), 2);
    assert_eq!(post.counts(), BTreeMap::from([(Channel::Webhook, 1), (Channel::Slack, 1)]));
}

#[tokio::test]
async fn entry_stays_until_nobody_can_write_it_again() {
    let (store, post) = (Memory::default(), Post::default());
    let (runs, record) = (Runs::new(store.clone()), record(BOTH));
    activate(&runs, &record).await;
    for now in [0, 40, 80] {
        // A process that settles the run again and again, and dies before it removes the mark.
        enqueue(&runs, &record, end(&record, RunState::Failed), at(now)).await.unwrap();
        assert_eq!(deliver(&runs, &post, at(now)).await.unwrap().next, Some(at(now + 30)));
    }
    deactivate(&runs, &record).await;
    assert_eq!(deliver(&runs, &post, at(120)).await.unwrap(), Delivery::default());
    assert_eq!(post.counts(), BTreeMap::from([(Channel::Webhook, 1), (Channel::Slack, 1)]));
    assert_eq!(outbox(&store), [] as [&str; 0]);
}

#[tokio::test]
async fn crash_at_any_write_loses_no_message_and_doubles_only_what_was_not_noted() {
    let mut crashes = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorBefore, Fault::ErrorAfter] {
        for n in 1.. {
            let (store, post) = (Memory::default(), Post::default());
            let record = record(BOTH);
            activate(&Runs::new(store.clone()), &record).await;
            let machine = store.reboot().with_fault(n, fault);
            let runs = Runs::new(machine.clone());
            let work = async {
                while finish(&runs, &record).await.is_err() {}
                deliver(&runs, &post, at(0)).await.unwrap();
            };
            until_crash(&machine, work).await;
            let was_hit = machine.writes().len() >= n;
            // Another machine settles the run and looks at the outbox for as long as there is something in it.
            let runs = Runs::new(store.reboot());
            finish(&runs, &record).await.unwrap();
            let mut now = at(200);
            while let Some(next) = deliver(&runs, &post, now).await.unwrap().next {
                now = next.max(now + Duration::from_secs(1));
            }
            let step = format!("{fault:?} at write {n}: {:?}", post.counts());
            assert_eq!(outbox(&store), [] as [&str; 0], "{step}");
            let counts = post.counts();
            assert!(counts.values().all(|count| (1..=2).contains(count)) && counts.len() == 2, "{step}");
            assert!(counts.values().sum::<usize>() <= 3, "more than one message is doubled: {step}");
            if !was_hit {
                assert_eq!(counts.values().sum::<usize>(), 2, "{step}");
                break;
            }
            crashes += 1;
        }
    }
    // The verdict, the entry, the mark, the claim of the entry, a message, that all were told, the end: each in four ways.
    assert_eq!(crashes, 7 * 4);
}

#[tokio::test]
async fn two_senders_tell_once_between_them() {
    let (store, record) = (Memory::default(), record(BOTH));
    let runs = Runs::new(store.clone());
    activate(&runs, &record).await;
    finish(&runs, &record).await.unwrap();
    let held = Arc::new((Signal::new(), Signal::new()));
    let (slow, quick) = (Post { held: Some(Arc::clone(&held)), ..Post::default() }, Post::default());
    let first = tokio::spawn({
        let (runs, slow) = (runs.clone(), slow.clone());
        async move { deliver(&runs, &slow, at(0)).await.unwrap() }
    });
    held.0.notified().await;
    // The first sender's time is over after two minutes; until then the second waits for it.
    let second = deliver(&runs, &quick, at(60)).await.unwrap();
    assert_eq!(second, Delivery { next: Some(at(120)), ..Delivery::default() });
    held.1.notify_one();
    held.1.notify_one();
    held.0.notified().await;
    held.1.notify_one();
    assert_eq!(first.await.unwrap().told.len(), 2);
    assert_eq!((slow.sent().len(), quick.sent()), (2, vec![]));
    assert_eq!(outbox(&store), [] as [&str; 0]);
}

#[tokio::test]
async fn end_of_a_run_takes_the_place_of_its_start_and_never_overtakes_it() {
    let (store, record) = (Memory::default(), record(PING));
    let runs = Runs::new(store.clone());
    activate(&runs, &record).await;
    enqueue(&runs, &record, Notice::started(&record), at(0)).await.unwrap();
    let held = Arc::new((Signal::new(), Signal::new()));
    let slow = Post { held: Some(Arc::clone(&held)), ..Post::default() };
    let first = tokio::spawn({
        let (runs, slow) = (runs.clone(), slow.clone());
        async move { deliver(&runs, &slow, at(0)).await.unwrap() }
    });
    held.0.notified().await;
    finish(&runs, &record).await.unwrap();
    let quick = Post { sent: Arc::clone(&slow.sent), ..Post::default() };
    assert_eq!(deliver(&runs, &quick, at(1)).await.unwrap().told, []);
    held.1.notify_one();
    first.await.unwrap();
    assert_eq!(deliver(&runs, &quick, at(2)).await.unwrap().told.len(), 1);
    assert_eq!(quick.sent(), [(Channel::Ping, RunState::Running), (Channel::Ping, RunState::Failed)]);
    assert_eq!(outbox(&store), [] as [&str; 0]);
    // A start that was down when the end came is not told any more.
    let late = Post::default();
    let record = RunRecord { run: RunId::of_firing(&record.job.name, at(86_400)), ..record };
    activate(&runs, &record).await;
    enqueue(&runs, &record, Notice::started(&record), at(0)).await.unwrap();
    late.down(&[Channel::Ping]);
    deliver(&runs, &late, at(0)).await.unwrap();
    late.down(&[]);
    enqueue(&runs, &record, end(&record, RunState::Failed), at(5)).await.unwrap();
    enqueue(&runs, &record, Notice::started(&record), at(5)).await.unwrap();
    deactivate(&runs, &record).await;
    deliver(&runs, &late, at(5)).await.unwrap();
    assert_eq!(late.sent(), [(Channel::Ping, RunState::Failed)]);
}

#[tokio::test]
async fn run_that_others_have_ended_and_pruned_is_told_of_to_nobody() {
    let (store, record, post) = (Memory::default(), record(PING), Post::default());
    let runs = Runs::new(store.clone());
    // Whoever planned it, or concluded it, slept before this, and woke when nothing was left of the run.
    for notice in [Notice::started(&record), end(&record, RunState::Failed)] {
        notify::enqueue(&runs, &record, notice, at(0)).await.unwrap();
        assert_eq!(deliver(&runs, &post, at(0)).await.unwrap(), Delivery::default());
        assert_eq!((post.sent(), outbox(&store)), (vec![], vec![]));
    }
}

#[tokio::test]
async fn damaged_entry_holds_up_no_other() {
    let (store, post) = (Memory::default(), Post::default());
    let (runs, record) = (Runs::new(store.clone()), record(BOTH));
    for (name, text) in [("a-20261122T221500Z", "{"), ("b-20261122T221500Z", ""), ("../x", "{}"), ("noise", "{}")] {
        let Some(key) = Key::parse(&format!("{OUTBOX}{name}.json")) else { continue };
        assert!(matches!(store.create(&key, text.into()).await.unwrap(), Written::Done(_)));
    }
    enqueue(&runs, &record, end(&record, RunState::Failed), at(0)).await.unwrap();
    let stolen = store.get(&Key::parse("outbox/rotate-logs-20261122T221500Z.json").unwrap()).await.unwrap().unwrap();
    store.create(&Key::parse("outbox/c-20261122T221500Z.json").unwrap(), stolen.bytes).await.unwrap();
    let delivery = deliver(&runs, &post, at(0)).await.unwrap();
    assert_eq!(post.sent().len(), 2);
    let troubles: Vec<_> = delivery.troubles.iter().map(|trouble| (trouble.run.as_str(), trouble.channel)).collect();
    let damaged = ["a-20261122T221500Z", "b-20261122T221500Z", "c-20261122T221500Z"];
    assert_eq!(troubles, damaged.map(|run| (run, None)));
    // The run whose entry it is comes to its end all the same, and is told of.
    let record = RunRecord { run: damaged[0].parse().unwrap(), ..record };
    enqueue(&runs, &record, end(&record, RunState::Failed), at(0)).await.unwrap();
    assert_eq!(deliver(&runs, &post, at(0)).await.unwrap().told.len(), 2);
}

#[tokio::test]
async fn rule_that_was_frozen_with_the_run_tells_whatever_became_of_the_job() {
    let (store, post) = (Memory::default(), Post::default());
    let runs = Runs::new(store.clone());
    let (frozen, edited) = (record(BOTH), record(PING));
    assert_eq!(frozen.run, edited.run);
    enqueue(&runs, &frozen, end(&frozen, RunState::Failed), at(0)).await.unwrap();
    // Settled once more, by whoever has the file as it is now.
    enqueue(&runs, &edited, end(&edited, RunState::Failed), at(1)).await.unwrap();
    deliver(&runs, &post, at(1)).await.unwrap();
    assert_eq!(post.counts(), BTreeMap::from([(Channel::Webhook, 1), (Channel::Slack, 1)]));
}

/// A post office that puts every notice into all the words there are.
struct Wordy;

impl Notifier for Wordy {
    async fn send(&self, notice: &Notice, _rule: &Notify, _channel: Channel) -> Result<(), NotifyError> {
        serde_json::to_string(&NoticeDocument::of(notice)).unwrap();
        let _ = (notice.plain(), notice.slack(), notice.subject(), notice.ping_url("https://a.example"));
        Err(NotifyError("it is down".to_owned()))
    }
}

#[tokio::test]
async fn entry_of_any_numbers_and_times_is_told_of_and_holds_up_no_other() {
    let (earliest, latest) = (Timestamp::MIN.to_string(), Timestamp::MAX.to_string());
    let sender = |expires_at: &str| serde_json::json!({ "nonce": "x", "expires_at": expires_at });
    let cases = [
        ("/failures", serde_json::json!(u32::MAX)),
        ("/due", serde_json::json!(earliest)),
        ("/due", serde_json::json!(latest)),
        ("/since", serde_json::json!(earliest)),
        ("/since", serde_json::json!(latest)),
        ("/sender", sender(&earliest)),
        ("/sender", sender(&latest)),
        ("/notice/started_at", serde_json::json!(earliest)),
        ("/notice/started_at", serde_json::json!(latest)),
        ("/notice/finished_at", serde_json::json!(earliest)),
        ("/notice/finished_at", serde_json::json!(latest)),
        ("/notice/scheduled_for", serde_json::json!(latest)),
        ("/notice/counts/failed", serde_json::json!(u32::MAX)),
        ("/notice/counts/failed", serde_json::json!(-1)),
        ("/notice/counts/failed", serde_json::json!(0)),
        ("/notice/usual", serde_json::json!("99999999999999d")),
        ("/notice/hosts", serde_json::json!(vec![serde_json::json!({ "instance": "i-1", "state": "failed" }); 5000])),
        ("/settled", serde_json::json!(["ping", "email"])),
    ];
    for (at_pointer, value) in cases {
        let (store, case) = (Memory::default(), format!("{at_pointer} = {value}"));
        let runs = Runs::new(store.clone());
        put(&runs, BOTH, "z", 0).await;
        put(&runs, BOTH, "rotate-logs", 0).await;
        let key = Key::parse("outbox/rotate-logs-20261122T220000Z.json").unwrap();
        let object = store.get(&key).await.unwrap().unwrap();
        let mut entry: serde_json::Value = serde_json::from_slice(&object.bytes).unwrap();
        let (parent, name) = at_pointer.rsplit_once('/').unwrap();
        entry.pointer_mut(parent).unwrap()[name] = value;
        let bytes = serde_json::to_vec(&entry).unwrap();
        assert!(matches!(store.swap(&key, &object.version, bytes).await.unwrap(), Written::Done(_)));
        let mut now = at(0);
        for round in 0..3 {
            let delivery = deliver(&runs, &Wordy, now).await.unwrap();
            let tried = |job: &str| delivery.troubles.iter().filter(|it| it.run.as_str().starts_with(job)).count();
            assert_eq!(tried("z-"), 2, "{case}: {delivery:?}");
            assert!(tried("rotate-logs-") > 0 || round > 0, "{case}: {delivery:?}");
            now += Duration::from_hours(2);
        }
    }
}

#[tokio::test]
async fn entry_from_the_future_is_given_up_all_the_same() {
    let (store, mut now) = (Memory::default(), at(0));
    let (runs, record) = (Runs::new(store.clone()), record(BOTH));
    enqueue(&runs, &record, end(&record, RunState::Failed), Timestamp::MAX - Duration::from_hours(48)).await.unwrap();
    let mut tries = 0;
    while let Some(next) = deliver(&runs, &Wordy, now).await.unwrap().next {
        (now, tries) = (next, tries + 1);
    }
    assert_eq!((tries, outbox(&store)), (60, vec![]));
}

/// Whoever writes a verdict may die at any write of it; who comes next tells of it, and nobody tells twice.
#[tokio::test(start_paused = true)]
async fn verdict_that_is_concluded_late_is_told_of_once() {
    const DAILY: &str = "schedule: '0 12 * * *'\nnotify: { on: failure, webhook: 'https://a.example' }\n";
    let mut crashes = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorBefore, Fault::ErrorAfter] {
        for n in 1.. {
            let (rig, post) = (Rig::new(&[("a", DAILY)]), Post::default());
            rig.tick("12:00:00").await;
            let run: RunId = "a-20261122T120000Z".parse().unwrap();
            let record = rig.runs.run(&run).await.unwrap().unwrap();
            let counts = [TaskState::Failed].into_iter().collect();
            let finished_at = "2026-11-22T12:00:30Z".parse().unwrap();
            let began_at = Some(record.started_at);
            let verdict = Verdict { state: RunState::Failed, reason: None, counts, began_at, finished_at };
            let machine = rig.runs.store().reboot().with_fault(n, fault);
            let _ = until_crash(&machine, write_verdict(&Runs::new(machine.clone()), &record, verdict.clone())).await;
            // Whoever looks next settles the run, or finds that nobody has ended it.
            rig.tick("12:01:00").await;
            let is_written = rig.runs.verdict(&run).await.unwrap().is_some();
            let now = finished_at + Duration::from_mins(1);
            while deliver(&rig.runs, &post, now).await.unwrap().next.is_some_and(|next| next <= now) {}
            let case = format!("{fault:?} at write {n}");
            assert_eq!(post.sent().len(), usize::from(is_written), "{case}");
            assert_eq!(outbox(rig.runs.store()), [] as [&str; 0], "{case}");
            // One that was held up for long writes it all again, when nobody remembers the run any more.
            rig.runs.store().remove(&layout::job_state(&run.job())).await.unwrap();
            write_verdict(&rig.runs, &record, verdict).await.unwrap();
            deliver(&rig.runs, &post, now).await.unwrap();
            assert_eq!(post.sent().len(), 1, "{case}");
            assert_eq!(outbox(rig.runs.store()), [] as [&str; 0], "{case}");
            if machine.writes().len() < n {
                break;
            }
            crashes += 1;
        }
    }
    // The verdict, the entry, what the job knows, the mark: each in four ways.
    assert_eq!(crashes, 4 * 4);
}
