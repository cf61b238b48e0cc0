//! What asks a process to go: Ctrl-C, and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

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

    /// Waits until it is asked, or asked once more.
    pub async fn heard(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}
