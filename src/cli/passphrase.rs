//! Asks whoever sits at the terminal for a passphrase.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use zeroize::Zeroizing;

/// The longest passphrase, in bytes: no more than a terminal takes in one line.
const MAX_BYTES: usize = 4096;

/// A terminal that shows nothing of what is typed; it is as it was when this is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        // Ctrl-C comes as a byte: as a signal it would end us before the terminal is as it was.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to restore.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// The terminal that we run at, whatever our standard input is; `None` where there is none, or it is another's turn.
pub fn terminal() -> Option<File> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
    // In the background the question would stop us.
    let foreground = tcgetpgrp(&terminal).ok()?;
    (foreground == rustix::process::getpgrp()).then_some(terminal)
}

/// Asks at `terminal`, with `prompt`.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] on Ctrl-C, `UnexpectedEof` on Ctrl-D, and where the terminal is gone.
pub fn ask(mut terminal: &File, prompt: &str) -> io::Result<Zeroizing<String>> {
    let silent = Silent::new(terminal)?;
    terminal.write_all(prompt.as_bytes())?;
    let line = read_line(terminal);
    drop(silent);
    terminal.write_all(b"\n")?;
    let bytes = line?;
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_line(mut terminal: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Never grows, so that no copy of it is left behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    let mut byte = [0];
    loop {
        terminal.read_exact(&mut byte)?;
        match byte {
            [b'\r' | b'\n'] => return Ok(line),
            [0x03 | 0x1c] => return Err(io::ErrorKind::Interrupted.into()),
            [0x04] if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            [0x08 | 0x7f] => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            [0x15] => line.clear(),
            _ if line.len() == MAX_BYTES => {
                return Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes")));
            }
            [byte] => line.push(byte),
        }
    }
}
