//! Which batches of a run go to worker functions, which are closed, and when the next wave opens: decided at every
//! tick, from what the store tells and nothing else.
//!
//! Nobody remembers which orders were sent. A batch that nobody holds and that is not done gets one at every tick until
//! a worker has claimed it; one too many finds the claim taken. So a lost order, a dead worker and a tick that came
//! twice need no repair of their own.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::order::Action;
use super::run::{Control, Plan, Wave};
use super::task::{Tally, TaskState};

/// How long an order counts. The next tick sends another, so that none needs to wait in a queue for longer.
pub const ORDER_COUNTS_FOR: SignedDuration = SignedDuration::from_secs(90);

/// How many workers may die over one batch before it is given up.
pub const MOST_TURNS: u32 = 3;

/// What the store tells of a batch.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// How its tasks stand.
    pub tally: Tally,
    /// Until when a worker's claim holds, or when the last one's ended.
    pub held_until: Option<Timestamp>,
    /// How many workers have taken it.
    pub turn: u32,
}

/// What the store tells of a run that worker functions carry.
#[derive(Debug, Clone)]
pub struct Standing<'a> {
    /// Its plan.
    pub plan: &'a Plan,
    /// Whether its first wave is a canary.
    pub canary: bool,
    /// Whether its scripts outlive the connection.
    pub detached: bool,
    /// What someone has asked of it.
    pub control: &'a Control,
    /// The wave that is open.
    pub wave: Option<Wave>,
    /// How long workers may take to come for a batch.
    pub deadline: Duration,
    /// Its batches, by number.
    pub batches: &'a [Batch],
}

/// Why tasks are closed that never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// Someone has asked for it.
    Cancelled,
    /// More errors than this.
    MaxErrors(u32),
    /// A canary did not succeed.
    Canary,
    /// No worker came for them in time.
    Unclaimed,
    /// One worker after the other died over them.
    Dying,
}

/// What is to be done about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// A worker is to be sent this order.
    Send(Action, u32),
    /// Its tasks become final: what never started for this reason.
    Close(u32, Halt),
}

/// What is to be done about a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// What the open wave is to become before anything is done, where it changes.
    pub wave: Option<Option<Wave>>,
    /// What is to be done, in the order of the batches.
    pub moves: Vec<Move>,
    /// Whether every task is final.
    pub is_over: bool,
    /// Why the run does not come to all of its tasks, if so.
    pub halt: Option<Halt>,
}

impl Batch {
    fn is_held(&self, now: Timestamp) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    fn of(&self, state: TaskState) -> u32 {
        self.tally.counts.of(state)
    }
}

impl Standing<'_> {
    /// What is to be done `now`.
    pub fn decide(&self, now: Timestamp) -> Decision {
        let halt = self.halt();
        let mut decision = Decision { halt, is_over: self.is_over(), ..Decision::default() };
        if decision.is_over {
            return decision;
        }
        let open = if halt.is_some() || self.control.paused { None } else { self.open_wave() };
        let wave = open.map(|number| match self.wave {
            Some(wave) if wave.number == number => wave,
            _ => Wave { number, opened_at: now },
        });
        // One that is only finishing keeps its mark: nothing depends on it any more.
        if wave != self.wave && (wave.is_some() || self.control.paused) {
            decision.wave = Some(wave);
        }
        let in_wave = |n: u32| open.is_some_and(|number| self.batches_of(number).contains(&n));
        for (n, batch) in (0..).zip(self.batches) {
            // Its worker does what there is to do, and hears by itself of what was asked.
            if batch.is_held(now) {
                continue;
            }
            if self.has_work(batch) {
                match (halt, wave.filter(|_| in_wave(n))) {
                    (Some(halt), _) => decision.moves.push(Move::Close(n, halt)),
                    (None, Some(wave)) => decision.moves.push(self.send_or_give_up(n, batch, wave, now)),
                    (None, None) => {}
                }
            }
            if self.detached && batch.of(TaskState::Running) > 0 {
                let action = if self.control.cancelled { Action::Cancel } else { Action::Collect };
                decision.moves.push(Move::Send(action, n));
            }
        }
        decision
    }

    fn send_or_give_up(&self, n: u32, batch: &Batch, wave: Wave, now: Timestamp) -> Move {
        let since = batch.held_until.map_or(wave.opened_at, |until| until.max(wave.opened_at));
        let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if batch.turn >= MOST_TURNS {
            Move::Close(n, Halt::Dying)
        } else if waited > self.deadline {
            Move::Close(n, Halt::Unclaimed)
        } else {
            Move::Send(Action::Run, n)
        }
    }

    /// Whether a batch has tasks that need a worker: for their start or, where one has died over them, for their end.
    fn has_work(&self, batch: &Batch) -> bool {
        batch.of(TaskState::Pending) > 0 || (!self.detached && batch.of(TaskState::Running) > 0)
    }

    fn is_over(&self) -> bool {
        self.batches.iter().all(|batch| batch.of(TaskState::Pending) + batch.of(TaskState::Running) == 0)
    }

    fn halt(&self) -> Option<Halt> {
        if self.control.cancelled {
            return Some(Halt::Cancelled);
        }
        let first = self.batches_of(0);
        let canaries = self.batches.get(..first.end as usize).unwrap_or_default();
        // One that never started tells nothing, and nothing may go on by that.
        if self.canary && canaries.iter().any(|batch| batch.tally.counts.errors() > 0) {
            return Some(Halt::Canary);
        }
        let allowed = self.plan.max_errors?;
        let failed: u32 = self.batches.iter().map(|batch| batch.tally.counts.failures()).sum();
        (failed > allowed).then_some(Halt::MaxErrors(allowed))
    }

    /// The first wave that is not done; none where all are.
    fn open_wave(&self) -> Option<u32> {
        let count = u32::try_from(self.plan.waves.len()).unwrap_or(u32::MAX);
        (0..count).find(|number| {
            // How a canary ends decides, not that it has started.
            let must_end = self.canary && *number == 0;
            let batches = self.batches_of(*number);
            let batches = self.batches.get(batches.start as usize..batches.end as usize).unwrap_or_default();
            batches.iter().any(|batch| self.has_work(batch) || (must_end && batch.of(TaskState::Running) > 0))
        })
    }

    fn batches_of(&self, wave: u32) -> std::ops::Range<u32> {
        self.plan.waves.get(wave as usize).map_or(0..0, |(from, to)| *from..*to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW + seconds).unwrap()
    }

    fn batch(states: &[TaskState]) -> Batch {
        Batch {
            tally: Tally { counts: states.iter().copied().collect(), ..Tally::default() },
            held_until: None,
            turn: 0,
        }
    }

    /// A run of one batch per wave.
    struct Run {
        plan: Plan,
        control: Control,
        batches: Vec<Batch>,
        wave: Option<Wave>,
        canary: bool,
        detached: bool,
    }

    impl Run {
        fn of(batches: Vec<Batch>) -> Self {
            let count = u32::try_from(batches.len()).unwrap();
            let plan = Plan {
                batches: batches.iter().map(|batch| batch.tally.counts.total()).collect(),
                waves: (0..count).map(|n| (n, n + 1)).collect(),
                max_concurrency: 1,
                max_errors: None,
                sealed: None,
            };
            Self { plan, control: Control::default(), batches, wave: None, canary: false, detached: false }
        }

        fn decide(&self, now: i64) -> Decision {
            let Self { plan, control, batches, wave, canary, detached } = self;
            let deadline = Duration::from_mins(10);
            let (canary, detached) = (*canary, *detached);
            Standing { plan, canary, detached, control, wave: *wave, deadline, batches }.decide(at(now))
        }
    }

    use TaskState::{Failed, Pending, Running, Succeeded};

    #[test]
    fn wave_opens_when_the_one_before_has_no_work_left() {
        let mut run = Run::of(vec![batch(&[Pending, Pending]), batch(&[Pending])]);
        let first = run.decide(0);
        let wave = Wave { number: 0, opened_at: at(0) };
        assert_eq!((first.wave, first.moves), (Some(Some(wave)), vec![Move::Send(Action::Run, 0)]));
        run.wave = Some(wave);
        assert_eq!(run.decide(60).wave, None);
        run.batches[0] = Batch { held_until: Some(at(900)), turn: 1, ..batch(&[Running, Succeeded]) };
        assert_eq!(run.decide(60).moves, []);
        run.batches[0] = batch(&[Failed, Succeeded]);
        let second = run.decide(120);
        let wave = Wave { number: 1, opened_at: at(120) };
        assert_eq!((second.wave, second.moves), (Some(Some(wave)), vec![Move::Send(Action::Run, 1)]));
    }

    #[test]
    fn batch_whose_worker_has_died_goes_to_another_and_at_last_to_none() {
        let mut run = Run::of(vec![batch(&[Pending, Running])]);
        run.wave = Some(Wave { number: 0, opened_at: at(0) });
        run.batches[0].held_until = Some(at(900));
        run.batches[0].turn = 1;
        assert_eq!(run.decide(899).moves, []);
        assert_eq!(run.decide(900).moves, [Move::Send(Action::Run, 0)]);
        assert_eq!(run.decide(1501).moves, [Move::Close(0, Halt::Unclaimed)]);
        run.batches[0].turn = MOST_TURNS;
        assert_eq!(run.decide(900).moves, [Move::Close(0, Halt::Dying)]);
    }

    #[test]
    fn batch_that_nobody_came_for_is_closed_after_the_deadline_counted_from_its_wave() {
        let mut run = Run::of(vec![batch(&[Succeeded]), batch(&[Pending])]);
        run.wave = Some(Wave { number: 1, opened_at: at(5000) });
        assert_eq!(run.decide(5600).moves, [Move::Send(Action::Run, 1)]);
        assert_eq!(run.decide(5601).moves, [Move::Close(1, Halt::Unclaimed)]);
    }

    #[test]
    fn pause_sends_nothing_and_gives_up_nothing() {
        let mut run = Run::of(vec![batch(&[Pending])]);
        run.wave = Some(Wave { number: 0, opened_at: at(0) });
        run.control.paused = true;
        let paused = run.decide(9000);
        assert_eq!((paused.wave, paused.moves), (Some(None), vec![]));
        (run.wave, run.control.paused) = (None, false);
        assert_eq!(run.decide(9060).moves, [Move::Send(Action::Run, 0)]);
    }

    #[test]
    fn errors_beyond_the_allowed_close_what_has_not_started() {
        let mut run = Run::of(vec![batch(&[Failed, Succeeded]), batch(&[Pending])]);
        run.plan.max_errors = Some(1);
        assert_eq!(run.decide(0).moves, [Move::Send(Action::Run, 1)]);
        run.plan.max_errors = Some(0);
        let decision = run.decide(0);
        assert_eq!(
            (decision.halt, decision.moves),
            (Some(Halt::MaxErrors(0)), vec![Move::Close(1, Halt::MaxErrors(0))])
        );
    }

    #[test]
    fn canary_is_waited_for_to_its_end_and_stops_all_where_it_fails() {
        let mut run = Run::of(vec![batch(&[Running]), batch(&[Pending])]);
        (run.canary, run.detached) = (true, true);
        assert_eq!(run.decide(0).moves, [Move::Send(Action::Collect, 0)]);
        for state in [Failed, TaskState::Skipped] {
            run.batches[0] = batch(&[state]);
            assert_eq!(run.decide(0).moves, [Move::Close(1, Halt::Canary)], "{state}");
        }
        run.batches[0] = batch(&[Succeeded]);
        assert_eq!(run.decide(0).moves, [Move::Send(Action::Run, 1)]);
    }

    #[test]
    fn detached_tasks_are_collected_and_hold_up_no_wave() {
        let mut run = Run::of(vec![batch(&[Running]), batch(&[Pending])]);
        run.detached = true;
        assert_eq!(run.decide(0).moves, [Move::Send(Action::Collect, 0), Move::Send(Action::Run, 1)]);
        run.batches[0].held_until = Some(at(30));
        assert_eq!(run.decide(0).moves, [Move::Send(Action::Run, 1)]);
    }

    #[test]
    fn cancelled_run_closes_what_has_not_started_and_ends_what_runs_detached() {
        let mut run = Run::of(vec![batch(&[Running]), batch(&[Pending])]);
        run.control.cancelled = true;
        let closed = [Move::Close(0, Halt::Cancelled), Move::Close(1, Halt::Cancelled)];
        assert_eq!(run.decide(0).moves, closed);
        run.detached = true;
        assert_eq!(run.decide(0).moves, [Move::Send(Action::Cancel, 0), Move::Close(1, Halt::Cancelled)]);
        // A worker that is at it hears of it by itself.
        run.batches[1].held_until = Some(at(1));
        assert_eq!(run.decide(0).moves, [Move::Send(Action::Cancel, 0)]);
    }

    #[test]
    fn run_is_over_when_every_task_is_final() {
        let run = Run::of(vec![batch(&[Succeeded]), batch(&[Failed])]);
        let decision = run.decide(0);
        assert!(decision.is_over && decision.moves.is_empty());
    }
}
