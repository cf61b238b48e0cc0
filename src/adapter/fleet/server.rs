//! The SSH side of an embedded host: public-key authentication, session channels, `exec`, and nothing else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, MethodKind, MethodSet, Sig};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::process::{Login, Process, Running};

/// A peer that has not said who it is by then is left: it holds a socket.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// Three unanswered ones in a row end a connection whose peer is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// OpenSSH's `MaxSessions`.
const MAX_CHANNELS: usize = 10;

/// The system has no sockets left: some are freed while we wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A host: whom it lets in, and where it runs what it is sent.
#[derive(Debug)]
pub(super) struct Host {
    /// The home directory.
    pub(super) home: PathBuf,
    /// The host's own programs.
    pub(super) programs: PathBuf,
    /// The key that may log in, under any name.
    pub(super) accepted: PublicKey,
    /// Where its processes are kept.
    pub(super) running: Arc<Running>,
}

/// Serves a host until `closing`.
pub(super) async fn serve(listener: TcpListener, host: Host, key: PrivateKey, closing: CancellationToken) {
    let config = Arc::new(Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // Nobody guesses an Ed25519 key: there is nothing to slow down.
        auth_rejection_time: Duration::ZERO,
        keys: vec![key],
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        ..Config::default()
    });
    let host = Arc::new(host);
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = Connection { host: Arc::clone(&host), user: String::new(), channels: HashMap::new() };
                tokio::spawn(converse(stream, Arc::clone(&config), connection, closing.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "an embedded host cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Speaks with one peer until it leaves or the fleet closes.
async fn converse(stream: TcpStream, config: Arc<Config>, connection: Connection, closing: CancellationToken) {
    // Without it small packets wait for acknowledgements; a socket that refuses is merely slow.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(session)) = timeout(HELLO_DEADLINE, russh::server::run_stream(config, stream, connection)).await else {
        return;
    };
    let handle = session.handle();
    tokio::select! {
        () = closing.cancelled() => {
            let _ = handle.disconnect(Disconnect::ByApplication, "the demo is over".to_owned(), String::new()).await;
        }
        ended = session => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an embedded host lost its peer");
            }
        }
    }
}

/// One connection; dropping it kills what it runs.
struct Connection {
    host: Arc<Host>,
    user: String,
    channels: HashMap<ChannelId, State>,
}

/// What a session channel is doing.
enum State {
    /// It waits for its one command.
    Idle(ChannelWriteHalf<Msg>),
    /// It runs it.
    Running(Process),
}

impl Connection {
    fn judge(&self, key: &PublicKey) -> Auth {
        if key.key_data() == self.host.accepted.key_data() { Auth::Accept } else { Auth::reject() }
    }

    fn process(&mut self, channel: ChannelId) -> Option<&mut Process> {
        match self.channels.get_mut(&channel) {
            Some(State::Running(process)) => Some(process),
            _ => None,
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(self.judge(offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        user.clone_into(&mut self.user);
        Ok(self.judge(key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        // The library passes no word of a client's on that answers ours.
        self.channels.retain(|_, state| !matches!(state, State::Running(process) if process.is_over()));
        if self.channels.len() >= MAX_CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // Input arrives by `data` below; the reading half would hold back the whole connection when it is full.
        let (_, output) = channel.split();
        self.channels.insert(output.id(), State::Idle(output));
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let output = match self.channels.remove(&id) {
            Some(State::Idle(output)) => output,
            Some(running) => {
                self.channels.insert(id, running);
                return session.channel_failure(id);
            }
            None => return session.channel_failure(id),
        };
        let host = &self.host;
        let login = Login { home: &host.home, programs: &host.programs, user: &self.user, running: &host.running };
        match Process::start(command, login, output, session.handle()) {
            Ok(process) => {
                self.channels.insert(id, State::Running(process));
                session.channel_success(id)
            }
            Err(error) => {
                tracing::warn!(%error, "an embedded host cannot run a command");
                session.channel_failure(id)
            }
        }
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }

    async fn data(&mut self, id: ChannelId, bytes: &[u8], _session: &mut Session) -> Result<(), russh::Error> {
        if let Some(process) = self.process(id) {
            process.write(bytes);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        if let Some(process) = self.process(id) {
            process.end_input();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), russh::Error> {
        if let Some(process) = self.process(id) {
            process.signal(&signal);
        }
        Ok(())
    }
}
