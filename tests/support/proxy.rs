//! A way to a host on which exactly one thing goes wrong, at an exact byte.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::loopback;

/// How long a delayed byte is held back.
const DELAY: Duration = Duration::from_millis(300);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the host.
    There,
    /// From the host to the client.
    Back,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The connection ends, both ways.
    Cut,
    /// One bit of the next byte is another.
    Flip,
    /// The next byte comes late.
    Delay,
    /// Nothing comes any more, either way, and nobody is told.
    Stall,
}

/// What goes wrong after `after` bytes have gone one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) way: Way,
    pub(crate) after: usize,
    pub(crate) wrong: Wrong,
}

/// All that went each way over the first connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) there: Vec<u8>,
    pub(crate) back: Vec<u8>,
}

/// Ways to one host, each with an address and a fault of its own, which strikes the first connection and no other.
pub(crate) struct Proxies {
    addresses: Vec<SocketAddr>,
    record: Arc<Mutex<Record>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxies {
    /// Opens a way to `host` for each fault; none is a sound way.
    pub(crate) fn start(host: SocketAddr, faults: &[Option<Fault>]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let addresses = loopback::free(faults.len());
        let entered = runtime.enter();
        let listen = |address: &SocketAddr| {
            let listener = std::net::TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        };
        let listeners: Vec<_> = addresses.iter().map(listen).collect();
        drop(entered);
        let record = Arc::default();
        for (listener, fault) in listeners.into_iter().zip(faults) {
            runtime.spawn(lead(listener, host, *fault, Arc::clone(&record)));
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self { addresses, record, stop: Some(stop), thread: Some(thread) }
    }

    /// Where the ways begin.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What went over the first connection of a single way.
    pub(crate) fn record(&self) -> Record {
        self.record.lock().unwrap().clone()
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn lead(listener: TcpListener, host: SocketAddr, fault: Option<Fault>, record: Arc<Mutex<Record>>) {
    let mut first = true;
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (fault, record) = (fault.filter(|_| first), first.then(|| Arc::clone(&record)));
        first = false;
        tokio::spawn(async move {
            let Ok(host) = TcpStream::connect(host).await else { return };
            for stream in [&client, &host] {
                stream.set_nodelay(true).unwrap();
            }
            let ((from_client, to_client), (from_host, to_host)) = (client.into_split(), host.into_split());
            // Either way ends, or stops, the other.
            let (tell, _) = watch::channel(None);
            let there = pass(Way::There, from_client, to_host, fault, &tell, record.as_deref());
            let back = pass(Way::Back, from_host, to_client, fault, &tell, record.as_deref());
            let _ = tokio::join!(there, back);
        });
    }
}

/// Passes on what comes, until the end or the fault.
async fn pass(
    way: Way,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: Option<Fault>,
    tell: &watch::Sender<Option<Wrong>>,
    record: Option<&Mutex<Record>>,
) -> io::Result<()> {
    let (mut told, mut gone, mut bytes) = (tell.subscribe(), 0, vec![0; 16 * 1024]);
    let mut fault = fault.filter(|fault| fault.way == way);
    loop {
        let count = tokio::select! {
            biased;
            _ = told.wait_for(Option::is_some) => break,
            count = from.read(&mut bytes) => count?,
        };
        if count == 0 {
            return to.shutdown().await;
        }
        let mut piece = &mut bytes[..count];
        if let Some(record) = record {
            let mut record = record.lock().unwrap();
            if way == Way::There { &mut record.there } else { &mut record.back }.extend_from_slice(piece);
        }
        if let Some(Fault { after, wrong, .. }) = fault.filter(|fault| fault.after < gone + piece.len()) {
            fault = None;
            let (before, rest) = piece.split_at_mut(after - gone);
            to.write_all(before).await?;
            gone = after;
            piece = rest;
            match wrong {
                Wrong::Flip => piece[0] ^= 1,
                Wrong::Delay => tokio::time::sleep(DELAY).await,
                Wrong::Cut | Wrong::Stall => {
                    tell.send_replace(Some(wrong));
                    break;
                }
            }
        }
        to.write_all(piece).await?;
        gone += piece.len();
    }
    if *tell.borrow() == Some(Wrong::Stall) {
        // Both sockets stay.
        return std::future::pending().await;
    }
    to.shutdown().await?;
    // What is left unread would reset the connection, and take back what has been passed on.
    while from.read(&mut bytes).await? > 0 {}
    Ok(())
}
