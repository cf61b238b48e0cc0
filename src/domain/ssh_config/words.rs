//! A line as words, as ssh splits it.

/// Splits the first word, the keyword, off `line`; blanks and one `=` may stand between it and the rest.
pub(super) fn keyword(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_matches(is_blank);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c| is_blank(c) || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at_checked(end)?;
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    Some((keyword, rest.trim_start_matches(is_blank)))
}

/// Splits `text` into words: blanks separate, quotes of either kind keep together, a backslash takes the meaning of a
/// quote, a blank or another backslash, and a `#` at the beginning of a word ends the line.
///
/// Source: `argv_split` in OpenSSH's `misc.c`.
///
/// # Errors
/// That a quote is not closed.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        if matches!(chars.peek(), None | Some('#')) {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(c) = chars.peek().copied() {
            match (c, quote) {
                (' ' | '\t', None) => break,
                ('\\', _) => {
                    chars.next();
                    let meant = |next: &char| matches!(next, '"' | '\'' | '\\') || quote.is_none() && *next == ' ';
                    word.push(chars.next_if(meant).unwrap_or('\\'));
                    continue;
                }
                ('"' | '\'', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                (c, _) => word.push(c),
            }
            chars.next();
        }
        if quote.is_some() {
            return Err("a quote is not closed");
        }
        words.push(word);
    }
}

/// What ssh takes for blank around a line.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\x0c')
}
