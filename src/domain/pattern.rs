//! Wildcards: `*` is any text, `?` any one character, and a backslash takes away the meaning of what follows it.
//!
//! These are the wildcards of EC2's filters, so that a pattern means the same here and there.
//! Source: EC2 User Guide, "List and filter using the CLI and API", wildcards.

use wildmatch::WildMatchPattern;

/// Stand-ins for `*` and `?`, which remain free to be ordinary characters. Unicode reserves these two code points
/// for such internal use; no text holds them.
const ANY_TEXT: char = '\u{fdd0}';
const ANY_ONE: char = '\u{fdd1}';

/// A pattern, made ready for many matches. Case-sensitive.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Without wildcards: only this text matches.
    Exact(String),
    /// With wildcards.
    Wild(WildMatchPattern<ANY_TEXT, ANY_ONE>),
}

impl Pattern {
    /// Makes a pattern of `text`. Every text is one: a final backslash stands for itself.
    pub fn new(text: &str) -> Self {
        let (mut plain, mut is_wild) = (String::with_capacity(text.len()), false);
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let c = match c {
                '\\' => chars.next().unwrap_or('\\'),
                '*' => ANY_TEXT,
                '?' => ANY_ONE,
                c => c,
            };
            is_wild |= matches!(c, ANY_TEXT | ANY_ONE);
            plain.push(c);
        }
        if is_wild { Self::Wild(WildMatchPattern::new(&plain)) } else { Self::Exact(plain) }
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Wild(pattern) => pattern.matches(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pattern_matches_the_whole_text_case_sensitively() {
        let matching = [
            ("", ""),
            ("web", "web"),
            ("web*", "web"),
            ("web*", "web-1"),
            ("*-1", "web-1"),
            ("w?b", "wéb"),
            ("*", ""),
            (r"\*", "*"),
            (r"a\?\\", r"a?\"),
            (r"a\b", "ab"),
            ("a\\", "a\\"),
            (r"\**", "*x"),
        ];
        for (pattern, text) in matching {
            assert!(Pattern::new(pattern).matches(text), "{pattern} {text}");
        }
        let other =
            [("", "x"), ("web", "Web"), ("web", "web-1"), ("?", ""), ("*x", "xy"), (r"\*", "x"), (r"a\*b", "a-b")];
        for (pattern, text) in other {
            assert!(!Pattern::new(pattern).matches(text), "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_matches_itself_and_nothing_longer(text in "[a*?\\\\é]{0,12}") {
            let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(Pattern::new(&escaped).matches(&text));
            let longer = text + "a";
            prop_assert!(!Pattern::new(&escaped).matches(&longer));
        }

        #[test]
        fn arbitrary_patterns_never_panic(pattern in any::<String>(), text in any::<String>()) {
            Pattern::new(&pattern).matches(&text);
        }
    }
}
