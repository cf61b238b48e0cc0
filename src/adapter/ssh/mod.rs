//! SSH: one connection, one channel, one delivery per host.
//!
//! [`Connector::connect`] goes from an address, through jump hosts where the route has some, to an authenticated
//! [`Connection`]; [`Connection::open`] gives the one [`Channel`] that a task uses. What a script's end means is the
//! engine's to say: exit status and signal arrive here as the server sent them for our own channel, and a channel that
//! closes without either says nothing.
//!
//! Every host on the way is a [`Stop`] of its own: its own user, its own keys, and its own host key to be trusted.
//!
//! # Round trips
//!
//! From TCP to the exit status of a short command on an OpenSSH server, each waits for what the one before has brought:
//!
//! | | here | `ssh host true` |
//! |---|---|---|
//! | 1 | TCP | TCP |
//! | 2 | version; theirs and their algorithms | the same |
//! | 3 | algorithms and key exchange | the same |
//! | 4 | service request and signed login | service request |
//! | 5 | open a channel | which logins are there (`none`) |
//! | 6 | command; leave to send | would this key do (the probe) |
//! | 7 | input; output and exit status | signed login |
//! | 8 | | open a channel |
//! | 9 | | command; output and exit status |
//!
//! The sixth is OpenSSH's own: it lets nobody send input before the command has started. Each key that is refused, and
//! the probe that asks whether a key of an agent is worth its owner's touch, costs one more. No key exchange is guessed
//! ahead of the server's algorithms: that pays only where its first key exchange and its first host key are ours as
//! well, and OpenSSH's are `sntrup761x25519` before 10.0, which the library lacks, and RSA wherever it has such a key.

pub mod agent;
mod algorithms;
mod bastion;
pub mod certificate;
mod channel;
mod error;
mod handler;
mod identity;
pub mod key;
mod learning;
mod said;
mod steps;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use russh::SshId;
use russh::client::{self, Handle};
use russh::keys::Algorithm;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use algorithms::{CLIENT_ID, group_exchange, preferred};
use bastion::Bastions;
pub use channel::{Broken, Channel, Input, Message, Output, before_the_last_piece};
pub use error::{ConnectError, Distrust, Stage};
use error::{not_forwarded, plain, told};
use handler::Verifier;
pub use identity::{Identities, Identity, Keyring};
use learning::Learning;
use said::Said;
pub use steps::Steps;
use wire::Severable;

/// Bytes that a host may send before we take note of them: enough to keep a fast link busy, little enough that a
/// thousand hosts fit into memory.
const WINDOW_BYTES: u32 = 512 * 1024;

/// Packets of a channel that wait for us; with the largest packet that the library takes, 256 KiB, this bounds a connection
/// to 4 MiB, and an honest one, which keeps to 32 KiB, to 512 KiB.
const CHANNEL_PACKETS: usize = 16;

/// The same, where the channel leads on to another host: what waits of one that is not read from must not hold up the
/// others on the same connection. The window bounds its bytes; this is enough for them in packets of 32 bytes, and a
/// jump host gathers more than that from a host that sends faster than it is read from.
const FORWARDED_PACKETS: usize = WINDOW_BYTES as usize / 32;

/// Bytes that are read ahead: the library asks for the length of each packet and then for the rest. The packets of a
/// handshake fit; the large ones of output are read past it.
const READ_BYTES: usize = 4 * 1024;

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
    /// Asked right before the host is spoken to.
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
}

/// Judges a host key; where it is trusted, says who wants to know of further keys that the host has.
pub type Verify = Box<dyn FnOnce(HostKey) -> BoxFuture<'static, Result<Option<Learn>, Distrust>> + Send>;

/// Wants to know of further keys that a trusted host has.
pub struct Learn {
    /// The keys of which nothing is to be learned, as OpenSSH writes them.
    pub known: Vec<String>,
    /// Hears of the others, once the host has proven to have them.
    pub tell: Box<dyn FnOnce(Vec<HostKey>) -> BoxFuture<'static, ()> + Send>,
}

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
    handle: Arc<Handle<Verifier>>,
    /// Asks for further host keys beside what the connection is for.
    learning: Learning,
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

/// What we offer and accept, with the types of `known` host keys first; `packets` of a channel may wait for us.
fn config(known: &[Algorithm], certificates: bool, packets: usize) -> Arc<client::Config> {
    Arc::new(client::Config {
        client_id: SshId::Standard(CLIENT_ID.into()),
        window_size: WINDOW_BYTES,
        channel_buffer_size: packets,
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
    /// `within` bounds TCP, handshake and authentication together, for each host on the way anew, and what is asked of
    /// [`Stop::expect`] once more. `steps` notes how far it got, and when.
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
            return direct(host, within, steps, CHANNEL_PACKETS).await;
        }
        let bastion = self.bastions.through(jumps, within).await?;
        steps.mark(Stage::Jump);
        beyond(bastion, host, within, steps, CHANNEL_PACKETS).await
    }
}

/// Connects to `host` by TCP.
async fn direct(host: &Stop, within: Duration, steps: &Arc<Steps>, packets: usize) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + within;
    let tcp = timeout_at(deadline, TcpStream::connect((host.address.as_str(), host.port)))
        .await
        .map_err(|_| late(Stage::Connect, within))?
        .map_err(|error| ConnectError::Unreachable { stage: Stage::Connect, why: plain(&error) })?;
    // Without it small packets wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    steps.mark(Stage::Connect);
    let tcp = BufReader::with_capacity(READ_BYTES, tcp);
    log_in(tcp, host, deadline, within, steps, packets, None).await
}

/// Connects to `host` from the jump host at the other end of `bastion`.
async fn beyond(
    bastion: Arc<Connection>,
    host: &Stop,
    within: Duration,
    steps: &Arc<Steps>,
    packets: usize,
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
    log_in(channel.into_stream(), host, deadline, within, steps, packets, Some(bastion)).await
}

/// Speaks SSH over `stream`: checks the key of `host` and authenticates there.
async fn log_in(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &Stop,
    deadline: Instant,
    within: Duration,
    steps: &Arc<Steps>,
    packets: usize,
    through: Option<Arc<Connection>>,
) -> Result<Connection, ConnectError> {
    let asked = Instant::now();
    let expectation = timeout_at(asked + within, (host.expect)()).await.map_err(|_| undecided(within))??;
    // That time was not the host's.
    let deadline = deadline + asked.elapsed();
    let said = Arc::new(Said::default());
    let (stream, cut) = Severable::new(stream, Arc::clone(&said));
    let config = config(&expectation.known, expectation.certificates, packets);
    let (verifier, announced) = Verifier::new(expectation.verify, Arc::clone(steps), Arc::clone(&said));
    let handshake = client::connect_stream(config, stream, verifier);
    let mut handle = timeout_at(deadline, handshake)
        .await
        .map_err(|_| {
            if steps.last() == Some(Stage::Handshake) { undecided(within) } else { late(Stage::Handshake, within) }
        })?
        .map_err(|error| said.explain(error.into(), &host.user))?;
    timeout_at(deadline, host.identities.authenticate(&mut handle, &host.user))
        .await
        .map_err(|_| late(Stage::Authentication, within))?
        .map_err(|error| said.explain(error, &host.user))?;
    steps.mark(Stage::Authentication);
    let handle = Arc::new(handle);
    let learning = Learning::start(announced, Arc::clone(&handle), host.to_string());
    Ok(Connection { handle, learning, _cut: cut, _through: through })
}

fn late(stage: Stage, within: Duration) -> ConnectError {
    ConnectError::Unreachable { stage, why: format!("no answer within {}s", within.as_secs_f32()) }
}

fn undecided(within: Duration) -> ConnectError {
    let why = format!("whether the host key is trusted was not found out within {}s", within.as_secs_f32());
    ConnectError::TrustUnavailable { why }
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

    /// Severs it, and waits until what was learned on it is written down; what is not proven yet is not waited for.
    pub async fn close(self) {
        let Self { handle, learning, _cut: cut, _through: through } = self;
        drop((cut, handle, through));
        learning.finish().await;
    }

    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use russh::keys::ssh_key::private::Ed25519Keypair;
    use russh::server;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    struct Welcoming;

    impl server::Handler for Welcoming {
        type Error = russh::Error;
    }

    /// What comes of a login to a host that is all right, where `expect` says what its key is held against.
    async fn error_of(expect: Expect) -> ConnectError {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let keys = vec![Ed25519Keypair::from_seed(&[1; 32]).into()];
        let config = Arc::new(server::Config { keys, ..server::Config::default() });
        tokio::spawn(async move { server::run_stream(config, theirs, Welcoming).await?.await });
        let identities = Arc::default();
        let host = Stop { address: "host".to_owned(), port: 22, user: "me".to_owned(), identities, expect };
        let deadline = Instant::now() + WITHIN;
        log_in(ours, &host, deadline, WITHIN, &Arc::default(), CHANNEL_PACKETS, None).await.unwrap_err()
    }

    fn trusting(verify: impl Fn() -> Verify + Send + Sync + 'static, after: Duration) -> Expect {
        Arc::new(move || {
            let expectation = Expectation { known: Vec::new(), certificates: false, verify: verify() };
            Box::pin(async move {
                tokio::time::sleep(after).await;
                Ok(expectation)
            })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn trust_that_is_never_told_is_given_up_in_time_and_not_the_hosts_fault() {
        let why = "whether the host key is trusted was not found out within 5s".to_owned();
        let error = ConnectError::TrustUnavailable { why };
        assert_eq!(error_of(Arc::new(|| Box::pin(pending()))).await, error);
        let verify = || Box::new(|_| Box::pin(pending()) as BoxFuture<'static, _>) as Verify;
        assert_eq!(error_of(trusting(verify, Duration::ZERO)).await, error);
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_trust_takes_is_not_taken_from_the_host() {
        let slowly = |_| {
            Box::pin(async {
                tokio::time::sleep(WITHIN * 3 / 4).await;
                Ok(None)
            }) as BoxFuture<'static, _>
        };
        let error = error_of(trusting(move || Box::new(slowly), WITHIN * 3 / 4)).await;
        assert!(matches!(error, ConnectError::AuthFailed { .. }), "{error}");
    }
}
