//! `sshjob check`: Find out how far one gets with each host.

use futures_util::StreamExt as _;
use serde::Serialize;

use crate::adapter::ssh::Stage;
use crate::cli::access;
use crate::cli::command::run::hint_at_equals;
use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::flags::{Execution, Login, whom};
use crate::cli::keys;
use crate::cli::launch::{notice, program, warn_of_unchecked_keys};
use crate::cli::output::advice::{advice, as_called};
use crate::cli::output::console::Console;
use crate::cli::output::lines::clean;
use crate::cli::output::table::{Cell, table};
use crate::cli::output::words::{self, Style, elapsed, fold, number};
use crate::cli::project::{Workspace, refuse};
use crate::cli::select::Select;
use crate::cli::store;
use crate::domain::document::Schema;
use crate::domain::job::file::JobFile;
use crate::domain::job::resolve::Overrides;
use crate::domain::job::settings::Settled;
use crate::domain::job::{HostKeyPolicy, Job, Source, Sudo, read};
use crate::domain::quantity::Amount;
use crate::domain::run::Target;
use crate::domain::selector::Host;
use crate::domain::task::{Counts, TaskState};
use crate::engine::check::{Checked, check};

/// Find out how far one gets with each host: connect, trust its key, log in, reach a shell, become another user
///
/// Runs nothing but `true`. A host key that is seen for the first time is pinned, as a run would do. sudo is tried
/// where `--sudo`, the job or sshjob.yaml asks for it, since hosts report users who try it and may not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check the hosts of this job, as it logs in to them
    job: Option<String>,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    login: Login,
    /// How many hosts at a time: N or N%
    #[arg(short = 'f', long, value_name = "N|N%", value_parser = |text: &str| read::word(text, read::positive_amount))]
    max_concurrency: Option<Amount>,
    /// Try to become this user on the host [default: root]
    #[arg(long, value_name = "USER", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = whom)]
    sudo: Option<Sudo>,
}

/// Does it.
///
/// # Errors
/// What kept it from being tried.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    let (job, settled) = args.job(&workspace)?;
    let instances = args.select.find(&workspace, &job.targets, &settled).await?;
    let targets = args.select.reach(&job, &settled, instances)?;
    let runs = store::open(&global, Some(&workspace)).await?;
    let keyring = keys::load_keys(&job, &targets, &workspace).await?;
    warn_of_unchecked_keys(&job);
    access::raise_open_files();
    let program = program(&global).unwrap_or_else(|| "sshjob".to_owned());
    let access = access::access(&job, keyring, &workspace.root, &runs)?;
    let concurrency = job.rollout.max_concurrency.of(u32::try_from(targets.len()).unwrap_or(u32::MAX)).max(1);
    let mut console = Console::new(global.color);
    let mut checking = futures_util::stream::iter(&targets)
        .map(|target| check(&access, &job, target))
        .buffer_unordered(concurrency as usize);
    let mut done = Vec::with_capacity(targets.len());
    while let Some(checked) = checking.next().await {
        if global.output == Format::Ndjson {
            console.out(line(&HostLine { schema: Schema::V1, host: Row::new(&checked, &program) })?);
        }
        done.push(checked);
    }
    drop(checking);
    done.sort_by(|one, other| one.target.instance.cmp(&other.target.instance));
    match global.output {
        Format::Ndjson => {}
        Format::Json => {
            let hosts = done.iter().map(|checked| Row::new(checked, &program)).collect();
            console.out(line(&Document { schema: Schema::V1, hosts })?);
        }
        Format::Text => {
            let table = steps(&done, &job, console.out_color());
            console.out(table + &troubles(&done, &program));
        }
    }
    if !global.quiet {
        notice(&tally(&done));
    }
    Ok(if console.has_failed() { Exit::Unavailable } else { exit(&done) })
}

impl Args {
    fn job(&self, workspace: &Workspace) -> Result<(Job, Settled), Fail> {
        let Self { max_concurrency, sudo, .. } = self;
        let execution = Execution { max_concurrency: *max_concurrency, sudo: sudo.clone(), ..Execution::default() };
        let settings = self.login.settings().over(execution.settings());
        let mut request = Overrides { settings, ..Overrides::default() };
        self.select.add_to(&mut request)?;
        let file = if let Some(name) = &self.job {
            workspace.job(name).map_err(|fail| match hint_at_equals(sudo.as_ref(), name) {
                Some(hint) => fail.hint(hint),
                None => fail,
            })?
        } else {
            let name = "check".parse().map_err(|error| Fail::usage(format!("{error}")))?;
            JobFile::ad_hoc(name, Source::Command(vec!["true".to_owned()]))
        };
        let layers = workspace.layers(request);
        let settled = layers.settle(&file.settings);
        Ok((layers.resolve(file).map_err(refuse)?, settled))
    }
}

/// What was found, as machines read it.
#[derive(Serialize)]
struct Document<'a> {
    schema: Schema,
    hosts: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct HostLine<'a> {
    schema: Schema,
    #[serde(flatten)]
    host: Row<'a>,
}

/// How far one got with one host.
#[derive(Serialize)]
struct Row<'a> {
    instance: &'a str,
    address: Option<&'a str>,
    port: u16,
    user: &'a str,
    ok: bool,
    /// What a task would have been.
    state: TaskState,
    /// The step that was not passed.
    failed: Option<&'static str>,
    reason: Option<&'a str>,
    hint: Option<String>,
    host_key: Option<&'a str>,
    /// The steps that were passed, in order.
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    step: &'static str,
    duration_ms: u64,
}

impl<'a> Row<'a> {
    fn new(checked: &'a Checked, program: &str) -> Self {
        let Checked { target, steps, host_key, failure } = checked;
        let step = |(stage, took): &(Stage, std::time::Duration)| Step {
            step: name(*stage),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        Self {
            instance: target.instance.as_str(),
            address: target.address.as_deref(),
            port: target.port,
            user: &target.user,
            ok: failure.is_none(),
            state: failure.as_ref().map_or(TaskState::Succeeded, |failure| failure.state),
            failed: failure.as_ref().map(|failure| name(failure.step)),
            reason: failure.as_ref().map(|failure| failure.why.as_str()),
            hint: failure.as_ref().and_then(|failure| advice(failure, target)).map(|hint| as_called(&hint, program)),
            host_key: host_key.as_deref(),
            steps: steps.iter().map(step).collect(),
        }
    }
}

/// A step as documents and columns call it.
const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Jump => "jump",
        Stage::Connect => "tcp",
        Stage::Handshake => "handshake",
        Stage::HostKey => "host_key",
        Stage::Authentication => "login",
        Stage::Channel | Stage::Shell => "shell",
        Stage::Sudo => "sudo",
    }
}

/// How far one got with each host, and how long each step took.
fn steps(done: &[Checked], job: &Job, color: bool) -> String {
    let is_unchecked = job.login.host_key == HostKeyPolicy::Off;
    let columns = [
        Stage::Jump,
        Stage::Connect,
        Stage::Handshake,
        Stage::HostKey,
        Stage::Authentication,
        Stage::Shell,
        Stage::Sudo,
    ];
    let rows = done.iter().map(|checked| {
        let Checked { target, steps, failure, .. } = checked;
        let cell = |stage: Stage| {
            if let Some((_, took)) = steps.iter().find(|(taken, _)| *taken == stage) {
                if is_unchecked && stage == Stage::HostKey { Cell::from("off") } else { Cell::from(elapsed(*took)) }
            } else if failure.as_ref().is_some_and(|failure| failure.step == stage) {
                Cell::styled("failed", Style::Bad)
            } else {
                Cell::default()
            }
        };
        let [jump, tcp, handshake, key, login, shell, sudo] = columns.map(cell);
        let state = failure.as_ref().map_or(TaskState::Succeeded, |failure| failure.state);
        let word = if failure.is_none() { "ok" } else { state.as_str() };
        [
            Cell::from(target.instance.as_str()),
            Cell::from(clean(&place(target))),
            Cell::from(clean(&target.user)),
            jump,
            tcp,
            handshake,
            key,
            login,
            shell,
            sudo,
            Cell::styled(word, Style::of_task(state)),
        ]
    });
    let sudo = if matches!(job.sudo, Sudo::No) { "" } else { "SUDO" };
    let header = ["HOST", "ADDRESS", "USER", "JUMP", "TCP", "HANDSHAKE", "KEY", "LOGIN", "SHELL", sudo, "RESULT"];
    table(header, &rows.collect::<Vec<_>>(), color)
}

/// Where one connects to; nothing where the host's name says it.
fn place(target: &Target) -> String {
    let Some(address) = &target.address else { return "none".to_owned() };
    let host = Host { user: None, host: address.clone(), port: (target.port != 22).then_some(target.port) };
    let place = host.to_string();
    if place == target.instance.as_str() { String::new() } else { place }
}

/// What went wrong, each trouble once, under the hosts that have it; `program` is what the commands in it begin with.
fn troubles(done: &[Checked], program: &str) -> String {
    let mut seen: Vec<(String, Vec<&str>)> = Vec::new();
    for checked in done {
        let Some(failure) = &checked.failure else { continue };
        let hint = advice(failure, &checked.target);
        let hint = hint.map(|hint| format!("  hint: {}\n", clean(&hint))).unwrap_or_default();
        let told = as_called(&format!("  {}\n{hint}", clean(&failure.why)), program);
        let host = checked.target.instance.as_str();
        match seen.iter_mut().find(|(known, _)| *known == told) {
            Some((_, hosts)) => hosts.push(host),
            None => seen.push((told, vec![host])),
        }
    }
    seen.iter().flat_map(|(told, hosts)| ["\n".to_owned(), fold(hosts), ":\n".to_owned(), told.clone()]).collect()
}

fn tally(done: &[Checked]) -> String {
    let failed: Counts = done.iter().filter_map(|checked| Some(checked.failure.as_ref()?.state)).collect();
    let ok = done.iter().filter(|checked| checked.failure.is_none()).count();
    let failed = if ok == done.len() { String::new() } else { format!(", {}", words::tally(&failed)) };
    format!("{}: {ok} ok{failed}", number(done.len(), "host"))
}

fn exit(done: &[Checked]) -> Exit {
    let exits = done.iter().filter_map(|checked| checked.failure.as_ref()).map(|failure| match failure.state {
        TaskState::Unreachable | TaskState::AuthFailed | TaskState::HostKeyRejected => Exit::Unreachable,
        TaskState::TimedOut => Exit::TimedOut,
        TaskState::Lost => Exit::Lost,
        TaskState::Skipped => Exit::Unavailable,
        _ => Exit::Failed,
    });
    exits.min().unwrap_or(Exit::Success)
}

fn line(value: &impl Serialize) -> Result<String, Fail> {
    let text = serde_json::to_string(value);
    Ok(text.map_err(|error| Fail::usage(format!("cannot write JSON: {error}")))? + "\n")
}
