//! `sshjob next`: Show when jobs fire next.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::launch::notice;
use crate::cli::output::console::Console;
use crate::cli::output::json;
use crate::cli::output::lines::clean;
use crate::cli::output::table::{Cell, table};
use crate::cli::output::words::{Style, elapsed};
use crate::cli::project::{Workspace, refuse};
use crate::cli::store;
use crate::domain::document::Schema;
use crate::domain::id::JobName;
use crate::domain::job::Schedule;
use crate::domain::job::file::JobFile;
use crate::domain::job::resolve::{Layers, Overrides};
use crate::domain::schedule::calendar::{Calendar, Firing, Moved};
use crate::domain::schedule::reading;
use crate::engine::clock::Clock;
use crate::functions::book::Book;

/// Show when jobs fire next
///
/// The jobs of the project; where none are here, those that were pushed to the store.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this job; its schedule is told in English, too
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// How many firings
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub number: u16,
    /// From when on: 2026-11-22, 2026-11-22T08:00 (local to each job) or 2026-11-22T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<Start>,
}

/// From when on firings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From this instant.
    Instant(Timestamp),
    /// From this local time of each job's zone.
    Local(DateTime),
}

impl FromStr for Start {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(instant) = text.parse() {
            return Ok(Self::Instant(instant));
        }
        // An offset would be read past, and the job's zone meant.
        let is_local = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'T'));
        let date = || text.parse::<Date>().ok().map(DateTime::from).filter(|_| !text.contains('T'));
        let local = || text.parse().ok().filter(|_| text.contains('T'));
        date().or_else(local).filter(|_| is_local).map(Self::Local).ok_or(
            "a date (`2026-11-22`), a local time (`2026-11-22T08:00`) or an instant (`2026-11-22T08:00:00Z`) is wanted",
        )
    }
}

impl Start {
    /// The last instant before it, by the clock of `zone`.
    fn eve(self, zone: &TimeZone) -> Timestamp {
        let instant = match self {
            Self::Instant(instant) => instant,
            Self::Local(local) => zone.to_ambiguous_timestamp(local).compatible().unwrap_or(Timestamp::MAX),
        };
        instant.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(instant)
    }
}

/// A job with its calendar.
#[derive(Debug)]
pub struct Scheduled {
    /// Identifies the job.
    pub job: JobName,
    /// Its expressions as they are written.
    pub expressions: Vec<String>,
    /// Whether its firings are suspended.
    pub paused: bool,
    /// When it fires.
    pub calendar: Calendar,
}

impl Scheduled {
    /// Reads the schedule of `job` as `layers` complete it.
    ///
    /// # Errors
    /// What is no schedule.
    pub fn read(job: &JobFile, layers: &Layers) -> Result<Self, Fail> {
        Self::of(&job.name, job.schedule(&layers.settle(&job.settings)))
    }

    fn of(job: &JobName, schedule: Schedule) -> Result<Self, Fail> {
        let calendar = Calendar::new(job, &schedule).map_err(|error| {
            let fail = Fail::usage(format!("job `{job}`: {error}"));
            match error.hint() {
                Some(hint) => fail.hint(hint.to_owned()),
                None => fail,
            }
        })?;
        Ok(Self { job: job.clone(), expressions: schedule.expressions, paused: schedule.paused, calendar })
    }

    fn local(&self, instant: Timestamp) -> Zoned {
        instant.to_zoned(self.calendar.zone().clone())
    }

    /// The first firing after `now` that comes to pass.
    pub fn firing(&self, now: Timestamp) -> Option<Firing> {
        if self.paused { None } else { self.calendar.next_allowed(now) }
    }

    /// When that is, as people read it; else why there is none.
    pub fn next(&self, now: Timestamp) -> String {
        match self.firing(now) {
            Some(firing) => self.local(firing.at).strftime("%a %Y-%m-%d %H:%M %:z").to_string(),
            None if self.expressions.is_empty() => "on demand".to_owned(),
            None if self.paused => "paused".to_owned(),
            None => "never again".to_owned(),
        }
    }
}

/// Coming firings as machines read them.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NextDocument {
    /// The version of the document.
    pub schema: Schema,
    /// The jobs that are asked about, by name.
    pub jobs: Vec<JobDocument>,
    /// Their firings in time order.
    pub firings: Vec<FiringDocument>,
}

/// When a job fires.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JobDocument {
    /// The job.
    #[schemars(with = "String")]
    pub job: JobName,
    /// Its expressions; none for a job that runs on demand only.
    pub schedule: Vec<ExpressionDocument>,
    /// IANA name of its time zone.
    pub timezone: String,
    /// Whether its firings are suspended.
    pub paused: bool,
}

/// A schedule expression.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ExpressionDocument {
    /// As it is written.
    pub expression: String,
    /// In English.
    pub reading: String,
}

/// A coming firing.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FiringDocument {
    /// The job.
    #[schemars(with = "String")]
    pub job: JobName,
    /// The scheduled time; it names the run.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub scheduled_for: Timestamp,
    /// When the run starts: the scheduled time and the job's jitter.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub due: Timestamp,
    /// The scheduled time by the clock of the job's zone, with its offset.
    #[schemars(extend("format" = "date-time"))]
    pub local: String,
    /// The abbreviation of the zone at that time.
    pub zone: String,
    /// The local time that does not exist, where this firing stands for one.
    pub moved_from: Option<String>,
    /// Whether the local time comes twice, and this is the first.
    pub first_of_two: bool,
    /// The blackout range that forbids it.
    pub blackout: Option<String>,
    /// Whether the job is paused.
    pub paused: bool,
}

/// A coming firing, as one line.
#[derive(Debug, Serialize)]
struct FiringLine {
    schema: Schema,
    #[serde(flatten)]
    firing: FiringDocument,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    let paths = workspace.job_paths()?;
    let (jobs, wrong) = if paths.is_empty() && store::is_named(&global, &workspace) {
        (pushed(&args, &global, &workspace).await?, None)
    } else {
        let (files, wrong) = match &args.job {
            Some(job) => (vec![workspace.job(job)?], Vec::new()),
            None => workspace.read_jobs(&paths),
        };
        let layers = workspace.layers(Overrides::default());
        let jobs = files.iter().map(|job| Scheduled::read(job, &layers)).collect::<Result<Vec<_>, _>>()?;
        (jobs, (!wrong.is_empty()).then(|| refuse(wrong)))
    };
    if jobs.is_empty() && wrong.is_none() && !global.quiet {
        notice(&workspace.emptiness());
    }
    let from = args.from.unwrap_or_else(|| Start::Instant(Clock::System.now()));
    let firings = merge(&jobs, from, args.number.into());
    let mut console = Console::new(global.color);
    match global.output {
        Format::Text => {
            if args.job.is_some() {
                for job in &jobs {
                    console.out(heading(job));
                }
            }
            console.out(listing(&firings, args.job.is_none(), console.out_color()));
            if !global.quiet {
                console.err(silent(&jobs, from));
            }
        }
        Format::Json => json::line(&mut console, &document(&jobs, &firings)),
        Format::Ndjson => {
            for (job, firing) in &firings {
                json::line(&mut console, &FiringLine { schema: Schema::V1, firing: told(job, firing) });
            }
        }
    }
    match (wrong, console.has_failed()) {
        (Some(fail), _) => Err(fail),
        (None, true) => Ok(Exit::Unavailable),
        (None, false) => Ok(Exit::Success),
    }
}

/// The jobs that were pushed to the store.
async fn pushed(args: &Args, global: &Global, workspace: &Workspace) -> Result<Vec<Scheduled>, Fail> {
    let book = Book::new(store::open(global, Some(workspace)).await?);
    let jobs = if let Some(name) = &args.job {
        let name = name.parse().map_err(|error| Fail::usage(format!("{error}")))?;
        vec![book.job(&name, Overrides::default()).await?]
    } else {
        let read = book.read().await?;
        for wrong in read.wrong {
            notice(&wrong);
        }
        read.jobs
    };
    jobs.into_iter().map(|job| Scheduled::of(&job.name, job.schedule)).collect()
}

/// The first `number` firings of all `jobs`, in time order.
fn merge(jobs: &[Scheduled], from: Start, number: usize) -> Vec<(&Scheduled, Firing)> {
    let each = jobs.iter().flat_map(|job| {
        let firings = job.calendar.between(from.eve(job.calendar.zone()), Timestamp::MAX, number);
        firings.into_iter().map(move |firing| (job, firing))
    });
    let mut all: Vec<_> = each.collect();
    all.sort_by(|(one, first), (other, second)| (first.at, &one.job).cmp(&(second.at, &other.job)));
    all.truncate(number);
    all
}

/// What the expressions of a job mean.
fn heading(job: &Scheduled) -> String {
    let zone = job.calendar.zone().iana_name().unwrap_or("UTC");
    let readings = job.expressions.iter().zip(job.calendar.expressions());
    readings.fold(String::new(), |lines, (text, read)| {
        lines + &format!("{}: {} ({zone})\n", clean(text), reading::say(read))
    })
}

fn listing(firings: &[(&Scheduled, Firing)], with_jobs: bool, color: bool) -> String {
    let row = |(job, firing): &(&Scheduled, Firing)| {
        let local = job.local(firing.at);
        let format = if local.second() == 0 { "%a %Y-%m-%d %H:%M" } else { "%a %Y-%m-%d %H:%M:%S" };
        let (name, says) = if with_jobs {
            let readings = job.calendar.expressions().iter().map(reading::say).collect::<Vec<_>>();
            (job.job.to_string(), readings.join("; "))
        } else {
            Default::default()
        };
        [
            local.strftime(format).to_string().into(),
            local.strftime("%Z").to_string().into(),
            local.strftime("%:z").to_string().into(),
            name.into(),
            says.into(),
            Cell::styled(notes(job, firing).join("; "), Style::Doubtful),
        ]
    };
    let rows: Vec<_> = firings.iter().map(row).collect();
    table(["TIME", "ZONE", "OFFSET", "JOB", "SCHEDULE", "NOTE"], &rows, color)
}

/// What is special about a firing.
fn notes(job: &Scheduled, firing: &Firing) -> Vec<String> {
    let mut notes = Vec::new();
    match firing.moved {
        Some(Moved::AfterGap(local)) => notes.push(format!("moved: {} does not exist", local.strftime("%H:%M"))),
        Some(Moved::FirstOfTwo) => notes.push("first of two".to_owned()),
        None => {}
    }
    if let Ok(delay) = (firing.due.duration_since(firing.at)).try_into()
        && delay != std::time::Duration::ZERO
    {
        notes.push(format!("starts {} later", elapsed(delay)));
    }
    if let Some(range) = firing.blackout.and_then(|index| job.calendar.blackout(index)) {
        notes.push(format!("blackout {}", clean(range)));
    }
    if job.paused {
        notes.push("paused".to_owned());
    }
    notes
}

/// Who does not fire, and why.
fn silent(jobs: &[Scheduled], from: Start) -> String {
    let told = |which: &dyn Fn(&Scheduled) -> bool, why: &str| {
        let names: Vec<&str> = jobs.iter().filter(|job| which(job)).map(|job| job.job.as_str()).collect();
        if names.is_empty() { String::new() } else { format!("{why}: {}\n", names.join(", ")) }
    };
    let on_demand = |job: &Scheduled| job.expressions.is_empty();
    let is_over = |job: &Scheduled| job.calendar.next(from.eve(job.calendar.zone())).is_none();
    told(&on_demand, "on demand only") + &told(&|job| !on_demand(job) && is_over(job), "never again")
}

fn document(jobs: &[Scheduled], firings: &[(&Scheduled, Firing)]) -> NextDocument {
    let job = |job: &Scheduled| {
        let readings = job.expressions.iter().zip(job.calendar.expressions());
        let schedule = readings
            .map(|(text, read)| ExpressionDocument { expression: text.clone(), reading: reading::say(read) })
            .collect();
        let timezone = job.calendar.zone().iana_name().unwrap_or("UTC").to_owned();
        JobDocument { job: job.job.clone(), schedule, timezone, paused: job.paused }
    };
    NextDocument {
        schema: Schema::V1,
        jobs: jobs.iter().map(job).collect(),
        firings: firings.iter().map(|(job, firing)| told(job, firing)).collect(),
    }
}

fn told(job: &Scheduled, firing: &Firing) -> FiringDocument {
    let local = job.local(firing.at);
    FiringDocument {
        job: job.job.clone(),
        scheduled_for: firing.at,
        due: firing.due,
        local: local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        zone: local.strftime("%Z").to_string(),
        moved_from: match firing.moved {
            Some(Moved::AfterGap(skipped)) => Some(skipped.to_string()),
            _ => None,
        },
        first_of_two: firing.moved == Some(Moved::FirstOfTwo),
        blackout: firing.blackout.and_then(|index| job.calendar.blackout(index)).map(str::to_owned),
        paused: job.paused,
    }
}
