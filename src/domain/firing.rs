//! What becomes of firings: which of them a job's policies let run, and which are skipped and why.
//!
//! Pure decisions over what a [`Calendar`] says. What was decided is kept in [`JobState`], so that every scheduler of a
//! store decides once and alike.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::cursor::{LEAP, LONGEST_SLEEP};
use super::id::{JobName, RunId};
use super::job::{Missed, Overlap, Schedule};
use super::notice::usual;
use super::plan::PLAN_WITHIN;
use super::run::RunState;
use super::schedule::{Calendar, Firing};

/// The most firings of a job that one tick makes runs of. Whoever was away longer has the latest of them.
pub const MOST_AT_ONCE: usize = 100;

/// The most runs of a job that are active at a time, also where `overlap: allow` sets no bound.
pub const MOST_ACTIVE: usize = 100;

/// How many firings a calendar is asked for at a time.
const CHUNK: usize = 1000;

/// How many runs that ran are remembered: enough to know what is usual, and who was told of what.
const RAN: usize = 21;

/// How many that were skipped: enough to know that what was decided last is carried out. They take nobody else's place,
/// for a run that takes long has many of them skipped.
const SKIPPED: usize = 10;

/// `state/jobs/<job>.json`: what has become of a job's firings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// What was decided last. Written before it is carried out: whoever reads it can finish that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decided>,
    /// The runs of firings that are not known to be finished, oldest first.
    #[serde(default)]
    pub active: Vec<RunId>,
    /// The last runs that ended: those that ran in the order of their ends.
    #[serde(default)]
    pub ended: VecDeque<Ended>,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub state: RunState,
    /// When it ended.
    #[serde(default)]
    pub at: Timestamp,
    /// How long it took from its first start, in milliseconds.
    pub took_ms: u64,
}

impl Ended {
    const fn ran(&self) -> bool {
        !matches!(self.state, RunState::Skipped)
    }
}

/// What was decided of a firing, or of a stretch of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The firing, or the first of the stretch.
    pub at: Timestamp,
    /// The last of the stretch.
    pub until: Timestamp,
    /// Whether it runs.
    pub fate: Fate,
    /// The runs that it ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<RunId>,
    /// Until when its run may be planned.
    pub plan_before: Timestamp,
}

/// Whether a firing runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It does.
    Run,
    /// It does not, for this reason.
    Skip(Why),
}

/// Why a firing does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The job is paused.
    Paused,
    /// It lies in this range without firings.
    Blackout(String),
    /// So many firings were noticed too late.
    Missed(u64),
    /// An earlier run is active.
    Overlap(RunId),
    /// As many runs are active as there may be.
    Crowded,
}

impl Why {
    /// Whether it holds for a stretch of time: the firings in it share one record.
    pub const fn lasts(&self) -> bool {
        matches!(self, Self::Paused | Self::Blackout(_))
    }

    /// The reason, as documents tell it.
    pub fn reason(&self, until: Timestamp) -> String {
        match self {
            Self::Paused => "the job is paused, and no firing runs until it is not".to_owned(),
            Self::Blackout(window) => format!("no firing runs in the blackout `{window}`"),
            Self::Missed(1) => "missed: noticed later than the job's `deadline` allows".to_owned(),
            Self::Missed(count) => format!(
                "missed: {count} firings, the last at {until}, were noticed later than the job's `missed` and \
                 `deadline` allow"
            ),
            Self::Overlap(run) => format!("overlap: run `{run}` is still active"),
            Self::Crowded => format!("overlap: {MOST_ACTIVE} runs of the job are active"),
        }
    }
}

/// A firing, or a stretch of skipped ones, in its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The firing, or the first of the stretch.
    pub at: Timestamp,
    /// The last of the stretch.
    pub until: Timestamp,
    /// What its schedule makes of it.
    pub fate: Fate,
    /// Until when its run may be planned.
    pub plan_before: Timestamp,
}

/// The firings of a job after one time and up to another, each with what the job's schedule makes of it. After a long
/// sleep they are many, and are reckoned a thousand at a time.
#[derive(Debug)]
pub struct Reckoning<'a> {
    schedule: &'a Schedule,
    calendar: &'a Calendar,
    from: Timestamp,
    until: Timestamp,
    now: Timestamp,
    stretches: Vec<Stretch>,
    is_done: bool,
}

/// What a firing is before any earlier run is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Paused,
    Blackout(usize),
    Missed,
    Late,
}

impl Kind {
    const fn is_run(self) -> bool {
        matches!(self, Self::Missed | Self::Late)
    }
}

/// Firings in a row of one kind.
#[derive(Debug)]
struct Stretch {
    kind: Kind,
    first: Timestamp,
    last: Timestamp,
    count: u64,
    /// The latest of them: those that may run, and the one before.
    recent: VecDeque<Firing>,
}

impl<'a> Reckoning<'a> {
    /// Of the firings after `after` and up to `until`, as they look `now`.
    pub fn new(
        schedule: &'a Schedule,
        calendar: &'a Calendar,
        after: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Self {
        let from = after.max(now.checked_sub(LONGEST_SLEEP).unwrap_or(Timestamp::MIN));
        Self { schedule, calendar, from, until, now, stretches: Vec::new(), is_done: false }
    }

    /// Reckons the next of them; tells whether there are more.
    pub fn goes_on(&mut self) -> bool {
        let chunk = self.calendar.between(self.from, self.until, CHUNK);
        self.is_done = chunk.len() < CHUNK;
        for firing in chunk {
            self.from = firing.due;
            self.add(firing);
        }
        !self.is_done
    }

    fn add(&mut self, firing: Firing) {
        let kind = match firing.blackout {
            _ if self.schedule.paused => Kind::Paused,
            Some(window) => Kind::Blackout(window),
            None if later(firing.due, self.schedule.deadline.0) < self.now => Kind::Missed,
            None => Kind::Late,
        };
        match self.stretches.last_mut() {
            Some(stretch) if stretch.kind == kind => {
                stretch.last = firing.at;
                stretch.count += 1;
                if stretch.recent.len() > MOST_AT_ONCE {
                    stretch.recent.pop_front();
                }
                stretch.recent.push_back(firing);
            }
            _ => {
                let (first, last) = (firing.at, firing.at);
                self.stretches.push(Stretch { kind, first, last, count: 1, recent: VecDeque::from([firing]) });
            }
        }
    }

    /// What is to be decided, in time order.
    pub fn turns(mut self) -> Vec<Turn> {
        while !self.is_done {
            self.goes_on();
        }
        let missed_after = |n: usize| self.stretches.iter().skip(n + 1).any(|later| later.kind.is_run());
        let mut turns = Vec::new();
        for (n, stretch) in self.stretches.iter().enumerate() {
            let wanted = match (stretch.kind, self.schedule.missed) {
                (Kind::Late, _) | (Kind::Missed, Missed::All) => stretch.recent.len(),
                (Kind::Missed, Missed::Latest) if !missed_after(n) => 1,
                _ => 0,
            };
            stretch.tell(wanted, self.schedule, self.calendar, self.now, &mut turns);
        }
        turns
    }
}

impl Stretch {
    /// Tells the latest `wanted` firings as such that run, and those before them as skipped.
    fn tell(&self, wanted: usize, schedule: &Schedule, calendar: &Calendar, now: Timestamp, turns: &mut Vec<Turn>) {
        let wanted = wanted.min(MOST_AT_ONCE);
        let run: Vec<&Firing> = self.recent.iter().rev().take(wanted).rev().collect();
        let skipped = self.count.saturating_sub(run.len() as u64);
        if skipped > 0 {
            let why = match self.kind {
                Kind::Paused => Why::Paused,
                Kind::Blackout(window) => Why::Blackout(calendar.blackout(window).unwrap_or_default().to_owned()),
                Kind::Missed | Kind::Late => Why::Missed(skipped),
            };
            let before = self.recent.iter().rev().nth(wanted).map_or(self.last, |firing| firing.at);
            turns.push(Turn { at: self.first, until: before, fate: Fate::Skip(why), plan_before: now });
        }
        for firing in run {
            // A firing that is made up for has as long as one that is on time; every one has as long as planning takes.
            let on_time = if self.kind == Kind::Late { firing.due } else { now };
            let plan_before = later(on_time, schedule.deadline.0).max(later(now, PLAN_WITHIN));
            turns.push(Turn { at: firing.at, until: firing.at, fate: Fate::Run, plan_before });
        }
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

/// What comes of deciding a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It adds to the stretch that was decided last: the state is to become this, and nothing is to be carried out.
    Longer(JobState),
    /// It is decided now: the state is to become this, then it is to be carried out.
    Now(JobState),
}

/// Decides `turn` of `job`, the first after what was decided last, over its `state`, whose `active` are known to be
/// unfinished.
pub fn decide(job: &JobName, overlap: Overlap, state: &JobState, turn: &Turn) -> Decision {
    let last = state.decided.as_ref();
    if let (Some(last), Fate::Skip(why)) = (last, &turn.fate)
        && why.lasts()
        && last.fate == turn.fate
        // A stretch that begins later was decided by a clock that was ahead.
        && last.at <= turn.at
    {
        let decided = Decided { until: turn.until, ..last.clone() };
        return Decision::Longer(JobState { decided: Some(decided), ..state.clone() });
    }
    let mut next = state.clone();
    let mut replaces = Vec::new();
    let run = RunId::of_firing(job, turn.at);
    // Where a clock was set back, a firing may be decided again whose run is active.
    let mut others = state.active.iter().filter(|active| **active != run);
    let fate = match (&turn.fate, overlap, others.next_back()) {
        (Fate::Run, Overlap::Skip, Some(run)) => Fate::Skip(Why::Overlap(run.clone())),
        (Fate::Run, _, Some(_)) if state.active.len() >= MOST_ACTIVE => Fate::Skip(Why::Crowded),
        (fate, _, _) => fate.clone(),
    };
    if fate == Fate::Run && !state.active.contains(&run) {
        if overlap == Overlap::Replace {
            replaces.clone_from(&state.active);
        }
        next.active.push(run);
    }
    let Turn { at, until, plan_before, .. } = *turn;
    next.decided = Some(Decided { at, until, fate, replaces, plan_before });
    Decision::Now(next)
}

impl JobState {
    /// Whether `run` may be planned: with `overlap: allow` at once, else when every earlier firing is finished.
    pub fn is_turn_of(&self, run: &RunId, overlap: Overlap) -> bool {
        overlap == Overlap::Allow || self.active.iter().take_while(|earlier| *earlier != run).next().is_none()
    }

    /// Whether what was decided last, of the firing that `run` is, has been carried out to its end: what is known to be
    /// so may have been removed since.
    pub fn is_carried_out(&self, run: &RunId) -> bool {
        match self.decided.as_ref().map(|decided| &decided.fate) {
            Some(Fate::Run) => !self.active.contains(run),
            _ => self.knows_end_of(run),
        }
    }

    /// Whether `run` is decided and may not be claimed yet.
    pub fn is_being_fired(&self, run: &RunId) -> bool {
        let job = run.job();
        let last = self.decided.as_ref().map(|decided| RunId::of_firing(&job, decided.at));
        self.active.contains(run) || last.as_ref() == Some(run) && !self.knows_end_of(run)
    }

    /// Whether it is known that `run` has ended.
    pub fn knows_end_of(&self, run: &RunId) -> bool {
        self.ended.iter().any(|ended| ended.run == *run)
    }

    /// How the last run ended before `at` that was not skipped.
    pub fn last_verdict(&self, at: Timestamp) -> Option<RunState> {
        let before = self.ended.iter().take(self.place_of(at));
        before.rev().find(|ended| ended.ran()).map(|ended| ended.state)
    }

    /// Notes that a run has ended.
    pub fn end(&mut self, ended: Ended) {
        self.active.retain(|active| *active != ended.run);
        let ran = ended.ran();
        // A firing that is skipped comes last, also where a clock was set back: what was decided last must be known.
        let place = if ran { self.place_of(ended.at) } else { self.ended.len() };
        self.ended.insert(place, ended);
        let of_kind = || self.ended.iter().enumerate().filter(|(_, other)| other.ran() == ran).map(|(n, _)| n);
        if of_kind().count() > if ran { RAN } else { SKIPPED }
            && let Some(oldest) = of_kind().next()
        {
            self.ended.remove(oldest);
        }
    }

    /// Where a run that ended `at` stands among those that have: one that is noted late, before those that ended after
    /// it. What ended so much later was noted by a clock that was wrong.
    fn place_of(&self, at: Timestamp) -> usize {
        let is_later = |other: &Ended| {
            let by = other.at.duration_since(at);
            other.ran() && SignedDuration::ZERO < by && by <= LEAP
        };
        self.ended.iter().rposition(|other| other.ran() && !is_later(other)).map_or(0, |before| before + 1)
    }

    /// How long a run that succeeds [`usual`]ly takes.
    pub fn usual(&self) -> Option<Duration> {
        let succeeded = self.ended.iter().filter(|ended| ended.state == RunState::Succeeded);
        usual(succeeded.map(|ended| Duration::from_millis(ended.took_ms)).collect())
    }
}
