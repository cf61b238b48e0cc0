//! When a job fires: its expressions on the clock of its zone, its jitter and its blackout ranges.
//!
//! Between two changes of a zone's clock, local time and elapsed time are one; such a [`Stretch`] is asked for its
//! matching local minutes, and all that is special about changed clocks is where a stretch begins.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::blackout::Blackout;
use super::{Expression, InvalidSchedule};
use crate::domain::diagnostic::quoted;
use crate::domain::id::JobName;
use crate::domain::job::Schedule;

/// A job's schedule, ready to be asked: expressions, zone, stable jitter, blackout ranges.
#[derive(Debug, Clone)]
pub struct Calendar {
    expressions: Vec<Expression>,
    zone: TimeZone,
    jitter: SignedDuration,
    blackout: Vec<Blackout>,
}

/// One time at which a job fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The scheduled time: it names the run.
    pub at: Timestamp,
    /// When the run is to start: the scheduled time and the job's jitter.
    pub due: Timestamp,
    /// What changed clocks did to it.
    pub moved: Option<Moved>,
    /// Which blackout range forbids it, for its scheduled time or its start; [`Calendar::blackout`] tells its text.
    pub blackout: Option<usize>,
}

/// What changed clocks do to a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// This local time was skipped: it fires at the first instant after the gap.
    AfterGap(DateTime),
    /// Its local time comes twice: it fires the first time only.
    FirstOfTwo,
}

impl Calendar {
    /// Reads the schedule of `job`.
    ///
    /// The jitter is a hash of the job's name modulo `schedule.jitter`, in whole seconds: every machine that asks
    /// comes to the same.
    ///
    /// # Errors
    /// The first expression, zone or blackout range that is none.
    pub fn new(job: &JobName, schedule: &Schedule) -> Result<Self, InvalidSchedule> {
        let expressions = schedule.expressions.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let zone = TimeZoneDatabase::bundled().get(&schedule.timezone).map_err(|_| InvalidSchedule {
            message: format!("{} is not a time zone of the IANA database", quoted(&schedule.timezone)),
            hint: None,
        })?;
        let blackout = schedule.blackout.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        Ok(Self { expressions, zone, jitter: jitter(job, schedule.jitter.0.as_secs()), blackout })
    }

    /// The firings that are due after `after`, up to and including `until`: in time order, at most `limit`.
    pub fn between(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Firing> {
        let (Ok(mut after), Ok(until)) = (after.checked_sub(self.jitter), until.checked_sub(self.jitter)) else {
            return Vec::new();
        };
        let mut firings = Vec::new();
        while firings.len() < limit {
            let Some(firing) = self.first(after, until) else { break };
            after = firing.at;
            firings.push(firing);
        }
        firings
    }

    /// When the firing of `at` is due.
    pub fn due(&self, at: Timestamp) -> Timestamp {
        at.checked_add(self.jitter).unwrap_or(Timestamp::MAX)
    }

    /// How long after their times firings are due.
    pub const fn delay(&self) -> SignedDuration {
        self.jitter
    }

    /// The first firing that is due after `after`; none where it never fires again.
    pub fn next(&self, after: Timestamp) -> Option<Firing> {
        self.first(after.checked_sub(self.jitter).ok()?, Timestamp::MAX)
    }

    /// The first firing that is due after `after` and that no blackout range forbids.
    pub fn next_allowed(&self, after: Timestamp) -> Option<Firing> {
        let mut firing = self.next(after)?;
        while let Some(range) = firing.blackout.and_then(|index| self.blackout.get(index)) {
            // What is due in the range is forbidden, too; a minute is not asked for in vain a year long.
            let reopened = self.zone.to_ambiguous_timestamp(range.end()).earlier().ok()?;
            let before = reopened.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            firing = self.next(firing.due.max(before))?;
        }
        Some(firing)
    }

    /// The zone whose clock it goes by.
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The expressions, in the order in which they were written; none for a job that fires on demand only.
    pub fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// How the blackout range `index` was written.
    pub fn blackout(&self, index: usize) -> Option<&str> {
        self.blackout.get(index).map(Blackout::as_str)
    }

    /// The first firing that is scheduled after `after`, up to and including `until`.
    fn first(&self, after: Timestamp, until: Timestamp) -> Option<Firing> {
        let firsts = self.expressions.iter().filter_map(|expression| match expression {
            Expression::Rate(period) => first_multiple(period.as_secs(), after, until).map(|at| (at, None)),
            expression => self.first_local(expression, after, until),
        });
        // Several expressions may mean the same instant, and then fire once.
        let (at, moved) = firsts.min_by_key(|(at, _)| *at)?;
        let due = at.checked_add(self.jitter).ok()?;
        let locals = [at, due].map(|instant| self.zone.to_datetime(instant));
        let blackout = self.blackout.iter().position(|range| locals.into_iter().any(|local| range.contains(local)));
        Some(Firing { at, due, moved, blackout })
    }

    /// The first instant after `after`, up to and including `until`, at which the zone's clock matches `expression`.
    fn first_local(
        &self,
        expression: &Expression,
        after: Timestamp,
        until: Timestamp,
    ) -> Option<(Timestamp, Option<Moved>)> {
        let mut from = after.checked_add(SignedDuration::from_nanos(1)).ok()?;
        if self.is_plainly_idle(expression, after, until) {
            return None;
        }
        let last = expression.last();
        while from <= until {
            let stretch = Stretch::around(&self.zone, from);
            if let Some(found) = stretch.first(expression, from, until) {
                return Some(match found {
                    (at, None) if !expression.is_every_hour() && self.comes_twice(stretch.local(at)) => {
                        (at, Some(Moved::FirstOfTwo))
                    }
                    found => found,
                });
            }
            from = stretch.end?;
            if last.is_some_and(|last| last < stretch.offset.to_datetime(from)) {
                return None;
            }
        }
        None
    }

    /// Whether `expression` has nothing in a short window in which no clock is changed.
    ///
    /// So it is with nearly all calendars that a tick asks, and asking when the clock was last changed costs more.
    fn is_plainly_idle(&self, expression: &Expression, after: Timestamp, until: Timestamp) -> bool {
        let offset = self.zone.to_offset(after);
        // No zone has changed its clock and changed it back within so little time.
        until.duration_since(after) <= SignedDuration::from_hours(1)
            && self.zone.to_offset(until) == offset
            && offset
                .to_datetime(until)
                .checked_add(SignedDuration::from_nanos(1))
                .is_ok_and(|before| expression.first(offset.to_datetime(after), before).is_none())
    }

    fn comes_twice(&self, local: DateTime) -> bool {
        matches!(self.zone.to_ambiguous_timestamp(local).offset(), AmbiguousOffset::Fold { .. })
    }
}

/// A time during which a zone's clock is not changed.
#[derive(Debug)]
struct Stretch {
    offset: Offset,
    /// When it began, and what the clock would have shown then without the change; none where it always was so.
    began: Option<(Timestamp, DateTime)>,
    /// The first instant after it.
    end: Option<Timestamp>,
}

impl Stretch {
    /// The stretch that `instant` is in.
    fn around(zone: &TimeZone, instant: Timestamp) -> Self {
        // What precedes the next nanosecond may be `instant` itself.
        let next = instant.checked_add(SignedDuration::from_nanos(1)).unwrap_or(instant);
        let began = zone.preceding(next).next().map(|change| {
            let start = change.timestamp();
            let before = start.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(start);
            (start, zone.to_offset(before).to_datetime(start))
        });
        let end = zone.following(instant).next().map(|change| change.timestamp());
        Self { offset: zone.to_offset(instant), began, end }
    }

    fn local(&self, instant: Timestamp) -> DateTime {
        self.offset.to_datetime(instant)
    }

    /// The first instant from `from` to `until` at which `expression` fires in this stretch.
    fn first(&self, expression: &Expression, from: Timestamp, until: Timestamp) -> Option<(Timestamp, Option<Moved>)> {
        let mut local = self.local(from);
        if let Some((start, shown)) = self.began.filter(|_| !expression.is_every_hour()) {
            // A clock set back shows again what it has shown; a clock set forward has skipped what is still to fire.
            local = if from == start { shown } else { local.max(shown) };
        }
        let end = self.end.filter(|end| *end <= until);
        let before = match end {
            Some(end) => self.local(end),
            None => self.local(until).checked_add(SignedDuration::from_nanos(1)).ok()?,
        };
        let found = expression.first(local, before)?;
        match self.began {
            Some((start, _)) if found < self.local(start) => Some((start, Some(Moved::AfterGap(found)))),
            _ => Some((self.offset.to_timestamp(found).ok()?, None)),
        }
    }
}

/// The first multiple of `period` seconds since the Unix epoch after `after`, up to and including `until`.
fn first_multiple(period: u64, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let period = i64::try_from(period).ok()?;
    // Whole seconds round towards zero: a fraction before 1970 belongs to the second below.
    let second = after.as_second() - i64::from(after.subsec_nanosecond() < 0);
    let next = second.checked_div_euclid(period)?.checked_add(1)?.checked_mul(period)?;
    Timestamp::from_second(next).ok().filter(|next| *next <= until)
}

/// The delay of `job`: less than `most` seconds, and always the same.
fn jitter(job: &JobName, most: u64) -> SignedDuration {
    let hash = Sha256::digest(job.as_str().as_bytes());
    let number = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    SignedDuration::from_secs(number.checked_rem(most).and_then(|delay| i64::try_from(delay).ok()).unwrap_or(0))
}
