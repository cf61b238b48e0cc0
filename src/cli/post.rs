//! Telling people of runs: what is due in the outbox is sent, and whoever cannot be told is told again later.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::access::notifier;
use super::project::Workspace;
use crate::adapter::store::AnyStore;
use crate::engine::clock::Clock;
use crate::engine::notify::{self, deliver};
use crate::engine::records::Runs;

/// How often the outbox is looked into where nobody says that there is something new: others write to it, too.
const POST_EVERY: Duration = Duration::from_secs(3);

/// For how long one look goes on while more is due, and in how many rounds at most: what a store gives back again and
/// again is not sent without end.
const GO_ON_FOR: Duration = Duration::from_secs(10);
const ROUNDS: usize = 16;

/// What goes wrong: with what, and why. What is tried again later says so.
pub type Trouble = (String, String);

/// Tells people beside all else: a server that is down holds up nothing.
pub struct Poster {
    news: Arc<Notify>,
    is_going: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Poster {
    /// Begins to tell people of `runs`; `troubles` hears what cannot be sent.
    pub fn start(runs: Runs<AnyStore>, workspace: Workspace, troubles: mpsc::Sender<Trouble>) -> Self {
        let (news, is_going) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(keep_posting(runs, workspace, Arc::clone(&news), Arc::clone(&is_going), troubles));
        Self { news, is_going, task }
    }

    /// Says that there may be something new to tell.
    pub fn wake(&self) {
        self.news.notify_one();
    }

    /// Tells what is left to tell, and ends: within a minute or so, whatever is at the other end.
    pub async fn finish(&mut self) {
        self.is_going.store(true, Ordering::Release);
        self.news.notify_one();
        // A fault of its own ends nobody else.
        let _ = (&mut self.task).await;
    }
}

async fn keep_posting(
    runs: Runs<AnyStore>,
    workspace: Workspace,
    news: Arc<Notify>,
    is_going: Arc<AtomicBool>,
    troubles: mpsc::Sender<Trouble>,
) {
    loop {
        let is_last = is_going.load(Ordering::Acquire);
        let posted = AssertUnwindSafe(post(&runs, &workspace)).catch_unwind().await;
        // A fault of ours over one look ends no other.
        let fault = |_| vec![("notifications".to_owned(), "a fault of sshjob itself; please report it".to_owned())];
        for trouble in posted.unwrap_or_else(fault) {
            // What does not get in goes wrong again, and is told then.
            let _ = troubles.try_send(trouble);
        }
        if is_last {
            break;
        }
        // Nobody need have said anything.
        let _ = timeout(POST_EVERY, news.notified()).await;
    }
}

/// Sends what is due, and returns what could not be sent.
async fn post(runs: &Runs<AnyStore>, workspace: &Workspace) -> Vec<Trouble> {
    let (notifier, began) = (notifier(workspace), Instant::now());
    let (mut troubles, mut unlisted) = (Vec::<notify::Trouble>::new(), None);
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
    let tell = |trouble: notify::Trouble| {
        let channel = trouble.channel.map_or_else(String::new, |channel| format!(" by `{channel}`"));
        let then = if trouble.given_up { "given up" } else { "`sshjob up` tries again" };
        (format!("telling of {}{channel}", trouble.run), format!("{}; {then}", trouble.why))
    };
    troubles.into_iter().map(tell).chain(unlisted).collect()
}
