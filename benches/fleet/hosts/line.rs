//! A line that delays every byte by half a round trip, each way, TCP's own first round trip included, and limits
//! nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::Failure;

/// Bytes that are passed on at a time.
const PIECE: usize = 64 * 1024;

/// Leads every connection on to port `to` of the address that it was made to.
pub(crate) async fn carry_all(port: u16, to: u16, round_trip: Duration) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    loop {
        let (near, _) = listener.accept().await?;
        let far = SocketAddr::new(near.local_addr()?.ip(), to);
        tokio::spawn(async move {
            // Whoever loses a connection sees that at its own end.
            let _ = carry(near, far, round_trip).await;
        });
    }
}

async fn carry(near: TcpStream, far: SocketAddr, round_trip: Duration) -> std::io::Result<()> {
    let half = round_trip / 2;
    // The kernel has told the client at once that it is connected; over a line that takes a round trip, and what it says
    // reaches the server another half of one later.
    let connected = Instant::now() + round_trip;
    sleep_until(connected + half).await;
    let far = TcpStream::connect(far).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_reader, near_writer) = near.into_split();
    let (far_reader, far_writer) = far.into_split();
    tokio::join!(
        pass_on(near_reader, far_writer, half, connected),
        pass_on(far_reader, near_writer, half, Instant::now())
    );
    Ok(())
}

/// Writes what is read `half` a round trip later, nothing of it before `first` and that.
async fn pass_on(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, half: Duration, first: Instant) {
    let (on_its_way, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = reader.read(&mut piece).await {
            let due = Instant::now().max(first) + half;
            let bytes = piece.get(..length).unwrap_or_default().to_vec();
            if on_its_way.send((due, bytes)).is_err() {
                break;
            }
        }
        let _ = on_its_way.send((Instant::now().max(first) + half, Vec::new()));
    };
    let write = async move {
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            if bytes.is_empty() || writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    };
    tokio::join!(read, write);
}
