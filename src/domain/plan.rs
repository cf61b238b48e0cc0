//! From a job and its targets to batches and waves.

use std::collections::BTreeSet;

use super::diagnostic::quoted;
use super::instance::Instance;
use super::job::{Job, User, read};
use super::location::Location;
use super::quantity::Amount;
use super::run::{BatchTargets, Carrier, Plan, Target};

/// Where a task on `instance` connects to, as `job` says.
pub fn target(job: &Job, instance: &Instance) -> Target {
    let address = instance.address(job.targets.address);
    let user = match &job.login.user {
        User::Name(name) => name,
        User::Tag { tag, default } => instance.tags.get(tag).unwrap_or(default),
    };
    Target {
        instance: instance.id.clone(),
        account: instance.account.clone(),
        region: instance.region.clone(),
        name: instance.name().map(str::to_owned),
        address: address.map(|(address, _)| address.to_owned()),
        address_kind: address.map(|(_, kind)| kind),
        port: instance.port.unwrap_or(job.login.port),
        user: instance.user.as_ref().unwrap_or(user).clone(),
        jump: None,
        keys: Vec::new(),
    }
}

/// Where the private keys are that `targets` of `job` and the jump hosts on the way have of their own; the others have
/// the job's.
pub fn own_keys<'a>(job: &'a Job, targets: &'a [Target]) -> BTreeSet<&'a [Location]> {
    let hops = targets.iter().flat_map(|target| target.jump.as_ref().unwrap_or(&job.login.jump));
    let keys = hops.map(|hop| &hop.keys).chain(targets.iter().map(|target| &target.keys));
    keys.map(Vec::as_slice).collect()
}

/// Checks the user that a tag of the instance tells: whoever may tag it may write anything there.
///
/// # Errors
/// That it is none.
pub fn check_user(job: &Job, target: &Target) -> Result<(), String> {
    let User::Tag { tag, .. } = &job.login.user else { return Ok(()) };
    let checked = read::word(&target.user, read::login);
    checked.map(drop).map_err(|why| format!("the tag {} tells no user: {why}", quoted(tag)))
}

/// The most targets of a batch that is one only for the sake of its writes: each writes down the whole batch.
const MAX_BATCH: u32 = 200;

/// Plans a run over `targets`, in their order: the canary first and alone, then the rest.
///
/// Batches hold at most `hosts_per_worker` targets and never span two waves. One process keeps to `max_concurrency` by
/// itself, and has as many in one batch, for those share writes; worker functions know nothing of each other, so that the
/// rest goes in waves of as many.
pub fn plan(job: &Job, targets: Vec<Target>, carrier: Carrier) -> (Plan, Vec<BatchTargets>) {
    let total = count(targets.len());
    let rollout = &job.rollout;
    let canary = rollout.canary.of(total);
    let max_concurrency = rollout.max_concurrency.of(total).max(1);
    let (size, wave) = match carrier {
        Carrier::Functions => (job.hosts_per_worker, max_concurrency),
        Carrier::Caller | Carrier::Scheduler => (job.hosts_per_worker.max(max_concurrency.min(MAX_BATCH)), total),
    };
    let mut batches: Vec<BatchTargets> = Vec::new();
    let mut waves = Vec::new();
    let mut targets = targets.into_iter();
    for wave in std::iter::once(canary).chain(std::iter::repeat(wave.max(1))) {
        if targets.len() == 0 {
            break;
        }
        let (from, mut left) = (batches.len(), wave as usize);
        while left > 0 && targets.len() > 0 {
            let batch: Vec<Target> = targets.by_ref().take(left.min(size.max(1) as usize)).collect();
            left -= batch.len();
            batches.push(BatchTargets { targets: batch });
        }
        if batches.len() > from {
            waves.push((count(from), count(batches.len())));
        }
    }
    let plan = Plan {
        batches: batches.iter().map(|batch| count(batch.targets.len())).collect(),
        waves,
        max_concurrency,
        max_errors: rollout.max_errors.map(|amount| tolerated(amount, total)),
        sealed: None,
    };
    (plan, batches)
}

/// How many errors `amount` tolerates: a share is rounded down, for the safe side is to stop early.
fn tolerated(amount: Amount, total: u32) -> u32 {
    match amount {
        Amount::Count(count) => count,
        Amount::Percent(percent) => u32::try_from(u64::from(total) * u64::from(percent) / 100).unwrap_or(u32::MAX),
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// How long after its start an unplanned run may still be planned: longer than any inventory takes to answer.
pub const PLAN_WITHIN: std::time::Duration = std::time::Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::file::JobFile;
    use crate::domain::job::resolve::Layers;

    #[test]
    fn user_of_a_tag_is_checked_and_the_reason_stays_short() {
        let text = "targets: { hosts: a }\nrun: x\nuser: { tag: Login, default: me }\n";
        let job = Layers::default().resolve(JobFile::parse(text, "x.yaml", "x").unwrap()).unwrap();
        let [instance] = job.targets.selector.instances_of_hosts().try_into().unwrap();
        let check = |user: &str| check_user(&job, &Target { user: user.to_owned(), ..target(&job, &instance) });
        assert_eq!(check("me"), Ok(()));
        for user in ["", " ", "a\u{1b}[2J", "a\nb", "-l", &"x".repeat(10_000)] {
            let why = check(user).unwrap_err();
            assert!(why.starts_with("the tag `Login` tells no user: ") && why.len() < 300, "{why}");
            assert!(!why.contains(char::is_control), "{why}");
        }
    }
}
