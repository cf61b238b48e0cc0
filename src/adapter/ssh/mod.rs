//! SSH: one connection, one channel, one delivery per host.
//!
//! [`Connector::connect`] goes from an address, through jump hosts where the route has some, to an authenticated
//! [`Connection`]; [`Connection::open`] gives the one [`Channel`] that a task uses. What a script's end means is the
//! engine's to say: exit status and signal arrive here as the server sent them for our own channel, and a channel that
//! closes without either says nothing.
//!
//! Every host on the way is a [`Stop`] of its own: its own user, its own keys, and its own host key to be trusted.

mod algorithms;
mod bastion;
mod channel;
mod error;
mod handler;
mod identity;
pub mod key;
mod steps;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use russh::SshId;
use russh::client::{self, Handle};
use russh::keys::Algorithm;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use algorithms::{CLIENT_ID, group_exchange, preferred};
use bastion::Bastions;
pub use channel::{Broken, Channel, Input, Message, Output};
pub use error::{ConnectError, Distrust, Stage};
use error::{not_forwarded, plain, told};
use handler::Verifier;
pub use identity::{Identities, Identity, Keyring};
pub use steps::Steps;
use wire::Severable;

/// Bytes that a host may send before we take note of them: enough to keep a fast link busy, little enough that a
/// thousand hosts fit into memory.
const WINDOW_BYTES: u32 = 512 * 1024;

/// Packets of a channel that wait for us; with the largest packet of 32 KiB this bounds a connection to 512 KiB.
const CHANNEL_PACKETS: usize = 16;

/// A silent connection is asked for a sign of life this often, and given up after three unanswered questions.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A host on the way: where it is, as whom to log in there, and how its host key is judged.
#[derive(Clone)]
pub struct Stop {
    /// Host name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// What may prove that we are that user.
    pub identities: Arc<Identities>,
    /// Asked right before a connection to the host is made.
    pub expect: Expect,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As `user@host:port`, the port where it is not the usual one.
impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port, user, .. } = self;
        match (address.contains(':'), port) {
            (_, 22) => write!(f, "{user}@{address}"),
            (false, port) => write!(f, "{user}@{address}:{port}"),
            (true, port) => write!(f, "{user}@[{address}]:{port}"),
        }
    }
}

/// Says what the key of a host is held against.
pub type Expect = Arc<dyn Fn() -> BoxFuture<'static, Result<Expectation, Distrust>> + Send + Sync>;

/// What the key of a host is held against.
pub struct Expectation {
    /// The types of the keys that are known of it: they are asked for first, since a host has one of several types, and
    /// another one than the known says nothing.
    pub known: Vec<Algorithm>,
    /// Whether certificates of host keys are asked for, before plain keys.
    pub certificates: bool,
    /// Judges the key that is presented. It is trusted, durably, when this returns `Ok`.
    pub verify: Verify,
    /// Told of further keys that the host has proven to have; none where nobody wants to know.
    pub learn: Option<Learn>,
}

/// Judges a host key.
pub type Verify = Box<dyn FnOnce(HostKey) -> BoxFuture<'static, Result<(), Distrust>> + Send>;

/// Hears of all keys that a host has, the trusted one included.
pub type Learn = Box<dyn FnOnce(Vec<HostKey>) -> BoxFuture<'static, ()> + Send>;

/// A host key as presented: proven by the key exchange to belong to the host, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// The key as OpenSSH writes it: `ssh-ed25519 AAAA…`.
    pub openssh: String,
    /// Its fingerprint: `SHA256:…`.
    pub fingerprint: String,
    /// The certificate that it came in, as OpenSSH writes it. Nothing of it is checked but its form.
    pub certificate: Option<String>,
}

/// Connects to hosts, and keeps the jump hosts that lead to them.
#[derive(Debug, Clone, Default)]
pub struct Connector {
    bastions: Arc<Bastions>,
}

/// An authenticated connection. Dropping it severs it at once, whatever the host does.
pub struct Connection {
    handle: Handle<Verifier>,
    /// Cuts the socket when dropped: the library's own task would wait for a host that no longer answers.
    _cut: DropGuard,
    /// The jump host that it goes through; it lasts as long as anything goes through it.
    _through: Option<Arc<Connection>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("closed", &self.handle.is_closed()).finish_non_exhaustive()
    }
}

/// What we offer and accept, with the types of `known` host keys first.
fn config(known: &[Algorithm], certificates: bool) -> Arc<client::Config> {
    Arc::new(client::Config {
        client_id: SshId::Standard(CLIENT_ID.into()),
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_PACKETS,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        nodelay: true,
        preferred: preferred(known, certificates),
        gex: group_exchange(),
        ..client::Config::default()
    })
}

impl Connector {
    /// Connects to `host` through the `jumps`, in order; checks the key of each and logs in to each.
    ///
    /// `within` bounds TCP, handshake and authentication together, for each host on the way anew. `steps` notes how far
    /// it got, and when.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing was started then.
    pub async fn connect(
        &self,
        jumps: &[Stop],
        host: &Stop,
        within: Duration,
        steps: &Arc<Steps>,
    ) -> Result<Connection, ConnectError> {
        if jumps.is_empty() {
            return direct(host, within, steps).await;
        }
        let bastion = self.bastions.through(jumps, within).await?;
        steps.mark(Stage::Jump);
        beyond(bastion, host, within, steps).await
    }
}

/// Connects to `host` by TCP.
async fn direct(host: &Stop, within: Duration, steps: &Arc<Steps>) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + within;
    let tcp = timeout_at(deadline, TcpStream::connect((host.address.as_str(), host.port)))
        .await
        .map_err(|_| late(Stage::Connect, within))?
        .map_err(|error| ConnectError::Unreachable { stage: Stage::Connect, why: plain(&error) })?;
    // Without it small packets wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    steps.mark(Stage::Connect);
    log_in(tcp, host, deadline, within, steps, None).await
}

/// Connects to `host` from the jump host at the other end of `bastion`.
async fn beyond(
    bastion: Arc<Connection>,
    host: &Stop,
    within: Duration,
    steps: &Arc<Steps>,
) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + within;
    let unreachable = |why| ConnectError::Unreachable { stage: Stage::Connect, why };
    // The address that asks is of no use to anyone; OpenSSH sends the same.
    let opening =
        bastion.handle.channel_open_direct_tcpip(host.address.clone(), u32::from(host.port), "127.0.0.1", 65535);
    let channel = timeout_at(deadline, opening)
        .await
        .map_err(|_| late(Stage::Connect, within))?
        .map_err(|error| unreachable(not_forwarded(&error)))?;
    steps.mark(Stage::Connect);
    log_in(channel.into_stream(), host, deadline, within, steps, Some(bastion)).await
}

/// Speaks SSH over `stream`: checks the key of `host` and authenticates there.
async fn log_in(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &Stop,
    deadline: Instant,
    within: Duration,
    steps: &Arc<Steps>,
    through: Option<Arc<Connection>>,
) -> Result<Connection, ConnectError> {
    let expectation = (host.expect)().await.map_err(ConnectError::from)?;
    let (stream, cut) = Severable::new(stream);
    let config = config(&expectation.known, expectation.certificates);
    let verifier = Verifier::new(expectation, Arc::clone(steps));
    let handshake = client::connect_stream(config, stream, verifier);
    let mut handle = timeout_at(deadline, handshake)
        .await
        .map_err(|_| late(Stage::Handshake, within))?
        .map_err(ConnectError::from)?;
    timeout_at(deadline, host.identities.authenticate(&mut handle, &host.user))
        .await
        .map_err(|_| late(Stage::Authentication, within))??;
    steps.mark(Stage::Authentication);
    Ok(Connection { handle, _cut: cut, _through: through })
}

fn late(stage: Stage, within: Duration) -> ConnectError {
    ConnectError::Unreachable { stage, why: format!("no answer within {}s", within.as_secs_f32()) }
}

impl Connection {
    /// Opens the session channel.
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`] where the host refuses or does not answer `within` the time.
    pub async fn open(&self, within: Duration) -> Result<Channel, ConnectError> {
        let stage = Stage::Channel;
        match tokio::time::timeout(within, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(Channel::new(channel)),
            Ok(Err(error)) => Err(ConnectError::Unreachable { stage, why: told(&error) }),
            Err(_) => Err(ConnectError::Unreachable { stage, why: format!("no answer within {within:?}") }),
        }
    }

    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }
}
