//! YAML text as a tree in which every key and value knows where it stands.
//!
//! Scalars stay as they are written, so that `1.10`, `0644` and `on` reach whoever reads them unchanged; what they
//! mean is decided by who decodes them (see [`super::decode`]). YAML 1.2, one document; anchors and aliases within
//! limits, no merge keys, no tags.

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::diagnostic::{Faults, Place, quoted};

/// The largest job or project file; the longest in the wild have a few thousand lines.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// The deepest nesting. The deepest key of a job file is four levels down.
const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins; that of its key where the value is left out.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A scalar.
    Scalar {
        /// The text after escapes and folding.
        text: String,
        /// Whether it stands without quotes, so that it may mean a number, a truth value or nothing.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file. No key occurs twice.
    Map(Vec<Entry>),
    /// Something of which an error was already noted.
    Broken,
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Whether nothing is given: `key:`, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What a copy of it costs: its nodes and the bytes of its texts.
    fn weight(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { text, .. } => text.len(),
            Value::List(items) => items.iter().map(Self::weight).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.key.len() + entry.value.weight()).sum(),
            Value::Broken => 0,
        }
    }
}

/// Reads bytes as text.
///
/// `None`, with the error noted, where they are more than `max_bytes` or not UTF-8.
pub fn text<'b>(bytes: &'b [u8], max_bytes: usize, faults: &Faults) -> Option<&'b str> {
    if bytes.len() > max_bytes {
        faults.add(Place::START, format!("the file is larger than {} KiB, the most that is read", max_bytes / 1024));
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let (good, bad) = bytes.split_at(error.valid_up_to());
            let good = String::from_utf8_lossy(good);
            let line = good.split('\n').count();
            let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let byte = bad.first().copied().unwrap_or_default();
            faults.add_with_hint(
                place(line, column),
                format!("the file is not UTF-8 text: found the byte 0x{byte:02x}"),
                "save the file as UTF-8",
            );
            None
        }
    }
}

/// Reads one YAML document; an empty one is a null. Copies made for aliases are limited to `max_bytes` in all.
///
/// `None`, with the error noted, where the text is not YAML. Duplicate keys, tags and aliases of nothing are noted and
/// what can be read is still returned, so that all errors are found in one go.
pub fn load(text: &str, max_bytes: usize, faults: &Faults) -> Option<Node> {
    text_fits(text, max_bytes, faults)?;
    // A byte-order mark is what some editors put before UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder { faults, allowance: max_bytes, open: Vec::new(), root: None, anchors: BTreeMap::new() };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                note_scan_error(&error, text, faults);
                return None;
            }
        }
    }
    let nothing = Node { place: Place::START, value: Value::Scalar { text: String::new(), plain: true } };
    Some(builder.root.unwrap_or(nothing))
}

fn text_fits(text: &str, max_bytes: usize, faults: &Faults) -> Option<()> {
    self::text(text.as_bytes(), max_bytes, faults).map(drop)
}

fn place(line: usize, column: usize) -> Place {
    let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(line), column: number(column) }
}

fn start(span: Span) -> Place {
    place(span.start.line(), span.start.col() + 1)
}

/// A collection whose end is not reached yet.
struct Open {
    place: Place,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: BTreeSet<String>, pending: Option<(Option<String>, Place)> },
}

struct Builder<'f> {
    faults: &'f Faults,
    /// How much may still be copied for aliases.
    allowance: usize,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let at = start(span);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.faults.add_with_hint(at, "the file holds a second document", "give each its own file");
                None
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let mut value = Value::Scalar { text: text.into_owned(), plain };
                if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema_tag("str")) {
                    self.note_tag(&tag, span);
                    value = Value::Broken;
                }
                self.attach(Node { place: at, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => self.begin(span, anchor, tag.as_deref(), Kind::List(Vec::new())),
            Event::MappingStart(_, anchor, tag) => {
                let kind = Kind::Map { entries: Vec::new(), keys: BTreeSet::new(), pending: None };
                self.begin(span, anchor, tag.as_deref(), kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let value = self.copy(anchor, at)?;
                self.attach(value, 0)
            }
            Event::UnresolvedAlias(name) => {
                let text = format!("*{name}");
                self.faults.add_with_hint(
                    at,
                    format!("{} is an alias of an anchor that is not there", quoted(&text)),
                    "if it is meant as text, put it in quotes: a leading `*` has a meaning of its own in YAML",
                );
                self.attach(Node { place: at, value: Value::Broken }, 0)
            }
            _ => Some(()),
        }
    }

    fn note_tag(&self, tag: &Tag, span: Span) {
        let at = start(span.tag_span().unwrap_or(span));
        let (handle, suffix) = tag.original_parts();
        let text = format!("{handle}{suffix}");
        self.faults.add_with_hint(
            at,
            format!("{} is a YAML tag, which has no meaning here", quoted(&text)),
            format!("if it is meant as text, put it in quotes: `\"{}\"`", quoted(&text).trim_matches('`')),
        );
    }

    fn begin(&mut self, span: Span, anchor: usize, tag: Option<&Tag>, kind: Kind) -> Option<()> {
        let place = start(span);
        if self.open.len() >= MAX_DEPTH {
            self.faults.add(place, format!("nested more than {MAX_DEPTH} levels deep"));
            return None;
        }
        if let Some(tag) = tag.filter(|tag| tag.is_custom()) {
            self.note_tag(tag, span);
        }
        self.open.push(Open { place, anchor, kind });
        Some(())
    }

    fn end(&mut self) -> Option<()> {
        let Open { place, anchor, kind } = self.open.pop()?;
        let value = match kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { entries, .. } => Value::Map(entries),
        };
        self.attach(Node { place, value }, anchor)
    }

    /// Puts a finished node where it belongs.
    fn attach(&mut self, node: Node, anchor: usize) -> Option<()> {
        if anchor != 0 {
            self.spend(&node, node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { entries, keys, pending }) => match pending.take() {
                None => *pending = Some((key_of(node.value, node.place, keys, self.faults), node.place)),
                Some((None, _)) => {}
                Some((Some(key), place)) => {
                    // A value that is left out has no place of its own.
                    let value = if node.is_null() { Node { place, ..node } } else { node };
                    entries.push(Entry { key, place, value });
                }
            },
        }
        Some(())
    }

    fn copy(&mut self, anchor: usize, at: Place) -> Option<Node> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            self.faults.add(at, "an alias stands inside what it is an alias of");
            return Some(Node { place: at, value: Value::Broken });
        };
        self.spend(&node, at)?;
        Some(node)
    }

    fn spend(&mut self, node: &Node, at: Place) -> Option<()> {
        let rest = self.allowance.checked_sub(node.weight());
        if rest.is_none() {
            self.faults.add_with_hint(at, "aliases make the file too large", "write the values out");
        }
        self.allowance = rest?;
        Some(())
    }
}

/// Reads a key; `None`, with the error noted, where it is no text or occurs a second time.
fn key_of(value: Value, place: Place, keys: &mut BTreeSet<String>, faults: &Faults) -> Option<String> {
    match value {
        Value::Scalar { text, .. } if keys.contains(&text) => {
            faults.add_with_hint(place, format!("the key {} occurs twice", quoted(&text)), "keep one of them");
            None
        }
        Value::Scalar { text, .. } => {
            keys.insert(text.clone());
            Some(text)
        }
        Value::List(_) | Value::Map(_) => {
            faults.add_with_hint(place, "a key must be text, found a collection", "put `{…}` or `[…]` in quotes");
            None
        }
        Value::Broken => None,
    }
}

/// Notes why the text is not YAML, with what usually helps.
fn note_scan_error(error: &ScanError, text: &str, faults: &Faults) {
    let mark = error.marker();
    let at = place(mark.line(), mark.col() + 1);
    let found = text.lines().nth(mark.line().saturating_sub(1)).and_then(|line| line.chars().nth(mark.col()));
    let message = format!("not YAML: {}", error.info().lines().next().unwrap_or_default());
    let hint = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => Some("indent with spaces".to_owned()),
        ErrorKind::UnclosedQuotedScalar => Some("close the quote".to_owned()),
        ErrorKind::UnexpectedCharacter { character } => Some(quote_hint(*character)),
        ErrorKind::MissingAnchorOrAliasName => found
            .filter(|c| "*&".contains(*c))
            .map(quote_hint)
            .or_else(|| Some("put text that begins with `*` or `&` in quotes".to_owned())),
        ErrorKind::MappingValueNotAllowed => Some("put text that holds `: ` in quotes".to_owned()),
        ErrorKind::InvalidColonPlacement => Some("a bracket before this may not be closed".to_owned()),
        ErrorKind::RecursionLimitExceeded => Some(format!("at most {MAX_DEPTH} levels may be nested")),
        _ => None,
    };
    match hint {
        Some(hint) => faults.add_with_hint(at, message, hint),
        None => faults.add(at, message),
    }
}

fn quote_hint(character: char) -> String {
    format!("put text that begins with `{character}` in quotes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::diagnostic::render;

    fn errors(text: &str) -> String {
        let faults = Faults::of("x.yaml");
        let node = load(text, MAX_FILE_BYTES, &faults);
        render(faults.settle("", node).unwrap_err())
    }

    fn tree(text: &str) -> Node {
        let faults = Faults::of("x.yaml");
        let node = load(text, MAX_FILE_BYTES, &faults);
        faults.settle("", node).unwrap()
    }

    #[test]
    fn node_knows_where_it_stands_and_keeps_its_text() {
        let Value::Map(entries) = tree("a: 1.10\n\"on\":\n  - 'x'\nb:\n").value else { panic!("no map") };
        let [a, on, b] = &entries[..] else { panic!("not three") };
        assert_eq!((a.key.as_str(), a.place), ("a", Place { line: 1, column: 1 }));
        assert_eq!(a.value.place, Place { line: 1, column: 4 });
        assert_eq!(a.value.value, Value::Scalar { text: "1.10".into(), plain: true });
        let Value::List(items) = &on.value.value else { panic!("no list") };
        assert_eq!(items[0].place, Place { line: 3, column: 5 });
        assert_eq!(items[0].value, Value::Scalar { text: "x".into(), plain: false });
        assert!(b.value.is_null());
        assert_eq!(b.value.place, Place { line: 4, column: 1 });
    }

    #[test]
    fn alias_is_a_copy_of_its_anchor() {
        let Value::Map(entries) = tree("a: &x [1, 2]\nb: *x\n").value else { panic!("no map") };
        assert_eq!(entries[0].value, entries[1].value);
    }

    #[test]
    fn empty_document_is_null() {
        assert!(tree("").is_null());
        assert!(tree("# nothing\n").is_null());
        assert!(tree("\u{feff}").is_null());
    }

    #[test]
    fn all_errors_that_leave_a_tree_are_found_at_once() {
        assert_eq!(
            errors("a: *web\na: 2\nb: !Prod\nc: &c [*c]\n? [k]\n: v\n"),
            "error: `*web` is an alias of an anchor that is not there\n  --> x.yaml:1:4\n\
             hint: if it is meant as text, put it in quotes: a leading `*` has a meaning of its own in YAML\n\n\
             error: the key `a` occurs twice\n  --> x.yaml:2:1\nhint: keep one of them\n\n\
             error: `!Prod` is a YAML tag, which has no meaning here\n  --> x.yaml:3:4\n\
             hint: if it is meant as text, put it in quotes: `\"!Prod\"`\n\n\
             error: an alias stands inside what it is an alias of\n  --> x.yaml:4:8\n\n\
             error: a key must be text, found a collection\n  --> x.yaml:5:3\n\
             hint: put `{…}` or `[…]` in quotes\n"
        );
    }

    #[test]
    fn bomb_is_refused_before_it_goes_off() {
        let level = |(new, old): (char, char)| format!("{new}: &{new} [{}]\n", format!("*{old}, ").repeat(8));
        let bomb: String = ('b'..='i').zip('a'..).map(level).collect();
        let bomb = format!("a: &a [x, x, x, x, x, x, x, x]\n{bomb}");
        assert!(errors(&bomb).contains("aliases make the file too large"));
        let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(100_000));
        assert!(errors(&wide).contains("aliases make the file too large"));
    }

    #[test]
    fn nesting_is_bounded() {
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
            assert!(load(&format!("{}x{}", open.repeat(31), close.repeat(31)), 4096, &Faults::of("x")).is_some());
            let deep = errors(&open.repeat(50_000));
            assert!(deep.contains("level") || deep.contains("recursion"), "{deep}");
        }
    }

    #[test]
    fn text_that_is_too_long_or_not_utf8_is_refused() {
        let faults = Faults::of("x.yaml");
        assert_eq!(text(b"a: \xc3\xa4\nb: \xff\n", 100, &faults), None);
        assert_eq!(text(&[b'x'; 2048], 1024, &faults), None);
        assert_eq!(
            render(faults.settle("", None::<()>).unwrap_err()),
            "error: the file is larger than 1 KiB, the most that is read\n  --> x.yaml:1:1\n\n\
             error: the file is not UTF-8 text: found the byte 0xff\n  --> x.yaml:2:4\nhint: save the file as UTF-8\n"
        );
    }
}
