//! SSH servers on all loopback addresses, in one process, that answer without running anything.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::{PublicKey, load_public_key, load_secret_key};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Preferred, cipher};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

use crate::Failure;
use crate::work::{Delivery, Work};

/// Connections that wait to be accepted; the kernel takes as many as `net.core.somaxconn` has.
const BACKLOG: u32 = 4096;

/// OpenSSH's: the library's own server has no AES-128.
const CIPHERS: &[cipher::Name] =
    &[cipher::CHACHA20_POLY1305, cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::AES_128_CTR, cipher::AES_256_CTR];

/// Bytes of output that are sent at a time: what fits into one packet.
const PIECE: usize = 32 * 1024;

/// The standard error of a channel (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// How many commands every host was given since the last question.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<IpAddr, u32>>);

impl Tally {
    fn count(&self, host: IpAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host).or_default() += 1;
    }

    /// A line for each host; then it begins anew.
    fn take(&self) -> String {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let lines: Vec<String> = counts.iter().map(|(host, count)| format!("{host} {count}\n")).collect();
        lines.concat()
    }
}

/// Serves `port` of all addresses; at `socket` it tells who was given how many commands.
pub(crate) async fn serve(port: u16, host_key: &Path, login: &Path, socket: &Path) -> Result<(), Failure> {
    let config = Arc::new(Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::ZERO,
        keys: vec![load_secret_key(host_key, None)?],
        preferred: Preferred { cipher: Cow::Borrowed(CIPHERS), ..Preferred::default() },
        inactivity_timeout: None,
        ..Config::default()
    });
    let accepted = Arc::new(load_public_key(login)?);
    let tally = Arc::new(Tally::default());
    tokio::spawn(tell(UnixListener::bind(socket)?, Arc::clone(&tally)));
    let listener = listen(port)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let host = stream.local_addr()?.ip();
        let (accepted, tally) = (Arc::clone(&accepted), Arc::clone(&tally));
        let connection = Connection { host, accepted, tally, deliveries: HashMap::new() };
        tokio::spawn(converse(stream, Arc::clone(&config), connection));
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)
}

async fn tell(listener: UnixListener, tally: Arc<Tally>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.write_all(tally.take().as_bytes()).await;
    }
}

async fn converse(stream: TcpStream, config: Arc<Config>, connection: Connection) {
    let _ = stream.set_nodelay(true);
    if let Ok(session) = russh::server::run_stream(config, stream, connection).await {
        // A client may leave as it likes.
        let _ = session.await;
    }
}

struct Connection {
    host: IpAddr,
    accepted: Arc<PublicKey>,
    tally: Arc<Tally>,
    /// Of the channels that wait for the rest of one.
    deliveries: HashMap<ChannelId, Delivery>,
}

impl Connection {
    fn judge(&self, key: &PublicKey) -> Auth {
        if key.key_data() == self.accepted.key_data() { Auth::Accept } else { Auth::reject() }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(self.judge(offer.public_key))
    }

    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(self.judge(key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        self.tally.count(self.host);
        session.channel_success(id)?;
        let command = String::from_utf8_lossy(command);
        match Delivery::read(&command) {
            Some(delivery) => {
                self.deliveries.insert(id, delivery);
            }
            None => {
                tokio::spawn(work(session.handle(), id, None, Work::read(&command)));
            }
        }
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, bytes: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        if let Some((marker, todo)) = self.deliveries.get_mut(&id).and_then(|delivery| delivery.feed(bytes)) {
            tokio::spawn(work(session.handle(), id, Some(marker), todo));
        }
        Ok(())
    }
}

/// Does what a host would, and ends the channel.
async fn work(handle: Handle, id: ChannelId, marker: Option<String>, work: Work) {
    if let Some(marker) = marker {
        let _ = handle.data(id, marker.clone().into_bytes()).await;
        let _ = handle.extended_data(id, STDERR, marker.into_bytes()).await;
    }
    match work {
        Work::Nothing => {}
        Work::Sleep(time) => tokio::time::sleep(time).await,
        Work::Print(count) => {
            let lines: Vec<u8> = (1..=count).flat_map(|line| format!("{line:099}\n").into_bytes()).collect();
            for piece in lines.chunks(PIECE) {
                if handle.data(id, piece.to_vec()).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = handle.exit_status_request(id, 0).await;
    let _ = handle.eof(id).await;
    let _ = handle.close(id).await;
}
