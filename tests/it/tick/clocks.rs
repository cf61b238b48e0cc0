//! Schedulers whose clock was wrong, and those that come after them.

use super::*;

/// What is due of `job` since `from`, all of it decided.
fn looked(job: &JobName, from: Timestamp) -> Looked<'_> {
    Looked { job, from, delay: SignedDuration::ZERO, is_decided: true }
}

#[tokio::test(start_paused = true)]
async fn cursor_of_a_clock_that_was_wrong_is_set_back() {
    let rig = Rig::new(&[("a", EVERY_MINUTE), ("b", EVERY_MINUTE)]);
    let wrong = Cursor {
        ticked: "2030-01-01T00:00:00Z".parse().unwrap(),
        known: ["a".parse().unwrap()].into(),
        behind: [("b".parse().unwrap(), "2029-01-01T00:00:00Z".parse().unwrap())].into(),
        ..Cursor::at(Timestamp::MIN)
    };
    let _ = rig.runs.create(&layout::cursor(), &wrong).await.unwrap();
    assert_eq!(fired(&rig.tick("12:00:00").await), ["a-20261122T120000Z", "b-20261122T120000Z"]);
    assert_eq!(fired(&rig.tick("12:01:00").await), ["a-20261122T120100Z", "b-20261122T120100Z"]);
}

/// Cause: what fired between a tick by a clock of days ahead and the next by a right one was decided by nobody.
#[tokio::test(start_paused = true)]
async fn firings_that_a_clock_of_days_ahead_has_passed_over_are_decided() {
    let rig = Rig::new(&[("a", "schedule: '* * * * *'\noverlap: allow\nmissed: all\n")]);
    rig.tick("12:00:00").await;
    let (cursor, version) = rig.runs.read::<Cursor>(&layout::cursor()).await.unwrap().unwrap();
    let (a, days_ahead): (JobName, Timestamp) = ("a".parse().unwrap(), "2026-11-25T12:01:30Z".parse().unwrap());
    let mut wrong = cursor.moved(days_ahead, &[looked(&a, at("12:00:00"))]);
    for seconds in [10, 20] {
        wrong = wrong.moved(days_ahead + SignedDuration::from_secs(seconds), &[looked(&a, days_ahead)]);
    }
    let _ = rig.runs.swap(&layout::cursor(), &version, &wrong).await.unwrap();
    let all = ["01", "02", "03"].map(|minute| format!("a-20261122T12{minute}00Z"));
    assert_eq!(fired(&rig.tick("12:03:00").await), all);
}

#[tokio::test(start_paused = true)]
async fn pause_that_a_clock_of_years_ahead_has_seen_goes_on_from_now() {
    let rig = Rig::new(&[("b", "schedule: '* * * * *'\npaused: true\n")]);
    rig.tick("12:00:00").await;
    let mut state = rig.state("b").await;
    state.decided.as_mut().unwrap().until = "2030-01-01T00:00:00Z".parse().unwrap();
    rig.set_state("b", &state).await;
    rig.tick("12:01:00").await;
    assert_eq!(rig.state("b").await.decided.unwrap().until, at("12:01:00"));
    let resumed = Rig::on(&rig.runs, &[("b", EVERY_MINUTE)]);
    assert_eq!(fired(&resumed.tick("12:02:00").await), ["b-20261122T120200Z"]);
}

#[tokio::test(start_paused = true)]
async fn pause_that_a_clock_of_days_ahead_has_begun_is_no_record_of_an_earlier_one() {
    let rig = Rig::new(&[("b", "schedule: '* * * * *'\npaused: true\n")]);
    rig.tick("12:00:00").await;
    let mut wrong = rig.state("b").await;
    let at: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    let decided = wrong.decided.as_mut().unwrap();
    (decided.at, decided.until) = (at, at);
    rig.set_state("b", &wrong).await;
    rig.tick("12:01:00").await;
    let told = rig.told().await;
    assert!(told.contains(&format!("b-20261122T120100Z skipped: {}", Why::Paused.reason(at))), "{told:?}");
}

/// Cause: two schedulers saw a new job for the first time at once, and the clock of one was ahead.
#[test]
fn cursor_that_another_has_moved_passes_over_nothing_that_a_tick_did_not_look_at() {
    let (a, b): (JobName, JobName) = ("a".parse().unwrap(), "b".parse().unwrap());
    let theirs = Cursor::at(at("11:59:00")).moved(at("12:00:00"), &[looked(&a, at("11:59:00"))]);
    let moved = theirs.moved(at("13:00:00"), &[looked(&a, at("13:00:00")), looked(&b, at("13:00:00"))]);
    assert_eq!((moved.of(&a), moved.of(&b)), (Some(at("12:00:00")), Some(at("13:00:00"))));
}

/// Cause: a clock that was days ahead had the cursor set back, and what was decided before it was decided again.
#[tokio::test(start_paused = true)]
async fn firing_that_is_decided_again_while_it_runs_neither_stands_twice_nor_in_its_own_way() {
    for overlap in ["allow", "queue", "replace", "skip"] {
        let rig = Rig::new(&[("a", &format!("schedule: '* * * * *'\noverlap: {overlap}\n"))]);
        rig.tick("12:00:00").await;
        let state = rig.state("a").await;
        rig.set_state("a", &JobState { decided: None, ..state.clone() }).await;
        rig.runs.store().remove(&layout::cursor()).await.unwrap();
        rig.tick("12:00:00").await;
        assert_eq!(rig.state("a").await, state, "{overlap}");
    }
}

#[tokio::test(start_paused = true)]
async fn clock_that_was_years_ahead_once_stops_no_job() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    rig.tick("12:00:00").await;
    // What a scheduler decided whose clock was wrong.
    let mut wrong = rig.state("a").await;
    let at: Timestamp = "2031-01-01T00:00:00Z".parse().unwrap();
    let decided = wrong.decided.as_mut().unwrap();
    (decided.at, decided.until, decided.plan_before) = (at, at, at);
    rig.set_state("a", &wrong).await;
    assert!(fired(&rig.tick("12:01:00").await).contains(&"a-20261122T120100Z".to_owned()));
    assert_eq!(fired(&rig.tick("12:02:00").await), ["a-20261122T120200Z"]);
}

/// Cause: where a cursor had once leapt from was remembered for ever, and a clock that was behind months later had it set
/// back there.
#[tokio::test(start_paused = true)]
async fn clock_of_days_behind_goes_on_from_its_own_time_and_the_next_right_one_decides_nothing_twice() {
    let policy = "schedule: '0 * * * *'\noverlap: allow\n";
    let rig = Rig::new(&[("a", policy), ("b", policy)]);
    let hour = |n: i64| at("12:00:00") + SignedDuration::from_hours(n);
    let run = |job: &str, n: i64| RunId::of_firing(&job.parse().unwrap(), hour(n)).to_string();
    rig.tick_at(hour(0)).await;
    // After a weekend.
    assert_eq!(fired(&rig.tick_at(hour(60)).await).len(), 4);
    for n in 61..100 {
        assert_eq!(fired(&rig.tick_at(hour(n)).await).len(), 2);
    }
    // A clock of days behind knows no better than to fire what is due by it, once.
    let behind = Rig::on(&rig.runs, &[("a", policy)]);
    for n in [20, 21] {
        assert_eq!(fired(&behind.tick_at(hour(n)).await), [run("a", n)]);
    }
    let cursor = rig.runs.read::<Cursor>(&layout::cursor()).await.unwrap().unwrap().0;
    assert_eq!(cursor.ticked, hour(21));
    assert_eq!(fired(&rig.tick_at(hour(100)).await), [run("a", 100), run("b", 100)]);
    assert_eq!(fired(&rig.tick_at(hour(101)).await), [run("a", 101), run("b", 101)]);
    // And so on, in turn.
    behind.tick_at(hour(22)).await;
    assert_eq!(fired(&rig.tick_at(hour(102)).await), [run("a", 102), run("b", 102)]);
}

#[test]
fn leap_is_forgotten_once_the_cursor_has_moved_on_as_far() {
    let a: JobName = "a".parse().unwrap();
    let (days, hours) = (SignedDuration::from_hours(72), SignedDuration::from_hours(13));
    let leapt = Cursor::at(at("12:00:00")).moved(at("12:00:00") + days, &[looked(&a, at("12:00:00"))]);
    let (from, landed) = (at("12:00:00"), leapt.ticked);
    assert_eq!(leapt.leap.as_ref().map(|leap| (leap.from, leap.to)), Some((from, landed)));
    let soon = leapt.moved(landed + hours, &[looked(&a, landed)]);
    assert_eq!(soon.for_clock(from, from).unwrap().ticked, from);
    let later = soon.moved(landed + hours * 2, &[looked(&a, landed + hours)]);
    let last = later.moved(landed + hours * 3, &[looked(&a, landed + hours * 2)]);
    assert_eq!((later.leap.is_some(), &last.leap), (true, &None));
    // Now nothing tells whose clock is wrong.
    let behind = last.for_clock(from + hours, from + hours).unwrap();
    assert_eq!(behind.ticked, from + hours);
    assert_eq!(behind.for_clock(last.ticked, last.ticked).unwrap().ticked, last.ticked);
}

#[tokio::test(start_paused = true)]
async fn clock_that_was_set_back_by_hours_is_told_until_when_nothing_fires() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    assert_eq!(rig.tick("12:00:00").await.silent_until, None);
    assert_eq!(rig.tick("09:00:00").await.silent_until, Some(at("12:00:00")));
    assert_eq!(rig.tick("11:59:30").await.silent_until, None);
}

/// Cause: a job whose file was broken when a wrong clock leapt began, once that was mended, when the clock was right again.
#[test]
fn who_was_behind_where_a_wrong_clock_leapt_from_is_behind_again() {
    let (a, b): (JobName, JobName) = ("a".parse().unwrap(), "b".parse().unwrap());
    let both = Cursor::at(at("11:59:00")).moved(at("12:00:00"), &[&a, &b].map(|job| looked(job, at("11:59:00"))));
    // Of one the file is broken, then a clock is days ahead that knows both.
    let one = both.moved(at("12:01:00"), &[looked(&a, at("12:00:00"))]);
    let ahead = at("12:02:00") + SignedDuration::from_hours(72);
    let wrong = one.moved(ahead, &[looked(&a, at("12:01:00")), looked(&b, at("12:00:00"))]);
    assert_eq!((wrong.of(&a), wrong.of(&b)), (Some(ahead), Some(ahead)));
    let right = wrong.for_clock(at("12:02:00"), at("12:02:00")).unwrap();
    assert_eq!((right.of(&a), right.of(&b)), (Some(at("12:01:00")), Some(at("12:00:00"))));
}

/// Cause: where the clock was set on the leases of this very process looked as if they had lapsed, and what it was running
/// was `lost`.
#[tokio::test(start_paused = true)]
async fn run_that_this_process_drives_is_not_taken_for_dead_when_the_clock_is_set_on() {
    let mut rig = Rig::new(&[("a", "schedule: '0 * * * *'\noverlap: replace\n")]);
    rig.tick("12:00:00").await;
    let run: RunId = "a-20261122T120000Z".parse().unwrap();
    let driver = driver("2026-11-22T12:00:01Z".parse().unwrap()).unwrap();
    let begun = TaskRecord { state: TaskState::Running, attempt: 1, ..TaskRecord::pending() };
    let outcomes = Outcomes { owner: driver.nonce.clone(), tasks: [("i-1".parse().unwrap(), begun)].into() };
    rig.runs.create(&layout::RunKeys::new(&run).claim(0), &driver).await.unwrap();
    rig.runs.create(&layout::RunKeys::new(&run).outcomes(0), &outcomes).await.unwrap();
    let (_, version) = rig.runs.active(&run).await.unwrap().unwrap();
    let active = Active { driver: Some(driver), wave: None };
    rig.runs.swap(&layout::active(&run), &version, &active).await.unwrap();
    rig.driven.insert(run.clone());
    rig.tick("13:00:00").await;
    let asked = "a-20261122T120000Z running: cancel asked by run a-20261122T130000Z";
    assert_eq!(rig.told().await, [asked, "a-20261122T130000Z planning"]);
    // Once it does no more, because a part of it has failed, the run is dead.
    rig.driven.clear();
    rig.tick("14:00:00").await;
    let verdict = rig.runs.verdict(&run).await.unwrap().unwrap();
    assert_eq!((verdict.state, verdict.counts), (RunState::Failed, [TaskState::Lost].into_iter().collect()));
}
