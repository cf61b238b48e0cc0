//! Telling people of runs: what is due in the outbox is sent, and whoever cannot be told is told again later.

use std::path::Path;
use std::time::{Duration, Instant};

use super::access::notifier;
use crate::adapter::dir::Dir;
use crate::engine::clock::Clock;
use crate::engine::notify::{Trouble, deliver};
use crate::engine::records::Runs;

/// How often a scheduler looks into the outbox.
pub const POST_EVERY: Duration = Duration::from_secs(3);

/// For how long one look goes on while more is due, and in how many rounds at most: what a store gives back again and
/// again is not sent without end.
const GO_ON_FOR: Duration = Duration::from_secs(30);
const ROUNDS: usize = 16;

/// Sends what is due, and returns what could not be sent: of what, and why. What is tried again later says so.
pub async fn post(runs: &Runs<Dir>, project: &Path) -> Vec<(String, String)> {
    let (notifier, began) = (notifier(project), Instant::now());
    let (mut troubles, mut unlisted) = (Vec::<Trouble>::new(), None);
    for _ in 0..ROUNDS {
        let now = Clock::System.now();
        match deliver(runs, &notifier, now).await {
            Ok(delivery) => {
                let is_over = !delivery.got_on() || delivery.next.is_none_or(|next| now < next);
                for trouble in delivery.troubles {
                    if !troubles.contains(&trouble) {
                        troubles.push(trouble);
                    }
                }
                // As long as somebody is told, whoever else waits is not left for the next look.
                if is_over || began.elapsed() > GO_ON_FOR {
                    break;
                }
            }
            Err(error) => {
                unlisted = Some(("notifications".to_owned(), error.to_string()));
                break;
            }
        }
    }
    let tell = |trouble: Trouble| {
        let channel = trouble.channel.map_or_else(String::new, |channel| format!(" by `{channel}`"));
        let then = if trouble.given_up { "given up" } else { "`sshjob up` tries again" };
        (format!("telling of {}{channel}", trouble.run), format!("{}; {then}", trouble.why))
    };
    troubles.into_iter().map(tell).chain(unlisted).collect()
}
