//! A line on which bytes travel in flights, so that round trips can be counted instead of timed.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use super::loopback;

/// Counts the round trips that `client` needs at the server at `to`, from TCP's own to the last word of the server.
///
/// Bytes are held back until both ends have been silent for `silence`, and are then delivered both ways at once: that
/// is half a round trip. What one end says in answer to the other can only come in a later flight, so no count is
/// too low; where an end pauses for longer in the middle of what it says, a count is too high.
///
/// `client` is given the address to connect to, which takes one connection.
pub(crate) fn round_trips(to: SocketAddr, silence: Duration, client: impl FnOnce(SocketAddr)) -> usize {
    let listener = loopback::listen();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let line = scope.spawn(|| carry(&listener.accept().unwrap().0, to, silence));
        client(address);
        // A client that never came is not waited for.
        let _ = TcpStream::connect(address);
        // TCP's own round trip is the first.
        1 + line.join().unwrap().div_ceil(2)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
}

/// Carries one connection; returns how many flights there were up to the last that brought the client something.
fn carry(mut client: &TcpStream, to: SocketAddr, silence: Duration) -> usize {
    let (heard, said) = mpsc::channel();
    let mut server = None;
    let (mut flights, mut last) = (0, 0);
    listen(Speaker::Client, client, &heard);
    loop {
        let (mut outward, mut homeward, mut over) = (Vec::new(), Vec::new(), false);
        loop {
            match said.recv_timeout(silence) {
                Ok((Speaker::Client, bytes)) => {
                    over |= bytes.is_empty();
                    outward.extend(bytes);
                }
                Ok((Speaker::Server, bytes)) => {
                    over |= bytes.is_empty();
                    homeward.extend(bytes);
                }
                // A server speaks first only when the connection has reached it: with the first flight.
                Err(RecvTimeoutError::Timeout) if over || server.is_none() => break,
                Err(RecvTimeoutError::Timeout) if outward.is_empty() && homeward.is_empty() => {}
                Err(_) => break,
            }
        }
        let server = server.get_or_insert_with(|| {
            let server = TcpStream::connect(to).unwrap();
            listen(Speaker::Server, &server, &heard);
            server
        });
        flights += 1;
        if !homeward.is_empty() {
            last = flights;
        }
        // An end that has hung up needs no more.
        let _ = server.write_all(&outward);
        let _ = client.write_all(&homeward);
        if over {
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
            return last;
        }
    }
}

/// Passes on what an end says, and nothing when it has hung up.
fn listen(speaker: Speaker, end: &TcpStream, heard: &Sender<(Speaker, Vec<u8>)>) {
    let (mut end, heard) = (end.try_clone().unwrap(), heard.clone());
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        loop {
            let read = end.read(&mut buffer).unwrap_or(0);
            if heard.send((speaker, buffer[..read].to_vec())).is_err() || read == 0 {
                return;
            }
        }
    });
}
