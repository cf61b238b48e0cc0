//! The project file, `sshjob.yaml`: defaults for every job, the inventory, the store, the functions.

use std::path::PathBuf;

use super::decode::At;
use super::diagnostic::{Diagnostic, Faults, quoted};
use super::job::settings::{Settings, Sourced};
use super::yaml;

/// Where instances come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InventorySource {
    /// The EC2 API.
    Ec2,
    /// A YAML file; relative to the project's folder.
    File(PathBuf),
}

/// The names of the two functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Functions {
    /// The one that plans and fans out.
    pub trigger: String,
    /// The one that connects and runs.
    pub worker: String,
}

/// A project file as it is written; all is silent where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    /// Defaults for every job.
    pub settings: Settings,
    /// Where instances come from.
    pub inventory: Option<Sourced<InventorySource>>,
    /// Where runs live: a directory, or `s3://bucket/prefix`.
    pub store: Option<Sourced<String>>,
    /// The functions, once they are there.
    pub functions: Option<Sourced<Functions>>,
}

impl Project {
    /// Reads the text of a project file. `file` is its name for people.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Diagnostic>> {
        let faults = Faults::of(file);
        let project = yaml::load(text, yaml::MAX_FILE_BYTES, &faults).and_then(|node| {
            if node.is_null() {
                return Some(Self::default());
            }
            let mut fields = At::root(&node, &faults).fields("a map of a project's keys")?;
            let mut settings = Settings::read(&mut fields, file);
            settings.read_reach(&mut fields, file);
            settings.read_trust(&mut fields, file);
            let inventory = fields.get("inventory", read_inventory).map(|found| Sourced::in_file(file, found));
            let store = fields.get("store", read_store).map(|found| Sourced::in_file(file, found));
            let functions = fields.get("functions", read_functions).map(|found| Sourced::in_file(file, found));
            fields.finish();
            Some(Self { settings, inventory, store, functions })
        });
        faults.settle("", project)
    }
}

fn read_inventory(at: &At<'_>) -> Option<InventorySource> {
    let what = "`ec2` or `{ file: hosts.yaml }`";
    if matches!(at.value(), yaml::Value::Scalar { .. }) {
        return match at.text(what)? {
            "ec2" => Some(InventorySource::Ec2),
            word if word.contains('.') => at.fault_with_hint(
                format_args!("{what} is wanted, found the text {}", quoted(word)),
                format!("write `inventory: {{ file: {} }}`", quoted(word).trim_matches('`')),
            ),
            _ => at.wanted(what),
        };
    }
    let mut fields = at.fields(what)?;
    let file = fields.need("file", "name the inventory file, as `file: hosts.yaml`", |at| {
        match at.text("the path of an inventory file")? {
            "" => at.fault("the path is empty"),
            path => Some(PathBuf::from(path)),
        }
    });
    fields.finish();
    file.map(|file| InventorySource::File(file.value))
}

fn read_store(at: &At<'_>) -> Option<String> {
    let text = at.text("a directory or `s3://bucket/prefix`")?;
    let bucket = text.strip_prefix("s3://").map(|rest| rest.split('/').next().unwrap_or_default());
    match bucket {
        Some("") => at.fault(format_args!("{} names no bucket: `s3://bucket/prefix`", quoted(text))),
        None if text.is_empty() => at.fault("the path is empty"),
        None if text.contains("://") => {
            at.fault(format_args!("{} is not a store: a directory or `s3://bucket/prefix`", quoted(text)))
        }
        _ => Some(text.to_owned()),
    }
}

fn read_functions(at: &At<'_>) -> Option<Functions> {
    let mut fields = at.fields("a map such as `{ trigger: sshjob-trigger, worker: sshjob-worker }`")?;
    let trigger = fields.need("trigger", "name the function that plans, as `trigger: sshjob-trigger`", read_function);
    let worker = fields.need("worker", "name the function that connects, as `worker: sshjob-worker`", read_function);
    fields.finish();
    Some(Functions { trigger: trigger?.value, worker: worker?.value })
}

/// Reads a function's name or ARN.
///
/// Source: Lambda API Reference, `FunctionName`.
fn read_function(at: &At<'_>) -> Option<String> {
    let name = at.text("a function's name or ARN")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_:$".contains(&b);
    if name.is_empty() || name.len() > 140 || !name.bytes().all(allowed) {
        return at.fault(format_args!("{} is not a function's name or ARN", quoted(name)));
    }
    Some(name.to_owned())
}
