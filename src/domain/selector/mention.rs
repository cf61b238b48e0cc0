//! A host as people mention it among hosts that are known.

use std::net::IpAddr;

use super::Host;
use crate::domain::pattern::Pattern;

/// A word that is meant for hosts: a pattern of ids, names and addresses, or a host as `-w` names it.
#[derive(Debug, Clone)]
pub struct Mention {
    patterns: Vec<Pattern>,
    host: Option<Host>,
}

impl Mention {
    /// Makes one of `text`. Every text is one.
    ///
    /// A user in front counts for nothing: who mentions `root@db1` means the host.
    pub fn new(text: &str) -> Self {
        let bare = text.rsplit_once('@').map(|(_, host)| host);
        let host = text.parse::<Host>().ok();
        let id = host.as_ref().and_then(Host::id).map(|id| Pattern::Exact(id.to_string()));
        Self { patterns: [text].into_iter().chain(bare).map(Pattern::new).chain(id).collect(), host }
    }

    /// Whether a host that is called any of `names` is meant.
    pub fn matches<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        names.into_iter().any(|name| self.patterns.iter().any(|pattern| pattern.matches(name)))
    }

    /// Whether the host that is reached at `address` and `port` is meant; a mention without a port means every port.
    pub fn is_at(&self, address: &str, port: u16) -> bool {
        let Some(host) = &self.host else { return self.matches([address]) };
        let is_there = host.host == address
            || matches!((host.host.parse::<IpAddr>(), address.parse::<IpAddr>()), (Ok(one), Ok(other)) if one == other);
        is_there && host.port.is_none_or(|wanted| wanted == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mention_of_a_host_means_it_however_it_is_written() {
        let cases = [
            ("[::1]:2266", "::1+2266", "::1", 2266),
            ("[0:0::1]:2266", "db", "::1", 2266),
            ("[::1]", "db", "::1", 22),
            ("root@10.0.0.5:2201", "10.0.0.5:2201", "10.0.0.5", 2201),
            ("root@10.0.0.5", "db", "10.0.0.5", 2201),
            ("root@web-*", "web-1", "10.0.0.5", 22),
            ("10.0.0.*", "db", "10.0.0.5", 22),
        ];
        for (text, id, address, port) in cases {
            let mention = Mention::new(text);
            assert!(mention.matches([id]) || mention.is_at(address, port), "{text}");
        }
        for (text, address, port) in [("10.0.0.5:2201", "10.0.0.5", 2202), ("10.0.0.5", "10.0.0.50", 22)] {
            let mention = Mention::new(text);
            assert!(!mention.matches([address]) && !mention.is_at(address, port), "{text}");
        }
    }
}
