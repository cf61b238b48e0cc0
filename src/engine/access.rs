//! How a target is reached: through which hosts, as whom, with which keys, and whom we take it for.

use std::sync::{Arc, OnceLock};

use super::clock::Clock;
use super::trust::Trust;
use crate::adapter::ssh::{ConnectError, Connection, Connector, Keyring, Stage, Steps, Stop};
use crate::domain::job::{Hop, Job};
use crate::domain::location::Location;
use crate::domain::plan;
use crate::domain::run::Target;
use crate::domain::selector::HOST_SCOPE;
use crate::domain::selector::Host;
use crate::port::Store;

/// What it takes to reach the targets of a run.
#[derive(Debug, Clone)]
pub struct Access<S> {
    /// Makes connections.
    pub connector: Connector,
    /// What proves who we are.
    pub keyring: Keyring,
    /// Whose host keys are trusted.
    pub trust: Trust<S>,
    /// Tells the time.
    pub clock: Clock,
}

/// The fingerprint of the key that a host presented, once it has.
pub type Seen = Arc<OnceLock<String>>;

impl<S: Store> Access<S> {
    /// Connects to `target` as `job` says. `seen` and `steps` are told what happens on the way.
    ///
    /// # Errors
    /// Why there is no connection; nothing was started then.
    pub async fn connect(
        &self,
        job: &Job,
        target: &Target,
        seen: &Seen,
        steps: &Arc<Steps>,
    ) -> Result<Connection, ConnectError> {
        let Some(address) = target.address.as_deref() else {
            let wanted = job.targets.address.map_or_else(String::new, |kind| format!(" {kind:?}").to_lowercase());
            let why = format!("the instance has no{wanted} address");
            return Err(ConnectError::Unreachable { stage: Stage::Connect, why });
        };
        if let Err(why) = plan::check_user(job, target) {
            return Err(ConnectError::AuthFailed { why });
        }
        let jumps: Vec<Stop> = target
            .jump
            .as_ref()
            .unwrap_or(&job.login.jump)
            .iter()
            .map(|hop| self.stop(jump_target(hop, target), &hop.host, &hop.keys, Seen::default()))
            .collect();
        let host = self.stop(target.clone(), address, &target.keys, Arc::clone(seen));
        self.connector.connect(&jumps, &host, job.login.connect_timeout.0, steps).await
    }

    fn stop(&self, target: Target, address: &str, keys: &[Location], seen: Seen) -> Stop {
        let (port, user) = (target.port, target.user.clone());
        let expect = self.trust.expect(target, self.clock, seen);
        Stop { address: address.to_owned(), port, user, identities: self.keyring.of(keys), expect }
    }
}

/// A jump host as a target of its own: known by address and port, as the hosts that are named one by one.
fn jump_target(hop: &Hop, beyond: &Target) -> Target {
    let host = Host { user: None, host: hop.host.clone(), port: (hop.port != 22).then_some(hop.port) };
    Target {
        // Its name is only shown; what its pin is kept under comes from address and port.
        instance: host.id().unwrap_or_else(|| beyond.instance.clone()),
        account: HOST_SCOPE.to_owned(),
        region: HOST_SCOPE.to_owned(),
        name: None,
        address: Some(hop.host.clone()),
        address_kind: None,
        port: hop.port,
        user: hop.user.clone().unwrap_or_else(|| beyond.user.clone()),
        jump: None,
        keys: Vec::new(),
    }
}
