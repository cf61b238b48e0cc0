//! What a run would do: nothing is connected to, and nothing is written.

use std::path::Path;

use serde::Serialize;

use super::context::{Format, Global};
use super::exit::{Exit, Fail};
use super::known_hosts;
use super::output::console::Console;
use super::output::lines::clean;
use super::output::table::{Cell, table};
use super::output::words::{Style, number};
use crate::adapter::store::AnyStore;
use crate::domain::document::Schema;
use crate::domain::instance::AddressKind;
use crate::domain::job::{Hop, Job};
use crate::domain::plan::plan;
use crate::domain::quantity::Span;
use crate::domain::run::{Carrier, Target};
use crate::domain::script::sha256_hex;
use crate::engine::records::Runs;
use crate::engine::trust::Basis;

/// A dry run as machines read it.
#[derive(Debug, Serialize)]
struct DryRun<'a> {
    schema: Schema,
    job: &'a str,
    script: Script<'a>,
    /// The user to become on the host by sudo.
    sudo: Option<&'a str>,
    /// How long the script may run on each host.
    timeout: Span,
    max_concurrency: u32,
    max_errors: Option<u32>,
    /// In the order in which they would start.
    tasks: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Script<'a> {
    origin: &'a str,
    sha256: String,
    bytes: usize,
}

/// One task: where it would connect to, why there, and how the host would be trusted.
#[derive(Debug, Serialize)]
struct Row<'a> {
    instance: &'a str,
    name: Option<&'a str>,
    address: Option<&'a str>,
    /// Which of the instance's addresses it is.
    address_kind: Option<AddressKind>,
    /// Why this one.
    why: &'static str,
    port: u16,
    user: &'a str,
    /// The hosts that it goes through, in order.
    via: Vec<String>,
    trust: &'static str,
    wave: usize,
}

/// Shows what running `job` on `targets` would do.
///
/// # Errors
/// Where the store's pins cannot be read, or the result cannot be written.
pub async fn show(
    job: &Job,
    script: &[u8],
    origin: &str,
    targets: Vec<Target>,
    project: &Path,
    runs: &Runs<AnyStore>,
    global: &Global,
) -> Result<Exit, Fail> {
    let (planned, batches) = plan(job, targets, Carrier::Caller);
    let trusted = known_hosts::trust(job, project, runs)?;
    let planned_targets: Vec<&Target> = batches.iter().flat_map(|batch| &batch.targets).collect();
    let mut bases = trusted.bases(&planned_targets).await?.into_iter();
    let mut tasks = Vec::with_capacity(planned_targets.len());
    for (wave, (from, to)) in planned.waves.iter().enumerate() {
        let (from, to) = (*from as usize, *to as usize);
        let batches = batches.iter().take(to).skip(from);
        for (target, basis) in batches.flat_map(|batch| &batch.targets).zip(&mut bases) {
            tasks.push(Row {
                instance: target.instance.as_str(),
                name: target.name.as_deref(),
                address: target.address.as_deref(),
                address_kind: target.address_kind,
                why: why(job, target),
                port: target.port,
                user: &target.user,
                via: target.jump.as_ref().unwrap_or(&job.login.jump).iter().map(Hop::to_string).collect(),
                trust: trust(basis),
                wave: wave + 1,
            });
        }
    }
    let script = Script { origin, sha256: sha256_hex(script), bytes: script.len() };
    let (max_concurrency, max_errors) = (planned.max_concurrency, planned.max_errors);
    let (schema, name, sudo, timeout) = (Schema::V1, job.name.as_str(), job.sudo.user(), job.timeout);
    let dry = DryRun { schema, job: name, script, sudo, timeout, max_concurrency, max_errors, tasks };
    let mut console = Console::new(global.color);
    if global.output == Format::Text {
        let text = text(&dry, planned.waves.len(), console.out_color());
        console.out(text);
        if !global.quiet {
            console.err("dry run: nothing was connected to, nothing was written\n");
        }
    } else {
        let document = serde_json::to_string(&dry).map_err(|error| Fail::usage(error.to_string()))?;
        console.out(format!("{document}\n"));
    }
    Ok(if console.has_failed() { Exit::Unavailable } else { Exit::Success })
}

fn text(dry: &DryRun<'_>, waves: usize, color: bool) -> String {
    let Script { origin, sha256, bytes } = &dry.script;
    let errors = dry.max_errors.map(|errors| format!(", stops after more than {}", number(errors as usize, "error")));
    let mut text = format!(
        "job {}: script {} ({bytes} bytes, sha256 {}){}, {} at a time, {} each{}\n",
        dry.job,
        clean(origin),
        sha256.get(..12).unwrap_or(sha256),
        dry.sudo.map(|user| format!(", as {user} by sudo")).unwrap_or_default(),
        dry.max_concurrency,
        dry.timeout,
        errors.unwrap_or_default(),
    );
    let rows: Vec<[Cell<'_>; 7]> = dry
        .tasks
        .iter()
        .map(|row| {
            let address = row.address.map_or_else(
                || Cell::styled("none", Style::Bad),
                |address| {
                    let at = match (row.port, address.contains(':')) {
                        (22, _) => clean(address),
                        (port, false) => format!("{}:{port}", clean(address)),
                        (port, true) => format!("[{}]:{port}", clean(address)),
                    };
                    if row.via.is_empty() { at } else { format!("{at} via {}", clean(&row.via.join(", "))) }.into()
                },
            );
            [
                row.instance.into(),
                clean(row.name.unwrap_or_default()).into(),
                address,
                row.why.into(),
                clean(row.user).into(),
                row.trust.into(),
                if waves > 1 { row.wave.to_string().into() } else { "".into() },
            ]
        })
        .collect();
    text += &table(["HOST", "NAME", "ADDRESS", "WHY", "USER", "TRUST", "WAVE"], &rows, color);
    text
}

fn why(job: &Job, target: &Target) -> &'static str {
    let named = !job.targets.selector.hosts.is_empty();
    match (job.targets.address, target.address_kind) {
        (_, None) => "it has no such address",
        (Some(_), Some(_)) => "the address asked for",
        (None, Some(_)) if named => "named",
        (None, Some(AddressKind::Private)) => "private comes first",
        (None, Some(AddressKind::Public)) => "public, for it has no private one",
        (None, Some(AddressKind::Ipv6)) => "IPv6, for it has no IPv4",
        (None, Some(AddressKind::Dns)) => "DNS, for it has no address",
    }
}

const fn trust(basis: Basis) -> &'static str {
    match basis {
        Basis::Anything => "off: any key",
        Basis::Pinned => "pinned",
        Basis::Vouched => "known",
        Basis::Certified => "certificate of a known authority",
        Basis::FirstUse => "first use: its key will be pinned",
        Basis::Nothing => "unknown: it will be rejected",
    }
}
