//! Who works on what: claims with a lease, and how a dead holder's claim is taken over.

use std::time::Duration;

use jiff::Timestamp;

use super::clock::AHEAD;
use super::records::Runs;
use crate::adapter::process;
use crate::domain::layout::Key;
use crate::domain::run::Claim;
use crate::port::{Store, StoreError, Written};

/// How long a driver on a machine without functions is believed to live after its last sign of life.
pub const LEASE: Duration = Duration::from_secs(30);

/// What came of claiming a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The batch is ours: nobody had it before, or its earlier holder is dead.
    Ours,
    /// Somebody who may be alive has it.
    Held(Claim),
}

/// Claims `key` for `ours`, unless somebody holds it who may be alive.
///
/// `lapsed` tells that the holder of any claim is known to be dead, whatever the claim says.
///
/// # Errors
/// Where the store does not answer; whether the claim was written is then unknown.
pub async fn claim<S: Store>(
    runs: &Runs<S>,
    key: &Key,
    ours: &Claim,
    now: Timestamp,
    lapsed: bool,
) -> Result<Claimed, StoreError> {
    if let Written::Done(_) = runs.create(key, ours).await? {
        return Ok(Claimed::Ours);
    }
    loop {
        let Some((held, version)) = runs.read::<Claim>(key).await? else {
            return match runs.create(key, ours).await? {
                Written::Done(_) => Ok(Claimed::Ours),
                Written::Conflict => continue,
            };
        };
        // An earlier try of ours may have written without our hearing of it.
        if held.nonce == ours.nonce {
            return Ok(Claimed::Ours);
        }
        if !lapsed && !is_dead(&held, now) {
            return Ok(Claimed::Held(held));
        }
        let ours = Claim { turn: held.turn.saturating_add(1), ..ours.clone() };
        if let Written::Done(_) = runs.swap(key, &version, &ours).await? {
            return Ok(Claimed::Ours);
        }
    }
}

/// Ends the claim `nonce` on `key` as of `now`: its holder is done, and whoever comes next need not wait. Who leaves
/// `in_order` is not counted among those that the work was too much for.
///
/// # Errors
/// Where the store does not answer; the claim then ends by itself.
pub async fn release<S: Store>(
    runs: &Runs<S>,
    key: &Key,
    nonce: &str,
    now: Timestamp,
    in_order: bool,
) -> Result<(), StoreError> {
    if let Some((held, version)) = runs.read::<Claim>(key).await?
        && held.nonce == nonce
        && now < held.expires_at
    {
        // Where somebody else has it by now there is nothing to give up.
        let turn = if in_order { 0 } else { held.turn };
        runs.swap(key, &version, &Claim { expires_at: now, holder: None, turn, ..held }).await?;
    }
    Ok(())
}

/// Whether `nonce` still has the claim `key`.
///
/// A claim that was taken over never comes back: while this holds, whatever others wrote under their own claims is
/// older than ours.
///
/// # Errors
/// Where the store does not answer.
pub async fn holds<S: Store>(runs: &Runs<S>, key: &Key, nonce: &str) -> Result<bool, StoreError> {
    Ok(runs.read::<Claim>(key).await?.is_some_and(|(held, _)| held.nonce == nonce))
}

/// Whether a lease, which its holder renews, holds no more: its holder is dead or, where that cannot be seen, it ends so far
/// ahead that a clock has written it that was wrong.
pub fn has_lapsed(lease: &Claim, now: Timestamp) -> bool {
    is_dead(lease, now)
        || lease.expires_at.duration_since(now) > AHEAD && !lease.holder.as_ref().is_some_and(process::is_at_work)
}

/// Whether the holder of a claim can no longer be at work: its process is gone or, where that cannot be seen, its time
/// is over.
///
/// Another process of this machine that is seen to run is believed, whatever the clock says: clocks are set, and machines
/// sleep. One that was stopped is judged by the clock, or it would keep its claim for as long as it is stopped; one that
/// runs and renews nothing is at fault, and ending it frees what it holds.
pub fn is_dead(claim: &Claim, now: Timestamp) -> bool {
    match &claim.holder {
        Some(holder) if process::has_ended(holder) => true,
        Some(holder) if process::is_at_work(holder) => false,
        _ => claim.expires_at <= now,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use jiff::SignedDuration;
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::domain::run::Holder;

    /// A process that does nothing for long; dropping it ends it.
    struct Idle(Child);

    impl Idle {
        fn start() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn signal(&self, signal: Signal) {
            let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).unwrap();
            kill_process(pid, signal).unwrap();
        }

        /// What `/proc` says of it from the state on.
        fn stat(&self) -> Vec<String> {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_owned).collect()
        }
    }

    impl Drop for Idle {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Cause: a clock that was set on by more than the lease killed a holder that was alive.
    #[test]
    fn holder_on_this_machine_lives_as_long_as_its_process_and_one_that_is_stopped_as_long_as_its_lease() {
        let idle = Idle::start();
        let started = idle.stat()[19].parse().unwrap();
        let holder = Holder { pid: idle.0.id(), started, ..process::this().unwrap() };
        let expires_at: Timestamp = "2026-11-23T05:00:00Z".parse().unwrap();
        let claim = |holder| Claim { nonce: "n".to_owned(), expires_at, holder, turn: 0 };
        let (before, after) = (expires_at - Duration::from_secs(1), expires_at + Duration::from_hours(1));
        let elsewhere = Holder { machine: "elsewhere".to_owned(), ..holder.clone() };
        assert!(!is_dead(&claim(Some(holder.clone())), after));
        for by_clock in [None, Some(elsewhere), process::this()] {
            assert!(!is_dead(&claim(by_clock.clone()), before) && is_dead(&claim(by_clock), after));
        }
        idle.signal(Signal::STOP);
        while idle.stat()[0] != "T" {
            std::thread::yield_now();
        }
        assert!(!is_dead(&claim(Some(holder.clone())), before) && is_dead(&claim(Some(holder.clone())), after));
        drop(idle);
        assert!(is_dead(&claim(Some(holder)), before));
    }

    /// Cause: what a scheduler held whose clock was days ahead was let go of days later.
    #[test]
    fn lease_that_ends_days_ahead_is_believed_only_of_a_process_that_is_seen_to_run() {
        let idle = Idle::start();
        let holder = Holder { pid: idle.0.id(), started: idle.stat()[19].parse().unwrap(), ..process::this().unwrap() };
        let now: Timestamp = "2026-11-23T05:00:00Z".parse().unwrap();
        let lease = |ahead, holder| Claim { nonce: "n".to_owned(), expires_at: now + ahead, holder, turn: 0 };
        let (hour, days) = (SignedDuration::from_hours(1), SignedDuration::from_hours(72));
        assert!(!has_lapsed(&lease(hour, None), now) && has_lapsed(&lease(days, None), now));
        assert!(has_lapsed(&lease(-hour, None), now));
        assert!(!has_lapsed(&lease(days, Some(holder)), now));
    }
}
