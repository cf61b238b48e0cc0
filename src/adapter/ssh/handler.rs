//! Answers the library's questions during a connection.

use std::future::Future;
use std::sync::Arc;

use russh::client::{self, DisconnectReason};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use tokio::sync::oneshot;

use super::error::told;
use super::learning::{Announced, host_key, unknown};
use super::said::Said;
use super::{ConnectError, HostKey, Learn, Stage, Steps, Verify};

/// The smallest RSA key that a host may have.
pub(super) const MIN_RSA_BITS: u32 = 2048;

/// Judges the host key once; declines what a host asks of us.
pub(super) struct Verifier {
    /// Taken by the first key exchange; later ones happen within the connection whose other end that one has proven.
    verify: Option<Verify>,
    /// Taken by the first announcement of further keys: a host is asked for proof once.
    learn: Option<Learn>,
    announce: Option<oneshot::Sender<Announced>>,
    steps: Arc<Steps>,
    said: Arc<Said>,
}

impl Verifier {
    /// Judges by `verify`; what the host then announces comes out at the other end. `said` hears what else it says.
    pub(super) fn new(verify: Verify, steps: Arc<Steps>, said: Arc<Said>) -> (Self, oneshot::Receiver<Announced>) {
        let (announce, announced) = oneshot::channel();
        (Self { verify: Some(verify), learn: None, announce: Some(announce), steps, said }, announced)
    }
}

/// Why a handshake ended, in our words.
#[derive(Debug)]
pub(super) struct Stopped(ConnectError);

impl From<russh::Error> for Stopped {
    fn from(error: russh::Error) -> Self {
        Self(ConnectError::Unreachable { stage: Stage::Handshake, why: told(&error) })
    }
}

impl From<Stopped> for ConnectError {
    fn from(Stopped(error): Stopped) -> Self {
        error
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
        self.steps.mark(Stage::Handshake);
        let key = presented.public_key();
        if let KeyData::Rsa(rsa) = key.key_data()
            && rsa.key_size() < MIN_RSA_BITS
        {
            let why = format!("the host key is RSA with {} bits; at least {MIN_RSA_BITS} are accepted", rsa.key_size());
            return Err(Stopped(ConnectError::HostKeyRejected { why }));
        }
        let unreadable =
            |error| Stopped(ConnectError::HostKeyRejected { why: format!("unreadable host key: {error}") });
        let certificate = presented.certificate().map(|certificate| certificate.to_openssh().map_err(unreadable));
        let key = HostKey { certificate: certificate.transpose()?, ..host_key(&key).map_err(unreadable)? };
        match verify(key).await.map_err(|distrust| Stopped(distrust.into()))? {
            Some(learn) => self.learn = Some(learn),
            // Nobody waits for what nobody wants to know.
            None => self.announce = None,
        }
        self.steps.mark(Stage::HostKey);
        Ok(true)
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut client::Session) -> Result<(), Stopped> {
        self.said.shows(banner);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Stopped>) -> Result<(), Stopped> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => self.said.hangs_up(info.reason_code, &info.message),
            DisconnectReason::Error(error) => return Err(error),
        }
        Ok(())
    }

    async fn openssh_ext_host_keys_announced(
        &mut self,
        keys: Vec<PublicKey>,
        _session: &mut client::Session,
    ) -> Result<(), Stopped> {
        // Proof is asked for by another task: this one must go on to hear it.
        if let (Some(learn), Some(announce)) = (self.learn.take(), self.announce.take()) {
            let unknown = unknown(keys, &learn.known);
            if !unknown.is_empty() {
                let _ = announce.send(Announced { keys: unknown, tell: learn.tell });
            }
        }
        Ok(())
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
