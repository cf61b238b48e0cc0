//! A way to a web server on which requests go wrong as a test says: refused, or answered to nobody.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes there, and its answer comes back.
    Passes,
    /// It is answered `503 Slow Down`, and goes nowhere.
    Refused,
    /// It goes there and is carried out; the answer is lost.
    Unanswered,
}

/// Says what becomes of the request with this number (from 0) and this method.
type Decide = Box<dyn Fn(usize, &str) -> Fate + Send>;

/// The way; dropping it ends it.
pub(crate) struct Detour {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, Fate)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Detour {
    /// A way to the server at `there`; numbers count requests with the method `PUT` or another one apart.
    pub(crate) fn to(there: SocketAddr, decide: impl Fn(usize, &str) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let decide: Decide = Box::new(decide);
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            // One request at a time: their numbers are exact then.
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // Whoever hangs up has had enough.
                    let _ = carry(stream, there, &decide, &seen);
                }
            })
        };
        Self { address, seen, stop, thread: Some(thread) }
    }

    /// What to name as the endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The methods of the requests so far, and what became of each.
    pub(crate) fn seen(&self) -> Vec<(String, Fate)> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn carry(
    stream: TcpStream,
    there: SocketAddr,
    decide: &Decide,
    seen: &Mutex<Vec<(String, Fate)>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push(line);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let method = head[0].split(' ').next().unwrap().to_owned();
    let number = seen.lock().unwrap().iter().filter(|(other, _)| *other == method).count();
    let fate = decide(number, &method);
    seen.lock().unwrap().push((method, fate));
    let mut answer = Vec::new();
    if fate == Fate::Refused {
        answer.extend(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else {
        let mut server = TcpStream::connect(there)?;
        server.write_all(head.concat().as_bytes())?;
        server.write_all(b"Connection: close\r\n\r\n")?;
        server.write_all(&body)?;
        server.read_to_end(&mut answer)?;
    }
    if fate == Fate::Unanswered {
        return Ok(());
    }
    stream.get_mut().write_all(&answer)
}
