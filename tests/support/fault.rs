//! Hosts that misbehave at an exact point: small servers, each on a loopback address of its own.

use std::any::Any;
use std::future::pending;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::speaker::announced;
use super::{key, loopback};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody listens: a connection is refused.
    Refuses,
    /// Packets that open a connection are dropped.
    Drops,
    /// A connection is accepted, and then nothing is said.
    Silent,
    /// The version is told, and then nothing.
    HangsInHandshake,
    /// Keys are exchanged, and a login is never answered.
    HangsInLogin,
    /// The login succeeds, and a channel is never opened.
    HangsAfterLogin,
    /// The channel opens, and a command is never answered.
    HangsBeforeCommand,
    /// No key is good enough.
    RejectsKey,
    /// The command starts, and its channel closes without telling how it ended.
    ClosesWithoutStatus,
    /// The command starts, and the host tells again and again that it has ended, and never closes its channel.
    RepeatsStatus,
    /// The command runs by `/bin/sh`; after this many bytes of its input the connection is cut.
    CutsInputAfter(usize),
}

/// A host with a fault; dropping it ends it.
pub(crate) struct Faulty {
    address: SocketAddr,
    host_key: PublicKey,
    commands: Commands,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Sockets that do their part by being there.
    held: Vec<Box<dyn Any + Send>>,
}

/// The commands that a host runs, so that a test may see how they end.
type Commands = Arc<Mutex<Vec<Child>>>;

impl Faulty {
    /// Starts the host; it is there when this returns.
    pub(crate) fn start(fault: Fault) -> Self {
        let mut free = loopback::free(1);
        let address = free.remove(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entered = runtime.enter();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let host_key = key::fresh();
        let mut host = Self {
            address,
            host_key: host_key.public_key().clone(),
            commands: Arc::default(),
            stop: None,
            thread: None,
            held: Vec::new(),
        };
        let listener = match fault {
            Fault::Refuses => {
                host.held.push(Box::new(socket));
                None
            }
            Fault::Drops => {
                // A queue of length 0 holds one connection; Linux drops what would be the second one's SYN.
                host.held.push(Box::new(socket.listen(0).unwrap()));
                host.held.push(Box::new(std::net::TcpStream::connect(address).unwrap()));
                None
            }
            _ => Some(socket.listen(1024).unwrap()),
        };
        drop(entered);
        let (stop, stopped) = oneshot::channel();
        let commands = Arc::clone(&host.commands);
        host.stop = Some(stop);
        // A thread of its own: a test that waits for a process still has its hosts.
        host.thread = Some(std::thread::spawn(move || {
            runtime.block_on(async {
                let Some(listener) = listener else {
                    let _ = stopped.await;
                    return;
                };
                let config = Config {
                    keys: vec![host_key],
                    auth_rejection_time: std::time::Duration::ZERO,
                    inactivity_timeout: None,
                    ..Config::default()
                };
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, Arc::new(config), fault, commands) => {}
                }
            });
        }));
        host
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it proves to be, where it gets that far.
    pub(crate) fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// Waits until all commands that it has started are over.
    pub(crate) fn wait_for_commands(&self) {
        for command in self.commands.lock().unwrap().iter_mut() {
            command.wait().unwrap();
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
        for command in self.commands.lock().unwrap().iter_mut() {
            let _ = command.kill();
            let _ = command.wait();
        }
    }
}

async fn serve(listener: TcpListener, config: Arc<Config>, fault: Fault, commands: Commands) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (config, fault, commands) = (Arc::clone(&config), fault.clone(), Arc::clone(&commands));
        tokio::spawn(async move {
            if let Err(error) = converse(stream, config, fault, commands).await {
                eprintln!("a faulty host: {error}");
            }
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    config: Arc<Config>,
    fault: Fault,
    commands: Commands,
) -> Result<(), russh::Error> {
    match fault {
        Fault::Silent => pending().await,
        Fault::HangsInHandshake => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await?;
            pending().await
        }
        fault => run_stream(config, stream, Faulted { fault, commands, input: 0 }).await?.await,
    }
}

/// One connection to a host that speaks SSH up to its fault.
struct Faulted {
    fault: Fault,
    commands: Commands,
    /// Bytes of input so far.
    input: usize,
}

impl Handler for Faulted {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _user: &str, _key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        match self.fault {
            Fault::HangsInLogin => pending().await,
            Fault::RejectsKey => Ok(Auth::reject()),
            _ => Ok(Auth::Accept),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.fault == Fault::HangsAfterLogin {
            pending::<()>().await;
        }
        drop(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        if self.fault == Fault::HangsBeforeCommand {
            pending::<()>().await;
        }
        session.channel_success(id)?;
        if self.fault == Fault::ClosesWithoutStatus {
            session.eof(id)?;
            return session.close(id);
        }
        let command = String::from_utf8(command.to_vec()).map_err(|_| russh::Error::Inconsistent)?;
        if self.fault == Fault::RepeatsStatus {
            let (token, _) = announced(&command);
            session.data(id, format!("{token} start\n"))?;
            let handle = session.handle();
            tokio::spawn(async move {
                let mut often = tokio::time::interval(std::time::Duration::from_millis(200));
                while handle.exit_status_request(id, 0).await.is_ok() {
                    often.tick().await;
                }
            });
            return Ok(());
        }
        let child =
            Command::new("/bin/sh").args(["-c", &command]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        self.commands.lock().unwrap().push(child);
        Ok(())
    }

    async fn data(&mut self, _id: ChannelId, bytes: &[u8], _session: &mut Session) -> Result<(), russh::Error> {
        let Fault::CutsInputAfter(most) = self.fault else { return Ok(()) };
        let part = &bytes[..bytes.len().min(most - self.input)];
        self.input += part.len();
        let mut commands = self.commands.lock().unwrap();
        let stdin = &mut commands.last_mut().expect("a command was sent").stdin;
        stdin.as_mut().expect("it has not been cut yet").write_all(part)?;
        if self.input == most {
            // What the command sees is the end of its input, as it would of a dead sshd.
            drop(stdin.take());
            return Err(russh::Error::Disconnect);
        }
        Ok(())
    }
}
