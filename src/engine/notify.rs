//! The outbox: what people are to be told is written down beside the verdict, and sent when their servers are there.
//!
//! An entry is created once per run, before the run stops being active, and removed once everybody was told and the run
//! is active no more. So a crash between the verdict and the message loses nothing, and settling a run twice tells
//! nobody twice; that people were told stays with the run, for who settles it late. Each message that went out is
//! written down before the next attempt; only a crash in the moment between a server's answer and that write sends
//! again, and then under the same id.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::records::{MAX_TASKS, Runs, damaged};
use super::{claim, clock};
use crate::adapter::process;
use crate::domain::diagnostic::chain;
use crate::domain::id::RunId;
use crate::domain::job::Notify;
use crate::domain::job::notify::Channel;
use crate::domain::layout::{self, Key, OUTBOX, RunKeys};
use crate::domain::notice::Notice;
use crate::domain::run::{Claim, RunRecord};
use crate::port::{Notifier, NotifyError, Store, StoreError, Version, Written};

/// The pause after a first failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause: a server that comes back is found within it.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Nobody wants to hear of it later than this.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Nobody is given up before so many failures in a row, however old the entry looks: one sender's clock may be days ahead.
const MIN_FAILURES: u32 = 5;

/// More failures than a day has room for: where clocks were set, they tell that it is late.
const MAX_FAILURES: u32 = 60;

/// How long a sender may take for one entry: far longer than the deadline of a message.
const LEASE: Duration = Duration::from_mins(2);

/// A finished entry waits this long for its run to be active no more, then is looked at again.
const LINGER: Duration = Duration::from_secs(30);

/// A sender that says it takes longer than this has a clock that is wrong, and is not waited for.
const LONGEST_LEASE: SignedDuration = SignedDuration::from_hours(1);

/// How many entries are looked at, and sent from, at a time.
const AT_A_TIME: usize = 16;

/// How many of those are told by one rule: whose server is slow holds up nobody else's messages.
const AT_A_TIME_BY_ONE: usize = 4;

/// How many entries one call takes on, and of those by one rule: what they are in memory has a bound.
const AT_MOST: usize = 256;
const AT_MOST_BY_ONE: usize = 32;

/// No entry is begun later than this in one call: with the time that a message may take, that is within the lease.
const BEGIN_WITHIN: Duration = Duration::from_secs(20);

/// What is said of a message over which the program itself stumbled.
const FAULT: &str = "a fault of sshjob itself; please report it";

/// How many keys are listed at a time.
const PAGE: usize = 1000;

/// `outbox/<run>.json`: what people are still to be told of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// What they are told.
    notice: Notice,
    /// Who they are, as frozen with the run.
    rule: Notify,
    /// Who was told, or is not tried any more.
    #[serde(default)]
    settled: BTreeSet<Channel>,
    /// How many times in a row somebody could not be told.
    #[serde(default)]
    failures: u32,
    /// When it was written.
    since: Timestamp,
    /// It is not looked at before.
    due: Timestamp,
    /// Who is sending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<Claim>,
}

impl Entry {
    /// Who is still to be told.
    fn unsettled(&self) -> Vec<Channel> {
        let channels = self.rule.channels().filter(|channel| self.notice.concerns(*channel));
        channels.filter(|channel| !self.settled.contains(channel)).collect()
    }
}

/// Somebody who could not be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Of which run.
    pub run: RunId,
    /// By which channel; none where the entry itself cannot be read.
    pub channel: Option<Channel>,
    /// Why not.
    pub why: String,
    /// Whether it is not tried again.
    pub given_up: bool,
}

/// What came of a look at the outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Who was told of which run.
    pub told: Vec<(RunId, Channel)>,
    /// Who could not be told.
    pub troubles: Vec<Trouble>,
    /// When the next look is worth it; none where nothing is left.
    pub next: Option<Timestamp>,
}

/// Why the outbox was not looked at.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random numbers to name a sender by.
    #[error("there are no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Writes down what people are to be told of a run; nothing where nobody wants to hear it.
///
/// Called after the verdict is written and before the mark that the run is active is removed, as often as one likes:
/// the first notice of an end stays. The notice of a start is replaced by that of the end.
///
/// # Errors
/// Where the store does not answer; whether it was written is then unknown, and calling again is right.
pub async fn enqueue<S: Store>(
    runs: &Runs<S>,
    record: &RunRecord,
    notice: Notice,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(rule) = record.job.notify.as_deref().cloned() else { return Ok(()) };
    let key = layout::outbox(&record.run);
    let mut entry = Entry { notice, rule, settled: BTreeSet::new(), failures: 0, since: now, due: now, sender: None };
    if entry.unsettled().is_empty() {
        return Ok(());
    }
    loop {
        if let Written::Done(_) = runs.create(&key, &entry).await? {
            return Ok(());
        }
        let version = match read(runs, &key).await {
            Ok(Some((old, _))) if old.notice.state.is_final() || !entry.notice.state.is_final() => return Ok(()),
            Ok(Some((old, version))) => {
                // Whoever is telling of the start has it until that is over: the end never overtakes it.
                entry.sender = old.sender;
                version
            }
            Ok(None) => continue,
            // What nobody can read tells nobody anything, and must not keep the run from its end.
            Err(StoreError::Damaged { .. }) => match runs.store().get(&key).await? {
                Some(damaged) => damaged.version,
                None => continue,
            },
            Err(error) => return Err(error),
        };
        if let Written::Done(_) = runs.swap(&key, &version, &entry).await? {
            return Ok(());
        }
    }
}

/// Sends what is due in the outbox, at most 256 runs' worth, and returns within a minute.
///
/// Sixteen are sent from at a time, at most four of them to the same people: a server that is slow holds up nobody
/// else's messages. Where more is due, `next` of what is returned has passed, and calling again goes on. Any number of
/// processes may do this on one store. What cannot be sent is tried again after 30 s, then 1, 2, 4 … minutes, at most an
/// hour, and given up after a day and some failures, with a warning. An entry that cannot be read is a trouble, not an
/// error: it holds up no other.
///
/// # Errors
/// Where the store does not list the outbox; what was sent until then stays sent.
pub async fn deliver<S: Store, N: Notifier>(
    runs: &Runs<S>,
    notifier: &N,
    now: Timestamp,
) -> Result<Delivery, DeliverError> {
    let sender = Claim { nonce: clock::nonce()?, expires_at: now + LEASE, holder: process::this(), turn: 0 };
    let mut delivery = Delivery::default();
    let mut due: Vec<Due> = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let keys = runs.store().list(OUTBOX, after.as_ref(), PAGE).await?;
        after = keys.last().filter(|_| keys.len() == PAGE).cloned();
        let entries: Vec<(RunId, Key)> = keys.into_iter().filter_map(|key| Some((run_of(&key)?, key))).collect();
        let looks = entries.into_iter().map(|(run, key)| async move {
            let seen = look(runs, &key, now).await;
            (key, run, seen)
        });
        let mut looks = stream::iter(looks).buffered(AT_A_TIME);
        while let Some((key, run, seen)) = looks.next().await {
            match seen {
                Ok(Seen::Nothing) => {}
                Ok(Seen::Later(due)) => delivery.look_at(due),
                Ok(Seen::Due(entry, version)) => {
                    if take_on(&mut due, Due { key, entry, version }) {
                        delivery.look_at(now);
                    }
                }
                Err(error) => delivery.stumble(run, &error, now),
            }
        }
        if after.is_none() {
            break;
        }
    }
    let mut lanes: Vec<Vec<Due>> = Vec::new();
    for due in due {
        match lanes.iter_mut().find(|lane| lane.first().is_some_and(|first| first.entry.rule == due.entry.rule)) {
            Some(lane) => lane.push(due),
            None => lanes.push(vec![due]),
        }
    }
    let (began, places, sender) = (Instant::now(), &Semaphore::new(AT_A_TIME), &sender);
    let lanes = lanes.into_iter().map(|lane| {
        let sending = lane.into_iter().map(|Due { key, entry, version }| async move {
            let parcel = Parcel { runs, key, run: entry.notice.run.clone(), sender, now };
            let _place = places.acquire().await;
            let sent = if began.elapsed() < BEGIN_WITHIN {
                parcel.send(notifier, *entry, version).await
            } else {
                Sent { told: Vec::new(), troubles: Vec::new(), due: Ok(Some(now)) }
            };
            (parcel.run, sent)
        });
        Box::pin(stream::iter(sending).buffer_unordered(AT_A_TIME_BY_ONE))
    });
    let mut sending = stream::select_all(lanes);
    while let Some((run, sent)) = sending.next().await {
        delivery.told.extend(sent.told.into_iter().map(|channel| (run.clone(), channel)));
        delivery.troubles.extend(sent.troubles);
        match sent.due {
            Ok(due) => due.into_iter().for_each(|due| delivery.look_at(due)),
            Err(error) => delivery.stumble(run, &error, now),
        }
    }
    Ok(delivery)
}

/// An entry that is to be sent.
struct Due {
    key: Key,
    entry: Box<Entry>,
    version: Version,
}

/// Takes on `new`; tells whether something is left for another call because of it.
///
/// What has not failed yet comes first: a server that is down holds up nobody else's messages for long.
fn take_on(due: &mut Vec<Due>, new: Due) -> bool {
    let last = due.partition_point(|other| other.entry.failures <= new.entry.failures);
    let is_same = |other: &&Due| other.entry.rule == new.entry.rule;
    let by_one = due.iter().filter(is_same).count();
    let latest = due.iter().rposition(|other| is_same(&other));
    due.insert(last, new);
    if by_one >= AT_MOST_BY_ONE {
        // The later of those by the same rule: the new one itself, or the one that it has pushed back.
        due.remove(latest.map_or(last, |latest| if latest < last { last } else { latest + 1 }));
        return true;
    }
    let is_full = due.len() > AT_MOST;
    due.truncate(AT_MOST);
    is_full
}

impl Delivery {
    /// Whether anybody was told, or refused to be.
    pub fn got_on(&self) -> bool {
        !self.told.is_empty() || self.troubles.iter().any(|trouble| trouble.channel.is_some())
    }

    fn look_at(&mut self, due: Timestamp) {
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }

    fn stumble(&mut self, run: RunId, error: &StoreError, now: Timestamp) {
        self.look_at(now + FIRST_PAUSE);
        self.troubles.push(Trouble { run, channel: None, why: chain(error), given_up: false });
    }
}

/// How an entry stands.
enum Seen {
    /// It is to be sent, and nobody does.
    Due(Box<Entry>, Version),
    /// There is nothing to do before this.
    Later(Timestamp),
    /// It is gone.
    Nothing,
}

/// Looks at an entry; removes it where everybody was told and nobody will write it again.
async fn look<S: Store>(runs: &Runs<S>, key: &Key, now: Timestamp) -> Result<Seen, StoreError> {
    let Some((entry, version)) = read(runs, key).await? else { return Ok(Seen::Nothing) };
    if let Some(other) = &entry.sender
        && other.expires_at.duration_since(now) <= LONGEST_LEASE
        && !claim::is_dead(other, now)
    {
        return Ok(Seen::Later(other.expires_at));
    }
    // A clock that was set back must not keep people waiting for as long as it was ahead.
    if entry.due > now && entry.due <= now + LONGEST_PAUSE {
        return Ok(Seen::Later(entry.due));
    }
    if !entry.unsettled().is_empty() {
        return Ok(Seen::Due(Box::new(entry), version));
    }
    if runs.active(&entry.notice.run).await?.is_some() {
        return Ok(Seen::Later(now + LINGER));
    }
    // The end is written before the mark goes: read after the mark, the entry is the last there will be.
    match read(runs, key).await? {
        Some((_, last)) if last == version => discard(runs, key, &entry, now).await.map(|()| Seen::Nothing),
        Some(_) => Ok(Seen::Later(now)),
        None => Ok(Seen::Nothing),
    }
}

/// Removes an entry of which everybody was told. That they were told of an end stays with the run: whoever concludes it
/// late writes the same entry again, and that is not sent.
async fn discard<S: Store>(runs: &Runs<S>, key: &Key, entry: &Entry, now: Timestamp) -> Result<(), StoreError> {
    if entry.notice.state.is_final() {
        runs.create(&RunKeys::new(&entry.notice.run).told(), &now).await?;
    }
    runs.store().remove(key).await
}

/// An entry on its way.
struct Parcel<'d, S> {
    runs: &'d Runs<S>,
    key: Key,
    run: RunId,
    sender: &'d Claim,
    now: Timestamp,
}

/// What came of sending one entry.
struct Sent {
    told: Vec<Channel>,
    troubles: Vec<Trouble>,
    /// When the next look is worth it.
    due: Result<Option<Timestamp>, StoreError>,
}

impl<S: Store> Parcel<'_, S> {
    /// Claims the entry, sends what is left of it, and gives it back.
    async fn send<N: Notifier>(&self, notifier: &N, mut entry: Entry, version: Version) -> Sent {
        let mut sent = Sent { told: Vec::new(), troubles: Vec::new(), due: Ok(None) };
        sent.due = self.send_from(notifier, &mut entry, version, &mut sent.told, &mut sent.troubles).await;
        sent
    }

    async fn send_from<N: Notifier>(
        &self,
        notifier: &N,
        entry: &mut Entry,
        mut version: Version,
        told: &mut Vec<Channel>,
        troubles: &mut Vec<Trouble>,
    ) -> Result<Option<Timestamp>, StoreError> {
        entry.sender = Some(self.sender.clone());
        match self.runs.swap(&self.key, &version, entry).await? {
            Written::Done(ours) => version = ours,
            Written::Conflict => return Ok(Some(self.now)),
        }
        // Whoever slept before this was written may have slept until people were told of the end, or even until the run was
        // pruned, which waits until they were.
        let (keys, store) = (RunKeys::new(&self.run), self.runs.store());
        if store.get(&keys.told()).await?.is_some() || store.get(&keys.run()).await?.is_none() {
            return store.remove(&self.key).await.map(|()| None);
        }
        let age = self.now.duration_since(entry.since);
        let is_late = age >= GIVE_UP_AFTER && entry.failures >= MIN_FAILURES || entry.failures >= MAX_FAILURES;
        let (notice, rule) = (entry.notice.clone(), entry.rule.clone());
        let messages = entry.unsettled().into_iter().map(|channel| {
            let (notice, rule) = (&notice, &rule);
            async move {
                // A fault of ours over one message ends no other, and comes ever later again like any failure.
                let sent = AssertUnwindSafe(notifier.send(notice, rule, channel)).catch_unwind().await;
                (channel, sent.unwrap_or_else(|_| Err(NotifyError(FAULT.to_owned()))))
            }
        });
        let mut messages: FuturesUnordered<_> = messages.collect();
        while let Some((channel, result)) = messages.next().await {
            if let Err(error) = &result {
                troubles.push(trouble(&self.run, channel, error, is_late));
            } else {
                told.push(channel);
            }
            if result.is_err() && !is_late {
                continue;
            }
            entry.settled.insert(channel);
            // The last write also gives the entry back.
            if !messages.is_empty() {
                match self.runs.swap(&self.key, &version, entry).await? {
                    Written::Done(ours) => version = ours,
                    Written::Conflict => return self.let_go().await,
                }
            }
        }
        entry.sender = None;
        if entry.unsettled().is_empty() {
            // Nobody replaces the notice of an end, so it may go as it is.
            // That people were told is written down also where the store does not answer this.
            if notice.state.is_final() && self.runs.active(&self.run).await.is_ok_and(|active| active.is_none()) {
                return discard(self.runs, &self.key, entry, self.now).await.map(|()| None);
            }
            entry.due = self.now + LINGER;
        } else {
            entry.due = self.now + pause(entry.failures);
            entry.failures = entry.failures.saturating_add(1);
        }
        match self.runs.swap(&self.key, &version, entry).await? {
            Written::Done(_) => Ok(Some(entry.due)),
            Written::Conflict => self.let_go().await,
        }
    }

    /// Gives back an entry in which the end has taken the place of the start that was being told.
    async fn let_go(&self) -> Result<Option<Timestamp>, StoreError> {
        while let Some((mut entry, version)) = read(self.runs, &self.key).await? {
            if entry.sender.as_ref() != Some(self.sender) {
                return Ok(Some(self.now));
            }
            entry.sender = None;
            if let Written::Done(_) = self.runs.swap(&self.key, &version, &entry).await? {
                return Ok(Some(entry.due));
            }
        }
        Ok(None)
    }
}

fn trouble(run: &RunId, channel: Channel, error: &NotifyError, given_up: bool) -> Trouble {
    let why = error.to_string();
    if given_up {
        tracing::warn!(%run, %channel, "nobody was told by {channel} within a day, and no more is tried: {why}");
    } else {
        tracing::info!(%run, %channel, "nobody was told by {channel}; it will be tried again: {why}");
    }
    Trouble { run: run.clone(), channel: Some(channel), why, given_up }
}

/// The pause after `failures` earlier failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

async fn read<S: Store>(runs: &Runs<S>, key: &Key) -> Result<Option<(Entry, Version)>, StoreError> {
    let Some((entry, version)) = runs.read::<Entry>(key).await? else { return Ok(None) };
    if layout::outbox(&entry.notice.run) != *key {
        return Err(damaged(key, format!("it is of the run `{}`", entry.notice.run)));
    }
    let tasks: u64 = entry.notice.counts.iter().map(|(_, count)| u64::from(count)).sum();
    if tasks > u64::from(MAX_TASKS) {
        return Err(damaged(key, format!("it counts {tasks} tasks; a run has at most {MAX_TASKS}")));
    }
    Ok(Some((entry, version)))
}

/// The run that a key of the outbox is of.
fn run_of(key: &Key) -> Option<RunId> {
    key.as_str().strip_prefix(OUTBOX)?.strip_suffix(".json")?.parse().ok()
}
