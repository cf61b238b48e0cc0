//! `sshjob jobs`: List jobs.

use serde_json::{Value, json};

use super::next::Scheduled;
use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::launch::notice;
use crate::cli::output::lines::clean;
use crate::cli::output::report::report;
use crate::cli::output::table::{Cell, table};
use crate::cli::project::{Workspace, refuse};
use crate::domain::job::Mode;
use crate::domain::job::file::{JobFile, TargetsFile};
use crate::domain::job::resolve::Overrides;
use crate::domain::job::settings::Settled;
use crate::domain::run::SCHEMA;
use crate::domain::schedule::calendar::Firing;
use crate::engine::clock::Clock;

/// List jobs
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Lists the jobs of the project, then tells what is wrong with the others.
///
/// # Errors
/// What is wrong.
#[expect(clippy::unused_async, reason = "every command is awaited")]
pub async fn run(_args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    let paths = workspace.job_paths()?;
    if paths.is_empty() && !global.quiet {
        notice(&workspace.emptiness());
    }
    let (jobs, wrong) = workspace.read_jobs(&paths);
    let layers = workspace.layers(Overrides::default());
    let settled = |job: &JobFile| layers.settle(&job.settings);
    let now = Clock::System.now();
    let scheduled = |job: &JobFile| Scheduled::read(job, &layers);
    let jobs = jobs.into_iter().map(|job| Ok((scheduled(&job)?, job))).collect::<Result<Vec<_>, Fail>>()?;
    let told = |(scheduled, job): &(Scheduled, JobFile)| document(job, &settled(job), scheduled.firing(now));
    let text = match global.output {
        Format::Text => {
            let rows: Vec<_> =
                jobs.iter().map(|(scheduled, job)| row(job, &settled(job), scheduled.next(now))).collect();
            table(["NAME", "TARGETS", "MODE", "SCHEDULE", "NEXT", "DESCRIPTION"], &rows, false)
        }
        Format::Json => {
            let jobs: Vec<_> = jobs.iter().map(told).collect();
            format!("{:#}\n", json!({ "schema": SCHEMA, "jobs": jobs }))
        }
        Format::Ndjson => {
            let line = |job| format!("{}\n", json!({ "schema": SCHEMA, "job": told(job) }));
            jobs.iter().map(line).collect()
        }
    };
    let exit = report(&text, &global);
    if wrong.is_empty() { Ok(exit) } else { Err(refuse(wrong)) }
}

fn row<'a>(job: &'a JobFile, settled: &Settled, next: String) -> [Cell<'a>; 6] {
    let schedule: Vec<&str> = job.schedule.iter().map(|expression| expression.value.as_str()).collect();
    let schedule = match (schedule.join("; "), settled.timezone.value.as_str()) {
        (none, _) if none.is_empty() => none,
        (schedule, "UTC") => schedule,
        (schedule, zone) => format!("{schedule} ({zone})"),
    };
    [
        job.name.as_str().into(),
        clean(&targets(&job.targets).join(" ")).into(),
        mode(&settled.mode.value).into(),
        schedule.into(),
        next.into(),
        clean(job.description.as_deref().unwrap_or_default()).into(),
    ]
}

fn document(job: &JobFile, settled: &Settled, next: Option<Firing>) -> Value {
    json!({
        "name": job.name,
        "file": job.file,
        "description": job.description,
        "targets": targets(&job.targets),
        "mode": mode(&settled.mode.value),
        "schedule": job.schedule.iter().map(|expression| &expression.value).collect::<Vec<_>>(),
        "timezone": settled.timezone.value,
        "paused": job.paused,
        "next": next.map(|firing| firing.at),
    })
}

const fn mode(mode: &Mode) -> &'static str {
    match mode {
        Mode::Attached => "attached",
        Mode::Detached { .. } => "detached",
    }
}

/// What chooses the instances, as the flags of `run` would say it.
fn targets(targets: &TargetsFile) -> Vec<String> {
    let tags = targets.tags.iter().map(ToString::to_string);
    let hosts = targets.hosts.iter().map(ToString::to_string);
    let exclude = targets.exclude.iter().map(|exclude| format!("-x {exclude}"));
    let limit = targets.limit.iter().map(|limit| format!("-l {limit}"));
    tags.chain(hosts).chain(exclude).chain(limit).collect()
}
