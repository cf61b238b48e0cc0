//! That everything that can go wrong did, in enough worlds.

use std::collections::{BTreeMap, BTreeSet};

use sshjob::domain::id::{JobName, RunId};
use sshjob::domain::layout::{self, RunKeys};

use super::store::{Step, kind, often};

/// So many faults of one kind are to be expected where it is said that there must be one.
const EXPECTED: u64 = 20;

/// Everything that a store holds in these worlds, by the kind that its key names.
fn kinds() -> BTreeSet<&'static str> {
    let job: JobName = "a".parse().unwrap();
    let run: RunId = "a-20261122T120000Z".parse().unwrap();
    let keys = RunKeys::new(&run);
    let of_run = [keys.run(), keys.plan(), keys.selected(0), keys.targets(0), keys.claim(0), keys.outcomes(0)];
    let of_end =
        [keys.control(), keys.trouble(), keys.result(), keys.told(), layout::active(&run), layout::outbox(&run)];
    let others = [layout::blob("0"), layout::request("0"), layout::cursor(), layout::job_state(&job)];
    of_run.iter().chain(&of_end).chain(&others).map(|key| kind(key.as_str())).collect()
}

/// Every write of the engine was cut off before and after it, and everything else went wrong, too.
pub(crate) fn check(faults: &BTreeMap<String, u64>, steps: &BTreeMap<Step, u64>) {
    let created: BTreeSet<&str> = steps.keys().filter(|(step, _)| *step == "create").map(|(_, kind)| *kind).collect();
    for kind in kinds() {
        assert!(created.contains(kind), "nothing created {kind}");
    }
    for ((step, kind), count) in steps {
        for (fault, per_mille) in [("died before", 3), ("died after", 3), ("failed before", 2), ("failed after", 2)] {
            let expected = count * per_mille * u64::try_from(often(step, kind)).unwrap() / 1000;
            let is_there = faults.contains_key(&format!("{fault} {step} {kind}"));
            assert!(is_there || expected < EXPECTED, "nothing {fault} {step} {kind}, of {count}");
        }
    }
    for fault in [
        "a clock was an hour ahead",
        "a clock was days ahead",
        "a clock was days behind",
        "a connection was lost",
        "a host came or went",
        "a host went down or up",
        "a job file was broken",
        "a job file was older",
        "a notifier was down",
        "a run was asked for",
        "a run was cancelled",
        "a run was paused",
        "a run was resumed",
        "a script could not be read",
        "a tick came twice",
        "a tick was dropped",
        "a tick was late",
        "a worker had little time",
        "a worker was ended at its deadline",
        "an order came too late",
        "an order came twice",
        "an order was delayed",
        "an order was lost",
        "an order was refused",
        "delivery broke off",
        "died after a start",
        "died after an order",
        "died after telling",
        "died at any moment",
        "died before a start",
        "failed to read",
        "left",
        "stalled",
        "the answer to a start was lost",
        "the inventory was throttled",
    ] {
        assert!(faults.contains_key(fault), "{fault}: never");
    }
}
