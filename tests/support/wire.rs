//! A wire to a host, which can be cut in every way that wires are cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::loopback;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It arrives.
    Open,
    /// It is dropped, and neither end is told: a laptop that was closed.
    Held,
    /// Both ends are told that no more will come (FIN).
    Finished,
    /// Both ends are told that there is no such connection (RST).
    Reset,
}

/// A wire; dropping it cuts it.
pub(crate) struct Wire {
    address: SocketAddr,
    way: watch::Sender<Way>,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Wire {
    /// Lays a wire to the host at `end`.
    pub(crate) fn to(end: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (way, ways) = watch::channel(Way::Open);
        let listener = loopback::listen();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = runtime.block_on(async { TcpListener::from_std(listener) }).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        runtime.spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(here, end, ways.clone()));
            }
        });
        Self { address, way, connections, _runtime: runtime }
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Changes what becomes of what is sent, on every connection.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(mut here: TcpStream, end: SocketAddr, mut ways: watch::Receiver<Way>) {
    let Ok(mut there) = TcpStream::connect(end).await else { return };
    loop {
        let way = *ways.borrow_and_update();
        match way {
            Way::Open => tokio::select! {
                _ = copy_bidirectional(&mut here, &mut there) => return,
                _ = ways.changed() => {}
            },
            Way::Held => {
                let _ = ways.changed().await;
            }
            Way::Finished => return,
            Way::Reset => {
                for stream in [here, there] {
                    let _ = stream.set_zero_linger();
                }
                return;
            }
        }
    }
}
