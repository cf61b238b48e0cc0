//! The one channel that a task uses: a command, its input, its output and its end.

use std::time::Duration;

use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::time::timeout;

use crate::domain::layout::Stream;

/// Bytes are handed to the library in pieces of this size, so that a stalled host is noticed between two of them.
const SEND_BYTES: usize = 32 * 1024;

/// Where the last of the pieces begins that `bytes` are sent in.
pub fn before_the_last_piece(bytes: &[u8]) -> usize {
    bytes.len().saturating_sub(1) / SEND_BYTES * SEND_BYTES
}

/// How long a last word may wait for its turn: behind what a host does not take, it would wait for ever.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What the host says on our channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Output.
    Data(Stream, Vec<u8>),
    /// The process ended with this status.
    ExitStatus(u32),
    /// The process was ended by this signal, named without `SIG`.
    ExitSignal(String),
    /// The host will not run commands.
    Refused,
    /// No more output will come.
    Eof,
    /// Nothing more will come.
    Closed,
}

/// A session channel, as two halves that can be used at the same time.
pub struct Channel {
    /// What we say.
    pub input: Input,
    /// What the host says.
    pub output: Output,
}

/// Our half.
pub struct Input(ChannelWriteHalf<Msg>);

/// The host's half.
pub struct Output(ChannelReadHalf);

/// The connection broke while something was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection broke")]
pub struct Broken;

impl Channel {
    pub(super) fn new(channel: russh::Channel<Msg>) -> Self {
        let (output, input) = channel.split();
        Self { input: Input(input), output: Output(output) }
    }
}

impl Input {
    /// Asks the host to run `command` by the login shell; the answer comes as a [`Message`].
    ///
    /// # Errors
    /// [`Broken`]
    pub async fn exec(&self, command: &str) -> Result<(), Broken> {
        self.0.exec(true, command).await.map_err(|_| Broken)
    }

    /// Sends `bytes` as far as the host takes them; returns when all are on their way.
    ///
    /// # Errors
    /// [`Broken`]
    pub async fn send(&self, bytes: &[u8]) -> Result<(), Broken> {
        for piece in bytes.chunks(SEND_BYTES) {
            self.0.data(piece).await.map_err(|_| Broken)?;
        }
        Ok(())
    }

    /// Ends our input: the lifeline of what runs there.
    pub async fn end(&self) {
        // A broken connection has ended it already, and one that takes nothing is about to be broken.
        let _ = timeout(LAST_WORD, self.0.eof()).await;
    }

    /// Closes the channel.
    pub async fn close(&self) {
        let _ = timeout(LAST_WORD, self.0.close()).await;
    }
}

impl Output {
    /// The next thing the host says; `None` when the connection has broken, or nothing can come any more.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            return Some(match self.0.wait().await? {
                ChannelMsg::Data { data } => Message::Data(Stream::Out, data.to_vec()),
                // 1 is SSH_EXTENDED_DATA_STDERR (RFC 4254, section 5.2); nothing else is defined.
                ChannelMsg::ExtendedData { data, ext: 1 } => Message::Data(Stream::Err, data.to_vec()),
                ChannelMsg::ExitStatus { exit_status } => Message::ExitStatus(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => Message::ExitSignal(name(&signal_name)),
                ChannelMsg::Failure => Message::Refused,
                ChannelMsg::Eof => Message::Eof,
                ChannelMsg::Close => Message::Closed,
                _ => continue,
            });
        }
    }
}

/// The signal's name; a host's own invention is cut to what a name may hold.
fn name(signal: &Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT".to_owned(),
        Sig::ALRM => "ALRM".to_owned(),
        Sig::FPE => "FPE".to_owned(),
        Sig::HUP => "HUP".to_owned(),
        Sig::ILL => "ILL".to_owned(),
        Sig::INT => "INT".to_owned(),
        Sig::KILL => "KILL".to_owned(),
        Sig::PIPE => "PIPE".to_owned(),
        Sig::QUIT => "QUIT".to_owned(),
        Sig::SEGV => "SEGV".to_owned(),
        Sig::TERM => "TERM".to_owned(),
        Sig::USR1 => "USR1".to_owned(),
        Sig::Custom(other) => other.chars().filter(char::is_ascii_alphanumeric).take(16).collect(),
    }
}
