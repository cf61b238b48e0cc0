//! The inventory of EC2: its filters choose most of it, our own the rest, so that a selector means the same everywhere.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{Config, Region};
use aws_sdk_ec2::types::{self as ec2, Filter};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::Trouble;
use crate::domain::id::InstanceId;
use crate::domain::instance::{Addresses, Instance, InstanceState};
use crate::domain::job::{Job, Targets};
use crate::domain::selector::Selector;
use crate::port::{Inventory, InventoryError};

/// How many instances EC2 gives at a time.
const PAGE: i32 = 1000;

/// How many pages are read of one region at most.
const MAX_PAGES: usize = 1000;

/// How many instances are taken of one region at most.
const MAX_INSTANCES: usize = 500_000;

/// How many filters one request may have.
const MAX_FILTERS: usize = 50;

/// How many regions are asked at a time.
const REGIONS_AT_A_TIME: usize = 8;

/// The instances of EC2.
#[derive(Debug, Clone)]
pub struct Ec2Inventory {
    client: Client,
    page: i32,
}

impl Ec2Inventory {
    /// Asks with `client`, in its region where a job names none.
    pub const fn new(client: Client) -> Self {
        Self { client, page: PAGE }
    }

    /// The same, with other pages: 5 to 1,000 instances each.
    #[must_use]
    pub fn in_pages_of(self, page: i32) -> Self {
        Self { page, ..self }
    }

    /// The running instances that `targets` chooses, sorted by id.
    ///
    /// # Errors
    /// As [`Inventory::select`]; and where nothing narrows the fleet down.
    pub async fn matching(&self, targets: &Targets) -> Result<Vec<Instance>, InventoryError> {
        let selector = &targets.selector;
        if !selector.hosts.is_empty() {
            return Ok(selector.choose(selector.instances_of_hosts()));
        }
        let tags = filters(selector);
        if tags.is_empty() {
            return Err(InventoryError::Invalid(
                "error: no tag filter narrows the fleet down: all of EC2 would be read\n\
                 hint: add one that says what the tag is, as `Environment: Dev`, or `Environment: \"\"` for \"it is there\""
                    .to_owned(),
            ));
        }
        Ok(selector.choose(self.find(targets, &running(tags)).await?))
    }

    /// Everything in the regions of `targets` that passes `filters`, of which there is one that narrows it down.
    async fn find(&self, targets: &Targets, filters: &[Filter]) -> Result<Vec<Instance>, InventoryError> {
        let named: BTreeSet<&str> = targets.regions.iter().map(String::as_str).collect();
        let regions: Vec<String> = if named.is_empty() {
            let own = self.client.config().region().map(ToString::to_string);
            vec![own.ok_or_else(|| {
                let hint = "set `AWS_REGION`, or name regions: `regions:` in the job, or `--region`";
                InventoryError::Invalid(format!("error: it is not known in which AWS region to look\nhint: {hint}"))
            })?]
        } else {
            named.into_iter().map(str::to_owned).collect()
        };
        let asking = regions.into_iter().map(|region| self.find_in(region, filters));
        let found: Vec<_> = stream::iter(asking).buffer_unordered(REGIONS_AT_A_TIME).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn find_in(&self, region: String, filters: &[Filter]) -> Result<Vec<Instance>, InventoryError> {
        let refuse = |why: String| InventoryError::Unavailable { at: format!("EC2 in {region}"), why };
        let mut found: BTreeMap<InstanceId, Instance> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut token: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let request = self.client.describe_instances().set_filters(Some(filters.to_vec())).max_results(self.page);
            let request = request.set_next_token(token).customize();
            let there = Config::builder().region(Region::new(region.clone()));
            let page = request.config_override(there).send().await.map_err(|error| {
                refuse(Trouble::new(&error, "ec2:DescribeInstances", &format!("* in {region}")).why)
            })?;
            for reservation in page.reservations() {
                let account = reservation.owner_id().unwrap_or_default();
                for instance in reservation.instances() {
                    let instance = read(instance, account, &region).map_err(&refuse)?;
                    found.insert(instance.id.clone(), instance);
                }
            }
            if found.len() > MAX_INSTANCES {
                return Err(refuse(format!("more than {MAX_INSTANCES} instances match\nhint: narrow the tags down")));
            }
            token = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            match &token {
                None => return Ok(found.into_values().collect()),
                Some(token) if !seen.insert(token.clone()) => {
                    return Err(refuse("its pages do not end: the same one comes again".to_owned()));
                }
                Some(_) => {}
            }
        }
        Err(refuse(format!("there are more than {MAX_PAGES} pages")))
    }
}

impl Inventory for Ec2Inventory {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        self.matching(&job.targets).await.map_err(|error| match error {
            InventoryError::Invalid(why) => {
                let why = why.trim_start_matches("error: ");
                InventoryError::Invalid(format!("error: job `{}`: {why}", job.name))
            }
            InventoryError::Unavailable { .. } => error,
        })
    }

    async fn select_one(&self, job: &Job, id: &InstanceId) -> Result<Option<Instance>, InventoryError> {
        if !job.targets.selector.hosts.is_empty() {
            return Ok(self.select(job).await?.into_iter().find(|instance| instance.id == *id));
        }
        // By its id alone: EC2 tells of a start before everything that it is asked knows of it ("eventual consistency" in
        // its API Reference), and what is not known yet is not what does not match.
        let mut found = self.find(&job.targets, &[filter("instance-id", [id.as_str()])]).await?;
        found.retain(|instance| instance.id == *id);
        let is_early = match found.first().map(|instance| instance.state) {
            None => "is not known there yet",
            Some(InstanceState::Pending) => "is still pending there",
            Some(_) => return Ok(job.targets.selector.choose(found).into_iter().next()),
        };
        Err(InventoryError::Unavailable { at: "EC2".to_owned(), why: format!("instance `{id}` {is_early}") })
    }
}

/// What EC2 can check of `selector`: one filter per key, for how it joins several is not said; and no negation, which it
/// does not have. [`Selector::choose`] checks the rest.
fn filters(selector: &Selector) -> Vec<Filter> {
    let mut seen = BTreeSet::new();
    let wanted = selector.tags.iter().filter_map(|tag| match (&*tag.any_of, &*tag.none_of) {
        ([], []) => Some((&tag.key, filter("tag-key", [plain(&tag.key).as_str()]))),
        ([], _) => None,
        (values, _) => Some((&tag.key, filter(&format!("tag:{}", tag.key), values.iter().map(String::as_str)))),
    });
    wanted.filter(|(key, _)| seen.insert(*key)).map(|(_, filter)| filter).collect()
}

/// The filters, and that the instance runs.
fn running(mut filters: Vec<Filter>) -> Vec<Filter> {
    filters.truncate(MAX_FILTERS - 1);
    filters.push(filter("instance-state-name", ["running"]));
    filters
}

fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(str::to_owned).collect())).build()
}

/// A pattern that only `text` matches.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c])).collect()
}

/// An instance as EC2 describes it.
fn read(found: &ec2::Instance, account: &str, region: &str) -> Result<Instance, String> {
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let id = found.instance_id().unwrap_or_default();
    let id = id.parse().map_err(|error| format!("an instance has no usable id: {error}"))?;
    let interfaces =
        || found.network_interfaces().iter().flat_map(aws_sdk_ec2::types::InstanceNetworkInterface::ipv6_addresses);
    let ipv6 = found.ipv6_address().or_else(|| interfaces().find_map(|address| address.ipv6_address()));
    let state = match found.state().and_then(ec2::InstanceState::name) {
        Some(ec2::InstanceStateName::Running) => InstanceState::Running,
        Some(ec2::InstanceStateName::Pending) => InstanceState::Pending,
        Some(ec2::InstanceStateName::Stopped | ec2::InstanceStateName::Stopping) => InstanceState::Stopped,
        _ => InstanceState::Terminated,
    };
    Ok(Instance {
        id,
        account: account.to_owned(),
        region: region.to_owned(),
        zone: found.placement().and_then(|placement| text(placement.availability_zone())),
        launched_at: found.launch_time().and_then(|at| Timestamp::from_second(at.secs()).ok()),
        addresses: Addresses {
            private: text(found.private_ip_address()),
            public: text(found.public_ip_address()),
            ipv6: text(ipv6),
            dns: text(found.public_dns_name()).or_else(|| text(found.private_dns_name())),
        },
        port: None,
        user: None,
        tags: found.tags().iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()))).collect(),
        state,
    })
}
