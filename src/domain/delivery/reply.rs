//! What a host says before the script: noise of its login files, then the start marker or a refusal.

/// How much noise a stream may carry before the script starts: a long banner is a few KiB.
pub const MAX_NOISE: usize = 64 * 1024;

/// The longest refusal that is read: a code and a program's name.
const MAX_REFUSAL: usize = 1024;

/// What follows the token in the start marker.
const START: &[u8] = b" start\n";

/// What follows the token where sudo is about to be asked.
const SUDO: &[u8] = b" sudo\n";

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
    /// The process that is to end the script could not be started.
    #[error("the host could not start the watchdog, without which nothing is run: is its process table full?")]
    Watchdog,
    /// The process that is to watch over a detached program could not be started.
    #[error("the host could not start the supervisor, without which nothing is run: is its process table full?")]
    Supervisor,
    /// The shell cannot count as far as a detached program may run or print.
    #[error(
        "the host's `/bin/sh` calculates with 32 bits: at most `max_output: 2047MiB` and `timeout: 248d` are possible"
    )]
    Bits,
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
            ("watchdog", "") => Self::Watchdog,
            ("supervisor", "") => Self::Supervisor,
            ("bits", "") => Self::Bits,
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
    /// Where in `noise` the word ends with which sudo was asked.
    sudo: Option<usize>,
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
    Sudo(usize),
    Error(DeliveryError),
}

impl Reader {
    /// A reader of a stream of the delivery that `token` names.
    pub fn new(token: &super::Token) -> Self {
        Self {
            token: token.as_str().as_bytes().to_vec(),
            noise: Vec::new(),
            from: 0,
            sudo: None,
            state: State::Waiting,
        }
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
            _ if self.noise.len() == MAX_NOISE => self.refuse(DeliveryError::Noise),
            _ => Ok(&[]),
        }
    }

    /// Whether the start marker has come.
    pub fn started(&self) -> bool {
        matches!(self.state, State::Started)
    }

    /// Whether the login shell was about to ask sudo.
    pub fn asked_sudo(&self) -> bool {
        self.sudo.is_some()
    }

    /// The last lines that came before the start marker, for people: what a refusing login shell or sudo had to say.
    pub fn noise(&self) -> String {
        const SHOWN: usize = 512;
        let from = self.noise.len().saturating_sub(SHOWN).max(self.sudo.unwrap_or_default());
        let tail = self.noise.get(from..).unwrap_or_default();
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
                Line::Sudo(length) => {
                    self.from += length;
                    self.sudo = Some(self.from);
                }
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
    if after.starts_with(SUDO) {
        return Line::Sudo(token.len() + SUDO.len());
    }
    if let Some(refusal) = after.strip_prefix(ERROR) {
        let shown = refusal.get(..MAX_REFUSAL).unwrap_or(refusal);
        return match shown.iter().position(|byte| *byte == b'\n') {
            Some(end) => Line::Error(DeliveryError::parse(shown.get(..end).unwrap_or_default())),
            None if shown.len() == MAX_REFUSAL => Line::Error(DeliveryError::parse(shown)),
            None => Line::Partial,
        };
    }
    if [START, SUDO, ERROR].iter().any(|word| word.starts_with(after)) { Line::Partial } else { Line::None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Token;
    use super::*;

    const TOKEN: &str = "0707070707070707070707070707070f";

    fn reader() -> Reader {
        let mut random = [7; 16];
        random[15] = 15;
        let token = Token::new(random);
        assert_eq!(token.as_str(), TOKEN);
        Reader::new(&token)
    }

    /// What comes of a stream that arrives in packets of these sizes, over and over.
    fn read(stream: &[u8], sizes: &[usize]) -> (Result<Vec<u8>, DeliveryError>, bool, String) {
        let mut reader = reader();
        let (mut rest, mut output, mut sizes) = (stream, Vec::new(), sizes.iter().cycle());
        while !rest.is_empty() {
            let (packet, later) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
            match reader.feed(packet) {
                Ok(bytes) => output.extend_from_slice(bytes),
                Err(error) => return (Err(error), reader.started(), reader.noise()),
            }
            rest = later;
        }
        (Ok(output), reader.started(), reader.noise())
    }

    #[test]
    fn output_begins_after_the_marker() {
        let stream = format!("Welcome!\nno line end{TOKEN} start\nout\n{TOKEN} start\n\0\u{ff}");
        let output = format!("out\n{TOKEN} start\n\0\u{ff}").into_bytes();
        assert_eq!(read(stream.as_bytes(), &[usize::MAX]), (Ok(output), true, "Welcome! no line end".to_owned()));
    }

    #[test]
    fn stream_without_marker_has_no_output() {
        for stream in ["", "This account is currently not available.\n", TOKEN, &format!("{TOKEN} start")] {
            let (output, started, _) = read(stream.as_bytes(), &[3]);
            assert_eq!((output, started), (Ok(Vec::new()), false), "{stream}");
        }
    }

    #[test]
    fn token_that_noise_repeats_is_no_marker() {
        // A login shell that traces what it does shows the token on the command line.
        let stream = format!("+ exec /bin/sh -c '…' sshjob 99 {TOKEN}\n+ echo '{TOKEN} start'\n{TOKEN} start\nout");
        assert_eq!(read(stream.as_bytes(), &[1]).0, Ok(b"out".to_vec()));
    }

    #[test]
    fn word_before_sudo_is_known_and_what_came_before_it_is_not_sudos() {
        let stream = format!("Welcome!\n{TOKEN} sudo\nsudo: no");
        for size in [1, 7, usize::MAX] {
            assert_eq!(read(stream.as_bytes(), &[size]), (Ok(Vec::new()), false, "sudo: no".to_owned()));
        }
        let mut reader = reader();
        assert_eq!((reader.feed(stream.as_bytes()), reader.asked_sudo()), (Ok(&b""[..]), true));
        assert_eq!(read(format!("{stream}{TOKEN} start\nout").as_bytes(), &[9]).0, Ok(b"out".to_vec()));
        assert!(!super::tests::reader().asked_sudo());
    }

    #[test]
    fn refusals_say_what_to_do() {
        let said = |text: &str| read(format!("noise\n{TOKEN} error {text}\nrest").as_bytes(), &[5]);
        assert_eq!(said("cut").0, Err(DeliveryError::Cut));
        assert_eq!(said("hash").0, Err(DeliveryError::Hash));
        assert_eq!(said("space").0, Err(DeliveryError::Space));
        assert_eq!(said("watchdog").0, Err(DeliveryError::Watchdog));
        assert_eq!(said("bits").0, Err(DeliveryError::Bits));
        assert_eq!(said("tool sha256sum").0, Err(DeliveryError::Tool("sha256sum".to_owned())));
        assert_eq!(said("program /opt/a b\u{1b}").0, Err(DeliveryError::Program("/opt/a b".to_owned())));
        assert_eq!(
            said("moon phase"),
            (Err(DeliveryError::Unknown("moon phase".to_owned())), false, "noise".to_owned())
        );
        assert_eq!(said(&"x".repeat(5000)).0, Err(DeliveryError::Unknown("x".repeat(MAX_REFUSAL))));
    }

    #[test]
    fn noise_is_bounded() {
        let marker = format!("{TOKEN} start\n");
        let fits = MAX_NOISE - marker.len();
        for (length, expected) in [(fits, Ok(b"out".to_vec())), (fits + 1, Err(DeliveryError::Noise))] {
            let stream = format!("{}{marker}out", "n".repeat(length));
            assert_eq!(read(stream.as_bytes(), &[usize::MAX]).0, expected, "{length} at once");
            assert_eq!(read(stream.as_bytes(), &[4096, 1, 77]).0, expected, "{length} in packets");
        }
    }

    /// Pieces that streams are made of, the right ones more often than chance would have them.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            Just(TOKEN.as_bytes().to_vec()),
            Just(TOKEN.as_bytes()[..20].to_vec()),
            Just(b" start\n".to_vec()),
            Just(b" sudo\n".to_vec()),
            Just(b" error ".to_vec()),
            Just(b"tool dd\n".to_vec()),
            Just(b"\n".to_vec()),
            (0..1100_usize).prop_map(|length| vec![b'x'; length]),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn packets_make_no_difference(stream in streams(), sizes in proptest::collection::vec(1..50_usize, 1..10)) {
            prop_assert_eq!(read(&stream, &sizes), read(&stream, &[usize::MAX]));
        }
    }
}
