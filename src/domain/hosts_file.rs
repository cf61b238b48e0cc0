//! An inventory file: what EC2 would have said, in YAML.
//!
//! ```yaml
//! instances:
//!   - { id: web-1, address: 10.0.0.5, name: Web one, tags: { Environment: Dev } }
//!   - { id: db-1, dns: db1.example.com, port: 2222, user: admin, region: eu-1, zone: eu-1a, state: stopped }
//! ```

mod lines;

use std::collections::{BTreeMap, HashMap};

use super::decode::{At, Fields};
use super::diagnostic::{Diagnostic, Faults, Place, quoted};
use super::id::InstanceId;
use super::instance::{Addresses, Instance, InstanceState};
use super::selector::{Host, is_user};
use super::yaml;

/// The largest inventory file: a hundred thousand instances take some 15 MiB.
pub const MAX_HOSTS_FILE_BYTES: usize = 64 * 1024 * 1024;

/// The account and region of an instance of which the file names none.
pub const LOCAL: &str = "local";

/// Reads the text of an inventory file. `file` is its name for people.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn parse(text: &str, file: &str) -> Result<Vec<Instance>, Vec<Diagnostic>> {
    match lines::read(text) {
        Some(instances) => Ok(instances),
        None => parse_yaml(text, file),
    }
}

fn parse_yaml(text: &str, file: &str) -> Result<Vec<Instance>, Vec<Diagnostic>> {
    let faults = Faults::of(file);
    let instances = yaml::load(text, MAX_HOSTS_FILE_BYTES, &faults).and_then(|node| {
        let mut fields = At::root(&node, &faults).fields("a map with the key `instances`")?;
        let hint = "list them, as `instances: [{ id: web-1, address: 10.0.0.5 }]`";
        let instances = fields.need("instances", hint, |at| at.list("a list of instances", read_instance));
        fields.finish();
        instances.map(|instances| instances.value)
    });
    let mut first: HashMap<&InstanceId, Place> = HashMap::new();
    for (instance, place) in instances.iter().flatten() {
        if let Some(earlier) = first.insert(&instance.id, *place) {
            first.insert(&instance.id, earlier);
            let message = format!("instance `{}` is listed twice, first in line {}", instance.id, earlier.line);
            faults.add_with_hint(*place, message, "give each instance an id of its own");
        }
    }
    let instances = instances.map(|instances| instances.into_iter().map(|(instance, _)| instance).collect());
    faults.settle("", instances)
}

/// Reads one instance, and where its id stands.
fn read_instance(at: &At<'_>) -> Option<(Instance, Place)> {
    let mut fields = at.fields("an instance such as `{ id: web-1, address: 10.0.0.5 }`")?;
    let id = fields.need("id", "name the instance, as `id: web-1`", |at| at.parse::<InstanceId>("an instance id"));
    let addresses = read_addresses(&mut fields);
    let port = fields.get("port", |at| at.integer(1..=u16::MAX));
    let user = fields.get("user", read_user);
    let account = fields.get("account", |at| read_label(at, "an account"));
    let region = fields.get("region", |at| read_label(at, "a region"));
    let zone = fields.get("zone", |at| read_label(at, "a zone"));
    let state = fields.get("state", At::choice::<InstanceState>);
    let name = fields.get("name", |at| at.word("a name"));
    let mut tags = fields.get("tags", read_tags).map(|tags| tags.value).unwrap_or_default();
    if let Some(name) = name {
        match tags.get("Name") {
            Some(tag) if tag != name.value => {
                let message = format!("`name` and the tag `Name` disagree: {} and {}", quoted(name.value), quoted(tag));
                fields.fault(name.place, message, Some("keep one of them"));
            }
            _ => {
                tags.insert("Name".to_owned(), name.value.to_owned());
            }
        }
    }
    fields.finish();
    let id = id?;
    let instance = Instance {
        id: id.value,
        account: account.map_or_else(|| LOCAL.to_owned(), |account| account.value),
        region: region.map_or_else(|| LOCAL.to_owned(), |region| region.value),
        zone: zone.map(|zone| zone.value),
        launched_at: None,
        addresses: addresses?,
        port: port.map(|port| port.value),
        user: user.map(|user| user.value),
        tags,
        state: state.map(|state| state.value).unwrap_or_default(),
    };
    Some((instance, id.place))
}

fn read_addresses(fields: &mut Fields<'_>) -> Option<Addresses> {
    let kinds = ["address", "public", "ipv6", "dns"];
    let [private, public, ipv6, dns] = kinds.map(|kind| fields.get(kind, read_address).map(|found| found.value));
    if !kinds.iter().any(|kind| fields.has(kind)) {
        let hint = "say where it is reached, as `address: 10.0.0.5`, or by `public`, `ipv6` or `dns`";
        fields.fault(fields.place(), "the instance has no address", Some(hint));
        return None;
    }
    Some(Addresses { private, public, ipv6, dns })
}

fn read_address(at: &At<'_>) -> Option<String> {
    match at.word("a host name or address")?.parse::<Host>() {
        Err(error) => at.fault(error),
        Ok(Host { user: Some(_), .. }) => {
            at.fault_with_hint("an address holds no user", "write it apart, as `user: admin`")
        }
        Ok(Host { port: Some(_), .. }) => {
            at.fault_with_hint("an address holds no port", "write it apart, as `port: 2222`")
        }
        Ok(host) => Some(host.host),
    }
}

fn read_user(at: &At<'_>) -> Option<String> {
    match at.word("a login user")? {
        user if is_user(user) => Some(user.to_owned()),
        user => at
            .fault(format_args!("{} is no login user: it is empty, or holds a space or begins with `-`", quoted(user))),
    }
}

/// Reads an account, a region or a zone: parts of the name under which host keys are pinned.
fn read_label(at: &At<'_>, what: &str) -> Option<String> {
    let text = at.word(what)?;
    if !is_label(text) {
        return at.fault(format_args!("{} is not {what}: 1 to 64 of A-Z, a-z, 0-9 and `-_`", quoted(text)));
    }
    Some(text.to_owned())
}

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

fn read_tags(at: &At<'_>) -> Option<BTreeMap<String, String>> {
    let entries = at.entries("a map of tags such as `{ Environment: Dev }`")?;
    let mut tags = BTreeMap::new();
    for (key, place, value) in entries {
        // EC2 User Guide, tag restrictions.
        if key.is_empty() || key.chars().count() > 128 {
            at.fault_at(place, "a tag's key has 1 to 128 characters", "shorten it, or name it");
        }
        let Some(text) = value.word("a tag's value (in quotes where it is empty)") else { continue };
        if text.chars().count() > 256 {
            value.fault::<()>("a tag's value has at most 256 characters");
        }
        tags.insert(key.to_owned(), text.to_owned());
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::diagnostic::render;
    use std::fmt::Write as _;

    fn errors(text: &str) -> String {
        render(parse(text, "hosts.yaml").unwrap_err())
    }

    #[test]
    fn file_says_what_ec2_would_have_said() {
        let text = "\
instances:
  - { id: web-1, address: 127.0.1.1, port: 2222, tags: { Environment: Dev, Version: 1.10, Tier: \"\" } }
  - id: i-0abc
    name: Database
    account: 123456789012
    region: eu-central-1
    zone: eu-central-1a
    address: 10.0.0.5
    public: 192.0.2.7
    ipv6: '[2001:db8::1]'
    dns: db.example.com
    user: admin
    state: stopped
";
        insta::assert_snapshot!(serde_json::to_string_pretty(&parse(text, "hosts.yaml").unwrap()).unwrap());
    }

    #[test]
    fn empty_list_is_an_empty_fleet() {
        assert_eq!(parse("instances: []", "hosts.yaml"), Ok(Vec::new()));
    }

    #[test]
    fn all_errors_are_told_at_once_with_places_and_hints() {
        let text = "\
instances:
  - { id: web-1, adress: 10.0.0.1 }
  - { id: web 2, address: 10.0.0.2:22, port: 0 }
  - { address: admin@10.0.0.3, user: -x, region: a.b, state: runing }
  - { id: web-4, address: 10.0.0.4, name: four, tags: { Name: five, Empty: , List: [a] } }
  - { id: web-5, address: 10.0.0.5 }
  - { id: web-5, address: 10.0.0.6, tags: [a] }
  - web-7
  - { id: web-8, dns: '-oProxyCommand=x' }
  - { id: web-5, address: 10.0.0.9 }
hosts: []
";
        insta::assert_snapshot!(errors(text));
    }

    #[test]
    fn file_that_is_no_inventory_says_what_is_wanted() {
        insta::assert_snapshot!(["", "- a", "instances:", "hosts: []", "instances: {}"].map(errors).join("\n"));
    }

    #[test]
    fn hundred_thousand_instances_are_read() {
        let mut text = "instances:\n".to_owned();
        for n in 0..100_000 {
            writeln!(
                text,
                "  - {{ id: i-{n:06}, address: 10.{}.{}.{}, port: 22, zone: eu-1a, tags: {{ Environment: Dev, Name: web-{n}, Role: web }} }}",
                n / 65536, n / 256 % 256, n % 256
            ).unwrap();
        }
        assert_eq!(parse(&text, "hosts.yaml").unwrap().len(), 100_000);
    }
}
