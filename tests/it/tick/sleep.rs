//! Schedulers that come back after a long sleep.

use super::*;

#[tokio::test(start_paused = true)]
async fn weeks_of_sleep_are_counted_to_the_last_firing_and_hold_up_nobody_meanwhile() {
    let rig = Rig::new(&[("a", "schedule: '* * * * *'\nmissed: latest\n")]);
    rig.tick("12:00:00").await;
    let later = at("12:00:00") + SignedDuration::from_hours(50 * 24);
    let ticker = rig.ticker(later);
    let ticking = ticker.tick(&rig.jobs, later);
    tokio::pin!(ticking);
    let mut turns = 0;
    let found = loop {
        tokio::select! {
            biased;
            found = &mut ticking => break found.unwrap(),
            () = tokio::task::yield_now() => turns += 1,
        }
    };
    // A thousand at a time.
    assert!(turns > 50, "{turns}");
    // Those within the deadline run, as far as earlier ones let them; all others are missed.
    let [Fired::Skipped(run, why), ..] = found.fired.as_slice() else { panic!("{:?}", found.fired) };
    let missed = 50 * 24 * 60 - 11;
    assert_eq!(run.as_str(), "a-20261122T120100Z");
    assert!(why.starts_with(&format!("missed: {missed} firings, the last at 2027-01-11T11:49:00Z, ")), "{why}");
    assert_eq!(found.fired.len(), 12, "{:?}", found.fired);
}
