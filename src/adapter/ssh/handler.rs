//! Answers the library's questions during a connection.

use std::future::Future;
use std::sync::Arc;

use russh::client::{self, DisconnectReason};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{HashAlg, PublicKeyOrCertificate};

use super::error::told;
use super::said::Said;
use super::{ConnectError, Expectation, HostKey, Learn, Stage, Steps, Verify};

/// Judges the host key once; declines what a host asks of us.
pub(super) struct Verifier {
    /// Taken by the first key exchange; later ones happen within the connection whose other end that one has proven.
    verify: Option<Verify>,
    #[expect(dead_code, reason = "host key rotation is next")]
    learn: Option<Learn>,
    steps: Arc<Steps>,
    said: Arc<Said>,
}

impl Verifier {
    pub(super) fn new(expectation: Expectation, steps: Arc<Steps>, said: Arc<Said>) -> Self {
        Self { verify: Some(expectation.verify), learn: expectation.learn, steps, said }
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
        let certificate = presented.certificate().map(|certificate| certificate.to_openssh().map_err(unreadable));
        self.steps.mark(Stage::Handshake);
        let judged = verify(HostKey { openssh, fingerprint, certificate: certificate.transpose()? }).await;
        judged.map_err(|distrust| Stopped(distrust.into()))?;
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
