//! An inventory as programs write it, an instance to a line, read without a parser of YAML: that takes 7 µs for each
//! instance, this takes less than one. It knows one form alone and says nothing of what is wrong: for any other text
//! there is the parser.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

use super::{LOCAL, is_label};
use crate::domain::instance::{Addresses, Instance, InstanceState};
use crate::domain::selector::is_user;

/// Reads `instances:` and, below it, lines such as
///
/// ```yaml
///   - { id: web-1, address: 10.0.0.5, port: 2222, tags: { Environment: Dev } }
/// ```
///
/// of plain words; `None` where anything is another way than that, or is wrong.
pub(super) fn read(text: &str) -> Option<Vec<Instance>> {
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    (lines.next()? == "instances:").then_some(())?;
    let (mut instances, mut indent) = (Vec::new(), None);
    for line in lines {
        let item = line.trim_start_matches(' ');
        let depth = line.len() - item.len();
        (*indent.get_or_insert(depth) == depth).then_some(())?;
        let mut rest = Rest(item.strip_prefix("- ")?);
        instances.push(rest.instance()?);
        rest.0.is_empty().then_some(())?;
    }
    // Of an empty list it would have to be said what is wanted.
    (!instances.is_empty()).then_some(())?;
    let mut ids = HashSet::with_capacity(instances.len());
    instances.iter().all(|instance| ids.insert(&instance.id)).then_some(instances)
}

/// What of a line is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(token)?;
        Some(())
    }

    /// A word that means itself, in a YAML map as anywhere: nothing in it is a sign there, and it is not `null`.
    fn word(&mut self) -> Option<&'a str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
        let length = self.0.bytes().take_while(|byte| is_plain(*byte)).count();
        let (word, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        (word.starts_with(|c: char| c.is_ascii_alphanumeric()) && !word.eq_ignore_ascii_case("null")).then_some(word)
    }

    /// Reads `{ key: …, key: … }`, of which `value` reads the values.
    fn map(&mut self, mut value: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take("{ ")?;
        loop {
            let key = self.word()?;
            self.take(": ")?;
            value(self, key)?;
            if self.take(" }").is_some() {
                return Some(());
            }
            self.take(", ")?;
        }
    }

    fn instance(&mut self) -> Option<Instance> {
        let (mut id, mut addresses, mut tags) = (None, Addresses::default(), None);
        let (mut account, mut region, mut zone) = (None, None, None);
        let (mut port, mut user, mut state) = (None, None, None);
        self.map(|rest, key| match key {
            "id" => once(&mut id, rest.word()?.parse().ok()?),
            "address" => once(&mut addresses.private, address(rest.word()?)?),
            "public" => once(&mut addresses.public, address(rest.word()?)?),
            "account" => once(&mut account, label(rest.word()?)?),
            "region" => once(&mut region, label(rest.word()?)?),
            "zone" => once(&mut zone, label(rest.word()?)?),
            "port" => once(&mut port, rest.word()?.parse().ok().filter(|port| *port != 0)?),
            "user" => once(&mut user, rest.word().filter(|user| is_user(user))?.to_owned()),
            "state" => once(&mut state, (rest.word()? == "running").then_some(InstanceState::Running)?),
            "tags" => once(&mut tags, rest.tags()?),
            _ => None,
        })?;
        (addresses.private.is_some() || addresses.public.is_some()).then_some(())?;
        Some(Instance {
            id: id?,
            account: account.unwrap_or_else(|| LOCAL.to_owned()),
            region: region.unwrap_or_else(|| LOCAL.to_owned()),
            zone,
            launched_at: None,
            addresses,
            port,
            user,
            tags: tags.unwrap_or_default(),
            state: state.unwrap_or_default(),
        })
    }

    fn tags(&mut self) -> Option<BTreeMap<String, String>> {
        let mut tags = BTreeMap::new();
        self.map(|rest, key| {
            let value = rest.word()?;
            (key.len() <= 128 && value.len() <= 256).then_some(())?;
            tags.insert(key.to_owned(), value.to_owned()).is_none().then_some(())
        })?;
        Some(tags)
    }
}

/// Notes what is said once.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// What needs no second look to be an address.
fn address(word: &str) -> Option<String> {
    word.parse::<Ipv4Addr>().is_ok().then(|| word.to_owned())
}

fn label(word: &str) -> Option<String> {
    is_label(word).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{parse, parse_yaml};
    use super::*;

    #[test]
    fn lines_of_programs_are_read_without_the_parser() {
        let text = "# made by a program\ninstances:\n\
            \x20 - { id: web-1, address: 10.0.0.1, port: 2222, tags: { Environment: Dev, Version: 1.10 } }\n\
            \x20 - { id: i-0abc, public: 192.0.2.7, account: 123456789012, region: eu-1, zone: eu-1a, user: ann }\n";
        assert_eq!(read(text).unwrap(), parse_yaml(text, "hosts.yaml").unwrap());
        assert_eq!(read(text).unwrap().len(), 2);
    }

    /// Words and signs of which lines are made, right and wrong.
    fn line() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "id", "address", "public", "dns", "port", "user", "account", "region", "zone", "state", "name", "tags", "x",
        ]);
        let word = prop::sample::select(vec![
            "web-1",
            "web-2",
            "10.0.0.1",
            "10.0.0.256",
            "22",
            "0",
            "70000",
            "null",
            "Null",
            "true",
            "running",
            "stopped",
            "a.b",
            "a/b",
            "-x",
            "~",
            "''",
            "\"q\"",
            "a b",
            "{ A: b }",
            "{ A: b, B: 1.10 }",
            "{ A: b, A: c }",
            "{}",
            "é",
            "",
        ]);
        let end = prop::sample::select(vec!["", "", "", " ", " # why", ",", "\r", " }"]);
        let start = prop::sample::select(vec!["  - ", "  - ", "  - ", "- ", "  -  ", "\t- ", "  "]);
        let pairs = prop::collection::vec((key, word), 1..5);
        (start, pairs, end).prop_map(|(start, pairs, end)| {
            let pairs: Vec<String> = pairs.iter().map(|(key, word)| format!("{key}: {word}")).collect();
            format!("{start}{{ {} }}{end}\n", pairs.join(", "))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_read_here_is_what_the_parser_reads(lines in prop::collection::vec(line(), 1..4)) {
            let text = format!("instances:\n{}", lines.concat());
            if let Some(read) = read(&text) {
                prop_assert_eq!(Ok(read), parse_yaml(&text, "hosts.yaml"), "{}", text);
            }
        }

        #[test]
        fn good_lines_are_read_here(ids in prop::collection::btree_set("[a-z]{1,4}-[0-9]{1,3}", 1..9), port in 1..=u16::MAX) {
            let line = |id| format!("- {{ id: {id}, address: 10.1.2.3, port: {port}, tags: {{ Role: web, Id: {id} }} }}\n");
            let text = format!("instances:\n{}", ids.iter().map(line).collect::<String>());
            let found = read(&text);
            prop_assert!(found.is_some());
            prop_assert_eq!(found.ok_or(vec![]), parse(&text, "hosts.yaml"));
        }
    }
}
