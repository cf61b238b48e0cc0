//! Standard output and standard error: what they can show, and what becomes of a reader that went away.

use std::io::{self, ErrorKind, IsTerminal as _, Write};

use indicatif::ProgressBar;

use crate::cli::context::Color;

/// One of the two streams.
struct Side {
    writer: Box<dyn Write + Send>,
    terminal: bool,
    color: bool,
    open: bool,
}

impl Side {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.open || bytes.is_empty() {
            return Ok(());
        }
        let written = self.writer.write_all(bytes).and_then(|()| self.writer.flush());
        self.open = written.is_ok();
        match written {
            // `sshjob … | head` has seen enough: that is no error, and the run goes on.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

/// Where results and messages go.
pub struct Console {
    out: Side,
    err: Side,
    bar: Option<ProgressBar>,
    failed: bool,
    /// What was said last that is said once.
    repeated: String,
}

impl Console {
    /// The console of this process.
    pub fn new(color: Color) -> Self {
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let side = |writer, terminal| Side { writer, terminal, color: colored(color, terminal), open: true };
        Self {
            out: side(Box::new(io::stdout()), out),
            err: side(Box::new(io::stderr()), err),
            bar: None,
            failed: false,
            repeated: String::new(),
        }
    }

    /// A console that writes elsewhere: where neither is a terminal, or both are ones without colour.
    pub fn with(out: impl Write + Send + 'static, err: impl Write + Send + 'static, terminal: bool) -> Self {
        let side = |writer| Side { writer, terminal, color: false, open: true };
        let (out, err) = (side(Box::new(out)), side(Box::new(err)));
        Self { out, err, bar: None, failed: false, repeated: String::new() }
    }

    /// Keeps what is written from now on out of the way of `bar`.
    pub(super) fn attach(&mut self, bar: Option<ProgressBar>) {
        self.bar = bar;
    }

    /// Writes results.
    pub fn out(&mut self, bytes: impl AsRef<[u8]>) {
        // A reader that is slow to take our output must not hold the bar's lock: only a terminal shows both.
        let bar = self.bar.as_ref().filter(|_| self.out.terminal);
        let out = &mut self.out;
        let written = match bar {
            Some(bar) => bar.suspend(|| out.write(bytes.as_ref())),
            None => out.write(bytes.as_ref()),
        };
        if let Err(error) = written {
            self.failed = true;
            self.err(format!("error: cannot write to standard output: {error}\n"));
        }
    }

    /// Writes messages.
    pub fn err(&mut self, bytes: impl AsRef<[u8]>) {
        let err = &mut self.err;
        // Where even standard error is gone the exit code still tells.
        let _ = match &self.bar {
            Some(bar) => bar.suspend(|| err.write(bytes.as_ref())),
            None => err.write(bytes.as_ref()),
        };
    }

    /// Writes a message that would be the same again and again, once.
    pub fn err_once(&mut self, text: String) {
        if text != self.repeated {
            self.err(&text);
            self.repeated = text;
        }
    }

    /// Whether anybody still reads the results.
    pub fn is_open(&self) -> bool {
        self.out.open
    }

    /// Whether results were lost, other than to a reader that went away.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the results are shown on a terminal.
    pub fn out_is_terminal(&self) -> bool {
        self.out.terminal
    }

    /// Whether the messages are shown on a terminal.
    pub fn err_is_terminal(&self) -> bool {
        self.err.terminal
    }

    /// Whether results are coloured.
    pub fn out_color(&self) -> bool {
        self.out.color
    }

    /// Whether messages are coloured.
    pub fn err_color(&self) -> bool {
        self.err.color
    }
}

/// Whether a stream is coloured: `NO_COLOR` (<https://no-color.org>) counts where it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the command line is who reads the environment")]
fn colored(color: Color, terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let set = |name| std::env::var_os(name).unwrap_or_default();
            terminal && set("NO_COLOR").is_empty() && set("TERM") != "dumb"
        }
    }
}
