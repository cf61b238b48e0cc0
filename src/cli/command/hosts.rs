//! `sshjob hosts`: Show what a selector matches.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::console::Console;
use crate::cli::output::lines::clean;
use crate::cli::output::table::{Cell, table};
use crate::cli::output::words::{Style, number};
use crate::cli::project::Workspace;
use crate::cli::select::Select;
use crate::domain::document::Schema;
use crate::domain::id::InstanceId;
use crate::domain::instance::{AddressKind, Instance};

/// Show what a selector matches
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    select: Select,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    let (targets, settled) = args.select.targets(&workspace)?;
    let instances = args.select.find(&workspace, &targets, &settled).await?;
    show(&instances, targets.address, &global)
}

/// Lists `instances`, with the address of the kind `wanted` that a run would connect to.
///
/// # Errors
/// That the list cannot be written.
pub fn show(instances: &[Instance], wanted: Option<AddressKind>, global: &Global) -> Result<Exit, Fail> {
    let rows: Vec<HostDocument> = instances.iter().map(|host| HostDocument::new(host, wanted)).collect();
    let mut console = Console::new(global.color);
    let text = match global.output {
        Format::Text if rows.is_empty() => String::new(),
        Format::Text => text(&rows, console.out_color()),
        Format::Json => lines(&[HostsDocument { schema: Schema::V1, hosts: rows.iter().collect() }])?,
        Format::Ndjson => {
            let told = rows.iter().map(|host| HostLine { schema: Schema::V1, host });
            lines(&told.collect::<Vec<_>>())?
        }
    };
    console.out(text);
    if global.output == Format::Text && !global.quiet {
        console.err(format!("{}\n", number(rows.len(), "host")));
    }
    Ok(if console.has_failed() { Exit::Unavailable } else { Exit::Success })
}

/// A host as machines read it.
#[derive(Debug, Serialize)]
struct HostDocument<'a> {
    instance: &'a InstanceId,
    name: Option<&'a str>,
    /// Host name or address that a run would connect to; none where it has none of the wanted kind.
    address: Option<&'a str>,
    address_kind: Option<AddressKind>,
    port: Option<u16>,
    user: Option<&'a str>,
    account: &'a str,
    region: &'a str,
    zone: Option<&'a str>,
    launched_at: Option<Timestamp>,
    tags: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct HostsDocument<'a> {
    schema: Schema,
    hosts: Vec<&'a HostDocument<'a>>,
}

#[derive(Serialize)]
struct HostLine<'a> {
    schema: Schema,
    #[serde(flatten)]
    host: &'a HostDocument<'a>,
}

impl<'a> HostDocument<'a> {
    fn new(instance: &'a Instance, wanted: Option<AddressKind>) -> Self {
        let address = instance.address(wanted);
        Self {
            instance: &instance.id,
            name: instance.name(),
            address: address.map(|(address, _)| address),
            address_kind: address.map(|(_, kind)| kind),
            port: instance.port,
            user: instance.user.as_deref(),
            account: &instance.account,
            region: &instance.region,
            zone: instance.zone.as_deref(),
            launched_at: instance.launched_at,
            tags: &instance.tags,
        }
    }
}

fn text(rows: &[HostDocument<'_>], color: bool) -> String {
    let header = ["HOST", "NAME", "ADDRESS", "KIND", "PORT", "USER", "REGION", "ZONE", "TAGS"];
    let cell = |text: Option<&str>| Cell::from(text.map(clean).unwrap_or_default());
    let lines = rows.iter().map(|host| {
        // The name has a column of its own.
        let tags = host.tags.iter().filter(|(key, _)| *key != "Name");
        let tags: Vec<String> = tags.map(|(key, value)| clean(&format!("{key}={value}"))).collect();
        let kind = host.address_kind.map_or("", |kind| match kind {
            AddressKind::Private => "private",
            AddressKind::Public => "public",
            AddressKind::Ipv6 => "ipv6",
            AddressKind::Dns => "dns",
        });
        let address = match host.address {
            Some(address) => Cell::from(clean(address)),
            None => Cell::styled("none", Style::Bad),
        };
        [
            Cell::from(host.instance.as_str()),
            cell(host.name),
            address,
            Cell::from(kind),
            Cell::from(host.port.map(|port| port.to_string()).unwrap_or_default()),
            cell(host.user),
            cell(Some(host.region)),
            cell(host.zone),
            Cell::from(tags.join(" ")),
        ]
    });
    table(header, &lines.collect::<Vec<_>>(), color)
}

/// One JSON object per line.
fn lines<T: Serialize>(values: &[T]) -> Result<String, Fail> {
    let mut text = String::new();
    for value in values {
        let line = serde_json::to_string(value);
        text.push_str(&line.map_err(|error| Fail::usage(format!("cannot write the hosts as JSON: {error}")))?);
        text.push('\n');
    }
    Ok(text)
}
