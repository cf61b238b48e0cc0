//! A small web server that writes down what it is sent and answers as badly as a test wants.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::certificate::Served;

/// What the server answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// This status line and these headers, and then this body.
    Status(&'static str, String),
    /// The same, after this time.
    Late(Duration, &'static str, String),
    /// Nothing, ever.
    Silence,
    /// A header without end.
    EndlessHeader,
    /// A good status, and a body without end.
    EndlessBody(&'static str),
    /// The connection is closed.
    HangsUp,
}

impl Answer {
    /// A good answer.
    pub(crate) fn ok() -> Self {
        Self::Status("200 OK", "ok".to_owned())
    }
}

/// What the server was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    /// The request line, as `POST /path HTTP/1.1`.
    pub(crate) line: String,
    /// The headers, names in lower case, as they came.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: String,
}

impl Received {
    /// The value of a header, `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The server; dropping it ends it.
pub(crate) struct Hook {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    received: Arc<Mutex<Vec<Received>>>,
    held: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    /// Starts a server that answers `answer`.
    pub(crate) fn start(answer: Answer) -> Self {
        Self::serve(answer, None)
    }

    /// Starts a server that speaks TLS.
    pub(crate) fn start_tls(answer: Answer, served: Served) -> Self {
        Self::serve(answer, Some(served))
    }

    fn serve(answer: Answer, served: Option<Served>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, received) = (Arc::new(Mutex::new(answer)), Arc::new(Mutex::new(Vec::new())));
        let (held, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (answer, received) = (Arc::clone(&answer), Arc::clone(&received));
            let (held, stop) = (Arc::clone(&held), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut conversations = Vec::new();
                while let Ok((stream, _)) = listener.accept() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    held.lock().unwrap().push(stream.try_clone().unwrap());
                    let ending = stream.try_clone().unwrap();
                    let (answer, received) = (answer.lock().unwrap().clone(), Arc::clone(&received));
                    let served = served.clone();
                    conversations.push(std::thread::spawn(move || {
                        // Whoever hangs up early has heard enough.
                        let _ = match served {
                            Some(served) => served.accept(stream).and_then(|s| converse(s, &answer, &received)),
                            None => converse(stream, &answer, &received),
                        };
                        let _ = ending.shutdown(Shutdown::Write);
                    }));
                }
                for conversation in conversations {
                    conversation.join().unwrap();
                }
            })
        };
        Self { address, answer, received, held, stop, thread: Some(thread) }
    }

    /// An address on this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers otherwise from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// What it was sent so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The request lines so far, without method and version.
    pub(crate) fn paths(&self) -> Vec<String> {
        let path = |received: &Received| received.line.split(' ').nth(1).unwrap_or_default().to_owned();
        self.received().iter().map(path).collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for stream in self.held.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn converse(stream: impl Read + Write, answer: &Answer, received: &Mutex<Vec<Received>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    received.lock().unwrap().push(Received { line: line.trim_end().to_owned(), headers, body });
    let stream = stream.get_mut();
    if let Answer::Late(after, ..) = answer {
        std::thread::sleep(*after);
    }
    match answer {
        Answer::Status(status, body) | Answer::Late(_, status, body) => {
            let (line, more) = status.split_once('\n').unwrap_or((status, ""));
            let more = if more.is_empty() { String::new() } else { format!("{more}\r\n") };
            write!(stream, "HTTP/1.1 {line}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())?;
            stream.flush()
        }
        Answer::Silence => stream.read(&mut [0]).map(drop),
        Answer::EndlessHeader => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
            endless(stream)
        }
        Answer::EndlessBody(status) => {
            write!(stream, "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(b"8\r\nnonsense\r\n")?;
            }
        }
        Answer::HangsUp => Ok(()),
    }
}

fn endless(stream: &mut impl Write) -> std::io::Result<()> {
    loop {
        stream.write_all(&[b'x'; 4096])?;
    }
}
