//! Files of host keys as OpenSSH has them: `known_hosts`, and what `ssh-keyscan` prints.
//!
//! Lines are read as `sshd(8)` says: `[@marker] names type key [comment]`; names are patterns with `*`, `?` and `!`, or
//! one hashed name. A line that cannot be read is an error, for what it was meant to say is not known; only key types
//! that this program does not know are passed over, as OpenSSH does.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use ssh_key::Algorithm;
use ssh_key::known_hosts::HostPatterns;

use super::pattern::Pattern;
pub use super::public_key::{InvalidPublicKey, PublicKey};
use super::selector::Host;

/// The port that names do not mention.
const SSH_PORT: u16 = 22;

/// Host keys of a file.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
}

/// One line.
#[derive(Debug, Clone)]
struct Entry {
    line: usize,
    marker: Marker,
    names: Names,
    key: PublicKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    CertAuthority,
}

#[derive(Debug, Clone)]
enum Names {
    /// As written, and ready to match.
    Listed(Vec<Name>),
    Hashed {
        salt: Vec<u8>,
        hash: [u8; 20],
    },
}

#[derive(Debug, Clone)]
struct Name {
    text: String,
    negated: bool,
    pattern: Pattern,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct InvalidLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// What a file knows of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The keys that it may have.
    pub keys: Vec<PublicKey>,
    /// The keys that nobody may have any more.
    pub revoked: Vec<PublicKey>,
    /// The keys of authorities that may say which keys it has.
    pub authorities: Vec<PublicKey>,
}

/// The keys of a file host by host, and the lines that name no single host.
#[derive(Debug, Clone, Default)]
pub struct ByHost {
    /// The keys of each host, by its id as a host of `-w`.
    pub hosts: BTreeMap<String, (Host, Vec<PublicKey>)>,
    /// Lines that were passed over, and why.
    pub passed_over: Vec<InvalidLine>,
}

impl KnownHosts {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, InvalidLine> {
        Self::parse_where(text, |_| true)
    }

    /// Reads the lines with a marker alone: revoked keys and authorities. Who believes no plain key of the file is not
    /// to be stopped by what is wrong with one.
    ///
    /// # Errors
    /// The first such line that cannot be read.
    pub fn parse_marked(text: &str) -> Result<Self, InvalidLine> {
        Self::parse_where(text, |line| line.starts_with('@'))
    }

    fn parse_where(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Self, InvalidLine> {
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim_matches([' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') || !wanted(line) {
                continue;
            }
            match read_line(number, line) {
                Ok(entry) => entries.extend(entry),
                Err(why) => return Err(InvalidLine { line: number, why }),
            }
        }
        Ok(Self { entries })
    }

    /// Adds the keys of another file.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Whether it names authorities, of whichever hosts.
    pub fn has_authorities(&self) -> bool {
        self.entries.iter().any(|entry| entry.marker == Marker::CertAuthority)
    }

    /// What is known of `host` at `port`.
    pub fn of(&self, host: &str, port: u16) -> Known {
        let name = lookup_name(host, port);
        let mut known = Known::default();
        for entry in self.entries.iter().filter(|entry| entry.names.match_name(&name)) {
            match entry.marker {
                Marker::None => known.keys.push(entry.key.clone()),
                Marker::Revoked => known.revoked.push(entry.key.clone()),
                Marker::CertAuthority => known.authorities.push(entry.key.clone()),
            }
        }
        known
    }

    /// The keys host by host, as an import needs them.
    pub fn by_host(&self) -> ByHost {
        let mut by_host = ByHost::default();
        for entry in &self.entries {
            let mut pass_over = |why: String| by_host.passed_over.push(InvalidLine { line: entry.line, why });
            let names = match (&entry.marker, &entry.names) {
                (Marker::None, Names::Listed(names)) => names,
                (Marker::None, Names::Hashed { .. }) => {
                    pass_over("its name is hashed; `--instance` says whose key it is".to_owned());
                    continue;
                }
                (Marker::Revoked, _) => {
                    pass_over("a revoked key is no pin; known_hosts is where it is looked for".to_owned());
                    continue;
                }
                (Marker::CertAuthority, _) => {
                    pass_over("an authority's key is no pin; it belongs in known_hosts or `host_ca:`".to_owned());
                    continue;
                }
            };
            for name in names {
                match name.host() {
                    Some((id, host)) => {
                        let (_, keys) = by_host.hosts.entry(id).or_insert_with(|| (host, Vec::new()));
                        if !keys.contains(&entry.key) {
                            keys.push(entry.key.clone());
                        }
                    }
                    None => pass_over(format!("`{}` names no single host", name.text)),
                }
            }
        }
        by_host
    }

    /// The keys of a file that is all of one host: what `ssh-keyscan` prints of it.
    ///
    /// # Errors
    /// What hosts it names, where they are several.
    pub fn of_one_host(&self) -> Result<Vec<PublicKey>, Vec<String>> {
        let mut groups: Vec<String> = Vec::new();
        let mut keys: Vec<PublicKey> = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.marker == Marker::None) {
            let group = match &entry.names {
                Names::Listed(names) => names.iter().map(|name| name.text.as_str()).collect::<Vec<_>>().join(","),
                // Each line has a salt of its own: nobody can tell them apart.
                Names::Hashed { .. } => "a hashed name".to_owned(),
            };
            if !groups.contains(&group) {
                groups.push(group);
            }
            if !keys.contains(&entry.key) {
                keys.push(entry.key.clone());
            }
        }
        if groups.len() > 1 { Err(groups) } else { Ok(keys) }
    }
}

/// Reads one line; `None` where its key is of a type that this program does not know.
fn read_line(number: usize, line: &str) -> Result<Option<Entry>, String> {
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let mut word = |what: &str| words.next().ok_or_else(|| format!("there is no {what}; a line is `names type key`"));
    let mut names = word("name")?;
    let marker = match names {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::CertAuthority,
        other if other.starts_with('@') => {
            return Err(format!("`{}` is not a marker: `@revoked` or `@cert-authority`", shown(other)));
        }
        _ => Marker::None,
    };
    if marker != Marker::None {
        names = word("name")?;
    }
    let (kind, key) = (word("key type")?, word("key")?);
    if matches!(kind.parse(), Err(_) | Ok(Algorithm::Dsa | Algorithm::Other(_))) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.@_".contains(c);
        let is_kind = kind.chars().all(plain) && kind.starts_with(|c: char| c.is_ascii_alphabetic());
        return if is_kind { Ok(None) } else { Err(format!("`{}` is not a key type, as `ssh-ed25519`", shown(kind))) };
    }
    let key = format!("{kind} {key}").parse().map_err(|error: InvalidPublicKey| error.to_string())?;
    Ok(Some(Entry { line: number, marker, names: Names::read(names)?, key }))
}

impl Names {
    fn read(text: &str) -> Result<Self, String> {
        if text.starts_with('|') {
            return match text.parse() {
                Ok(HostPatterns::HashedName { salt, hash }) => Ok(Self::Hashed { salt, hash }),
                _ => Err(format!("`{}` is not a hashed name: `|1|salt|hash`", shown(text))),
            };
        }
        let name = |text: &str| {
            let lower = text.to_ascii_lowercase();
            let (negated, pattern) = lower.strip_prefix('!').map_or((false, &*lower), |pattern| (true, pattern));
            (!pattern.is_empty()).then(|| Name { text: text.to_owned(), negated, pattern: Pattern::new(pattern) })
        };
        let names: Option<Vec<Name>> = text.split(',').map(name).collect();
        names.map(Self::Listed).ok_or_else(|| format!("`{}` has an empty name in it", shown(text)))
    }

    fn match_name(&self, name: &str) -> bool {
        match self {
            Self::Listed(names) => {
                let mut matching = names.iter().filter(|listed| listed.pattern.matches(name)).peekable();
                matching.peek().is_some() && matching.all(|listed| !listed.negated)
            }
            Self::Hashed { salt, hash } => {
                let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(salt) else { return false };
                mac.update(name.as_bytes());
                mac.verify_slice(hash).is_ok()
            }
        }
    }
}

impl Name {
    /// The one host that it names, by its id as a host of `-w`.
    fn host(&self) -> Option<(String, Host)> {
        if self.negated || self.text.contains(['*', '?']) {
            return None;
        }
        let bracketed = self.text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
        let host = match bracketed {
            Some((host, port)) => identity(host, port.parse().ok()?),
            None => identity(&self.text, SSH_PORT),
        };
        Some((host.id()?.to_string(), host)).filter(|(_, host)| host.to_string().parse() == Ok(host.clone()))
    }
}

/// The host as `-w` would name it; one host has one such name, so the usual port is left out.
pub fn identity(host: &str, port: u16) -> Host {
    Host { user: None, host: host.to_ascii_lowercase(), port: (port != SSH_PORT).then_some(port) }
}

/// The name under which OpenSSH looks a host up.
fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == SSH_PORT { host } else { format!("[{host}]:{port}") }
}

/// A text for messages: short, and nothing in it that a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    fn keys(file: &str, host: &str, port: u16) -> (Vec<String>, Vec<String>) {
        let known = KnownHosts::parse(file).unwrap().of(host, port);
        let texts = |keys: Vec<PublicKey>| keys.iter().map(|key| key.as_str().to_owned()).collect();
        (texts(known.keys), texts(known.revoked))
    }

    fn knows(names: &str, host: &str, port: u16) -> bool {
        keys(&format!("{names} {ED}\n"), host, port).0 == [ED]
    }

    #[test]
    fn names_match_as_openssh_matches_them() {
        let matching = [
            ("web1", "web1", 22),
            ("web1", "WEB1", 22),
            ("WEB1", "web1", 22),
            ("a,web1,10.0.0.5", "10.0.0.5", 22),
            ("[web1]:2222", "web1", 2222),
            ("[::1]:2222", "::1", 2222),
            ("::1", "::1", 22),
            ("web*", "web12", 22),
            ("10.0.?.*", "10.0.7.99", 22),
            ("[*.example.org]:2222", "a.example.org", 2222),
            ("*,!db*", "web", 22),
            ("*", "[web", 2222),
        ];
        for (names, host, port) in matching {
            assert!(knows(names, host, port), "{names} {host} {port}");
        }
        let others = [
            ("web1", "web2", 22),
            ("web1", "web1", 2222),
            ("[web1]:2222", "web1", 22),
            ("[web1]:2222", "web1", 2223),
            ("web1", "web1.example.org", 22),
            ("*,!db*", "db1", 22),
            ("!db*,*", "db1", 22),
            ("!db*", "web", 22),
        ];
        for (names, host, port) in others {
            assert!(!knows(names, host, port), "{names} {host} {port}");
        }
    }

    #[test]
    fn markers_are_no_keys() {
        let file =
            format!("# comment\n\n@revoked * {ED}\n@cert-authority *.example.org {OTHER}\r\n\tweb1  {OTHER} me@x\n");
        assert_eq!(keys(&file, "web1", 22), (vec![OTHER.to_owned()], vec![ED.to_owned()]));
        assert_eq!(keys(&file, "a.example.org", 22), (vec![], vec![ED.to_owned()]));
    }

    #[test]
    fn key_types_that_are_not_known_are_passed_over() {
        let dsa = "ssh-dss AAAAB3NzaC1kc3MAAAAVAAAAAQE=";
        let file = format!("web1 ssh-moon@example.org AAAA\nweb1 ssh-later AAAA\nweb1 {dsa}\nweb1 {ED}\n");
        assert_eq!(keys(&file, "web1", 22).0, [ED]);
    }

    #[test]
    fn line_that_cannot_be_read_is_an_error() {
        let said: Vec<String> = [
            "web1".to_owned(),
            "web1 ssh-ed25519".to_owned(),
            "web1 1024 35 123456".to_owned(),
            "web1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned(),
            "web1 ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ".to_owned(),
            format!("@revokd * {ED}"),
            format!("a,,b {ED}"),
            format!("! {ED}"),
            format!("|1|x|y {ED}"),
            format!("|2|AAAA|AAAA {ED}"),
            "<html><body>404</body></html>".to_owned(),
        ]
        .iter()
        .map(|line| KnownHosts::parse(&format!("# first\n{line}\n")).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn import_names_hosts_as_w_does() {
        let file = format!(
            "web1,10.0.0.5 {ED}\n[web1]:2222,[::1]:2222 {ED}\nWEB1 {OTHER}\n*.x {ED}\n@revoked a {ED}\n\
             @cert-authority *.x {ED}\n\
             |1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|AAAAAAAAAAAAAAAAAAAAAAAAAAA= {ED}\n[a]:0 {ED}\n"
        );
        let by_host = KnownHosts::parse(&file).unwrap().by_host();
        let hosts: Vec<(&str, usize)> = by_host.hosts.iter().map(|(id, (_, keys))| (&**id, keys.len())).collect();
        assert_eq!(hosts, [("10.0.0.5", 1), ("::1+2222", 1), ("web1", 2), ("web1:2222", 1)]);
        let passed_over: Vec<String> = by_host.passed_over.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(passed_over.join("\n"));
    }

    #[test]
    fn file_of_one_host_names_one_host() {
        let of = |file: &str| KnownHosts::parse(file).unwrap().of_one_host().map(|keys| keys.len());
        assert_eq!(of(&format!("# web1:22 SSH-2.0\nweb1 {ED}\nweb1 {OTHER}\nweb1 {OTHER}\n")), Ok(2));
        assert_eq!(of(&format!("web1 {ED}\nweb2 {ED}\n")), Err(vec!["web1".to_owned(), "web2".to_owned()]));
        assert_eq!(of("# nothing\n"), Ok(0));
    }

    proptest! {
        #[test]
        fn parse_of_anything_never_panics(text in "(\\PC|\n|\t| |@revoked|\\|1\\||ssh-ed25519|AAAAC3NzaC1lZDI1NTE5){0,40}") {
            if let Ok(known) = KnownHosts::parse(&text) {
                let _ = (known.of("web1", 22), known.by_host(), known.of_one_host());
            }
        }
    }
}
