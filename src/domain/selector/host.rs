//! A host that is named rather than selected.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::id::InstanceId;

/// A host of `-w`: `[user@]host[:port]`, an IPv6 address in brackets where a port follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The user there, if named.
    pub user: Option<String>,
    /// Host name or address, without brackets.
    pub host: String,
    /// The port there, if named.
    pub port: Option<u16>,
}

/// Why a host was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a host: {why}")]
pub struct InvalidHost {
    /// What was found, shortened.
    pub found: String,
    /// What is wrong, and what is allowed.
    pub why: &'static str,
}

impl Host {
    /// What the host is called as an instance: its name or address, and its port if it has one.
    ///
    /// `10.0.0.5:2222`, but `::1+2222`: `::1:2222` is another address. `None` where the fields hold what
    /// [`Host::from_str`] would have refused.
    pub fn id(&self) -> Option<InstanceId> {
        let Self { host, port, .. } = self;
        let id = match port {
            None => host.clone(),
            Some(port) if host.contains(':') => format!("{host}+{port}"),
            Some(port) => format!("{host}:{port}"),
        };
        id.parse().ok()
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let refuse = |why| {
            let found = text.chars().filter(|c| !c.is_control()).take(80).collect();
            InvalidHost { found, why }
        };
        // A user may hold an `@`, as in Active Directory; a host cannot.
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        if user.is_some_and(|user| !is_user(user)) {
            return Err(refuse("the user before `@` is empty, too long, or holds a space or begins with `-`"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| refuse("`[` without `]`"))?;
                if !is_ipv6(host) {
                    return Err(refuse("what stands in brackets is no IPv6 address"));
                }
                let port = match port.strip_prefix(':') {
                    None if !port.is_empty() => return Err(refuse("only `:port` may follow `]`")),
                    port => port,
                };
                (host, port)
            }
            None if is_ipv6(rest) => (rest, None),
            None => match rest.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(refuse("it has several colons but is no IPv6 address"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if !is_ipv6(host) && !is_name(host) {
            return Err(refuse(
                "a host is a name or an address of a-z, A-Z, 0-9 and `-_.`, beginning with a letter or digit; \
                 `[user@]host[:port]`",
            ));
        }
        let port = match port {
            None => None,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(|| refuse("its port is not 1 to 65535"))?)
            }
            Some(_) => return Err(refuse("its port is not 1 to 65535")),
        };
        let host = Self { user: user.map(str::to_owned), host: host.to_owned(), port };
        if host.id().is_none() {
            return Err(refuse("it is too long"));
        }
        Ok(host)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// Whether `text` can be handed to a host as a user name; 256 bytes is the longest that Linux takes.
pub(in crate::domain) fn is_user(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && !text.starts_with('-')
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Whether `text` is an IPv6 address, with or without a zone (`%eth0`).
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_name)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_reads_what_it_shows() {
        let cases = [
            ("db1", (None, "db1", None)),
            ("db1:2222", (None, "db1", Some(2222))),
            ("root@10.0.0.5:22", (Some("root"), "10.0.0.5", Some(22))),
            ("me@corp.example@db1", (Some("me@corp.example"), "db1", None)),
            (r"CORP\me@db1", (Some(r"CORP\me"), "db1", None)),
            ("::1", (None, "::1", None)),
            ("[::1]:22", (None, "::1", Some(22))),
            ("a@[fe80::1%eth0]:22", (Some("a"), "fe80::1%eth0", Some(22))),
            ("ip-10-0-0-5.ec2.internal", (None, "ip-10-0-0-5.ec2.internal", None)),
        ];
        for (text, (user, host, port)) in cases {
            let expected = Host { user: user.map(str::to_owned), host: host.to_owned(), port };
            assert_eq!(text.parse::<Host>().unwrap(), expected, "{text}");
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!("[::1]".parse::<Host>().unwrap().to_string(), "::1");
    }

    #[test]
    fn host_that_is_none_says_why() {
        let texts = [
            "",
            "@",
            "@db1",
            "-oProxyCommand=x@db1",
            "a b@db1",
            "-db1",
            ".db1",
            "db 1",
            "db1:",
            "db1:0",
            "db1:65536",
            "db1:+2",
            "db1:ssh",
            "1:2:3",
            "[::1",
            "[db1]:22",
            "[::1]22",
            "::1%",
            "dä1",
            "a/b",
            "a\u{1b}[2J",
        ];
        let errors: Vec<String> = texts.iter().map(|text| text.parse::<Host>().unwrap_err().to_string()).collect();
        insta::assert_snapshot!(errors.join("\n"));
        assert_eq!("a".repeat(300).parse::<Host>().unwrap_err().why, "it is too long");
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_what_parses_round_trips(
            text in "\\PC*|([a-z]{1,3}@)?(\\[[0-9a-f:]{2,9}\\]|[0-9a-z.:]{1,9})(:[0-9]{1,5})?"
        ) {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert!(host.id().is_some());
                prop_assert_eq!(host.to_string().parse(), Ok(host));
            }
        }
    }
}
