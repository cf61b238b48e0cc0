//! Hosts that lie, flood and stall: each in one way, at one moment, over a protocol that is otherwise sound.

mod deed;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use russh::keys::PrivateKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

pub(crate) use deed::Deed;

use super::speaker::{Packet, Speaker, kexinit, number};
use super::{key, loopback};

/// Hosts on addresses of their own; dropping them ends them.
pub(crate) struct Hostiles {
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Hostiles {
    /// Starts a host for each deed; they are there when this returns.
    pub(crate) fn start(deeds: &[Deed]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let addresses = loopback::free(deeds.len());
        let entered = runtime.enter();
        let listen = |address: &SocketAddr| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            // Or what a host does not read, its system takes for it: tens of megabytes, by and by.
            socket.set_recv_buffer_size(256 * 1024).unwrap();
            socket.bind(*address).unwrap();
            socket.listen(1024).unwrap()
        };
        let listeners: Vec<_> = addresses.iter().map(listen).collect();
        drop(entered);
        let (stop, stopped) = oneshot::channel::<()>();
        let deeds = deeds.to_vec();
        // A thread of its own: a test that waits for a process still has its hosts.
        let thread = std::thread::spawn(move || {
            for (listener, deed) in listeners.into_iter().zip(deeds) {
                runtime.spawn(serve(listener, deed));
            }
            let _ = runtime.block_on(stopped);
        });
        Self { addresses, stop: Some(stop), thread: Some(thread) }
    }

    /// Where they are.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Hostiles {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, deed: Deed) {
    let host_key = key::fresh();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let host_key = if deed == Deed::ChangesKeyEachTime { key::fresh() } else { host_key.clone() };
        tokio::spawn(async move {
            // How a conversation ends is the client's affair.
            let _ = converse(stream, host_key, deed).await;
        });
    }
}

/// What a terminal would obey, and what would make a line of its own.
const NASTY: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nsucceeded";

async fn converse(mut stream: TcpStream, host_key: PrivateKey, deed: Deed) -> io::Result<()> {
    match deed {
        Deed::PrefacesForEver => loop {
            stream.write_all(b"please wait\r\n").await?;
        },
        Deed::EndlessVersion => {
            stream.write_all(b"SSH-2.0-").await?;
            loop {
                stream.write_all(b"aaaaaaaaaaaaaaaa").await?;
            }
        }
        Deed::SpeaksHttp => {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
            stream.shutdown().await?;
            // What is left unread would reset the connection.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        }
        Deed::DripsVersion => {
            stream.write_all(b"S").await?;
            return pending().await;
        }
        _ => {}
    }
    let mut speaker = Speaker::greet(stream, host_key).await?;
    match deed {
        Deed::HugePacket => {
            speaker.send_raw(&[0xff; 64]).await?;
            return pending().await;
        }
        Deed::EmptyPacket => {
            speaker.send_raw(&[0; 64]).await?;
            return pending().await;
        }
        Deed::DripsHandshake => return drip(&mut speaker, &kexinit("curve25519-sha256")).await,
        Deed::InventsAlgorithms => {
            let names = vec![NASTY.repeat(10); 20].join(",");
            speaker.send(&kexinit(&names)).await?;
            return pending().await;
        }
        Deed::BeginsHandshakeForEver => loop {
            speaker.send(&kexinit("curve25519-sha256")).await?;
        },
        Deed::IgnoresInHandshake => {
            let packets = [
                Packet::new(number::IGNORE).string([0; 1000]),
                Packet::new(number::DEBUG).byte(1).string(NASTY).string(""),
            ];
            return flood(&mut speaker, &packets).await;
        }
        _ => {}
    }
    speaker.exchange_keys(deed == Deed::ForgesSignature).await?;
    log_in(&mut speaker, deed).await?;
    let channel = speaker.let_in().await?;
    open(&mut speaker, deed, channel).await?;
    let (token, bytes) = speaker.take_command().await?;
    let start = format!("{token} start\n");
    command(&mut speaker, deed, channel, &start).await?;
    speaker.take_input(bytes).await?;
    run(speaker, deed, channel, &start).await
}

/// Sends `packets` over and over: not for ever, which would be a burden to whoever tests, but for longer than anybody
/// can keep what is sent; then nothing.
async fn flood(speaker: &mut Speaker, packets: &[Packet]) -> io::Result<()> {
    const BYTES: usize = 256 * 1024 * 1024;
    const PACKETS: usize = 100_000;
    let bytes: usize = packets.iter().map(|packet| packet.0.len()).sum();
    for _ in 0..(PACKETS / packets.len()).min(BYTES / bytes) {
        for packet in packets {
            speaker.send(packet).await?;
        }
    }
    pending().await
}

/// Sends the first byte of `packet`, and no more.
async fn drip(speaker: &mut Speaker, packet: &Packet) -> io::Result<()> {
    let bytes = speaker.sealed(packet);
    speaker.send_raw(&bytes[..1]).await?;
    pending().await
}

async fn log_in(speaker: &mut Speaker, deed: Deed) -> io::Result<()> {
    let extension = Packet::new(number::EXT_INFO).number(1).string("server-sig-algs").string(NASTY);
    match deed {
        Deed::WelcomesUnasked => {
            speaker.send(&Packet::new(number::USERAUTH_SUCCESS)).await?;
            return pending().await;
        }
        Deed::ExtendsForEver => return flood(speaker, &[extension]).await,
        Deed::ExtendsHugely => {
            speaker.send(&Packet::new(number::EXT_INFO).number(u32::MAX).string("a").string("b")).await?;
            return pending().await;
        }
        _ => speaker.take_login().await?,
    }
    match deed {
        Deed::DripsLogin => drip(speaker, &Packet::new(number::USERAUTH_SUCCESS)).await,
        Deed::BannersForEver => {
            let banner = Packet::new(number::USERAUTH_BANNER).string(NASTY.repeat(1000)).string("");
            flood(speaker, &[banner]).await
        }
        Deed::LikesKeyForEver => {
            let liked = Packet::new(number::USERAUTH_PK_OK).string("ssh-ed25519").string("key");
            flood(speaker, &[liked]).await
        }
        Deed::WantsMore => loop {
            speaker.send(&Packet::new(number::USERAUTH_FAILURE).string("publickey,\u{1b}[2J").byte(1)).await?;
            speaker.expect(number::USERAUTH_REQUEST).await?;
        },
        Deed::SaysGoodbye => speaker.send(&Packet::new(number::DISCONNECT).number(2).string(NASTY).string("")).await,
        _ => Ok(()),
    }
}

async fn open(speaker: &mut Speaker, deed: Deed, channel: u32) -> io::Result<()> {
    const MUCH: u32 = 2 * 1024 * 1024;
    const PACKET: u32 = 32 * 1024;
    let theirs = Packet::new(number::CHANNEL_OPEN).string("session").number(1).number(MUCH).number(PACKET);
    let question = Packet::new(number::GLOBAL_REQUEST).string("what@example.com").byte(1);
    match deed {
        Deed::DripsChannel => drip(speaker, &Packet::new(number::CHANNEL_OPEN_CONFIRMATION)).await,
        Deed::RefusesChannel => {
            let refusal = Packet::new(number::CHANNEL_OPEN_FAILURE).number(channel).number(99);
            speaker.send(&refusal.string(NASTY.repeat(100)).string("")).await?;
            pending().await
        }
        Deed::ConfirmsAnother => {
            speaker.confirm(channel + 1, MUCH, PACKET).await?;
            pending().await
        }
        Deed::ClosedWindow => speaker.confirm(channel, 0, PACKET).await,
        Deed::NeverReads => {
            speaker.confirm(channel, u32::MAX, PACKET).await?;
            pending().await
        }
        // So that not all of it can be on its way.
        Deed::StartsTooEarly => speaker.confirm(channel, 16, PACKET).await,
        Deed::EmptyPackets => speaker.confirm(channel, MUCH, 0).await,
        Deed::TinyPackets => speaker.confirm(channel, MUCH, 1).await,
        Deed::OverflowsWindow => {
            speaker.confirm(channel, u32::MAX, u32::MAX).await?;
            for _ in 0..3 {
                speaker.send(&Packet::new(number::CHANNEL_WINDOW_ADJUST).number(channel).number(u32::MAX)).await?;
            }
            Ok(())
        }
        Deed::OpensChannels => {
            speaker.confirm(channel, MUCH, PACKET).await?;
            for _ in 0..20_000 {
                speaker.send(&theirs).await?;
                speaker.expect(number::CHANNEL_OPEN_FAILURE).await?;
            }
            pending().await
        }
        Deed::OpensChannelsDeaf => {
            speaker.confirm(channel, MUCH, PACKET).await?;
            flood(speaker, &[theirs]).await
        }
        Deed::AsksForEver => {
            speaker.confirm(channel, MUCH, PACKET).await?;
            flood(speaker, &[question]).await
        }
        _ => speaker.confirm(channel, MUCH, PACKET).await,
    }
}

fn data(channel: u32, bytes: impl AsRef<[u8]>) -> Packet {
    Packet::new(number::CHANNEL_DATA).number(channel).string(bytes)
}

fn status(channel: u32, status: u32) -> Packet {
    Packet::new(number::CHANNEL_REQUEST).number(channel).string("exit-status").byte(0).number(status)
}

fn signal(channel: u32, name: &str) -> Packet {
    let request = Packet::new(number::CHANNEL_REQUEST).number(channel).string("exit-signal").byte(0);
    request.string(name).byte(0).string(NASTY.repeat(1000)).string("")
}

async fn finish(speaker: &mut Speaker, channel: u32) -> io::Result<()> {
    speaker.send(&Packet::new(number::CHANNEL_EOF).number(channel)).await?;
    speaker.send(&Packet::new(number::CHANNEL_CLOSE).number(channel)).await?;
    // Until the client goes, too.
    while speaker.receive().await.is_ok() {}
    Ok(())
}

async fn command(speaker: &mut Speaker, deed: Deed, channel: u32, start: &str) -> io::Result<()> {
    let success = Packet::new(number::CHANNEL_SUCCESS).number(channel);
    let failure = Packet::new(number::CHANNEL_FAILURE).number(channel);
    match deed {
        Deed::DripsCommand => return drip(speaker, &success).await,
        Deed::RefusesTwice => {
            speaker.send(&failure).await?;
            return speaker.send(&failure).await;
        }
        Deed::AgreesTwice => speaker.send(&success).await?,
        Deed::StartsTooEarly => {
            speaker.send(&data(channel, start)).await?;
            speaker.send(&status(channel, 0)).await?;
            return finish(speaker, channel).await;
        }
        _ => {}
    }
    speaker.send(&success).await
}

async fn run(mut speaker: Speaker, deed: Deed, channel: u32, start: &str) -> io::Result<()> {
    let output = data(channel, "output\n");
    match deed {
        Deed::ForgesStatus => {
            for other in [channel + 1, 7, u32::MAX] {
                speaker.send(&status(other, 0)).await?;
            }
            speaker.send(&data(channel, start)).await?;
            return finish(&mut speaker, channel).await;
        }
        Deed::StatusOnly => {
            speaker.send(&status(channel, 0)).await?;
            return finish(&mut speaker, channel).await;
        }
        Deed::StatusBeforeStart => speaker.send(&status(channel, 0)).await?,
        Deed::StartsAnother => {
            speaker.send(&data(channel, "0123456789abcdef0123456789abcdef start\n")).await?;
            speaker.send(&output).await?;
            speaker.send(&status(channel, 0)).await?;
            return finish(&mut speaker, channel).await;
        }
        Deed::NoiseForEver => return flood(&mut speaker, &[data(channel, [b'n'; 1000])]).await,
        Deed::ClosesUnstarted => return finish(&mut speaker, channel).await,
        _ => {}
    }
    speaker.send(&data(channel, start)).await?;
    play(speaker, deed, channel).await
}

/// What it does once it has said that it starts.
async fn play(mut speaker: Speaker, deed: Deed, channel: u32) -> io::Result<()> {
    let output = data(channel, "output\n");
    match deed {
        Deed::StatusBeforeStart => return finish(&mut speaker, channel).await,
        Deed::StatusBeforeOutput => {
            speaker.send(&status(channel, 0)).await?;
            speaker.send(&output).await?;
            return finish(&mut speaker, channel).await;
        }
        Deed::HalfStatus => {
            let half = Packet::new(number::CHANNEL_REQUEST).number(channel).string("exit-status").byte(0).byte(0);
            speaker.send(&half).await?;
            return finish(&mut speaker, channel).await;
        }
        Deed::CutsOutput => {
            speaker.send(&status(channel, 0)).await?;
            speaker.send(&output).await?;
            return speaker.hang_up().await;
        }
        Deed::RefusesLate => {
            speaker.send(&Packet::new(number::CHANNEL_FAILURE).number(channel)).await?;
            return finish(&mut speaker, channel).await;
        }
        Deed::EndsOutputOnly => {
            speaker.send(&Packet::new(number::CHANNEL_EOF).number(channel)).await?;
            return pending().await;
        }
        Deed::OutputForEverAfterStatus => {
            speaker.send(&status(channel, 0)).await?;
            return flood(&mut speaker, &[data(channel, vec![b'o'; 32 * 1024])]).await;
        }
        Deed::OutputForEver => return flood(&mut speaker, &[data(channel, vec![b'o'; 32 * 1024])]).await,
        Deed::DripsOutput => {
            speaker.send(&data(channel, "o")).await?;
            return pending().await;
        }
        Deed::HalfData => {
            speaker.send(&Packet::new(number::CHANNEL_DATA).number(channel).number(1_000_000).byte(0)).await?;
            return pending().await;
        }
        Deed::LongPacket => speaker.send(&data(channel, vec![b'o'; 35_000])).await?,
        Deed::OverlongPacket => {
            speaker.send(&data(channel, vec![b'o'; 300_000])).await?;
            return pending().await;
        }
        Deed::ChangesKeysForEver => {
            for _ in 0..500 {
                speaker.exchange_keys(false).await?;
            }
            return pending().await;
        }
        Deed::ChangesIdentity => {
            speaker.turn_into(key::fresh());
            speaker.exchange_keys(false).await?;
        }
        Deed::BeginsKeyChange => {
            speaker.send(&kexinit("curve25519-sha256")).await?;
            return pending().await;
        }
        Deed::TurnsDeaf => return pending().await,
        _ => {}
    }
    speaker.send(&output).await?;
    end(speaker, deed, channel).await
}

/// How it ends, with its output sent.
async fn end(mut speaker: Speaker, deed: Deed, channel: u32) -> io::Result<()> {
    match deed {
        Deed::SecondThoughts => {
            speaker.send(&status(channel, 7)).await?;
            speaker.send(&status(channel, 0)).await?;
        }
        Deed::StatusAfterClose => {
            speaker.send(&status(channel, 7)).await?;
            speaker.send(&Packet::new(number::CHANNEL_CLOSE).number(channel)).await?;
            speaker.send(&status(channel, 0)).await?;
        }
        Deed::Status256 => speaker.send(&status(channel, 256)).await?,
        Deed::StatusMinusOne => speaker.send(&status(channel, u32::MAX)).await?,
        Deed::InventsSignal => speaker.send(&signal(channel, &NASTY.repeat(1000))).await?,
        Deed::NamelessSignal => speaker.send(&signal(channel, "")).await?,
        Deed::OutputAfterEnd => {
            speaker.send(&Packet::new(number::CHANNEL_EOF).number(channel)).await?;
            speaker.send(&data(channel, "output\n")).await?;
            speaker.send(&status(channel, 0)).await?;
        }
        Deed::OutputAfterClose => {
            speaker.send(&status(channel, 0)).await?;
            speaker.send(&Packet::new(number::CHANNEL_CLOSE).number(channel)).await?;
            speaker.send(&data(channel, "output\n")).await?;
        }
        _ => speaker.send(&status(channel, 0)).await?,
    }
    finish(&mut speaker, channel).await
}
