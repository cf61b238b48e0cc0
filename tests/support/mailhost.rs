//! A small mail server that writes down what it is sent: the few lines of RFC 5321 that a mail needs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::certificate::Served;

/// What is special about the server.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Nothing.
    Plain,
    /// It begins TLS when asked to.
    StartTls(Served),
    /// It speaks TLS from the first byte.
    Tls(Served),
    /// It speaks TLS from the first byte, and takes no password, which it repeats.
    Forbids(Served),
    /// It knows nobody.
    KnowsNobody,
    /// It says nothing.
    Silent,
    /// Its greeting has no end.
    Endless,
    /// It takes the mail, and then answers no good-bye.
    NoGoodbye,
}

/// The server; dropping it ends it.
pub(crate) struct MailHost {
    address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
    held: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MailHost {
    /// Starts it.
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (said, held) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (said, held, stop) = (Arc::clone(&said), Arc::clone(&held), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut conversations = Vec::new();
                while let Ok((stream, _)) = listener.accept() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    held.lock().unwrap().push(stream.try_clone().unwrap());
                    let (manner, said) = (manner.clone(), Arc::clone(&said));
                    // Whoever hangs up early has heard enough.
                    conversations.push(std::thread::spawn(move || drop(serve(stream, &manner, &said))));
                }
                for conversation in conversations {
                    conversation.join().unwrap();
                }
            })
        };
        Self { address, said, held, stop, thread: Some(thread) }
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every line that it was sent.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for MailHost {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for stream in self.held.lock().unwrap().iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut stream: TcpStream, manner: &Manner, said: &Mutex<Vec<String>>) -> io::Result<()> {
    match manner {
        Manner::Silent => stream.read(&mut [0]).map(drop),
        Manner::Endless => loop {
            stream.write_all(&[b'2'; 4096])?;
        },
        Manner::Tls(served) | Manner::Forbids(served) => {
            let mut stream = served.accept(stream)?;
            stream.write_all(b"220 mail.test\r\n")?;
            converse(stream, manner, false, said).map(drop)
        }
        _ => {
            stream.write_all(b"220 mail.test\r\n")?;
            let is_upgradable = matches!(manner, Manner::StartTls(_));
            let Some(stream) = converse(stream, manner, is_upgradable, said)? else { return Ok(()) };
            let Manner::StartTls(served) = manner else { return Ok(()) };
            converse(served.upgrade(stream), manner, false, said).map(drop)
        }
    }
}

/// Speaks with a client until it leaves; gives back the connection when it wants TLS.
fn converse<S: Read + Write>(
    stream: S,
    manner: &Manner,
    is_upgradable: bool,
    said: &Mutex<Vec<String>>,
) -> io::Result<Option<S>> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_owned();
        said.lock().unwrap().push(line.clone());
        let reply: &[u8] = match line.split(' ').next().unwrap_or_default() {
            "EHLO" if is_upgradable => b"250-mail.test\r\n250 STARTTLS\r\n",
            "EHLO" => b"250-mail.test\r\n250 AUTH PLAIN\r\n",
            "STARTTLS" => b"220 go on\r\n",
            "AUTH" if matches!(manner, Manner::Forbids(_)) => b"535 not me:hunter2, which is AG1lAGh1bnRlcjI=\r\n",
            "AUTH" => b"235 welcome\r\n",
            "RCPT" if matches!(manner, Manner::KnowsNobody) => b"550 no such user here\r\n",
            "DATA" => b"354 go on\r\n",
            "QUIT" if matches!(manner, Manner::NoGoodbye) => continue,
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        stream.get_mut().write_all(reply)?;
        match line.as_str() {
            "STARTTLS" => return Ok(Some(stream.into_inner())),
            "DATA" => {
                let mut line = String::new();
                while line.trim_end() != "." {
                    line.clear();
                    if stream.read_line(&mut line)? == 0 {
                        return Ok(None);
                    }
                    said.lock().unwrap().push(line.trim_end_matches(['\r', '\n']).to_owned());
                }
                stream.get_mut().write_all(b"250 taken\r\n")?;
            }
            _ => {}
        }
    }
}
