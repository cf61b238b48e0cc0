//! A host's output as lines that say whose they are, and that cannot harm the terminal that shows them.

use std::mem;

use memchr::memchr;

const ESCAPE: char = '\u{1b}';
const BELL: char = '\u{7}';

/// Marks every line of a stream with whose it is. Feed it as the bytes come; it keeps nothing but three bytes.
#[derive(Debug)]
pub struct Lines {
    prefix: String,
    /// For a terminal: text alone gets through.
    guarded: bool,
    /// Nothing is marked, and nothing added.
    raw: bool,
    at_start: bool,
    /// The beginning of a character whose end is still to come.
    cut: Vec<u8>,
    inside: Inside,
}

/// Which part of a control sequence comes next (ECMA-48, sections 5.4 and 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Text,
    /// A return: alone it begins a new line, with a newline it is one.
    Return,
    Escape,
    Sequence,
    /// A command string: a title, a link, a clipboard.
    Command,
    CommandEscape,
}

impl Inside {
    /// Where `c` leads from here.
    const fn after(self, c: char) -> Self {
        match self {
            _ if c == '\n' => Self::Text,
            _ if c == '\r' => Self::Return,
            Self::Text | Self::Return if c == ESCAPE => Self::Escape,
            Self::Command | Self::CommandEscape if c == ESCAPE => Self::CommandEscape,
            Self::Escape => match c {
                '[' => Self::Sequence,
                ']' | 'P' | 'X' | '^' | '_' => Self::Command,
                ' '..='/' => Self::Escape,
                _ => Self::Text,
            },
            Self::Sequence if matches!(c, ' '..='?') => Self::Sequence,
            Self::Command if c != BELL => Self::Command,
            Self::CommandEscape if c != '\\' => Self::Command,
            Self::Text | Self::Return | Self::Sequence | Self::Command | Self::CommandEscape => Self::Text,
        }
    }
}

impl Lines {
    /// Lines that start with `prefix`. Where `guarded`, escape sequences and control characters are left out;
    /// else bytes stay as they are.
    pub fn new(prefix: impl Into<String>, guarded: bool) -> Self {
        Self { prefix: prefix.into(), guarded, raw: false, at_start: true, cut: Vec::new(), inside: Inside::Text }
    }

    /// Bytes as they are, the end of the last line included.
    pub fn raw() -> Self {
        Self { raw: true, ..Self::new("", false) }
    }

    /// Adds `bytes` to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.raw {
            out.extend_from_slice(bytes);
            return;
        }
        if !self.guarded {
            let mut rest = bytes;
            while let Some(end) = memchr(b'\n', rest) {
                let (line, after) = rest.split_at(end + 1);
                self.push(line, out);
                (self.at_start, rest) = (true, after);
            }
            if !rest.is_empty() {
                self.push(rest, out);
            }
            return;
        }
        let mut joined = mem::take(&mut self.cut);
        joined.extend_from_slice(bytes);
        let mut read = 0;
        for chunk in joined.utf8_chunks() {
            chunk.valid().chars().for_each(|c| self.guard(c, out));
            read += chunk.valid().len() + chunk.invalid().len();
            if chunk.invalid().is_empty() {
                continue;
            }
            if read == joined.len() && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none()) {
                self.cut = chunk.invalid().to_vec();
            } else {
                self.guard(char::REPLACEMENT_CHARACTER, out);
            }
        }
    }

    /// Ends the last line where the host did not.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !mem::take(&mut self.cut).is_empty() {
            self.guard(char::REPLACEMENT_CHARACTER, out);
        }
        if !self.at_start {
            out.push(b'\n');
        }
        self.at_start = true;
        self.inside = Inside::Text;
    }

    /// Adds a part of a line.
    fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if mem::replace(&mut self.at_start, false) {
            out.extend_from_slice(self.prefix.as_bytes());
        }
        out.extend_from_slice(text);
    }

    fn newline(&mut self, out: &mut Vec<u8>) {
        self.push(b"\n", out);
        self.at_start = true;
    }

    /// Adds what of `c` a terminal may see.
    fn guard(&mut self, c: char, out: &mut Vec<u8>) {
        // A progress bar redraws its line with returns; here each drawing becomes a line.
        if self.inside == Inside::Return && c != '\n' {
            self.inside = Inside::Text;
            if !self.at_start {
                self.newline(out);
            }
        }
        match c {
            // Whatever came before: a sequence that is never ended must not swallow the lines after it.
            '\n' => self.newline(out),
            _ if self.inside == Inside::Text && is_text(c) => self.push(c.encode_utf8(&mut [0; 4]).as_bytes(), out),
            _ => {}
        }
        self.inside = self.inside.after(c);
    }
}

/// Whether a terminal may see `c`: no control character but the tab, and none that turns the direction of writing
/// around, with which text pretends to be other text (Unicode Standard Annex 9, section 2).
pub fn is_text(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c == '\t' || !c.is_control() && !turns
}

/// Text from a host, a tag or a store, fit to stand in a line of ours.
pub fn clean(text: &str) -> String {
    // Most is.
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && text.trim() == text {
        return text.to_owned();
    }
    let parts = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    parts.fold(String::new(), |mut line, part| {
        if !line.is_empty() {
            line.push_str("; ");
        }
        line.extend(part.chars().filter(|c| is_text(*c)));
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(guarded: bool, pieces: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::new("web-1 | ", guarded), Vec::new());
        for piece in pieces {
            lines.feed(piece, &mut out);
        }
        lines.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn lines_of_a_stream_are_marked_one_by_one() {
        for guarded in [false, true] {
            assert_eq!(lines(guarded, &[b"a\nb", b"c\n\nd"]), "web-1 | a\nweb-1 | bc\nweb-1 | \nweb-1 | d\n");
            assert_eq!(lines(guarded, &[b"", b""]), "");
        }
    }

    #[test]
    fn lines_to_a_pipe_keep_their_bytes() {
        assert_eq!(lines(false, &[b"\x1b[31mred\x1b[0m\r\n"]), "web-1 | \x1b[31mred\x1b[0m\r\n");
    }

    #[test]
    fn lines_to_a_terminal_lose_what_controls_it() {
        assert_eq!(lines(true, &[b"\x1b[31", b"mred\x1b[0m\ttab\r\n"]), "web-1 | red\ttab\n");
        assert_eq!(lines(true, &[b"\x1b]0;own\x07a\x1b]52;c;eA==\x1b\\b\x1b(Bc\x9bd\x00"]), "web-1 | abc\u{fffd}d\n");
        assert_eq!(lines(true, &["a\u{202e}b\u{9b}c".as_bytes()]), "web-1 | abc\n");
    }

    #[test]
    fn lines_after_an_unfinished_sequence_are_shown() {
        assert_eq!(lines(true, &[b"\x1b]0;never ended\nnext"]), "web-1 | \nweb-1 | next\n");
    }

    #[test]
    fn lines_redrawn_with_returns_become_lines() {
        assert_eq!(lines(true, &[b"\r10%\r20%\r\ndone\r"]), "web-1 | 10%\nweb-1 | 20%\nweb-1 | done\n");
    }

    #[test]
    fn lines_with_a_character_in_two_pieces_show_it() {
        assert_eq!(lines(true, &[b"gr\xc3", b"\xbc\xc3", b"\x9f"]), "web-1 | grüß\n");
        assert_eq!(lines(true, &[b"gr\xc3"]), "web-1 | gr\u{fffd}\n");
    }

    #[test]
    fn clean_text_is_one_line() {
        assert_eq!(clean("a\u{1b}[31m b\n\n  c\r\n"), "a[31m b; c");
    }
}
