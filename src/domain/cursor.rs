//! Up to when firings are decided, by whichever clocks: what every tick goes on from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use super::id::JobName;

/// Firings that are longer past than this are not even counted.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_hours(366 * 24);

/// By how much clocks may differ that are taken for right: longer than any change for the sake of daylight or time zones.
pub const LEAP: SignedDuration = SignedDuration::from_hours(26);

/// The most jobs that are remembered although nobody asks for them.
const MOST_BEHIND: usize = 10_000;

/// `state/cursor.json`: up to when firings are decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Every firing of the jobs in `known` that is due up to this instant is decided.
    pub ticked: Timestamp,
    /// The jobs that the last ticks were about. Another scheduler of the store may know others, and a broken file hides
    /// its job: of those nothing is decided.
    #[serde(default, deserialize_with = "in_one_go", skip_serializing_if = "BTreeSet::is_empty")]
    pub known: BTreeSet<JobName>,
    /// The other jobs: up to when their firings are decided.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub behind: BTreeMap<JobName, Timestamp>,
    /// How many seconds after their times firings were due when they were decided, for the jobs with `jitter`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub delays: BTreeMap<JobName, i64>,
    /// How it last moved by more than a [`LEAP`] at once, until it has moved on as far by small steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leap: Option<Leap>,
}

/// A move of the cursor after a long sleep, or by a clock that was wrong: which of the two, the next clock tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leap {
    /// Where it stood before.
    pub from: Timestamp,
    /// Who was behind it then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub behind: BTreeMap<JobName, Timestamp>,
    /// Where it landed.
    pub to: Timestamp,
}

/// What a tick made of the firings of a job.
#[derive(Debug, Clone, Copy)]
pub struct Looked<'j> {
    /// The job.
    pub job: &'j JobName,
    /// Since when it looked at what is due.
    pub from: Timestamp,
    /// How long after their times firings are due.
    pub delay: SignedDuration,
    /// Whether all of them are decided.
    pub is_decided: bool,
}

/// Ten thousand names in their order make a set much faster than one after the other.
fn in_one_go<'de, D: Deserializer<'de>>(names: D) -> Result<BTreeSet<JobName>, D::Error> {
    Ok(Vec::deserialize(names)?.into_iter().collect())
}

impl Cursor {
    /// A cursor that stands at `ticked` and knows of no job.
    pub const fn at(ticked: Timestamp) -> Self {
        Self { ticked, known: BTreeSet::new(), behind: BTreeMap::new(), delays: BTreeMap::new(), leap: None }
    }

    /// Up to when the firings of `job` are decided, as they were due then; none where nobody has ever looked at them.
    pub fn of(&self, job: &JobName) -> Option<Timestamp> {
        self.behind.get(job).copied().or_else(|| self.known.contains(job).then_some(self.ticked))
    }

    /// Since when firings of `job` are to be decided that are due so long after their times now: where that is less than
    /// it was, some have come to be due in the past. None where nobody has ever looked at them.
    pub fn since(&self, job: &JobName, delay: SignedDuration) -> Option<Timestamp> {
        let was = self.delays.get(job).map_or(SignedDuration::ZERO, |seconds| SignedDuration::from_secs(*seconds));
        let sooner = was.saturating_sub(delay).max(SignedDuration::ZERO);
        Some(self.of(job)?.checked_sub(sooner).unwrap_or(Timestamp::MIN))
    }

    /// Whether `jobs` are those that are known, in the order of their names, and nobody is behind or late: as it is with
    /// nearly every tick. All their firings are to be decided since the cursor's time then.
    pub fn is_of<'j>(&self, jobs: impl Iterator<Item = &'j JobName>) -> bool {
        self.behind.is_empty() && self.delays.is_empty() && self.known.iter().eq(jobs)
    }

    /// The cursor as a clock may go on from it that says `now`, where that is another one: its firings up to `latest` are
    /// over.
    ///
    /// Where it stands days ahead only a wrong clock can have moved it there: it goes back to where it leapt from, or to
    /// `latest` where that is not known. What a wrong clock has passed over is decided then. And where it stands days
    /// behind because a wrong clock has set it back, it goes forth to where it was: nothing is decided twice.
    pub fn for_clock(&self, now: Timestamp, latest: Timestamp) -> Option<Self> {
        let ahead = self.ticked.duration_since(now);
        let leap = self.leap.as_ref().filter(|leap| self.ticked.duration_since(leap.to).abs() <= LEAP);
        if ahead > LEAP {
            return Some(match leap.filter(|leap| leap.from <= latest) {
                Some(leap) => self.back_from(leap),
                None => self.set_back(latest),
            });
        }
        let leap = leap.filter(|leap| self.ticked < leap.from && leap.from.duration_since(now) <= LEAP)?;
        (ahead < -LEAP).then(|| self.back_from(leap))
    }

    /// The cursor where it was before `leap`.
    fn back_from(&self, leap: &Leap) -> Self {
        // Of who was new since then nobody has decided anything by a clock that was right.
        let mut known: BTreeSet<JobName> = self.known.iter().chain(self.behind.keys()).cloned().collect();
        known.retain(|job| !leap.behind.contains_key(job));
        let (ticked, behind, delays) = (leap.from, leap.behind.clone(), self.delays.clone());
        Self { ticked, known, behind, delays, leap: Some(self.leapt_to(ticked)) }
    }

    fn set_back(&self, ticked: Timestamp) -> Self {
        let behind = self.behind.iter().map(|(job, since)| (job.clone(), (*since).min(ticked))).collect();
        let (known, delays) = (self.known.clone(), self.delays.clone());
        Self { ticked, known, behind, delays, leap: Some(self.leapt_to(ticked)) }
    }

    fn leapt_to(&self, to: Timestamp) -> Leap {
        Leap { from: self.ticked, behind: self.behind.clone(), to }
    }

    /// The cursor without these jobs, whose files are gone: should one come back, it is new.
    #[must_use]
    pub fn without(mut self, gone: &BTreeSet<JobName>) -> Self {
        self.known.retain(|job| !gone.contains(job));
        self.behind.retain(|job, _| !gone.contains(job));
        self.delays.retain(|job, _| !gone.contains(job));
        if let Some(leap) = &mut self.leap {
            leap.behind.retain(|job, _| !gone.contains(job));
        }
        self
    }

    /// The cursor after a tick that looked at the firings of these jobs until `until`.
    ///
    /// A tick may be late: then it says nothing of what lies between it and the cursor. Of the jobs that it was not about
    /// it says nothing either; one that nobody asks for any more is forgotten after as long as a scheduler may sleep.
    #[must_use]
    pub fn moved(&self, until: Timestamp, looked: &[Looked<'_>]) -> Self {
        let ticked = self.ticked.max(until);
        if self.is_all_of(until, looked) {
            return Self { ticked, leap: self.leap_to(ticked), ..self.clone() };
        }
        let known = self.known.iter().map(|job| (job, self.ticked));
        let mut decided: BTreeMap<&JobName, Timestamp> =
            self.behind.iter().map(|(job, at)| (job, *at)).chain(known).collect();
        let mut delays = self.delays.clone();
        for Looked { job, from, delay, is_decided } in looked {
            let since = decided.entry(job).or_insert(if *is_decided { until } else { *from });
            if *is_decided {
                // A job that was new to the tick others may know by now, since earlier: what lies between nobody has
                // decided.
                if from <= since {
                    *since = (*since).max(until);
                }
            } else {
                *since = (*since).min(*from);
            }
            // What another clock has decided was due as late as it had it.
            let known = if until < self.ticked { delays.get(*job).copied().unwrap_or_default() } else { 0 };
            match delay.as_secs().max(known) {
                0 => drop(delays.remove(*job)),
                seconds => drop(delays.insert((*job).clone(), seconds)),
            }
        }
        let oldest = ticked.checked_sub(LONGEST_SLEEP).unwrap_or(Timestamp::MIN);
        let (known, mut behind): (Vec<_>, Vec<_>) =
            decided.into_iter().filter(|(_, since)| oldest <= *since).partition(|(_, since)| ticked <= *since);
        if behind.len() > MOST_BEHIND {
            behind.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
            behind.truncate(MOST_BEHIND);
        }
        let known: BTreeSet<JobName> = known.into_iter().map(|(job, _)| job.clone()).collect();
        let behind: BTreeMap<JobName, Timestamp> =
            behind.into_iter().map(|(job, since)| (job.clone(), since)).collect();
        delays.retain(|job, _| known.contains(job) || behind.contains_key(job));
        Self { ticked, known, behind, delays, leap: self.leap_to(ticked) }
    }

    /// Whether a tick has looked at the jobs that are known and at no others, and decided all until then, as it is with
    /// nearly every tick: nothing changes but the time.
    fn is_all_of(&self, until: Timestamp, looked: &[Looked<'_>]) -> bool {
        let is_plain = |looked: &Looked<'_>, known: &JobName| {
            looked.job == known && looked.is_decided && looked.from <= self.ticked && looked.delay.is_zero()
        };
        self.ticked <= until
            && self.behind.is_empty()
            && self.delays.is_empty()
            && self.known.len() == looked.len()
            && self.known.iter().zip(looked).all(|(known, looked)| is_plain(looked, known))
    }

    /// What is to be remembered of leaps where the cursor moves to `ticked`.
    fn leap_to(&self, ticked: Timestamp) -> Option<Leap> {
        if ticked.duration_since(self.ticked) > LEAP {
            return Some(self.leapt_to(ticked));
        }
        self.leap.clone().filter(|leap| ticked.duration_since(leap.to).abs() <= LEAP)
    }
}
