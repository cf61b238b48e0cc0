//! What a host says before the script: noise of its login files, then the start marker or a refusal.

/// How much noise a stream may carry before the script starts: a long banner is a few KiB.
pub const MAX_NOISE: usize = 64 * 1024;

/// The longest refusal that is read: a code and a program's name.
const MAX_REFUSAL: usize = 1024;

/// What follows the token in the start marker.
const START: &[u8] = b" start\n";

/// What follows the token in a refusal, before its code.
const ERROR: &[u8] = b" error ";

/// Why a script was not started. The host said so itself, before it ran anything of the script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// More than [`MAX_NOISE`] came before the start marker.
    #[error("the host wrote more than {} KiB before the script could start: see its login files", MAX_NOISE / 1024)]
    Noise,
    /// Not all bytes arrived, or others than were sent.
    #[error("the delivery did not arrive whole: does a login file on the host read standard input?")]
    Cut,
    /// The script arrived, but not as it was sent.
    #[error("the script did not arrive whole: its SHA-256 differs")]
    Hash,
    /// No directory took the script.
    #[error("no room for the script on the host: tried `$TMPDIR`, `/tmp`, `/var/tmp`, `$HOME` and `/dev/shm`")]
    Space,
    /// A tool that the delivery needs is not there.
    #[error("the host has no `{0}`, which a delivery needs")]
    Tool(String),
    /// The script's interpreter, or the command's program, is not there.
    #[error("`{0}` is not on the host or not executable")]
    Program(String),
    /// The host said something that this version does not know.
    #[error("the host refused the delivery: `{0}`")]
    Unknown(String),
}

impl DeliveryError {
    /// Reads what follows `error ` in a refusal.
    fn parse(text: &[u8]) -> Self {
        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        match text.split_once(' ').unwrap_or((&text, "")) {
            ("cut", "") => Self::Cut,
            ("hash", "") => Self::Hash,
            ("space", "") => Self::Space,
            ("tool", name) => Self::Tool(name.to_owned()),
            ("program", name) => Self::Program(name.to_owned()),
            _ => Self::Unknown(text),
        }
    }
}

/// Reads one output stream of a delivery as its packets come in.
///
/// However the stream is cut into packets, the outcome is the same. Memory is bounded by [`MAX_NOISE`].
#[derive(Debug)]
pub struct Reader {
    token: Vec<u8>,
    noise: Vec<u8>,
    /// Where in `noise` the token may still begin.
    from: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Started,
    Refused(DeliveryError),
}

enum Line {
    None,
    Partial,
    Start(usize),
    Error(DeliveryError),
}

impl Reader {
    /// A reader of a stream of the delivery that `token` names.
    pub fn new(token: &super::Token) -> Self {
        Self { token: token.as_str().as_bytes().to_vec(), noise: Vec::new(), from: 0, state: State::Waiting }
    }

    /// Takes the next packet and returns the part of it that the script wrote.
    ///
    /// # Errors
    /// Why the script does not start; the same again for every later packet.
    pub fn feed<'a>(&mut self, packet: &'a [u8]) -> Result<&'a [u8], DeliveryError> {
        match &self.state {
            State::Started => return Ok(packet),
            State::Refused(error) => return Err(error.clone()),
            State::Waiting => {}
        }
        let before = self.noise.len();
        let room = MAX_NOISE - before;
        self.noise.extend_from_slice(packet.get(..room).unwrap_or(packet));
        match self.scan() {
            Line::Start(end) => {
                self.state = State::Started;
                self.noise.truncate(self.from);
                Ok(packet.get(end.saturating_sub(before)..).unwrap_or_default())
            }
            Line::Error(error) => {
                self.noise.truncate(self.from);
                self.refuse(error)
            }
            Line::None | Line::Partial if self.noise.len() == MAX_NOISE => self.refuse(DeliveryError::Noise),
            Line::None | Line::Partial => Ok(&[]),
        }
    }

    /// Whether the start marker has come.
    pub fn started(&self) -> bool {
        matches!(self.state, State::Started)
    }

    /// The last lines that came before the start marker, for people: what a refusing login shell had to say.
    pub fn noise(&self) -> String {
        const SHOWN: usize = 512;
        let tail = self.noise.get(self.noise.len().saturating_sub(SHOWN)..).unwrap_or_default();
        let text = String::from_utf8_lossy(tail);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.trim().to_owned()
    }

    fn refuse<'a>(&mut self, error: DeliveryError) -> Result<&'a [u8], DeliveryError> {
        self.state = State::Refused(error.clone());
        Err(error)
    }

    /// Looks for the first line of ours; leaves `from` where it begins or may still begin.
    fn scan(&mut self) -> Line {
        while let Some(rest) = self.noise.get(self.from..).filter(|rest| !rest.is_empty()) {
            match read_line(rest, &self.token) {
                Line::None => self.from += 1,
                Line::Start(length) => return Line::Start(self.from + length),
                other => return other,
            }
        }
        Line::None
    }
}

/// Reads a line of ours at the very beginning of `text`.
fn read_line(text: &[u8], token: &[u8]) -> Line {
    let Some(after) = text.strip_prefix(token) else {
        return if token.starts_with(text) { Line::Partial } else { Line::None };
    };
    if after.starts_with(START) {
        return Line::Start(token.len() + START.len());
    }
    if let Some(refusal) = after.strip_prefix(ERROR) {
        let shown = refusal.get(..MAX_REFUSAL).unwrap_or(refusal);
        return match shown.iter().position(|byte| *byte == b'\n') {
            Some(end) => Line::Error(DeliveryError::parse(shown.get(..end).unwrap_or_default())),
            None if shown.len() == MAX_REFUSAL => Line::Error(DeliveryError::parse(shown)),
            None => Line::Partial,
        };
    }
    if START.starts_with(after) || ERROR.starts_with(after) { Line::Partial } else { Line::None }
}
