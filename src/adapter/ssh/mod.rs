//! SSH: one connection, one channel, one delivery per host.
//!
//! [`connect`] goes from an address to an authenticated [`Connection`]; [`Connection::open`] gives the one [`Channel`]
//! that a task uses. What a script's end means is the engine's to say: exit status and signal arrive here as the
//! server sent them for our own channel, and a channel that closes without either says nothing.

mod channel;
pub mod key;
mod wire;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{MethodKind, Preferred, cipher, compression};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

pub use channel::{Broken, Channel, Input, Message, Output};
use key::PrivateKey;
use wire::Severable;

/// Bytes that a host may send before we take note of them: enough to keep a fast link busy, little enough that a
/// thousand hosts fit into memory.
const WINDOW_BYTES: u32 = 512 * 1024;

/// Packets of a channel that wait for us; with the largest packet of 32 KiB this bounds a connection to 512 KiB.
const CHANNEL_PACKETS: usize = 16;

/// A silent connection is asked for a sign of life this often, and given up after three unanswered questions.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where to connect to, and as whom.
#[derive(Debug, Clone)]
pub struct Endpoint<'a> {
    /// Host name or address.
    pub address: &'a str,
    /// TCP port.
    pub port: u16,
    /// Login user.
    pub user: &'a str,
}

/// A host key as presented: proven by the key exchange to belong to the host, not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// The key as OpenSSH writes it: `ssh-ed25519 AAAA…`.
    pub openssh: String,
    /// Its fingerprint: `SHA256:…`.
    pub fingerprint: String,
}

/// The step at which a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Name look-up and TCP.
    Connect,
    /// Version and key exchange.
    Handshake,
    /// User authentication.
    Authentication,
    /// Opening the channel.
    Channel,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Handshake => "SSH handshake",
            Self::Authentication => "authentication",
            Self::Channel => "opening a channel",
        }
    }
}

/// Why nothing was started on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No connection, or it broke or stalled before a channel was open.
    #[error("{stage}: {why}", stage = stage.as_str())]
    Unreachable {
        /// Where it got stuck.
        stage: Stage,
        /// What was seen.
        why: String,
    },
    /// The host refused every key.
    #[error("{why}")]
    AuthFailed {
        /// What the host would accept.
        why: String,
    },
    /// The host key is not the one that is trusted.
    #[error("{why}")]
    HostKeyRejected {
        /// Both fingerprints, and what to do.
        why: String,
    },
    /// Whether the host key is trusted could not be found out.
    #[error("{why}")]
    TrustUnavailable {
        /// What went wrong.
        why: String,
    },
}

/// Why a host key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// It is not the one that is trusted; with both fingerprints, and what to do.
    Rejected(String),
    /// It could not be found out.
    Unavailable(String),
}

/// An authenticated connection. Dropping it severs it at once, whatever the host does.
pub struct Connection {
    handle: Handle<Verifier>,
    /// Cuts the socket when dropped: the library's own task would wait for a host that no longer answers.
    _cut: DropGuard,
}

/// What we offer and accept, the same for every connection of the process.
fn config() -> Arc<client::Config> {
    // Post-quantum key exchange first, as the library has it; no SHA-1 signatures, no compression.
    let key = Preferred::DEFAULT.key.iter().filter(|key| **key != Algorithm::Rsa { hash: None }).cloned().collect();
    Arc::new(client::Config {
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_PACKETS,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        nodelay: true,
        preferred: Preferred {
            key: Cow::Owned(key),
            // AES-GCM before ChaCha20: hosts of this decade have AES in hardware.
            cipher: Cow::Borrowed(&[
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    })
}

/// Connects, checks the host key by `verify`, and authenticates with the first of `keys` that the host accepts.
///
/// `within` bounds TCP, handshake and authentication together.
///
/// # Errors
/// [`ConnectError`]; nothing was started then.
pub async fn connect<V, F>(
    endpoint: &Endpoint<'_>,
    keys: &[Arc<PrivateKey>],
    within: Duration,
    verify: V,
) -> Result<Connection, ConnectError>
where
    V: FnOnce(HostKey) -> F + Send + 'static,
    F: Future<Output = Result<(), Distrust>> + Send + 'static,
{
    let deadline = Instant::now() + within;
    let late = |stage| {
        move |_| ConnectError::Unreachable { stage, why: format!("no answer within {}s", within.as_secs_f32()) }
    };
    let tcp = timeout_at(deadline, TcpStream::connect((endpoint.address, endpoint.port)))
        .await
        .map_err(late(Stage::Connect))?
        .map_err(|error| ConnectError::Unreachable { stage: Stage::Connect, why: plain(&error) })?;
    // Without it small packets wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    let (stream, cut) = Severable::new(tcp);
    let verifier = Verifier { verify: Some(Box::new(move |key| Box::pin(verify(key)))) };
    let handshake = client::connect_stream(config(), stream, verifier);
    let mut handle =
        timeout_at(deadline, handshake).await.map_err(late(Stage::Handshake))?.map_err(|Stopped(why)| why)?;
    timeout_at(deadline, authenticate(&mut handle, endpoint.user, keys))
        .await
        .map_err(late(Stage::Authentication))??;
    Ok(Connection { handle, _cut: cut })
}

async fn authenticate(handle: &mut Handle<Verifier>, user: &str, keys: &[Arc<PrivateKey>]) -> Result<(), ConnectError> {
    let mut refused = None;
    for key in keys {
        // SHA-1 signatures are never made: a server that knows neither SHA-2 form is refused.
        let hash = if key.algorithm().is_rsa() {
            let supported = handle.best_supported_rsa_hash().await.map_err(|error| broken(&error))?;
            Some(supported.flatten().unwrap_or(HashAlg::Sha256))
        } else {
            None
        };
        let answer = handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(key), hash)).await;
        match answer.map_err(|error| broken(&error))? {
            AuthResult::Success => return Ok(()),
            AuthResult::Failure { remaining_methods, partial_success } => {
                refused = Some((remaining_methods, partial_success));
                if !refused.as_ref().is_some_and(|(methods, _)| methods.contains(&MethodKind::PublicKey)) {
                    break;
                }
            }
        }
    }
    let tried = match keys {
        [] => "no private key is configured".to_owned(),
        [one] => format!("the host refuses the key {}", one.public_key().fingerprint(HashAlg::Sha256)),
        many => format!("the host refuses all {} keys", many.len()),
    };
    let wanted = match refused {
        Some((_, true)) => "; it wants a second factor".to_owned(),
        Some((methods, false)) if !methods.is_empty() && !methods.contains(&MethodKind::PublicKey) => {
            let methods: Vec<&str> = methods.iter().map(Into::into).collect();
            format!("; it accepts {}", methods.join(", "))
        }
        _ => String::new(),
    };
    Err(ConnectError::AuthFailed { why: format!("user `{user}`: {tried}{wanted}") })
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
}

type Verify = Box<dyn FnOnce(HostKey) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Distrust>> + Send>> + Send>;

/// Answers the library's callbacks during a connection.
struct Verifier {
    /// Taken by the first key exchange; later ones happen within the connection whose other end that one has proven.
    verify: Option<Verify>,
}

/// Why a handshake ended, in our words.
#[derive(Debug)]
struct Stopped(ConnectError);

impl From<russh::Error> for Stopped {
    fn from(error: russh::Error) -> Self {
        Self(ConnectError::Unreachable { stage: Stage::Handshake, why: told(&error) })
    }
}

/// Answers a host that opens a channel to us. We asked for none, and the library's own answer is to accept as many as
/// the host likes, each with memory of its own.
macro_rules! decline {
    ($($method:ident($($detail:ty),*);)*) => {
        $(fn $method(
            &mut self,
            _channel: russh::Channel<client::Msg>,
            $(_: $detail,)*
            reply: client::ChannelOpenHandle,
            _session: &mut client::Session,
        ) -> impl Future<Output = Result<(), Stopped>> + Send {
            // Dropping the handle declines.
            drop(reply);
            std::future::ready(Ok(()))
        })*
    };
}

impl client::Handler for Verifier {
    type Error = Stopped;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Stopped> {
        let Some(verify) = self.verify.take() else { return Ok(true) };
        let key = presented.public_key();
        if let KeyData::Rsa(rsa) = key.key_data()
            && rsa.key_size() < 2048
        {
            let why = format!("the host key is RSA with {} bits; at least 2048 are accepted", rsa.key_size());
            return Err(Stopped(ConnectError::HostKeyRejected { why }));
        }
        let unreadable =
            |error| Stopped(ConnectError::HostKeyRejected { why: format!("unreadable host key: {error}") });
        let openssh = key.to_openssh().map_err(unreadable)?;
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        match verify(HostKey { openssh, fingerprint }).await {
            Ok(()) => Ok(true),
            Err(Distrust::Rejected(why)) => Err(Stopped(ConnectError::HostKeyRejected { why })),
            Err(Distrust::Unavailable(why)) => Err(Stopped(ConnectError::TrustUnavailable { why })),
        }
    }

    decline! {
        server_channel_open_session();
        server_channel_open_direct_tcpip(&str, u32, &str, u32);
        server_channel_open_direct_streamlocal(&str);
        server_channel_open_forwarded_tcpip(&str, u32, &str, u32);
        server_channel_open_forwarded_streamlocal(&str);
        server_channel_open_agent_forward();
        server_channel_open_x11(&str, u32);
    }
}

/// What broke an established connection before anything was started.
fn broken(error: &russh::Error) -> ConnectError {
    ConnectError::Unreachable { stage: Stage::Authentication, why: told(error) }
}

/// An I/O error without the operating system's number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The library's errors in words that name what to look at.
fn told(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            let shown: Vec<&str> = theirs.iter().take(8).map(String::as_str).collect();
            format!("no common {kind:?} algorithm; the host offers {}", shown.join(", ").to_lowercase())
        }
        russh::Error::IO(error) => plain(error),
        russh::Error::HUP | russh::Error::Disconnect | russh::Error::SendError => {
            "the host closed the connection".to_owned()
        }
        russh::Error::KeepaliveTimeout => "the host no longer answers".to_owned(),
        russh::Error::ChannelOpenFailure(reason) => format!("the host refuses it: {reason:?}"),
        other => {
            let text: String = other.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
            text.to_lowercase()
        }
    }
}
