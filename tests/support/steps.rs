//! A way to a host on which something happens exactly before or after one SSH packet.

use std::io::{BufRead as _, BufReader, Read as _, Result, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::eventually::eventually;
use super::loopback;
use super::proxy::Way;

/// What lets packets be told apart on the way: this cipher leaves their lengths readable.
pub(crate) const CIPHER: &str = "Ciphers aes256-gcm@openssh.com";

/// The length of that cipher's authentication tag.
const TAG_BYTES: usize = 16;

/// More than any packet has.
const MOST_BYTES: usize = 1 << 20;

/// Just before or just after a packet, counted from 0, is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) way: Way,
    pub(crate) packet: usize,
    pub(crate) after: bool,
}

/// A way to one host, for connections one after the other.
pub(crate) struct Steps {
    address: SocketAddr,
    next: Arc<Mutex<Option<Line>>>,
    seen: Arc<Seen>,
}

/// What has happened on the connection that is watched.
#[derive(Default)]
struct Seen {
    there: AtomicUsize,
    back: AtomicUsize,
    struck: AtomicBool,
}

impl Steps {
    /// Opens a way to `host`, on whose first connection `deed` is done at `step`; then that connection ends. After a
    /// packet means when its receiver has read it. A thread serves the way for as long as the test lives.
    pub(crate) fn to(host: SocketAddr, step: Option<Step>, deed: impl Fn() + Send + Sync + 'static) -> Self {
        let listener = loopback::listen();
        let (address, next) = (listener.local_addr().unwrap(), Arc::<Mutex<Option<Line>>>::default());
        let mut way = Self { address, next: Arc::clone(&next), seen: Arc::default() };
        way.watch(step, deed);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(host) = TcpStream::connect(host) else { continue };
                let line = next.lock().unwrap().take().unwrap_or_else(Line::sound);
                std::thread::spawn(move || line.carry(&client, &host));
            }
        });
        way
    }

    /// Does `deed` at `step` of the next connection, as it did on the first.
    pub(crate) fn watch(&mut self, step: Option<Step>, deed: impl Fn() + Send + Sync + 'static) {
        self.seen = Arc::default();
        let line = Line { step, deed: Box::new(deed), seen: Arc::clone(&self.seen) };
        *self.next.lock().unwrap() = Some(line);
    }

    /// Where the way begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many packets the connection that is watched has carried there and back.
    pub(crate) fn packets(&self) -> (usize, usize) {
        (self.seen.there.load(Ordering::SeqCst), self.seen.back.load(Ordering::SeqCst))
    }

    /// Whether the step has come.
    pub(crate) fn has_struck(&self) -> bool {
        self.seen.struck.load(Ordering::SeqCst)
    }
}

/// What is to happen on a connection.
struct Line {
    step: Option<Step>,
    deed: Box<dyn Fn() + Send + Sync>,
    seen: Arc<Seen>,
}

impl Line {
    fn sound() -> Self {
        Self { step: None, deed: Box::new(|| ()), seen: Arc::default() }
    }

    fn carry(&self, client: &TcpStream, host: &TcpStream) {
        let seen = &self.seen;
        for stream in [client, host] {
            stream.set_nodelay(true).unwrap();
        }
        std::thread::scope(|scope| {
            for (way, from, to, count) in
                [(Way::There, client, host, &seen.there), (Way::Back, host, client, &seen.back)]
            {
                scope.spawn(move || {
                    // An end that has hung up needs no more, and neither does the other.
                    let _ = self.pass(way, from, to, count, &seen.struck);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        });
    }

    /// Passes on packet by packet, until the end or the step.
    fn pass(
        &self,
        way: Way,
        from: &TcpStream,
        mut to: &TcpStream,
        count: &AtomicUsize,
        struck: &AtomicBool,
    ) -> Result<()> {
        let mut reader = BufReader::new(from);
        let mut version = Vec::new();
        reader.by_ref().take(255).read_until(b'\n', &mut version)?;
        to.write_all(&version)?;
        let mut tag = 0;
        for number in 0.. {
            let mut length = [0; 4];
            reader.read_exact(&mut length)?;
            let rest = u32::from_be_bytes(length) as usize + tag;
            assert!(rest < MOST_BYTES, "packet {number} has {rest} bytes");
            let mut packet = length.to_vec();
            packet.resize(4 + rest, 0);
            reader.read_exact(&mut packet[4..])?;
            // SSH_MSG_NEWKEYS, after the length of the padding.
            if tag == 0 && packet[5] == 21 {
                tag = TAG_BYTES;
            }
            let is_now = |after| self.step == Some(Step { way, packet: number, after });
            for after in [false, true] {
                if is_now(after) {
                    if after {
                        wait_until_read(to);
                    }
                    struck.store(true, Ordering::SeqCst);
                    (self.deed)();
                    from.shutdown(Shutdown::Both)?;
                    return to.shutdown(Shutdown::Both);
                }
                if !after {
                    to.write_all(&packet)?;
                    count.store(number + 1, Ordering::SeqCst);
                }
            }
        }
        Ok(())
    }
}

/// Waits until the other end of a connection on this machine has read all that it was sent, or is gone.
fn wait_until_read(stream: &TcpStream) {
    let (Ok(SocketAddr::V4(own)), Ok(SocketAddr::V4(other))) = (stream.local_addr(), stream.peer_addr()) else {
        return;
    };
    let [other, own] = [other, own].map(|at| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port()));
    let ends = format!(": {other} {own} ");
    eventually("what was sent is read", || {
        // proc(5): after the ends come the state and, after a colon, the bytes that wait to be read.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let queue = table.lines().find_map(|line| line.split_once(&ends)?.1.split([' ', ':']).nth(2));
        queue.is_none_or(|bytes| bytes == "00000000")
    });
}
