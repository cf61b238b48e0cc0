//! The SSH agent: keys that sign without ever being here.
//!
//! An agent is another program, which may be gone, locked, slow or something else entirely: every question has a
//! deadline and every answer a limit.
//!
//! Source: draft-ietf-sshm-ssh-agent, sections 3.5 and 3.6.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::SendError;
pub use russh::keys::agent::AgentIdentity as Held;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::encoding::Decode as _;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Error as KeyError, HashAlg, PublicKey, key};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::plain;

/// An agent answers this at once; what it holds needs no one's consent.
const LIST_WITHIN: Duration = Duration::from_secs(5);

/// Somebody may have to touch a key or to consent. Below the usual `connect_timeout` of 10 s, so that it is the agent
/// that is named, not the host that waits for us.
const SIGN_WITHIN: Duration = Duration::from_secs(8);

/// OpenSSH's own limit of a message (`MAX_AGENT_REPLY_LEN` in `authfd.c`).
const MAX_REPLY_BYTES: u32 = 256 * 1024;

/// How many ask at a time. The agent takes one after the other anyway, and a socket refuses who comes when its queue,
/// 128 long with OpenSSH's, is full.
const ASKING: usize = 16;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;

/// An SSH agent: whoever listens at a socket.
#[derive(Debug, Clone)]
pub struct Agent {
    socket: Arc<Path>,
    asking: Arc<Semaphore>,
}

/// Why an agent is of no help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// Nobody listens there, or it hung up.
    #[error("the SSH agent at `{socket}` cannot be reached: {why}")]
    Gone {
        /// Where it should be.
        socket: String,
        /// What the system said.
        why: String,
    },
    /// It does not answer.
    #[error("the SSH agent at `{socket}` does not answer within {}s", within.as_secs())]
    Silent {
        /// Where it is.
        socket: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// It answers something that no agent says.
    #[error("what listens at `{socket}` does not speak as an SSH agent does")]
    Garbled {
        /// Where it is.
        socket: String,
    },
    /// It does not sign with this key: nobody consented, it is locked, or it has forgotten the key.
    #[error("the SSH agent refuses to sign")]
    Refused,
}

impl Agent {
    /// The agent that listens at `socket`.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket: socket.into(), asking: Arc::new(Semaphore::new(ASKING)) }
    }

    /// What it holds that can be used here, in its own order; nothing while it is locked.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn list(&self) -> Result<Vec<Held>, AgentError> {
        let listed = timeout(LIST_WITHIN, self.request_identities()).await;
        let reply = listed.map_err(|_| self.silent(LIST_WITHIN))?.map_err(|error| self.gone(&error))?;
        read_identities(&reply).ok_or_else(|| self.garbled())
    }

    async fn request_identities(&self) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES]).await?;
        let length = stream.read_u32().await?;
        if length > MAX_REPLY_BYTES {
            return Ok(Vec::new());
        }
        let mut reply = Vec::new();
        stream.take(u64::from(length)).read_to_end(&mut reply).await?;
        if reply.len() < length as usize { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(reply) }
    }

    /// Has it sign `data` with what it holds as `held`: `data` comes back with the signature after it.
    async fn sign(&self, held: &Held, hash: Option<HashAlg>, data: Vec<u8>) -> Result<Vec<u8>, AgentError> {
        let signed = timeout(SIGN_WITHIN, async {
            // Never closed.
            let _turn = self.asking.acquire().await;
            let stream = UnixStream::connect(&self.socket).await?;
            AgentClient::connect(stream).sign_request(held, hash, data).await
        });
        signed.await.map_err(|_| self.silent(SIGN_WITHIN))?.map_err(|error| match error {
            KeyError::IO(error) => self.gone(&error),
            KeyError::AgentFailure => AgentError::Refused,
            _ => self.garbled(),
        })
    }

    /// Signs logins with what it holds as `held`.
    pub(super) fn signer<'a>(&'a self, held: &'a Held) -> Signer<'a> {
        Signer { agent: self, held }
    }

    fn gone(&self, error: &io::Error) -> AgentError {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it hung up".to_owned(),
            _ => plain(error),
        };
        AgentError::Gone { socket: self.shown(), why }
    }

    fn silent(&self, within: Duration) -> AgentError {
        AgentError::Silent { socket: self.shown(), within }
    }

    fn garbled(&self) -> AgentError {
        AgentError::Garbled { socket: self.shown() }
    }

    fn shown(&self) -> String {
        self.socket.display().to_string()
    }
}

impl AgentError {
    /// Whether it will be no help with another key, either.
    pub(super) fn is_lasting(&self) -> bool {
        !matches!(self, Self::Refused)
    }
}

/// Reads the answer to a request for identities. What cannot be used is left out: one odd key, or a comment in an odd
/// encoding, must not take the others with it.
fn read_identities(reply: &[u8]) -> Option<Vec<Held>> {
    let (&IDENTITIES_ANSWER, mut rest) = reply.split_first()? else { return None };
    let count = u32::decode(&mut rest).ok()?;
    let mut identities = Vec::new();
    // As many as there are bytes for: the count alone allocates nothing.
    for _ in 0..count {
        let blob = Vec::<u8>::decode(&mut rest).ok()?;
        let comment = Vec::<u8>::decode(&mut rest).ok()?;
        let comment = String::from_utf8_lossy(&comment).into_owned();
        match key::parse_public_key(&blob).map(KeyData::from) {
            Ok(KeyData::Certificate(certificate)) if is_usable(&certificate.algorithm()) => {
                identities.push(Held::Certificate { certificate: *certificate, comment });
            }
            Ok(key) if is_usable(&key.algorithm()) && !key.is_certificate() => {
                identities.push(Held::PublicKey { key: PublicKey::from(key), comment });
            }
            Ok(key) => tracing::debug!(algorithm = %key.algorithm(), "a key of the agent cannot be used"),
            Err(error) => tracing::debug!(%error, "a key of the agent cannot be read"),
        }
    }
    Some(identities)
}

/// Security keys are: it is the agent that asks for the touch.
fn is_usable(algorithm: &Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Dsa | Algorithm::Other(_))
}

/// Signs logins by an agent, with what it holds.
pub(super) struct Signer<'a> {
    pub(super) agent: &'a Agent,
    pub(super) held: &'a Held,
}

/// Why a login was not signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsigned {
    /// The connection to the host broke.
    #[error("the connection broke")]
    Broken(#[from] SendError),
    /// The agent did not.
    #[error(transparent)]
    Agent(AgentError),
}

impl russh::Signer for Signer<'_> {
    type Error = Unsigned;

    /// Asks with the key, also where what is presented is a certificate: an agent that holds the one need not know of
    /// the other.
    #[expect(clippy::manual_async_fn, reason = "the trait wants the future to be sendable, in so many words")]
    fn auth_sign(
        &mut self,
        _presented: &Held,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, Unsigned>> + Send {
        async move { self.agent.sign(self.held, hash, data).await.map_err(Unsigned::Agent) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn blob(algorithm: &str, key: &[u8]) -> Vec<u8> {
        [string(algorithm.as_bytes()), string(key)].concat()
    }

    #[test]
    fn list_leaves_out_what_is_odd_and_keeps_the_rest() {
        let sound = blob("ssh-ed25519", &[7; 32]);
        let keys: [(&[u8], &[u8]); 5] = [
            (&blob("ssh-ed25519", &[7; 31]), b"too short"),
            (&blob("ssh-nobody-knows@example.com", &[7; 31]), b"unknown"),
            (b"\0\0", b"no name"),
            (&sound, b"caf\xe9"),
            (&blob("ssh-ed25519-cert-v01@openssh.com", &[7; 32]), b"half a certificate"),
        ];
        let listed: Vec<u8> = keys.iter().flat_map(|(key, comment)| [string(key), string(comment)].concat()).collect();
        let reply = [&[IDENTITIES_ANSWER, 0, 0, 0, 5][..], &listed].concat();
        let found = read_identities(&reply).unwrap();
        let [Held::PublicKey { key, comment }] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((key.algorithm(), comment.as_str()), (Algorithm::Ed25519, "caf\u{fffd}"));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(count in any::<u32>(), rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let reply = [&[IDENTITIES_ANSWER], &count.to_be_bytes()[..], &rest].concat();
            let _ = read_identities(&reply);
            let _ = read_identities(&rest);
        }
    }
}
