//! The server's side of SSH, packet by packet: a host that can say anything at any time.
//!
//! One algorithm of each kind (curve25519-sha256, ssh-ed25519, aes256-gcm), every login welcome. What is said after that
//! is the caller's to choose, whether the protocol allows it or not.

use std::io::{self, ErrorKind};

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use ring::rand::SystemRandom;
use russh::keys::PrivateKey;
use russh::keys::signature::Signer as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Message numbers (RFC 4250, section 4.1).
pub(crate) mod number {
    pub(crate) const DISCONNECT: u8 = 1;
    pub(crate) const IGNORE: u8 = 2;
    pub(crate) const DEBUG: u8 = 4;
    pub(crate) const SERVICE_REQUEST: u8 = 5;
    pub(crate) const SERVICE_ACCEPT: u8 = 6;
    pub(crate) const EXT_INFO: u8 = 7;
    pub(crate) const KEXINIT: u8 = 20;
    pub(crate) const NEWKEYS: u8 = 21;
    pub(crate) const KEX_ECDH_INIT: u8 = 30;
    pub(crate) const KEX_ECDH_REPLY: u8 = 31;
    pub(crate) const USERAUTH_REQUEST: u8 = 50;
    pub(crate) const USERAUTH_FAILURE: u8 = 51;
    pub(crate) const USERAUTH_SUCCESS: u8 = 52;
    pub(crate) const USERAUTH_BANNER: u8 = 53;
    pub(crate) const USERAUTH_PK_OK: u8 = 60;
    pub(crate) const GLOBAL_REQUEST: u8 = 80;
    pub(crate) const CHANNEL_OPEN: u8 = 90;
    pub(crate) const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub(crate) const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub(crate) const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub(crate) const CHANNEL_DATA: u8 = 94;
    pub(crate) const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub(crate) const CHANNEL_EOF: u8 = 96;
    pub(crate) const CHANNEL_CLOSE: u8 = 97;
    pub(crate) const CHANNEL_REQUEST: u8 = 98;
    pub(crate) const CHANNEL_SUCCESS: u8 = 99;
    pub(crate) const CHANNEL_FAILURE: u8 = 100;
}

const VERSION: &str = "SSH-2.0-OpenSSH_9.2";

/// A payload under construction.
#[derive(Debug, Clone)]
pub(crate) struct Packet(pub(crate) Vec<u8>);

impl Packet {
    pub(crate) fn new(number: u8) -> Self {
        Self(vec![number])
    }

    pub(crate) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(crate) fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(crate) fn string(mut self, text: impl AsRef<[u8]>) -> Self {
        self = self.number(u32::try_from(text.as_ref().len()).unwrap());
        self.0.extend_from_slice(text.as_ref());
        self
    }
}

/// Reads a payload from its front.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    pub(crate) fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    pub(crate) fn string(&mut self) -> &'a [u8] {
        let length = self.number() as usize;
        self.bytes(length)
    }
}

/// One direction's key, once there is one.
struct Sealing {
    key: LessSafeKey,
    iv: [u8; 12],
}

impl Sealing {
    fn new(key: &[u8], iv: &[u8]) -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&aead::AES_256_GCM, key).unwrap());
        Self { key, iv: iv[..12].try_into().unwrap() }
    }

    /// The invocation counter is the last eight bytes (RFC 5647, section 7.1).
    fn nonce(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.iv);
        let counter = u64::from_be_bytes(self.iv[4..].try_into().unwrap());
        self.iv[4..].copy_from_slice(&counter.wrapping_add(1).to_be_bytes());
        nonce
    }
}

/// What the names in a key exchange's first message are.
pub(crate) fn kexinit(first: &str) -> Packet {
    let mut packet = Packet::new(number::KEXINIT);
    packet.0.extend_from_slice(&[7; 16]);
    let (cipher, mac, none) = ("aes256-gcm@openssh.com", "hmac-sha2-256", "none");
    for names in [first, "ssh-ed25519", cipher, cipher, mac, mac, none, none, "", ""] {
        packet = packet.string(names);
    }
    packet.byte(0).number(0)
}

/// A connection, seen from the host.
pub(crate) struct Speaker {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    host_key: PrivateKey,
    client_version: String,
    session: Option<Vec<u8>>,
    opening: Option<Sealing>,
    sealing: Option<Sealing>,
}

impl Speaker {
    /// Exchanges versions.
    pub(crate) async fn greet(stream: TcpStream, host_key: PrivateKey) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (opening, sealing, session) = (None, None, None);
        let client_version = String::new();
        let mut speaker =
            Self { read: BufReader::new(read), write, host_key, client_version, session, opening, sealing };
        speaker.write.write_all(format!("{VERSION}\r\n").as_bytes()).await?;
        loop {
            match speaker.read.read_u8().await? {
                b'\n' => return Ok(speaker),
                b'\r' => {}
                byte => speaker.client_version.push(byte.into()),
            }
        }
    }

    /// Becomes somebody else, for the next key exchange.
    pub(crate) fn turn_into(&mut self, host_key: PrivateKey) {
        self.host_key = host_key;
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }

    /// Sends a packet.
    pub(crate) async fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let bytes = self.sealed(packet);
        self.send_raw(&bytes).await
    }

    /// The bytes that a packet is on the wire.
    pub(crate) fn sealed(&mut self, Packet(payload): &Packet) -> Vec<u8> {
        let (block, ahead) = if self.sealing.is_some() { (16, 1) } else { (8, 5) };
        let padding = block + 4 - (ahead + payload.len() + 4) % block;
        let length = u32::try_from(1 + payload.len() + padding).unwrap();
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.push(u8::try_from(padding).unwrap());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len() + padding, 0);
        if let Some(sealing) = &mut self.sealing {
            let nonce = sealing.nonce();
            let (length, rest) = bytes.split_at_mut(4);
            let tag = sealing.key.seal_in_place_separate_tag(nonce, Aad::from(length), rest).unwrap();
            bytes.extend_from_slice(tag.as_ref());
        }
        bytes
    }

    /// Ends the connection, in mid-sentence.
    pub(crate) async fn hang_up(mut self) -> io::Result<()> {
        self.write.shutdown().await?;
        // What is left unread would reset the connection, and take back what has been sent.
        tokio::io::copy(&mut self.read, &mut tokio::io::sink()).await?;
        Ok(())
    }

    /// The next packet of the client.
    pub(crate) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let length = self.read.read_u32().await?;
        let tag = if self.opening.is_some() { 16 } else { 0 };
        let mut bytes = vec![0; length as usize + tag];
        self.read.read_exact(&mut bytes).await?;
        if let Some(opening) = &mut self.opening {
            let (nonce, length) = (opening.nonce(), Aad::from(length.to_be_bytes()));
            opening.key.open_in_place(nonce, length, &mut bytes).map_err(|_| ErrorKind::InvalidData)?;
            bytes.truncate(bytes.len() - tag);
        }
        let padding = usize::from(bytes[0]);
        Ok(bytes[1..bytes.len() - padding].to_vec())
    }

    /// The next packet of this number; what comes before it is ignored.
    pub(crate) async fn expect(&mut self, number: u8) -> io::Result<Vec<u8>> {
        loop {
            let packet = self.receive().await?;
            if packet.first() == Some(&number) {
                return Ok(packet);
            }
        }
    }

    /// Exchanges keys, the first time or again; `forged` proves it by a signature of something else.
    pub(crate) async fn exchange_keys(&mut self, forged: bool) -> io::Result<()> {
        let ours = kexinit("curve25519-sha256");
        self.send(&ours).await?;
        let theirs = self.expect(number::KEXINIT).await?;
        let their_share = loop {
            let init = self.expect(number::KEX_ECDH_INIT).await?;
            let share = Fields(&init[1..]).string().to_vec();
            // A guess at another algorithm is to be ignored (RFC 4253, section 7).
            if share.len() == 32 {
                break share;
            }
        };
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
        let our_share = private.compute_public_key().unwrap();
        let peer = UnparsedPublicKey::new(&X25519, &their_share);
        let shared = agreement::agree_ephemeral(private, &peer, mpint).map_err(|_| ErrorKind::InvalidData)?;
        let host_key = self.host_key.public_key().to_bytes().unwrap();
        let mut hashed = Packet(Vec::new());
        for part in [
            self.client_version.as_bytes(),
            VERSION.as_bytes(),
            &theirs,
            &ours.0,
            &host_key,
            &their_share,
            our_share.as_ref(),
        ] {
            hashed = hashed.string(part);
        }
        hashed.0.extend_from_slice(&shared);
        let hash = Sha256::digest(&hashed.0).to_vec();
        let signed: &[u8] = if forged { b"something else" } else { &hash };
        let signature: Vec<u8> = self.host_key.try_sign(signed).unwrap().try_into().unwrap();
        let reply = Packet::new(number::KEX_ECDH_REPLY).string(&host_key).string(our_share).string(signature);
        self.send(&reply).await?;
        self.send(&Packet::new(number::NEWKEYS)).await?;
        let session = self.session.get_or_insert_with(|| hash.clone()).clone();
        let derive = |letter: u8| Sha256::digest([&shared[..], &hash, &[letter], &session].concat());
        self.sealing = Some(Sealing::new(&derive(b'D'), &derive(b'B')));
        let opening = Sealing::new(&derive(b'C'), &derive(b'A'));
        self.expect(number::NEWKEYS).await?;
        self.opening = Some(opening);
        Ok(())
    }

    /// Takes the request to log in, and leaves it unanswered.
    pub(crate) async fn take_login(&mut self) -> io::Result<()> {
        self.expect(number::SERVICE_REQUEST).await?;
        self.send(&Packet::new(number::SERVICE_ACCEPT).string("ssh-userauth")).await?;
        self.expect(number::USERAUTH_REQUEST).await?;
        Ok(())
    }

    /// Lets whoever asked in, and takes the request to open a channel; tells the client's number of it.
    pub(crate) async fn let_in(&mut self) -> io::Result<u32> {
        self.send(&Packet::new(number::USERAUTH_SUCCESS)).await?;
        let open = self.expect(number::CHANNEL_OPEN).await?;
        let mut fields = Fields(&open[1..]);
        assert_eq!(fields.string(), b"session");
        Ok(fields.number())
    }

    /// Opens the channel, for this many bytes in packets of this size.
    pub(crate) async fn confirm(&mut self, channel: u32, window: u32, packet: u32) -> io::Result<()> {
        let confirmation = Packet::new(number::CHANNEL_OPEN_CONFIRMATION);
        self.send(&confirmation.number(channel).number(7).number(window).number(packet)).await
    }

    /// Takes the command; tells its token and how many bytes are to follow.
    pub(crate) async fn take_command(&mut self) -> io::Result<(String, usize)> {
        let request = self.expect(number::CHANNEL_REQUEST).await?;
        let mut fields = Fields(&request[1..]);
        fields.number();
        assert_eq!(fields.string(), b"exec");
        fields.bytes(1);
        let command = String::from_utf8_lossy(fields.string()).into_owned();
        Ok(announced(&command))
    }

    /// Takes this many bytes of input.
    pub(crate) async fn take_input(&mut self, bytes: usize) -> io::Result<()> {
        let mut taken = 0;
        while taken < bytes {
            let data = self.expect(number::CHANNEL_DATA).await?;
            taken += Fields(&data[5..]).string().len();
        }
        Ok(())
    }
}

/// The token that a command line tells, and how many bytes are to follow it.
pub(crate) fn announced(command: &str) -> (String, usize) {
    // The program's own words follow its name: who reads, how many bytes, and the token.
    let mut words = command.split("' sshjob ").nth(1).unwrap().split(' ').skip(1);
    let (bytes, token) = (words.next().unwrap(), words.next().unwrap());
    (token.to_owned(), bytes.parse().unwrap())
}

/// A shared secret as it is hashed: a positive number without leading zeros (RFC 4251, section 5).
fn mpint(secret: &[u8]) -> Vec<u8> {
    let zeros = secret.iter().take_while(|byte| **byte == 0).count();
    let mut digits = secret[zeros..].to_vec();
    if digits.first().is_some_and(|first| first & 0x80 != 0) {
        digits.insert(0, 0);
    }
    Packet(Vec::new()).string(digits).0
}
