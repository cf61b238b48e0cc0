//! `sshjob config`: Show every setting and where it comes from.

use serde_json::{Value, json};

use crate::cli::access::variable;
use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::lines::clean;
use crate::cli::output::report::report;
use crate::cli::output::table::{Cell, table};
use crate::cli::project::{Workspace, shown};
use crate::cli::store;
use crate::domain::job::file::JobFile;
use crate::domain::job::resolve::{Layers, Overrides};
use crate::domain::job::settings::Origin;
use crate::domain::project::InventorySource;
use crate::domain::run::SCHEMA;

/// Show every setting and where it comes from
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show what this job comes to [default: what a job that says nothing comes to]
    #[arg(value_name = "JOB")]
    job: Option<String>,
}

/// A setting: its key, its value, where it came from.
type Row = (&'static str, Value, String);

/// Shows the settings.
///
/// # Errors
/// What is wrong with the project, the environment or the job.
#[expect(clippy::unused_async, reason = "every command is awaited")]
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    let job = args.job.map(|name| workspace.job(&name)).transpose()?;
    let layers = workspace.layers(Overrides::default());
    let mut rows = project_rows(&workspace, &global);
    rows.extend(job_rows(&layers, job.as_ref()));
    let text = match global.output {
        Format::Text => {
            let cells = |(key, value, source): Row| -> [Cell<'_>; 3] {
                [key.into(), clean(&plain(&value)).into(), source.into()]
            };
            table(["SETTING", "VALUE", "SOURCE"], &rows.into_iter().map(cells).collect::<Vec<_>>(), false)
        }
        Format::Json => {
            let settings: Vec<_> = rows.into_iter().map(document).collect();
            format!("{:#}\n", json!({ "schema": SCHEMA, "settings": settings }))
        }
        Format::Ndjson => {
            let line = |row| format!("{}\n", json!({ "schema": SCHEMA, "setting": document(row) }));
            rows.into_iter().map(line).collect()
        }
    };
    Ok(report(&text, &global))
}

fn document((key, value, source): Row) -> Value {
    json!({ "key": key, "value": value, "source": source })
}

fn project_rows(workspace: &Workspace, global: &Global) -> Vec<Row> {
    let project = &workspace.project;
    let default = || Origin::Default.to_string();
    let root_source = if global.project.is_some() { "-C or SSHJOB_PROJECT" } else { "found upwards" };
    let inventory = project.inventory.as_ref().map_or((json!("ec2"), default()), |inventory| {
        let value = match &inventory.value {
            InventorySource::Ec2 => json!("ec2"),
            InventorySource::File(file) => json!(file),
        };
        (value, inventory.origin.to_string())
    });
    let inventory =
        variable("SSHJOB_INVENTORY").map_or(inventory, |named| (json!(named), "SSHJOB_INVENTORY".to_owned()));
    let store = match (&global.store, &project.store) {
        (Some(store), _) => (json!(store), "--store or SSHJOB_STORE".to_owned()),
        (None, Some(store)) => (json!(store.value), store.origin.to_string()),
        (None, None) => (store::place(global, Some(workspace)).map_or(Value::Null, |place| json!(place)), default()),
    };
    let functions = |name: fn(&crate::domain::project::Functions) -> &str| {
        let functions = project.functions.as_ref();
        functions.map_or((Value::Null, default()), |found| (json!(name(&found.value)), found.origin.to_string()))
    };
    let rows = [
        ("project", (json!(shown(&workspace.root)), root_source.to_owned())),
        ("inventory", inventory),
        ("store", store),
        ("functions.trigger", functions(|functions| &functions.trigger)),
        ("functions.worker", functions(|functions| &functions.worker)),
    ];
    rows.into_iter().map(|(key, (value, source))| (key, value, source)).collect()
}

fn job_rows(layers: &Layers, job: Option<&JobFile>) -> Vec<Row> {
    let mut settled = layers.settle(&job.map(|job| job.settings.clone()).unwrap_or_default());
    // Whoever knows the address of a hook may write there.
    settled.notify.value = settled.notify.value.map(|notify| notify.masked());
    settled.rows().into_iter().map(|(key, value, origin)| (key, value, origin.to_string())).collect()
}

/// A value as a job file would have it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => match fields.iter().collect::<Vec<_>>().as_slice() {
            // Whom to become.
            [(key, user)] if *key == "user" => plain(user),
            fields => {
                let fields = fields.iter().map(|(key, value)| format!("{key}: {}", plain(value)));
                format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
            }
        },
        other => other.to_string(),
    }
}
