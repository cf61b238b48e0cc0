//! Schedulers whose clock was wrong, and those that come after them.

use super::*;

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
    let mut wrong = cursor.moved(days_ahead, &[(&a, at("12:00:00"))].into(), &[].into());
    for seconds in [10, 20] {
        wrong = wrong.moved(days_ahead + SignedDuration::from_secs(seconds), &[(&a, days_ahead)].into(), &[].into());
    }
    let _ = rig.runs.swap(&layout::cursor(), &version, &wrong).await.unwrap();
    let all = ["01", "02", "03"].map(|minute| format!("a-20261122T12{minute}00Z"));
    assert_eq!(fired(&rig.tick("12:03:00").await), all);
    assert_eq!(rig.runs.read::<Cursor>(&layout::cursor()).await.unwrap().unwrap().0.leapt_from, None);
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
    let theirs = Cursor::at(at("11:59:00")).moved(at("12:00:00"), &[(&a, at("11:59:00"))].into(), &[].into());
    let tried = [(&a, at("13:00:00")), (&b, at("13:00:00"))].into();
    let moved = theirs.moved(at("13:00:00"), &tried, &[].into());
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
