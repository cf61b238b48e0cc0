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
pub fn plan(job: &Job, targets: &[Target], carrier: Carrier) -> (Plan, Vec<BatchTargets>) {
    let total = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    let rollout = &job.rollout;
    let canary = rollout.canary.of(total) as usize;
    let max_concurrency = rollout.max_concurrency.of(total).max(1);
    let size = match carrier {
        Carrier::Functions => job.hosts_per_worker,
        Carrier::Caller | Carrier::Scheduler => job.hosts_per_worker.max(max_concurrency.min(MAX_BATCH)),
    };
    let size = size.max(1) as usize;
    let mut batches: Vec<BatchTargets> = Vec::new();
    let mut waves = Vec::new();
    let (first, rest) = targets.split_at(canary.min(targets.len()));
    let wave_size = match carrier {
        Carrier::Functions => max_concurrency as usize,
        Carrier::Caller | Carrier::Scheduler => rest.len().max(1),
    };
    for wave in std::iter::once(first).chain(rest.chunks(wave_size)) {
        let from = batches.len();
        batches.extend(wave.chunks(size).map(|chunk| BatchTargets { targets: chunk.to_vec() }));
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
