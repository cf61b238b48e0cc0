//! The inventory of EC2: that it is read to its end, and is never taken for empty. `inventory_contract` asks the rest.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::types::{InstanceType, ResourceType, Tag, TagSpecification};
use sshjob::adapter::aws::ec2::Ec2Inventory;
use sshjob::domain::instance::InstanceState;
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::{Layers, Overrides};
use sshjob::domain::job::{Job, Source};
use sshjob::port::{Inventory as _, InventoryError};

use super::config;
use crate::inventory_contract::Row;
use crate::support::emulator::Emulator;
use crate::support::hook::{Answer, Hook};

/// A job for what passes `tags`.
fn job(tags: &[&str]) -> Job {
    let file = JobFile::ad_hoc("adhoc".parse().unwrap(), Source::Run("true".to_owned()));
    let tags = tags.iter().map(|text| text.parse().unwrap()).collect();
    let layers = Layers { request: Overrides { tags, ..Overrides::default() }, ..Layers::default() };
    layers.resolve(file).unwrap()
}

/// A client that is in no hurry: moto looks through all tags for each instance, and what is tried again starts another one.
async fn patient(emulator: &Emulator) -> Client {
    let patience =
        TimeoutConfig::builder().read_timeout(Duration::from_mins(2)).operation_timeout(Duration::from_mins(2));
    let config = aws_sdk_ec2::config::Builder::from(&config(&emulator.url()).await).timeout_config(patience.build());
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
    let client = patient(&emulator).await;
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

/// The inventory of a moto of its own with so many instances of `Role=web` that run, and others; and the ids of the former.
pub async fn crowd(count: usize) -> Option<(Emulator, Ec2Inventory, BTreeSet<String>)> {
    let emulator = Emulator::moto()?;
    let client = patient(&emulator).await;
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
    Some((emulator, Ec2Inventory::new(client), ids))
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
    let client = patient(&emulator).await;
    let mut ids = Vec::new();
    for n in 0..23 {
        ids.push(launch(&client, &[("Role", "web"), ("Name", &format!("web-{n}"))]).await);
    }
    launch(&client, &[("Role", "db"), ("Name", "db")]).await;
    ids.sort_unstable();
    let found = Ec2Inventory::new(client).in_pages_of(5).select(&job(&["Role=web"])).await.unwrap();
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

#[tokio::test]
async fn page_that_comes_again_and_again_is_an_error() {
    let page = "<DescribeInstancesResponse><reservationSet/><nextToken>x</nextToken></DescribeInstancesResponse>";
    let hook = Hook::start(Answer::Status("200 OK", page.to_owned()));
    let inventory = Ec2Inventory::new(Client::new(&config(&hook.url("")).await));
    let error = inventory.select(&job(&["Role=web"])).await.unwrap_err().to_string();
    assert!(error.ends_with("its pages do not end: the same one comes again"), "{error}");
    assert_eq!(hook.received().len(), 2);
}
