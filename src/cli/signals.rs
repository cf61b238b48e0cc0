//! What asks a process to go: Ctrl-C, SIGTERM, and the end of its terminal.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::exit::{Exit, Fail};

/// One listener for all times that it is asked: what comes at once after another is not lost between two.
#[derive(Debug)]
pub struct Signals {
    interrupted: Signal,
    terminated: Signal,
    /// None where it is to outlive its terminal, as below `nohup`.
    hung_up: Option<Signal>,
}

impl Signals {
    /// Listens from now on; the process does not end of itself any more.
    ///
    /// # Errors
    /// Where the system does not let it listen.
    pub fn new() -> Result<Self, Fail> {
        let listen =
            |kind| signal(kind).map_err(|error| Fail::new(Exit::Unavailable, format!("cannot hear signals: {error}")));
        let hung_up = (!ignores_hangups()).then(|| listen(SignalKind::hangup())).transpose()?;
        Ok(Self {
            interrupted: listen(SignalKind::interrupt())?,
            terminated: listen(SignalKind::terminate())?,
            hung_up,
        })
    }

    /// Listens for as long as the process lives, for several to hear.
    pub fn count(mut self) -> Asked {
        let (told, asked) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                self.heard().await;
                told.send_modify(|times| *times += 1);
            }
        });
        Asked(asked)
    }

    /// Waits until it is asked, or asked once more.
    pub async fn heard(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
            Some(()) = async { self.hung_up.as_mut()?.recv().await } => {}
        }
    }
}

/// Whether this process was started such that the end of its terminal means nothing to it.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// How often the process was asked to go.
#[derive(Debug, Clone)]
pub struct Asked(watch::Receiver<u32>);

impl Asked {
    /// How often until now.
    pub fn times(&self) -> u32 {
        *self.0.borrow()
    }

    /// Waits until it was so often.
    pub async fn reach(&mut self, times: u32) {
        if self.0.wait_for(|now| *now >= times).await.is_err() {
            // Whoever counts is gone with the runtime.
            std::future::pending::<()>().await;
        }
    }
}
