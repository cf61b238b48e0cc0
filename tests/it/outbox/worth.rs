//! What of runs, one after the other, is written down to be told: from their verdicts to the outbox.

use jiff::SignedDuration;
use sshjob::domain::task::Counts;

use super::*;

/// A job that fires every minute, with all there is to be told.
fn rig(overlap: &str) -> Rig {
    let rule = "{ on: [failure, recovery, slow, missed], webhook: 'https://a.example' }";
    Rig::new(&[("a", &format!("schedule: '* * * * *'\noverlap: {overlap}\nnotify: {rule}\n"))])
}

fn noon(time: &str) -> Timestamp {
    format!("2026-11-22T12:{time}Z").parse().unwrap()
}

fn run(minute: &str) -> RunId {
    format!("a-20261122T12{minute}00Z").parse().unwrap()
}

/// Ends the run of this minute, which began and ends at these times.
async fn end(rig: &Rig, minute: &str, state: RunState, began: &str, ended: &str) {
    let record = rig.runs.run(&run(minute)).await.unwrap().unwrap();
    let (counts, began_at) = (Counts::default(), Some(noon(began)));
    let verdict = Verdict { state, reason: None, counts, began_at, finished_at: noon(ended) };
    write_verdict(&rig.runs, &record, verdict).await.unwrap();
}

/// What there is to be told of the run of this minute.
fn kinds(rig: &Rig, minute: &str) -> Vec<String> {
    let key = layout::outbox(&run(minute)).to_string();
    let entry = rig.runs.store().objects().into_iter().find(|(found, _)| *found == key);
    let entry = entry.map(|(_, bytes)| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap());
    let kinds = entry.map(|entry| serde_json::from_value(entry["notice"]["kinds"].clone()).unwrap());
    kinds.unwrap_or_default()
}

/// Three runs of ten seconds: what is usual.
async fn live_usually(rig: &Rig) {
    for minute in ["00", "01", "02"] {
        rig.tick(&format!("12:{minute}:00")).await;
        end(rig, minute, RunState::Succeeded, &format!("{minute}:00"), &format!("{minute}:10")).await;
    }
}

/// Cause: each of those that a long run had skipped took the place of one that ran, and with them all went that was known
/// of the job.
#[tokio::test(start_paused = true)]
async fn run_that_had_many_others_skipped_is_told_to_be_slow_and_a_recovery() {
    let rig = rig("skip");
    live_usually(&rig).await;
    rig.tick("12:03:00").await;
    end(&rig, "03", RunState::Failed, "03:00", "03:10").await;
    assert_eq!(kinds(&rig, "03"), ["failure"]);
    for minute in 4..30 {
        rig.tick(&format!("12:{minute:02}:00")).await;
    }
    let missed = rig.runs.store().objects().into_iter().filter(|(key, _)| key.starts_with(OUTBOX)).count() - 1;
    assert_eq!((missed, kinds(&rig, "29")), (25, vec!["missed".to_owned()]));
    end(&rig, "04", RunState::Succeeded, "04:00", "29:30").await;
    assert_eq!(kinds(&rig, "04"), ["recovery", "slow"]);
    // And so it goes on: the skipped ones are still known where that matters.
    rig.tick("12:30:00").await;
    end(&rig, "30", RunState::Succeeded, "30:00", "30:10").await;
    assert_eq!(kinds(&rig, "30"), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn run_that_is_concluded_late_is_no_news_of_its_job() {
    let rig = rig("allow");
    rig.tick("12:00:00").await;
    rig.tick("12:01:00").await;
    let record = rig.runs.run(&run("00")).await.unwrap().unwrap();
    let (counts, began_at) = (Counts::default(), Some(noon("00:00")));
    let verdict = Verdict { state: RunState::Failed, reason: None, counts, began_at, finished_at: noon("00:10") };
    // Whoever wrote this verdict died of it.
    let _ = rig.runs.create(&RunKeys::new(&record.run).result(), &verdict).await.unwrap();
    end(&rig, "01", RunState::Succeeded, "01:00", "01:10").await;
    rig.tick("12:01:30").await;
    assert_eq!(kinds(&rig, "00"), ["failure"]);
    rig.tick("12:02:00").await;
    end(&rig, "02", RunState::Succeeded, "02:00", "02:10").await;
    assert_eq!(kinds(&rig, "02"), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn time_that_a_run_waits_before_its_first_start_makes_it_not_slow() {
    let rig = rig("queue");
    live_usually(&rig).await;
    rig.tick("12:03:00").await;
    rig.tick("12:04:00").await;
    end(&rig, "03", RunState::Succeeded, "03:00", "03:11").await;
    end(&rig, "04", RunState::Succeeded, "13:00", "13:10").await;
    assert_eq!((kinds(&rig, "03"), kinds(&rig, "04")), (vec![], vec![]));
    rig.tick("12:14:00").await;
    end(&rig, "14", RunState::Succeeded, "14:00", "14:21").await;
    assert_eq!(kinds(&rig, "14"), ["slow"]);
}

/// A clock that was years ahead once has the last word no longer than until the next run ends.
#[tokio::test(start_paused = true)]
async fn end_that_was_noted_by_a_clock_of_years_ahead_is_not_the_last_for_years() {
    let rig = rig("skip");
    rig.tick("12:00:00").await;
    let record = rig.runs.run(&run("00")).await.unwrap().unwrap();
    let finished_at = noon("00:00") + SignedDuration::from_hours(10_000);
    let verdict = Verdict { finished_at, ..Verdict::unplanned(RunState::Failed, "x".to_owned(), finished_at) };
    write_verdict(&rig.runs, &record, verdict).await.unwrap();
    for (minute, expected) in [("01", vec!["recovery"]), ("02", vec![])] {
        rig.tick(&format!("12:{minute}:00")).await;
        end(&rig, minute, RunState::Succeeded, &format!("{minute}:00"), &format!("{minute}:10")).await;
        assert_eq!(kinds(&rig, minute), expected);
    }
}
