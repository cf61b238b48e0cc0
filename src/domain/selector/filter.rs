//! Filters on tags, and how people write them.
//!
//! `Key=Value`, `Key=A,B` (either), `Key=web*`, `Key!=Value`, or a bare `Key` (the tag is present, whatever its value).
//! Both kinds may meet: `Key=web*,!web-9` is one that matches `web*` but not `web-9`.
//!
//! A backslash makes the character after it an ordinary one: `\,` inside a value, `\!` at its beginning, `\*` and
//! `\?` anywhere, `\=` inside a key, `\\` for itself, and a space at either end. Nothing else may follow a backslash.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::instance::Instance;
use crate::domain::pattern::Pattern;

/// The longest filter, in bytes. EC2's tag keys have at most 128 characters, its values 256.
const MAX_BYTES: usize = 16 * 1024;

/// How many values a filter may name: as many as EC2's.
const MAX_VALUES: usize = 200;

/// A filter on one tag: `K=V`, `K=V,W` (or), `K=web*`, `K!=V`, or a bare `K` (the tag is present).
///
/// Values are kept as patterns, with a backslash before each `*`, `?` and `\` that stands for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagFilter {
    /// The tag's key.
    pub key: String,
    /// Values of which one must match; `*` and `?` are wildcards. Empty means that any value will do.
    pub any_of: Vec<String>,
    /// Values of which none may match; an instance without the tag passes.
    pub none_of: Vec<String>,
}

/// Why a tag filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a tag filter: {why}")]
pub struct InvalidTagFilter {
    /// What was found, shortened.
    pub found: String,
    /// What is wrong, and what to write instead.
    pub why: String,
}

impl InvalidTagFilter {
    fn new(found: &str, why: impl Into<String>) -> Self {
        // A hostile text must not flood a terminal or a log line.
        let found = found.chars().filter(|c| !c.is_control()).take(80).collect();
        Self { found, why: why.into() }
    }
}

impl TagFilter {
    /// Makes a filter of what a job file says of one tag: `Dev`, `web*`, `!Prod`, an empty text (the tag is present),
    /// or several of these. A comma is an ordinary character there, and the key is taken as it is.
    ///
    /// # Errors
    /// [`InvalidTagFilter`] where there is no value, or one that could never match what its author meant.
    pub fn from_values(key: &str, values: &[String]) -> Result<Self, InvalidTagFilter> {
        let refuse = |why: String| InvalidTagFilter::new(&format!("{key}: {}", values.join(", ")), why);
        check_key(key).map_err(&refuse)?;
        if values.is_empty() {
            return Err(refuse("it lists no value; for \"the tag is present\" write `\"\"`".to_owned()));
        }
        if values.len() > MAX_VALUES || key.len() + values.iter().map(String::len).sum::<usize>() > MAX_BYTES {
            return Err(refuse(too_long()));
        }
        let mut filter = Self { key: key.to_owned(), any_of: Vec::new(), none_of: Vec::new() };
        if let [only] = values
            && only.is_empty()
        {
            return Ok(filter);
        }
        for value in values {
            let (list, value) = match value.strip_prefix('!') {
                Some(value) => (&mut filter.none_of, value),
                None => (&mut filter.any_of, if value.is_empty() { "*" } else { value.as_str() }),
            };
            list.push(read_value(value).map_err(&refuse)?);
        }
        Ok(filter)
    }

    /// Makes the filter ready for many instances.
    pub(super) fn compile(&self) -> Compiled<'_> {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        Compiled { key: &self.key, any_of: patterns(&self.any_of), none_of: patterns(&self.none_of) }
    }
}

/// A filter, made ready for many instances.
pub(super) struct Compiled<'a> {
    key: &'a str,
    any_of: Vec<Pattern>,
    none_of: Vec<Pattern>,
}

impl Compiled<'_> {
    /// Whether the instance passes.
    pub(super) fn passes(&self, instance: &Instance) -> bool {
        let matches = |patterns: &[Pattern], value: &str| patterns.iter().any(|pattern| pattern.matches(value));
        match instance.tags.get(self.key) {
            Some(value) => (self.any_of.is_empty() || matches(&self.any_of, value)) && !matches(&self.none_of, value),
            None => self.any_of.is_empty() && !self.none_of.is_empty(),
        }
    }
}

impl FromStr for TagFilter {
    type Err = InvalidTagFilter;

    fn from_str(text: &str) -> Result<Self, InvalidTagFilter> {
        let refuse = |why: String| InvalidTagFilter::new(text, why);
        if text.len() > MAX_BYTES {
            return Err(refuse(too_long()));
        }
        let (key, values) = match find(text, '=') {
            Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
            None => (text, None),
        };
        let is_escaped = |key: &str| key.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
        let (key, negated) = match key.strip_suffix('!') {
            Some(stem) if values.is_some() && !is_escaped(stem) => (stem, true),
            _ => (key, false),
        };
        let key = read_key(key).map_err(&refuse)?;
        let mut filter = Self { key, any_of: Vec::new(), none_of: Vec::new() };
        let Some(values) = values else { return Ok(filter) };
        let values = split(values);
        if values.len() > MAX_VALUES {
            return Err(refuse(too_long()));
        }
        for value in values {
            let (list, value) = match value.strip_prefix('!') {
                Some(_) if negated => {
                    return Err(refuse(
                        "`!=` and `!` together; for a value that begins with `!` write `\\!`".to_owned(),
                    ));
                }
                Some(value) => (&mut filter.none_of, value),
                None if negated => (&mut filter.none_of, value),
                None => (&mut filter.any_of, value),
            };
            list.push(read_value(value).map_err(&refuse)?);
        }
        Ok(filter)
    }
}

impl fmt::Display for TagFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = escape_ends(&escape(&self.key, &['\\', '=', '!', '*', '?']));
        let show = |value: &String| {
            let value = escape_ends(&value.replace(',', "\\,"));
            if value.starts_with('!') { format!("\\{value}") } else { value }
        };
        let mut values: Vec<String> = self.any_of.iter().map(show).collect();
        if self.any_of.is_empty() && !self.none_of.is_empty() {
            text.push('!');
            values.extend(self.none_of.iter().map(show));
        } else {
            values.extend(self.none_of.iter().map(|value| format!("!{}", show(value))));
        }
        if !values.is_empty() {
            text.push('=');
            text.push_str(&values.join(","));
        }
        f.pad(&text)
    }
}

/// Where `wanted` first stands without a backslash before it.
fn find(text: &str, wanted: char) -> Option<usize> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            c if c == wanted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Splits at commas without a backslash before them.
fn split(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some(at) = find(text, ',') {
        parts.push(text.get(..at).unwrap_or_default());
        text = text.get(at + 1..).unwrap_or_default();
    }
    parts.push(text);
    parts
}

/// Reads a key: it is matched exactly, so its wildcards must be meant as ordinary characters.
fn read_key(text: &str) -> Result<String, String> {
    let mut key = String::new();
    check_ends("key", text)?;
    if let Some(key) = text.strip_prefix('!').filter(|key| !key.is_empty()) {
        return Err(format!("for \"the tag is absent\" write `{key}!=*`; for a key that begins with `!` write `\\!`"));
    }
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => key.push(escaped(chars.next())?),
            '*' | '?' => return Err(format!("keys have no wildcards; for a key that holds `{c}` write `\\{c}`")),
            c => key.push(c),
        }
    }
    check_key(&key).map(|()| key)
}

fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the tag's key is missing; write `Key=Value`, `Key!=Value` or `Key`".to_owned());
    }
    Ok(())
}

/// Reads a value to a pattern, which keeps the backslashes before `*`, `?` and `\` only.
fn read_value(text: &str) -> Result<String, String> {
    if text.is_empty() {
        let why = "a value is empty; for \"the tag is present\" write the bare key, \
                   for \"present and empty\" add a filter `Key!=?*`";
        return Err(why.to_owned());
    }
    check_ends("value", text)?;
    let mut pattern = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let c = escaped(chars.next())?;
                if matches!(c, '\\' | '*' | '?') {
                    pattern.push('\\');
                }
                pattern.push(c);
            }
            c => pattern.push(c),
        }
    }
    Ok(pattern)
}

fn escaped(c: Option<char>) -> Result<char, String> {
    match c {
        Some(c) if "\\,!=*?".contains(c) || c.is_whitespace() => Ok(c),
        Some(c) => Err(format!("`\\{c}` means nothing; for a backslash write `\\\\`")),
        None => Err("it ends in a backslash; for a backslash write `\\\\`".to_owned()),
    }
}

/// Refuses white space at either end, which nobody sees and which would match nothing.
fn check_ends(what: &str, text: &str) -> Result<(), String> {
    if text.starts_with(char::is_whitespace) || (text.ends_with(char::is_whitespace) && !is_last_escaped(text)) {
        return Err(format!("there is a space at one end of its {what}; if it is meant, write `\\ `"));
    }
    Ok(())
}

/// Whether the last character has a backslash before it that counts.
fn is_last_escaped(text: &str) -> bool {
    text.chars().rev().skip(1).take_while(|c| *c == '\\').count() % 2 == 1
}

fn escape(text: &str, special: &[char]) -> String {
    text.chars().flat_map(|c| special.contains(&c).then_some('\\').into_iter().chain([c])).collect()
}

/// Puts a backslash before white space at either end.
fn escape_ends(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(last) = text.pop() {
        if last.is_whitespace() {
            text.push('\\');
        }
        text.push(last);
    }
    if text.starts_with(char::is_whitespace) { format!("\\{text}") } else { text }
}

fn too_long() -> String {
    format!("it is too long; at most {MAX_VALUES} values and {MAX_BYTES} bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(key: &str, any_of: &[&str], none_of: &[&str]) -> TagFilter {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        TagFilter { key: key.to_owned(), any_of: owned(any_of), none_of: owned(none_of) }
    }

    fn values(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn filter_reads_what_it_shows() {
        let cases = [
            ("Environment=Dev", filter("Environment", &["Dev"], &[])),
            ("Environment=Dev,Staging", filter("Environment", &["Dev", "Staging"], &[])),
            ("Name=web*", filter("Name", &["web*"], &[])),
            ("Name=web*,!web-9", filter("Name", &["web*"], &["web-9"])),
            ("Environment!=Prod,Old", filter("Environment", &[], &["Prod", "Old"])),
            ("Environment", filter("Environment", &[], &[])),
            ("Environment!=*", filter("Environment", &[], &["*"])),
            ("aws:autoscaling:groupName=a/b", filter("aws:autoscaling:groupName", &["a/b"], &[])),
            ("k8s.io/role/node=1", filter("k8s.io/role/node", &["1"], &[])),
            ("a=b=c", filter("a", &["b=c"], &[])),
            (r"a\=b=c", filter("a=b", &["c"], &[])),
            (r"a\!=b", filter("a!", &["b"], &[])),
            (r"a\\!=b", filter(r"a\", &[], &["b"])),
            (r"a=b\,c,d", filter("a", &["b,c", "d"], &[])),
            (r"a=\!b", filter("a", &["!b"], &[])),
            (r"a!=\!b", filter("a", &[], &["!b"])),
            (r"a=\*\?\\", filter("a", &[r"\*\?\\"], &[])),
            (r"a=\ b c\ ", filter("a", &[" b c "], &[])),
            (r"a=\ ", filter("a", &[" "], &[])),
            ("Größe=ä", filter("Größe", &["ä"], &[])),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<TagFilter>().unwrap(), expected, "{text}");
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!("a=!b".parse::<TagFilter>().unwrap(), filter("a", &[], &["b"]));
    }

    #[test]
    fn filter_from_a_job_file_reads_the_same_values_with_ordinary_commas() {
        let cases: [(&[&str], TagFilter); 8] = [
            (&["Dev"], filter("K", &["Dev"], &[])),
            (&["Dev", "Staging"], filter("K", &["Dev", "Staging"], &[])),
            (&["!Prod"], filter("K", &[], &["Prod"])),
            (&["web*", "!web-9"], filter("K", &["web*"], &["web-9"])),
            (&[""], filter("K", &[], &[])),
            (&["", "!Prod"], filter("K", &["*"], &["Prod"])),
            (&["a,b"], filter("K", &["a,b"], &[])),
            (&[r"\!a", r"\*"], filter("K", &["!a", r"\*"], &[])),
        ];
        for (found, expected) in cases {
            let read = TagFilter::from_values("K", &values(found)).unwrap();
            assert_eq!(read, expected, "{found:?}");
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        let odd = TagFilter::from_values("a=b*! ", &values(&["c"])).unwrap();
        assert_eq!((odd.key.as_str(), odd.to_string().parse()), ("a=b*! ", Ok(odd.clone())));
    }

    #[test]
    fn filter_that_could_not_match_as_meant_says_what_to_write() {
        let errors: Vec<String> = [
            "",
            "=Dev",
            "!=Dev",
            "Environment=",
            "Environment=Dev,,Prod",
            "Environment!=",
            "Environment=!",
            "Environment!=!Prod",
            "!Environment",
            "*",
            "web?=1",
            "Environment=Dev, Prod",
            " Environment=Dev",
            "Environment =Dev",
            r"a=DOMAIN\user",
            "a=b\\",
        ]
        .iter()
        .map(|text| text.parse::<TagFilter>().unwrap_err().to_string())
        .chain(
            [
                TagFilter::from_values("K", &[]),
                TagFilter::from_values("", &values(&["x"])),
                TagFilter::from_values("K", &values(&["Dev "])),
            ]
            .map(|result| result.unwrap_err().to_string()),
        )
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn filter_beyond_the_limits_is_refused() {
        let many = format!("a=b{}", ",b".repeat(MAX_VALUES));
        let long = format!("a={}", "b".repeat(MAX_BYTES));
        for text in [many, long] {
            assert!(text.parse::<TagFilter>().unwrap_err().why.starts_with("it is too long"));
        }
        assert!(TagFilter::from_values("a", &vec!["b".to_owned(); MAX_VALUES + 1]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_what_parses_round_trips(text in "\\PC*|[a!=,*?\\\\ ]{0,12}") {
            if let Ok(filter) = text.parse::<TagFilter>() {
                prop_assert_eq!(filter.to_string().parse(), Ok(filter));
            }
        }

        #[test]
        fn arbitrary_values_never_panic_and_what_is_read_round_trips(
            key in "[a!=,*?\\\\ \t]{0,5}|\\PC{1,5}",
            values in prop::collection::vec("[a!=,*?\\\\ \t]{0,6}|\\PC{0,6}", 0..4),
        ) {
            if let Ok(filter) = TagFilter::from_values(&key, &values) {
                prop_assert_eq!(filter.to_string().parse(), Ok(filter));
            }
        }
    }
}
