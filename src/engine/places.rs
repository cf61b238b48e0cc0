//! How many hosts are asked at a time, so that those that are slow or dead hold up no other.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Semaphore;

/// How many hosts are asked at a time of which nothing bad is known.
const SWIFT: usize = 50;

/// How many are asked beside them that take long, or did not answer before.
const SLOW: usize = 50;

/// From when on a host takes long.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// The places of those who ask hosts.
#[derive(Debug)]
pub(super) struct Places {
    swift: Semaphore,
    slow: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self { swift: Semaphore::new(SWIFT), slow: Semaphore::new(SLOW) }
    }
}

impl Places {
    /// How many there are.
    pub(super) const ALL: usize = SWIFT + SLOW;

    /// Waits for a place and then for `visit`; `slow` tells that its host did not answer before.
    pub(super) async fn attend<T>(&self, slow: bool, visit: impl Future<Output = T>) -> T {
        let mut visit = pin!(visit);
        if !slow {
            let place = self.swift.acquire().await;
            tokio::select! {
                visited = &mut visit => return visited,
                () = tokio::time::sleep(SLOW_AFTER) => {}
            }
            // It leaves its place to others as soon as there is one among its like.
            tokio::select! {
                visited = &mut visit => return visited,
                slow = self.slow.acquire() => {
                    drop(place);
                    let visited = visit.await;
                    drop(slow);
                    return visited;
                }
            }
        }
        let _place = self.slow.acquire().await;
        visit.await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hosts_that_hang_leave_their_places_to_others() {
        let places = Places::default();
        let hang = || places.attend(false, pending::<()>());
        let hanging = futures_util::future::join_all((0..Places::ALL - 1).map(|_| hang()));
        let others = async {
            for _ in 0..1000 {
                places.attend(false, ready(())).await;
            }
        };
        tokio::select! {
            biased;
            _ = hanging => unreachable!(),
            () = others => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_did_not_answer_before_take_no_place_of_others() {
        let places = Places::default();
        let hanging = futures_util::future::join_all((0..1000).map(|_| places.attend(true, pending::<()>())));
        tokio::select! {
            biased;
            _ = hanging => unreachable!(),
            () = places.attend(false, ready(())) => {}
        }
    }
}
