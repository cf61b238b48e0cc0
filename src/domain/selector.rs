//! What chooses instances: tag filters, hosts, exclusions and a limit.

mod filter;
mod host;
mod mention;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::id::InstanceId;
use super::instance::{Addresses, Instance, InstanceState};
use super::quantity::Amount;

pub use filter::{InvalidTagFilter, TagFilter};
pub(super) use host::is_user;
pub use host::{Host, InvalidHost};
pub use mention::Mention;

/// The account and region of a host that was named with `-w`: it stands in no inventory.
pub const HOST_SCOPE: &str = "host";

/// What chooses instances. An empty selector is an error, never "all".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Filters on tags; an instance must pass every one.
    pub tags: Vec<TagFilter>,
    /// Hosts named one by one, ranges expanded; they need no inventory. Excludes `tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// Hosts that are left out: ids, addresses or `Name` globs, or hosts as `-w` names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// At most this many or this share of the matches, a stable pick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Amount>,
}

impl Selector {
    /// Whether nothing at all is selected by it.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.hosts.is_empty()
    }

    /// The instances of `all` that this chooses, sorted by id: running, every tag filter passed, none excluded, limited.
    ///
    /// The pick of a limit hangs on each instance's id alone: as hosts come and go, the others stay picked or not.
    pub fn choose(&self, mut all: Vec<Instance>) -> Vec<Instance> {
        if self.is_empty() {
            return Vec::new();
        }
        let filters: Vec<_> = self.tags.iter().map(TagFilter::compile).collect();
        let exclude: Vec<Mention> = self.exclude.iter().map(|text| Mention::new(text)).collect();
        all.retain(|instance| {
            instance.state == InstanceState::Running
                && filters.iter().all(|filter| filter.passes(instance))
                && !exclude.iter().any(|mention| is_meant(instance, mention))
        });
        if let Some(limit) = self.limit {
            let wanted = limit.of(u32::try_from(all.len()).unwrap_or(u32::MAX)) as usize;
            if wanted < all.len() {
                all.sort_by_cached_key(|instance| (rank(&instance.id), instance.id.clone()));
                all.truncate(wanted);
            }
        }
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The hosts of `-w` as instances, each host and port once; [`Selector::choose`] then excludes and limits.
    pub fn instances_of_hosts(&self) -> Vec<Instance> {
        let mut seen = BTreeSet::new();
        let ids = self.hosts.iter().filter_map(|host| Some((host.id()?, host)));
        ids.filter(|(id, _)| seen.insert(id.clone())).map(|(id, host)| instance_of_host(id, host)).collect()
    }
}

/// Whether `mention` means this instance: by its id, its `Name`, or any of its addresses.
pub fn is_meant(instance: &Instance, mention: &Mention) -> bool {
    let Addresses { private, public, ipv6, dns } = &instance.addresses;
    let addresses = [private, public, ipv6, dns].into_iter().flatten().map(String::as_str);
    let at_port = |address| instance.port.is_some_and(|port| mention.is_at(address, port));
    mention.matches(addresses.clone().chain(instance.name()).chain([instance.id.as_str()]))
        || addresses.into_iter().any(at_port)
}

/// The place of an instance in the order in which a limit picks: as good as random, the same every time.
fn rank(id: &InstanceId) -> [u8; 32] {
    Sha256::digest(id.as_str()).into()
}

fn instance_of_host(id: InstanceId, host: &Host) -> Instance {
    let address = Some(host.host.clone());
    let addresses = match host.host.parse() {
        Ok(std::net::IpAddr::V4(_)) => Addresses { private: address, ..Addresses::default() },
        // An address with a zone, as `fe80::1%eth0`, does not parse, and no name holds a colon.
        Err(_) if !host.host.contains(':') => Addresses { dns: address, ..Addresses::default() },
        _ => Addresses { ipv6: address, ..Addresses::default() },
    };
    Instance {
        id,
        account: HOST_SCOPE.to_owned(),
        region: HOST_SCOPE.to_owned(),
        zone: None,
        launched_at: None,
        addresses,
        port: host.port,
        user: host.user.clone(),
        tags: BTreeMap::new(),
        state: InstanceState::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, tags: &[(&str, &str)]) -> Instance {
        Instance {
            id: id.parse().unwrap(),
            account: "local".to_owned(),
            region: "local".to_owned(),
            zone: None,
            launched_at: None,
            addresses: Addresses { private: Some(format!("addr-of-{id}")), ..Addresses::default() },
            port: None,
            user: None,
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            state: InstanceState::Running,
        }
    }

    fn selector(tags: &[&str]) -> Selector {
        Selector { tags: tags.iter().map(|text| text.parse().unwrap()).collect(), ..Selector::default() }
    }

    fn ids(instances: &[Instance]) -> Vec<&str> {
        instances.iter().map(|instance| instance.id.as_str()).collect()
    }

    fn fleet() -> Vec<Instance> {
        vec![
            instance("web-2", &[("Environment", "Dev"), ("Name", "web-two")]),
            instance("web-1", &[("Environment", "Dev"), ("Name", "web-one")]),
            instance("db-1", &[("Environment", "Staging"), ("Tier", "")]),
            instance("old-1", &[("Environment", "Prod")]),
            instance("bare", &[]),
        ]
    }

    #[test]
    fn selector_chooses_what_passes_every_filter_sorted_by_id() {
        let cases: [(&[&str], &[&str]); 9] = [
            (&["Environment=Dev"], &["web-1", "web-2"]),
            (&["Environment=Dev,Staging"], &["db-1", "web-1", "web-2"]),
            (&["Environment=Dev", "Name=*-two"], &["web-2"]),
            (&["Environment!=Prod"], &["bare", "db-1", "web-1", "web-2"]),
            (&["Environment", "Environment!=Dev,Staging"], &["old-1"]),
            (&["Environment=*,!Dev"], &["db-1", "old-1"]),
            (&["Tier"], &["db-1"]),
            (&["Tier", "Tier!=?*"], &["db-1"]),
            (&["environment=Dev"], &[]),
        ];
        for (tags, expected) in cases {
            assert_eq!(ids(&selector(tags).choose(fleet())), expected, "{tags:?}");
        }
    }

    #[test]
    fn selector_that_is_empty_chooses_nothing() {
        let selector = Selector { exclude: vec!["web-1".to_owned()], ..Selector::default() };
        assert!(selector.is_empty());
        assert_eq!(selector.choose(fleet()), []);
    }

    #[test]
    fn selector_chooses_running_instances_only() {
        let mut all = fleet();
        for (instance, state) in
            all.iter_mut().zip([InstanceState::Stopped, InstanceState::Running, InstanceState::Pending])
        {
            instance.state = state;
        }
        assert_eq!(ids(&selector(&["Environment=Dev,Staging"]).choose(all)), ["web-1"]);
    }

    #[test]
    fn exclusion_is_by_id_address_or_name_with_wildcards() {
        for exclude in ["web-1", "addr-of-web-1", "web-one", "*-one", "web-?n*", "*1"] {
            let selector = Selector { exclude: vec![exclude.to_owned()], ..selector(&["Environment=Dev"]) };
            assert_eq!(ids(&selector.choose(fleet())), ["web-2"], "{exclude}");
        }
        let selector = Selector { exclude: vec!["web".to_owned(), String::new()], ..selector(&["Environment=Dev"]) };
        assert_eq!(ids(&selector.choose(fleet())), ["web-1", "web-2"]);
    }

    #[test]
    fn limit_is_a_stable_pick_sorted_by_id() {
        let all: Vec<_> = (0..1000).map(|n| instance(&format!("i-{n:03}"), &[("a", "b")])).collect();
        let pick = |limit: &str, all: Vec<Instance>| {
            let selector = Selector { limit: Some(limit.parse().unwrap()), ..selector(&["a"]) };
            let chosen = selector.choose(all);
            assert!(chosen.is_sorted_by_key(|instance| instance.id.clone()));
            chosen.iter().map(|instance| instance.id.to_string()).collect::<BTreeSet<_>>()
        };
        let ten = pick("10", all.clone());
        assert_eq!((ten.len(), pick("1%", all.clone())), (10, ten.clone()));
        assert!(pick("11", all.clone()).is_superset(&ten));
        // Half of the fleet goes, the order is another: whoever was picked and is still there is picked again.
        let mut half: Vec<_> = all.iter().filter(|i| i.id.as_str() < "i-500").cloned().collect();
        half.reverse();
        let there: BTreeSet<_> = ten.iter().filter(|id| id.as_str() < "i-500").cloned().collect();
        assert!(!there.is_empty() && pick("10", half).is_superset(&there));
        assert_eq!(pick("100%", all.clone()).len(), 1000);
        assert_eq!(pick("0", all).len(), 0);
    }

    #[test]
    fn hosts_become_instances_once_each() {
        let hosts = ["db1", "admin@10.0.0.5", "10.0.0.5:2222", "[::1]:2222", "::1", "fe80::1%eth0", "db1"];
        let hosts = hosts.map(|text| text.parse().unwrap()).to_vec();
        let selector = Selector { hosts, exclude: vec!["db1".to_owned()], ..Selector::default() };
        let instances = selector.choose(selector.instances_of_hosts());
        let shown: Vec<String> = instances
            .iter()
            .map(|i| {
                let (address, kind) = i.address(None).unwrap();
                format!("{} {address} {kind:?} {:?} {:?} {} {}", i.id, i.user, i.port, i.account, i.region)
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        10.0.0.5 10.0.0.5 Private Some("admin") None host host
        10.0.0.5:2222 10.0.0.5 Private None Some(2222) host host
        ::1 ::1 Ipv6 None None host host
        ::1+2222 ::1 Ipv6 None Some(2222) host host
        fe80::1%eth0 fe80::1%eth0 Ipv6 None None host host
        "#);
    }

    #[test]
    fn hundred_thousand_instances_are_chosen_from() {
        let all: Vec<_> = (0..100_000)
            .map(|n| instance(&format!("i-{n:05}"), &[("Environment", "Dev"), ("Name", "web-1")]))
            .collect();
        let selector = Selector {
            exclude: vec!["db-*".to_owned()],
            limit: Some(Amount::Percent(50)),
            ..selector(&["Environment=Prod,De*", "Name!=db*"])
        };
        assert_eq!(selector.choose(all).len(), 50_000);
    }
}
