//! Telling people of runs: what is due in the outbox is sent, and whoever cannot be told is told again later.

use std::path::Path;
use std::time::Duration;

use super::access::notifier;
use crate::adapter::store::AnyStore;
use crate::engine::clock::Clock;
use crate::engine::notify::{Delivery, deliver};
use crate::engine::records::Runs;

/// How often a scheduler looks into the outbox.
pub const POST_EVERY: Duration = Duration::from_secs(3);

/// How many looks at the outbox follow each other at once, sixteen runs each: what a store gives back again and again is
/// not sent without end.
const ROUNDS: usize = 64;

/// Sends what is due, and returns what could not be sent: of what, and why. What is tried again later says so.
pub async fn post(runs: &Runs<AnyStore>, project: &Path) -> Vec<(String, String)> {
    let (notifier, mut troubles) = (notifier(project), Vec::new());
    let mut unlisted = None;
    for _ in 0..ROUNDS {
        let now = Clock::System.now();
        match deliver(runs, &notifier, now).await {
            Ok(Delivery { told, troubles: more, next }) => {
                troubles.extend(more);
                // As long as somebody is told, whoever else waits is not left for the next look.
                if told.is_empty() || next.is_none_or(|next| now < next) {
                    break;
                }
            }
            Err(error) => {
                unlisted = Some(("notifications".to_owned(), error.to_string()));
                break;
            }
        }
    }
    let tell = |trouble: crate::engine::notify::Trouble| {
        let channel = trouble.channel.map_or_else(String::new, |channel| format!(" by `{channel}`"));
        let then = if trouble.given_up { "given up" } else { "`sshjob up` tries again" };
        (format!("telling of {}{channel}", trouble.run), format!("{}; {then}", trouble.why))
    };
    troubles.into_iter().map(tell).chain(unlisted).collect()
}
