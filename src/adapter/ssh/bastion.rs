//! Jump hosts: one connection to each, shared by everything that goes through it.
//!
//! Connections to one jump host are made one at a time, so that its limit of unauthenticated connections
//! (`MaxStartups`, 10 by default) is never reached; what fails there fails for everyone who was waiting for it, and a
//! login that it refused is not tried again: its penalty (`PerSourcePenalties`) would lock all of us out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{ConnectError, Connection, FORWARDED_PACKETS, Steps, Stop, beyond, direct};

/// Where a way leads: each host on it, as `user@host:port`.
type Way = Vec<String>;

/// The jump hosts that are in use.
#[derive(Debug, Default)]
pub(super) struct Bastions {
    ways: Mutex<HashMap<Way, Arc<tokio::sync::Mutex<Bastion>>>>,
}

/// What is known of one jump host.
#[derive(Debug, Default)]
enum Bastion {
    /// Nothing yet.
    #[default]
    New,
    /// It lets us through.
    Open(Arc<Connection>),
    /// It did not, at this time.
    Failed(ConnectError, Instant),
}

impl Bastions {
    /// The connection to the last of `jumps`, through those before it; made where there is none.
    ///
    /// # Errors
    /// Why there is none, naming the jump host.
    pub(super) async fn through(&self, jumps: &[Stop], within: Duration) -> Result<Arc<Connection>, ConnectError> {
        let asked = Instant::now();
        let bastion = self.bastion(jumps.iter().map(ToString::to_string).collect());
        // Whoever holds it is making the connection, which is bounded in time.
        let mut bastion = bastion.lock().await;
        match &*bastion {
            Bastion::Open(connection) if !connection.is_closed() => return Ok(Arc::clone(connection)),
            Bastion::Failed(error @ ConnectError::AuthFailed { .. }, _) => return Err(error.clone()),
            // We were waiting while it was tried: that try was ours, too.
            Bastion::Failed(error, at) if *at >= asked => return Err(error.clone()),
            _ => {}
        }
        let connected = self.connect(jumps, within).await;
        *bastion = match &connected {
            Ok(connection) => Bastion::Open(Arc::clone(connection)),
            Err(error) => Bastion::Failed(error.clone(), Instant::now()),
        };
        connected
    }

    async fn connect(&self, jumps: &[Stop], within: Duration) -> Result<Arc<Connection>, ConnectError> {
        let Some((last, before)) = jumps.split_last() else {
            let why = "there is no jump host".to_owned();
            return Err(ConnectError::Unreachable { stage: super::Stage::Connect, why });
        };
        let steps = Arc::new(Steps::default());
        let connection = if before.is_empty() {
            direct(last, within, &steps, FORWARDED_PACKETS).await
        } else {
            let through = Box::pin(self.through(before, within)).await?;
            beyond(through, last, within, &steps, FORWARDED_PACKETS).await
        };
        let connection = connection.map_err(|error| error.of_jump(last))?;
        tracing::info!(jump = %last, "connected");
        Ok(Arc::new(connection))
    }

    fn bastion(&self, way: Way) -> Arc<tokio::sync::Mutex<Bastion>> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(ways.entry(way).or_default())
    }
}
