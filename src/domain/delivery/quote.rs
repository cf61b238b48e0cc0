//! Words and variables as `/bin/sh` reads them.

/// Adds what gives a program its environment.
pub(in super::super) fn push_exports(text: &mut Vec<u8>, env: &[(&str, &[u8])]) {
    for (name, value) in env {
        text.extend_from_slice(format!("export {name}=").as_bytes());
        quote(text, value);
        text.push(b';');
    }
}

/// How many bytes [`push_exports`] adds.
pub(in super::super) fn exports_len(env: &[(&str, &[u8])]) -> usize {
    env.iter().map(|(name, value)| "export =;".len() + name.len() + quoted_len(value)).sum()
}

/// Adds a blank and `word`, quoted.
pub(super) fn push_word(text: &mut Vec<u8>, word: &[u8]) {
    text.push(b' ');
    quote(text, word);
}

/// Adds `bytes` as one word of `/bin/sh`: in single quotes, each of which within is closed, escaped and opened again.
pub(in super::super) fn quote(text: &mut Vec<u8>, bytes: &[u8]) {
    text.push(b'\'');
    let mut rest = bytes;
    while let Some((plain, after)) = memchr::memchr(b'\'', rest).and_then(|at| rest.split_at_checked(at)) {
        text.extend_from_slice(plain);
        text.extend_from_slice(b"'\\''");
        rest = after.get(1..).unwrap_or_default();
    }
    text.extend_from_slice(rest);
    text.push(b'\'');
}

/// How many bytes [`quote`] adds.
pub(in super::super) fn quoted_len(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| if *byte == b'\'' { "'\\''".len() } else { 1 }).sum::<usize>() + "''".len()
}
