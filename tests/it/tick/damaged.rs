//! Records that are damaged: they count as what may be running, and stop no job.

use sshjob::port::StoreError;

use super::*;

const FIRST: &str = "a-20261122T120000Z";

impl Rig {
    /// Puts something in the place of a record that is none.
    async fn damage(&self, key: &layout::Key) {
        self.runs.store().remove(key).await.unwrap();
        let _ = self.runs.store().create(key, b"garbage".to_vec()).await.unwrap();
    }
}

/// Cause: an earlier run that could not be read was an error at every tick, and its job never fired again.
#[tokio::test(start_paused = true)]
async fn earlier_run_with_a_damaged_record_counts_as_active_and_is_told_of() {
    let run: RunId = FIRST.parse().unwrap();
    let keys = RunKeys::new(&run);
    for key in [keys.run(), keys.plan(), keys.control(), keys.result(), keys.outcomes(0), layout::active(&run)] {
        for (overlap, becomes) in [
            ("skip", "skipped: overlap: run `a-20261122T120000Z` is still active"),
            ("queue", "planning"),
            ("replace", "planning"),
            ("allow", "running"),
        ] {
            let case = format!("{key} {overlap}");
            let rig = Rig::new(&[("a", &format!("schedule: '* * * * *'\noverlap: {overlap}\n"))]);
            rig.tick("12:00:00").await;
            rig.damage(&key).await;
            for is_due in [true, false] {
                let ticked = rig.tick("12:01:00").await;
                let end = "; the run counts as active until that is mended, or all of the run removed";
                let is_told = |(what, why): &(String, String)| {
                    what == FIRST && why.starts_with(&format!("`{key}` is damaged: ")) && why.ends_with(end)
                };
                // What someone asked of it is read by who drives it, and by who wants to know whether it is in the way.
                let is_read = key != keys.control() || is_due && overlap != "allow";
                assert_eq!(is_read, !ticked.troubles.is_empty(), "{case}");
                assert!(ticked.troubles.iter().all(is_told), "{case}: {:?}", ticked.troubles);
            }
            let next = "a-20261122T120100Z".parse().unwrap();
            let summary = history::summary(&rig.runs, &next).await.unwrap().unwrap();
            let reason = summary.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            assert_eq!(format!("{}{reason}", summary.state.as_str()), becomes, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn run_of_which_somebody_has_removed_all_is_in_the_way_of_no_firing() {
    let rig = Rig::new(&[("a", "schedule: '* * * * *'\n")]);
    rig.tick("12:00:00").await;
    rig.damage(&RunKeys::new(&FIRST.parse().unwrap()).run()).await;
    assert_eq!(fired(&rig.tick("12:01:00").await).len(), 1);
    let store = rig.runs.store();
    for (key, _) in store.objects().into_iter().filter(|(key, _)| key.contains(FIRST)) {
        store.remove(&layout::Key::parse(&key).unwrap()).await.unwrap();
    }
    assert_eq!(fired(&rig.tick("12:02:00").await), ["a-20261122T120200Z"]);
}

#[tokio::test(start_paused = true)]
async fn damaged_cursor_is_an_error_of_every_tick() {
    let rig = Rig::new(&[("a", EVERY_MINUTE)]);
    rig.tick("12:00:00").await;
    rig.damage(&layout::cursor()).await;
    for time in ["12:01:00", "12:02:00"] {
        let error = rig.ticker(at(time)).tick(&rig.jobs, at(time)).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }
}
