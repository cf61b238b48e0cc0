//! Jobs whose files are edited, removed and brought back.

use sshjob::engine::cursor;

use super::*;

const HALF_HOURLY: &str = "schedule: '*/30 * * * *'\noverlap: allow\njitter: ";

/// Cause: what is due is asked for after the cursor, and a firing that came to be due before it was decided by nobody.
#[tokio::test(start_paused = true)]
async fn jitter_that_is_lowered_within_its_delay_drops_no_firing_and_one_that_is_raised_again_fires_none_twice() {
    let with = |jitter: &str| format!("{HALF_HOURLY}{jitter}\n");
    let mut rig = Rig::new(&[("delayed", &with("20m"))]);
    let delay = rig.jobs[0].calendar.delay();
    assert!(delay > SignedDuration::from_mins(2), "{delay}");
    rig.tick("11:59:00").await;
    // The first is dropped before anything is known of the job, the second after.
    for (hour, run) in [("12:00:00", "delayed-20261122T120000Z"), ("13:00:00", "delayed-20261122T130000Z")] {
        let before = at(hour) + delay - SignedDuration::from_secs(5);
        assert!(fired(&rig.tick_at(before - SignedDuration::from_mins(1)).await).iter().all(|told| told != run));
        assert!(fired(&rig.tick_at(before).await).is_empty());
        rig.jobs = vec![scheduled("delayed", &with("10s"))];
        assert_eq!(fired(&rig.tick_at(before + SignedDuration::from_secs(1)).await), [run]);
        rig.jobs = vec![scheduled("delayed", &with("20m"))];
        assert!(fired(&rig.tick_at(before + SignedDuration::from_secs(10)).await).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn job_whose_file_was_removed_begins_anew_when_it_is_back_and_one_whose_file_was_broken_is_made_up_for() {
    let both = [("broken", EVERY_MINUTE), ("removed", EVERY_MINUTE)];
    let mut rig = Rig::new(&both);
    rig.tick("12:00:00").await;
    rig.jobs.clear();
    cursor::forget(&rig.runs, &["removed".parse().unwrap()].into()).await.unwrap();
    rig.tick("12:02:30").await;
    rig.jobs = both.map(|(name, settings)| scheduled(name, settings)).into();
    let run = |job: &str, minute: u8| format!("{job}-20261122T120{minute}00Z");
    assert_eq!(fired(&rig.tick("12:03:10").await), [1, 2, 3].map(|minute| run("broken", minute)));
    assert_eq!(fired(&rig.tick("12:04:00").await), [run("broken", 4), run("removed", 4)]);
}
