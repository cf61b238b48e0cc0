//! Instances from EC2.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::{Region, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, InstanceStateName};
use futures_util::{StreamExt as _, stream};

use super::fault::Fault;
use crate::domain::id::InstanceId;
use crate::domain::instance::{Addresses, Instance, InstanceState};
use crate::domain::job::Job;
use crate::port::{Inventory, InventoryError};

/// How many instances are asked for at a time; what EC2 gives at most.
const PAGE: i32 = 1000;

/// The most pages of one region: a million instances.
const MAX_PAGES: usize = 1000;

/// How many regions are asked at a time.
const REGIONS: usize = 8;

/// The inventory that EC2 is.
#[derive(Debug, Clone)]
pub struct Ec2Inventory {
    configuration: SdkConfig,
}

impl Ec2Inventory {
    /// The inventory of whoever `configuration` says we are.
    pub const fn new(configuration: SdkConfig) -> Self {
        Self { configuration }
    }

    async fn find(&self, job: &Job, only: Option<&InstanceId>) -> Result<Vec<Instance>, InventoryError> {
        let filters = filters(job, only)?;
        let usual = self.configuration.region().map(|region| region.as_ref().to_owned());
        let regions: BTreeSet<String> = match job.targets.regions.as_slice() {
            [] => usual.into_iter().collect(),
            named => named.iter().cloned().collect(),
        };
        if regions.is_empty() {
            let why = "no region is named\nhint: set AWS_REGION, or `targets.regions` of the job";
            return Err(InventoryError::Invalid(why.to_owned()));
        }
        let asking = regions.into_iter().map(|region| self.of_region(region, filters.clone()));
        let found: Vec<_> = stream::iter(asking).buffered(REGIONS).collect().await;
        let mut all: BTreeMap<InstanceId, Instance> = BTreeMap::new();
        for instances in found {
            // A region that does not answer is no region without instances.
            all.extend(instances?.into_iter().map(|instance| (instance.id.clone(), instance)));
        }
        Ok(job.targets.selector.choose(all.into_values().collect()))
    }

    async fn of_region(&self, region: String, filters: Vec<Filter>) -> Result<Vec<Instance>, InventoryError> {
        let at = format!("EC2 in {region}");
        let unavailable = |why: String| InventoryError::Unavailable { at: at.clone(), why };
        let conf = aws_sdk_ec2::config::Builder::from(&self.configuration).region(Region::new(region.clone())).build();
        let client = Client::from_conf(conf);
        let (mut instances, mut token, mut tokens) = (Vec::new(), None, BTreeSet::new());
        for _ in 0..MAX_PAGES {
            let request = client.describe_instances().set_filters(Some(filters.clone())).max_results(PAGE);
            let page = request.set_next_token(token).send().await.map_err(|error| {
                let status = error.raw_response().map(|response| response.status().as_u16());
                unavailable(Fault::new("ec2:DescribeInstances", &format!("* in {region}"), status, &error).text)
            })?;
            for reservation in page.reservations.unwrap_or_default() {
                let account = reservation.owner_id.unwrap_or_default();
                let found = reservation.instances.unwrap_or_default();
                instances.extend(found.into_iter().filter_map(|it| instance(it, &account, &region)));
            }
            match page.next_token.filter(|token| !token.is_empty()) {
                None => return Ok(instances),
                Some(next) if tokens.insert(next.clone()) => token = Some(next),
                Some(_) => return Err(unavailable("it gives the same page again and again".to_owned())),
            }
        }
        Err(unavailable(format!("more than {MAX_PAGES} pages of instances match")))
    }
}

impl Inventory for Ec2Inventory {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        self.find(job, None).await
    }

    async fn select_one(&self, job: &Job, id: &InstanceId) -> Result<Option<Instance>, InventoryError> {
        Ok(self.find(job, Some(id)).await?.into_iter().find(|instance| instance.id == *id))
    }
}

/// What EC2 is asked for: as much of the selector as it knows, and never nothing.
///
/// It knows no negation; those are left to [`crate::domain::selector::Selector::choose`], as is whatever else it may see
/// in another way than we do.
fn filters(job: &Job, only: Option<&InstanceId>) -> Result<Vec<Filter>, InventoryError> {
    let named = |name: String, values: Vec<String>| Filter::builder().name(name).set_values(Some(values)).build();
    let mut filters = Vec::new();
    for tag in &job.targets.selector.tags {
        if !tag.any_of.is_empty() {
            filters.push(named(format!("tag:{}", tag.key), tag.any_of.clone()));
        } else if tag.none_of.is_empty() {
            filters.push(named("tag-key".to_owned(), vec![escaped(&tag.key)]));
        }
    }
    if filters.is_empty() {
        let why = if job.targets.selector.tags.is_empty() {
            "it names no tags: EC2 finds instances by their tags"
        } else {
            "it only says which tags instances do not have: name one that they have, too"
        };
        return Err(InventoryError::Invalid(format!("the selector of job `{}` is not enough: {why}", job.name)));
    }
    filters.extend(only.map(|id| named("instance-id".to_owned(), vec![id.to_string()])));
    filters.push(named("instance-state-name".to_owned(), vec!["running".to_owned()]));
    Ok(filters)
}

/// A text that stands for itself among EC2's wildcards.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// An instance as we see it; none where it does not run, or has no id that we know to be one.
fn instance(found: aws_sdk_ec2::types::Instance, account: &str, region: &str) -> Option<Instance> {
    let state = found.state.and_then(|state| state.name);
    if state != Some(InstanceStateName::Running) {
        return None;
    }
    let told = |text: Option<String>| text.filter(|text| !text.is_empty());
    let tags = found.tags.unwrap_or_default().into_iter();
    Some(Instance {
        id: found.instance_id?.parse().ok()?,
        account: account.to_owned(),
        region: region.to_owned(),
        zone: found.placement.and_then(|placement| placement.availability_zone),
        addresses: Addresses {
            private: told(found.private_ip_address),
            public: told(found.public_ip_address),
            ipv6: told(found.ipv6_address),
            dns: told(found.public_dns_name).or(told(found.private_dns_name)),
        },
        tags: tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect(),
        state: InstanceState::Running,
        port: None,
        user: None,
    })
}
