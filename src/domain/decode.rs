//! From a YAML tree to checked values, noting every error on the way instead of stopping at the first.
//!
//! Each reader returns `None` where it noted an error. What a map may hold is said once, by reading it:
//! [`Fields`] knows which keys were asked for, so the rest are unknown.

use std::cell::Cell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::value::{Error as WordError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer, Visitor};

use super::diagnostic::{Faults, Place, listed, nearest, quoted};
use super::yaml::{Entry, Node, Value};

/// A checked value and where it stands, for checks that come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// A node being read, and the keys that lead to it.
#[derive(Debug, Clone)]
pub struct At<'a> {
    node: &'a Node,
    path: String,
    faults: &'a Faults,
}

impl<'a> At<'a> {
    /// The root of a file.
    pub fn root(node: &'a Node, faults: &'a Faults) -> Self {
        Self { node, path: String::new(), faults }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.node.place
    }

    /// The keys that lead to it, joined by dots.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it is.
    pub fn value(&self) -> &'a Value {
        &self.node.value
    }

    /// Notes an error of this value; its path comes first.
    pub fn fault<T>(&self, message: impl Display) -> Option<T> {
        self.faults.add(self.place(), format!("{}{message}", self.prefix()));
        None
    }

    /// Notes an error of this value and what to do about it.
    pub fn fault_with_hint<T>(&self, message: impl Display, hint: impl Into<String>) -> Option<T> {
        self.faults.add_with_hint(self.place(), format!("{}{message}", self.prefix()), hint);
        None
    }

    /// Notes an error of something else inside this value, as of one of its keys.
    pub fn fault_at(&self, place: Place, message: impl Display, hint: impl Into<String>) {
        self.faults.add_with_hint(place, format!("{}{message}", self.prefix()), hint);
    }

    /// Reads it by `read`.
    pub fn map<T>(&self, read: impl FnOnce(&Self) -> Option<T>) -> Option<T> {
        read(self)
    }

    fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("`{}`: ", self.path) }
    }

    fn child(&self, key: &str, node: &'a Node) -> Self {
        // Keys come from the file: a path of them must stay short and free of control characters.
        let key = quoted(key);
        let key = key.trim_matches('`');
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { node, path, faults: self.faults }
    }

    /// Notes that something else was wanted.
    pub fn wanted<T>(&self, what: &str) -> Option<T> {
        let found = match self.value() {
            Value::Broken => return None,
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar { .. } if self.node.is_null() => "nothing".to_owned(),
            Value::Scalar { text, plain: true } if is_number(text) => format!("the number {}", quoted(text)),
            Value::Scalar { text, plain: true } if truth(text).is_some() => quoted(text),
            Value::Scalar { text, .. } => format!("the text {}", quoted(text)),
        };
        self.fault(format_args!("{what} is wanted, found {found}"))
    }

    /// Reads a scalar as it is written: the value of an environment variable, an argument, a tag.
    pub fn word(&self, what: &str) -> Option<&'a str> {
        match self.value() {
            Value::Scalar { text, .. } if !self.node.is_null() => Some(text),
            _ => self.wanted(what),
        }
    }

    /// Reads text; a number or truth value must be in quotes to count as text.
    pub fn text(&self, what: &str) -> Option<&'a str> {
        match self.value() {
            Value::Scalar { text, plain: true } if is_number(text) || truth(text).is_some() => {
                self.fault_with_hint(format_args!("{what} is wanted, found {}", quoted(text)), "put it in quotes")
            }
            _ => self.word(what),
        }
    }

    /// Reads a truth value.
    pub fn flag(&self) -> Option<bool> {
        let Value::Scalar { text, plain: true } = self.value() else { return self.wanted("`true` or `false`") };
        match (truth(text), text.to_lowercase().as_str()) {
            (Some(value), _) => Some(value),
            (None, "yes" | "on") => self.fault_with_hint(no_truth(text), "write `true`"),
            (None, "no" | "off") => self.fault_with_hint(no_truth(text), "write `false`"),
            (None, _) => self.wanted("`true` or `false`"),
        }
    }

    /// Reads a whole number.
    pub fn integer<T>(&self, allowed: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let what = format!("a whole number from {} to {}", allowed.start(), allowed.end());
        match self.value() {
            Value::Scalar { text, plain: true } => match text.parse().ok().filter(|n| allowed.contains(n)) {
                Some(number) => Some(number),
                None => self.wanted(&what),
            },
            _ => self.wanted(&what),
        }
    }

    /// Takes what was made of this value, noting why where nothing could be.
    pub fn accept<T>(&self, made: Result<T, impl Display>) -> Option<T> {
        made.map_or_else(|error| self.fault(error), Some)
    }

    /// Reads a scalar as what its type parses.
    pub fn parse<T: FromStr<Err: Display>>(&self, what: &str) -> Option<T> {
        self.accept(self.word(what)?.parse())
    }

    /// Reads text as what its type is made from.
    pub fn convert<T: TryFrom<String, Error: Display>>(&self, what: &str) -> Option<T> {
        self.accept(T::try_from(self.text(what)?.to_owned()))
    }

    /// Reads one of the words of an enumeration.
    pub fn choice<T: DeserializeOwned>(&self) -> Option<T> {
        let known = Cell::new(&[][..]);
        let text = match self.value() {
            Value::Scalar { text, .. } => text.as_str(),
            _ => "",
        };
        if let Ok(value) = T::deserialize(Word { text, known: &known }) {
            return Some(value);
        }
        let known = known.get();
        match nearest(text, known.iter().copied()) {
            Some(near) => {
                let message = format!("one of {} is wanted, found {}", listed(known.iter().copied()), quoted(text));
                self.fault_with_hint(message, format!("did you mean `{near}`?"))
            }
            None => self.wanted(&format!("one of {}", listed(known.iter().copied()))),
        }
    }

    /// Reads every item of a list; an item with an error is left out.
    pub fn list<T>(&self, what: &str, read: impl FnMut(&Self) -> Option<T>) -> Option<Vec<T>> {
        match self.value() {
            Value::List(items) => Some(self.each(items).iter().filter_map(read).collect()),
            _ => self.wanted(what),
        }
    }

    /// Reads a list, or one item as a list of one.
    pub fn one_or_many<T>(&self, mut read: impl FnMut(&Self) -> Option<T>) -> Option<Vec<T>> {
        match self.value() {
            Value::List(items) => Some(self.each(items).iter().filter_map(read).collect()),
            _ => read(self).map(|item| vec![item]),
        }
    }

    fn each(&self, items: &'a [Node]) -> Vec<Self> {
        items.iter().map(|node| Self { node, path: self.path.clone(), faults: self.faults }).collect()
    }

    /// The keys of a map with any keys, where each stands, and their values.
    pub fn entries(&self, what: &str) -> Option<Vec<(&'a str, Place, Self)>> {
        match self.value() {
            Value::Map(entries) => {
                let entry = |entry: &'a Entry| (entry.key.as_str(), entry.place, self.child(&entry.key, &entry.value));
                Some(entries.iter().map(entry).collect())
            }
            _ => self.wanted(what),
        }
    }

    /// Starts to read a map with known keys.
    pub fn fields(&self, what: &str) -> Option<Fields<'a>> {
        match self.value() {
            Value::Map(entries) => Some(Fields { at: self.clone(), entries, known: Vec::new() }),
            _ => self.wanted(what),
        }
    }
}

/// A map with known keys, being read.
#[derive(Debug)]
pub struct Fields<'a> {
    at: At<'a>,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Where the map begins.
    pub fn place(&self) -> Place {
        self.at.place()
    }

    /// Notes an error at `place`; the map's path comes first.
    pub fn fault(&self, place: Place, message: impl Display, hint: Option<&str>) {
        let at = &self.at;
        let message = format!("{}{message}", at.prefix());
        match hint {
            Some(hint) => at.faults.add_with_hint(place, message, hint),
            None => at.faults.add(place, message),
        }
    }

    /// Whether the map holds `key`, readable or not.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Reads the value of `key`; `None` where it is absent, and where it has an error.
    pub fn get<T>(&mut self, key: &'static str, read: impl FnOnce(&At<'a>) -> Option<T>) -> Option<Spanned<T>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let at = self.at.child(key, &entry.value);
        read(&at).map(|value| Spanned { value, place: at.place() })
    }

    /// Reads the value of `key`, which must be there; `hint` says how it is written.
    pub fn need<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl FnOnce(&At<'a>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            self.fault(self.place(), format_args!("the key `{key}` is missing"), Some(hint));
        }
        self.get(key, read)
    }

    /// Notes every key that was not asked for, with the nearest one that was.
    pub fn finish(self) {
        for entry in self.entries {
            if self.known.contains(&entry.key.as_str()) {
                continue;
            }
            let hint = self.hint_for(&entry.key);
            self.fault(entry.place, format_args!("unknown key {}", quoted(&entry.key)), Some(&hint));
        }
    }

    fn hint_for(&self, unknown: &str) -> String {
        if self.at.faults.is_full() {
            return String::new();
        }
        if unknown == "<<" {
            return "merge keys are not read; write the keys out".to_owned();
        }
        match nearest(unknown, self.known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known keys are {}", listed(self.known.iter().copied())),
        }
    }
}

/// YAML 1.2 core schema, 10.3.2: integers and floats, also in octal and hexadecimal.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.parse::<f64>().is_ok()
        || text.strip_prefix("0x").is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        || text.strip_prefix("0o").is_some_and(|oct| !oct.is_empty() && oct.bytes().all(|b| matches!(b, b'0'..=b'7')))
        || matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn no_truth(text: &str) -> String {
    format!("`true` or `false` is wanted, found {}", quoted(text))
}

/// A word that stands for a variant; tells which variants there are.
struct Word<'w> {
    text: &'w str,
    known: &'w Cell<&'static [&'static str]>,
}

impl<'de> serde::Deserializer<'de> for Word<'_> {
    type Error = WordError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WordError> {
        visitor.visit_str(self.text)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, WordError> {
        self.known.set(variants);
        let word: StrDeserializer<'_, WordError> = self.text.into_deserializer();
        visitor.visit_enum(word)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
