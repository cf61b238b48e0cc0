//! The inventory of EC2: that it is read to its end, and is never taken for empty. `inventory_contract` asks the rest.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Region;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::types::{InstanceType, ResourceType, Tag, TagSpecification};
use sshjob::adapter::aws::ec2::Ec2Inventory;
use sshjob::domain::instance::{Addresses, Instance, InstanceState};
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::{Layers, Overrides};
use sshjob::domain::job::{Job, Source};
use sshjob::port::{Inventory as _, InventoryError};

use super::config;
use crate::inventory_contract::Row;
use crate::support::detour::{Detour, Fate};
use crate::support::emulator::Emulator;
use crate::support::hook::{Answer, Hook};

/// A job for what passes `tags`.
pub fn job(tags: &[&str]) -> Job {
    let file = JobFile::ad_hoc("adhoc".parse().unwrap(), Source::Run("true".to_owned()));
    let tags = tags.iter().map(|text| text.parse().unwrap()).collect();
    let layers = Layers { request: Overrides { tags, ..Overrides::default() }, ..Layers::default() };
    layers.resolve(file).unwrap()
}

/// A client that is in no hurry: moto looks through all tags for each instance, and what is tried again starts another one.
async fn patient(url: &str) -> Client {
    let patience =
        TimeoutConfig::builder().read_timeout(Duration::from_mins(2)).operation_timeout(Duration::from_mins(2));
    let config = aws_sdk_ec2::config::Builder::from(&config(url).await).timeout_config(patience.build());
    Client::from_conf(config.build())
}

/// Starts an instance with these tags in a reservation of its own; gives its id.
async fn launch(client: &Client, tags: &[(&str, &str)]) -> String {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
    let tags = TagSpecification::builder().resource_type(ResourceType::Instance).set_tags(Some(tags)).build();
    let request = client.run_instances().image_id("ami-12c6146b").min_count(1).max_count(1);
    let reservation = request.instance_type(InstanceType::T3Nano).tag_specifications(tags).send().await.unwrap();
    reservation.instances()[0].instance_id().unwrap().to_owned()
}

/// The inventory of a moto of its own with these instances; none where that is not installed.
pub async fn fleet(rows: &[Row]) -> Option<(Emulator, Ec2Inventory)> {
    let emulator = Emulator::moto()?;
    let client = patient(&emulator.url()).await;
    for Row(name, environment, state) in rows {
        let tags: Vec<_> = [("Name", *name)].into_iter().chain(environment.map(|it| ("Environment", it))).collect();
        let id = launch(&client, &tags).await;
        match state {
            InstanceState::Stopped => drop(client.stop_instances().instance_ids(id).send().await.unwrap()),
            InstanceState::Terminated => drop(client.terminate_instances().instance_ids(id).send().await.unwrap()),
            _ => {}
        }
    }
    Some((emulator, Ec2Inventory::new(client)))
}

/// The inventory of a moto of its own with so many instances of `Role=web` that run, and others, which counts what it is
/// asked; and the ids of the former. They are on pages of five reservations, of a hundred instances each: moto counts those.
pub async fn crowd(count: usize) -> Option<(Emulator, Detour, Ec2Inventory, BTreeSet<String>)> {
    let emulator = Emulator::moto()?;
    let client = patient(&emulator.url()).await;
    let web = Tag::builder().key("Role").value("web").build();
    let tags = TagSpecification::builder().resource_type(ResourceType::Instance).tags(web).build();
    let start = async |count: usize, tags: Option<&TagSpecification>| -> Vec<String> {
        let (request, count) = (client.run_instances().image_id("ami-12c6146b"), i32::try_from(count).unwrap());
        let request = request.instance_type(InstanceType::T3Nano).min_count(count).max_count(count);
        let started = request.set_tag_specifications(tags.map(|tags| vec![tags.clone()])).send().await.unwrap();
        started.instances().iter().map(|it| it.instance_id().unwrap().to_owned()).collect()
    };
    let mut ids = BTreeSet::new();
    while ids.len() < count {
        // More at a time take it longer than one request may.
        ids.extend(start((count - ids.len()).min(100), Some(&tags)).await);
    }
    start(9, None).await;
    let stopped = start(9, Some(&tags)).await;
    client.stop_instances().set_instance_ids(Some(stopped)).send().await.unwrap();
    let detour = Detour::to(emulator.address(), |_, _| Fate::Passes);
    let inventory = Ec2Inventory::new(patient(&detour.url()).await).in_pages_of(5);
    Some((emulator, detour, inventory, ids))
}

/// An inventory that answers nobody.
pub async fn fleet_that_is_throttled() -> (Hook, Ec2Inventory) {
    let code = "<Error><Code>RequestLimitExceeded</Code><Message>so</Message></Error>";
    let refusal = format!("<Response><Errors>{code}</Errors></Response>");
    let hook = Hook::start(Answer::Status("503 Service Unavailable", refusal));
    let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
    (hook, inventory)
}

#[tokio::test]
async fn fleet_of_several_pages_is_read_whole_and_each_instance_once() {
    let Some(emulator) = Emulator::moto() else { return };
    let client = patient(&emulator.url()).await;
    let mut ids = Vec::new();
    for n in 0..23 {
        ids.push(launch(&client, &[("Role", "web"), ("Name", &format!("web-{n}"))]).await);
    }
    launch(&client, &[("Role", "db"), ("Name", "db")]).await;
    ids.sort_unstable();
    let detour = Detour::to(emulator.address(), |_, _| Fate::Passes);
    let inventory = Ec2Inventory::new(patient(&detour.url()).await).in_pages_of(5);
    let found = inventory.select(&job(&["Role=web"])).await.unwrap();
    assert_eq!(detour.seen().len(), 5);
    assert_eq!(found.iter().map(|instance| instance.id.to_string()).collect::<Vec<_>>(), ids);
    let first = &found[0];
    assert_eq!((first.account.as_str(), first.region.as_str()), ("123456789012", "us-east-1"));
    assert_eq!(first.state, InstanceState::Running);
    assert!(first.addresses.private.is_some() && first.zone.as_deref() == Some("us-east-1a"), "{first:?}");
}

#[tokio::test]
async fn selector_that_ec2_cannot_narrow_down_asks_nothing() {
    let hook = Hook::start(Answer::ok());
    let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
    let error = inventory.select(&job(&["Environment!=Prod"])).await.unwrap_err();
    assert!(matches!(error, InventoryError::Invalid(_)), "{error:?}");
    assert!(hook.received().is_empty());
}

#[tokio::test]
async fn throttled_or_denied_inventory_is_an_error_and_never_an_empty_fleet() {
    let refusal = |code: &str| {
        format!("<Response><Errors><Error><Code>{code}</Code><Message>so</Message></Error></Errors></Response>")
    };
    let cases = [
        ("503 Service Unavailable", "RequestLimitExceeded", 4, ""),
        (
            "403 Forbidden",
            "UnauthorizedOperation",
            1,
            "\nhint: allow `ec2:DescribeInstances` on `* in us-east-1` to whoever this runs as",
        ),
    ];
    for (status, code, tries, hint) in cases {
        let hook = Hook::start(Answer::Status(status, refusal(code)));
        let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
        let error = inventory.select(&job(&["Environment=Dev"])).await.unwrap_err().to_string();
        let expected = "cannot read the inventory `EC2 in us-east-1`: `ec2:DescribeInstances` on `* in us-east-1`";
        assert_eq!(error, format!("{expected}: {code}: so{hint}"));
        assert_eq!(hook.received().len(), tries);
    }
}

#[tokio::test]
async fn request_names_the_filters_and_nothing_is_asked_without() {
    let page = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>";
    let hook = Hook::start(Answer::Status("200 OK", page.to_owned()));
    let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
    assert_eq!(inventory.select(&job(&["Role=web,api", "Owner"])).await.unwrap(), []);
    assert_eq!(
        hook.received()[0].body,
        "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3ARole&Filter.1.Value.1=web\
         &Filter.1.Value.2=api&Filter.2.Name=tag-key&Filter.2.Value.1=Owner&Filter.3.Name=instance-state-name\
         &Filter.3.Value.1=running&MaxResults=1000"
    );
}

/// What EC2 says of one instance.
fn described(id: &str, more: &str) -> String {
    let instance = format!("<item><instanceId>{id}</instanceId>{more}</item>");
    let reservation = format!("<item><ownerId>123456789012</ownerId><instancesSet>{instance}</instancesSet></item>");
    format!("<DescribeInstancesResponse><reservationSet>{reservation}</reservationSet></DescribeInstancesResponse>")
}

#[tokio::test]
async fn instance_is_read_with_all_that_ec2_tells_of_it() {
    let role = "<tagSet><item><key>Role</key><value>web</value></item></tagSet>";
    let network = "<networkInterfaceSet><item><ipv6AddressesSet><item><ipv6Address>2001:db8::7</ipv6Address></item>\
                   </ipv6AddressesSet></item></networkInterfaceSet>";
    let more = "<instanceState><code>16</code><name>running</name></instanceState><launchTime>2026-11-23T09:30:00.000Z\
                </launchTime><placement><availabilityZone>us-east-1c</availabilityZone></placement>";
    let private =
        "<privateIpAddress>10.0.0.7</privateIpAddress><privateDnsName>ip-10-0-0-7.ec2.internal</privateDnsName>";
    let public = "<ipAddress>192.0.2.7</ipAddress><dnsName>ec2-192-0-2-7.compute-1.amazonaws.com</dnsName>";
    let hook = Hook::start(Answer::ok());
    let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
    let select = async |text: &str| -> Instance {
        hook.answer(Answer::Status("200 OK", described("i-0abc", &format!("{more}{text}{role}"))));
        inventory.select(&job(&["Role=web"])).await.unwrap().pop().unwrap()
    };
    let found = select(&format!("{private}{public}{network}")).await;
    let addresses = Addresses {
        private: Some("10.0.0.7".to_owned()),
        public: Some("192.0.2.7".to_owned()),
        ipv6: Some("2001:db8::7".to_owned()),
        dns: Some("ec2-192-0-2-7.compute-1.amazonaws.com".to_owned()),
    };
    let launched_at = Some("2026-11-23T09:30:00Z".parse().unwrap());
    assert_eq!(
        (found.addresses, found.launched_at, found.zone.as_deref()),
        (addresses, launched_at, Some("us-east-1c"))
    );
    // One without a public name has its private one; one with nothing but IPv6 nothing else.
    assert_eq!(select(private).await.addresses.dns.as_deref(), Some("ip-10-0-0-7.ec2.internal"));
    let only = select(&format!("<dnsName></dnsName><ipv6Address>2001:db8::8</ipv6Address>{network}")).await.addresses;
    assert_eq!(only, Addresses { ipv6: Some("2001:db8::8".to_owned()), ..Addresses::default() });
}

/// Cause: EC2 tells of a start before it knows of it everywhere, and what it did not know yet was taken for no match.
#[tokio::test]
async fn instance_whose_start_is_not_known_everywhere_yet_is_asked_for_again_and_one_that_does_not_match_is_not() {
    let state = |name: &str| format!("<instanceState><name>{name}</name></instanceState>");
    let tags = "<tagSet><item><key>Role</key><value>web</value></item></tagSet>";
    let nobody = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>".to_owned();
    let hook = Hook::start(Answer::ok());
    let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
    let select = async |job: &Job, answer: String| {
        hook.answer(Answer::Status("200 OK", answer));
        inventory.select_one(job, &"i-0abc".parse().unwrap()).await
    };
    let (web, db) = (job(&["Role=web"]), job(&["Role=db"]));
    for (answer, why) in
        [(nobody, "is not known there yet"), (described("i-0abc", &state("pending")), "is still pending")]
    {
        let error = select(&web, answer).await.unwrap_err();
        assert!(matches!(error, InventoryError::Unavailable { .. }) && error.to_string().contains(why), "{error}");
    }
    let running = described("i-0abc", &format!("{}{tags}", state("running")));
    assert_eq!(select(&web, running.clone()).await.unwrap().unwrap().id.as_str(), "i-0abc");
    assert_eq!(select(&db, running).await.unwrap(), None);
    // Whatever else it tells of is another instance.
    let other = described("i-0abd", &format!("{}{tags}", state("running")));
    assert!(select(&web, other).await.is_err());
    for gone in ["stopping", "stopped", "shutting-down", "terminated"] {
        let answer = described("i-0abc", &format!("{}{tags}", state(gone)));
        assert_eq!(select(&web, answer).await.unwrap(), None, "{gone}");
    }
    assert!(hook.received()[0].body.contains("Filter.1.Name=instance-id&Filter.1.Value.1=i-0abc"));
    assert!(!hook.received()[0].body.contains("Filter.2"), "{}", hook.received()[0].body);
}

#[tokio::test]
async fn fleet_of_several_regions_is_one_and_tells_where_each_is() {
    let Some(emulator) = Emulator::moto() else { return };
    let mut expected = BTreeSet::new();
    let here = patient(&emulator.url()).await;
    for region in ["us-east-1", "eu-west-1", "ap-south-1"] {
        let there = here.config().to_builder().region(Region::new(region)).build();
        let id = launch(&Client::from_conf(there), &[("Role", "web")]).await;
        expected.insert((id, region.to_owned(), format!("{region}a")));
    }
    let mut wanted = job(&["Role=web"]);
    let inventory = Ec2Inventory::new(here);
    let select = async |job: &Job| -> BTreeSet<(String, String, String)> {
        let found = inventory.select(job).await.unwrap();
        found.into_iter().map(|it| (it.id.to_string(), it.region, it.zone.unwrap_or_default())).collect()
    };
    let only = |region: &str| expected.iter().filter(|(_, it, _)| it == region).cloned().collect::<BTreeSet<_>>();
    assert_eq!(select(&wanted).await, only("us-east-1"), "where nothing else is said it is the client's own");
    wanted.targets.regions = vec!["eu-west-1".to_owned()];
    assert_eq!(select(&wanted).await, only("eu-west-1"));
    wanted.targets.regions = ["ap-south-1", "us-east-1", "eu-west-1", "us-east-1"].map(str::to_owned).to_vec();
    assert_eq!(select(&wanted).await, expected);
}

#[tokio::test]
async fn page_that_comes_again_and_again_is_an_error() {
    let page = "<DescribeInstancesResponse><reservationSet/><nextToken>x</nextToken></DescribeInstancesResponse>";
    let hook = Hook::start(Answer::Status("200 OK", page.to_owned()));
    let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
    let error = inventory.select(&job(&["Role=web"])).await.unwrap_err().to_string();
    assert!(error.ends_with("its pages do not end: the same one comes again"), "{error}");
    assert_eq!(hook.received().len(), 2);
}
