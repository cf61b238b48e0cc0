//! What asks a process to go: Ctrl-C, and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::exit::{Exit, Fail};

/// One listener for all times that it is asked: what comes at once after another is not lost between two.
#[derive(Debug)]
pub struct Signals {
    interrupted: Signal,
    terminated: Signal,
}

impl Signals {
    /// Listens from now on; the process does not end of itself any more.
    ///
    /// # Errors
    /// Where the system does not let it listen.
    pub fn new() -> Result<Self, Fail> {
        let listen =
            |kind| signal(kind).map_err(|error| Fail::new(Exit::Unavailable, format!("cannot hear signals: {error}")));
        Ok(Self { interrupted: listen(SignalKind::interrupt())?, terminated: listen(SignalKind::terminate())? })
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
        }
    }
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
