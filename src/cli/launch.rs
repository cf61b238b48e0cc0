//! From a complete job and its targets to a verdict: the part that `run` and `retry` share.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::access;
use super::command::status;
use super::context::{Format, Global};
use super::detached::Care;
use super::exit::{Exit, Fail};
use super::output::console::Console;
use super::output::print::{Options, print};
use super::output::words::instant;
use super::output::{json, verdict};
use super::post::Poster;
use super::project::Workspace;
use super::signals::{Asked, Signals};
use super::{keys, known_hosts};
use crate::adapter::store::AnyStore;
use crate::domain::diagnostic::quoted;
use crate::domain::document::EventDocument;
use crate::domain::id::RunId;
use crate::domain::job::{HostKeyPolicy, Job, Overlap};
use crate::domain::notice::Notice;
use crate::domain::quantity::Span;
use crate::domain::run::{RunRecord, Target};
use crate::engine::clock::{self, Clock};
use crate::engine::drive::{Driven, drive};
use crate::engine::fire::beside;
use crate::engine::gate::{Gate, Stop};
use crate::engine::notify::enqueue;
use crate::engine::records::Runs;
use crate::engine::start::{Request, StartError, start};
use crate::engine::worker::{WorkError, Worker};

/// Events that wait for the printer, which takes them in at once.
const EVENTS: usize = 1024;

/// People who could not be told of a run; who they are is said when it is over.
const TROUBLES: usize = 64;

/// After a first Ctrl-C attached scripts get this long to end before the process leaves anyway.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What is to be run, complete and checked.
pub struct Launch {
    /// The job.
    pub job: Job,
    /// The bytes of its script.
    pub script: Vec<u8>,
    /// Where the script came from, for people.
    pub origin: String,
    /// Where it is to run.
    pub targets: Vec<Target>,
    /// Names the request; none means a name of its own.
    pub id: Option<String>,
    /// The run whose tasks are run again.
    pub retry_of: Option<RunId>,
    /// Whether identical output is shown once.
    pub group: bool,
    /// How long to wait for detached scripts to end.
    pub wait: Option<Span>,
}

/// Runs it, shows what happens, and returns how the process is to end.
///
/// # Errors
/// What kept it from being started, or from being carried to its verdict.
pub async fn launch(
    mut launch: Launch,
    workspace: &Workspace,
    runs: Runs<AnyStore>,
    global: &Global,
) -> Result<Exit, Fail> {
    let width = launch.targets.iter().map(|target| target.instance.as_str().chars().count()).max().unwrap_or_default();
    let keyring = keys::load_keys(&launch.job, &launch.targets, workspace).await?;
    let secrets = access::resolve_secrets(&launch.job, workspace).await?;
    known_hosts::freeze_authorities(&mut launch.job, &workspace.root)?;
    let access = access::access(&launch.job, keyring, &workspace.root, &runs)?;
    warn_of_unchecked_keys(&launch.job);
    access::raise_open_files();
    let id = match launch.id {
        Some(id) => id,
        None => clock::nonce().map_err(|error| Fail::new(Exit::Unavailable, error.to_string()))?,
    };
    let request = Request {
        job: launch.job,
        script: launch.script,
        origin: launch.origin,
        actor: access::actor(),
        id,
        retry_of: launch.retry_of,
        targets: launch.targets,
    };
    let (id, now) = (request.id.clone(), Clock::System.now());
    let started = start(&runs, request, now).await.map_err(not_started)?;
    if !global.quiet && started.run.started_at == now {
        tell_of_others(&runs, &started.run).await?;
    } else if !global.quiet {
        let (id, run, at) = (quoted(&id), &started.run.run, instant(started.run.started_at));
        notice(&format!("request {id} is run `{run}`, started {at}: what has started does not start again"));
    }
    let gate = Gate::new(started.plan.max_concurrency, started.plan.max_errors);
    let (events, heard) = mpsc::channel(EVENTS);
    let worker = Worker {
        runs: runs.clone(),
        clock: Clock::System,
        events,
        access,
        secrets,
        gate: gate.clone(),
        batch_ended: Arc::new(Notify::new()),
    };
    let options = Options {
        format: global.output,
        group: launch.group,
        quiet: global.quiet,
        width,
        timeout: started.run.job.timeout,
        program: program(global),
        awaited: launch.wait.is_some(),
    };
    let printer = tokio::spawn(print(heard, options, Console::new(global.color), runs.clone()));
    let mut asked = Signals::new()?.count();
    let obeying = obey_interrupts(asked.clone(), gate.clone(), Arc::clone(&started.run), program(global));
    let interrupts = tokio::spawn(obeying);
    let mut posting = None;
    if started.run.job.notify.is_some() {
        enqueue(&runs, &started.run, Notice::started(&started.run), Clock::System.now()).await?;
        let (troubles, heard) = mpsc::channel(TROUBLES);
        posting = Some((Poster::start(runs.clone(), workspace.clone(), troubles), heard));
    }
    let driven = drive(&worker, &started).await;
    interrupts.abort();
    if let Some((mut poster, mut troubles)) = posting {
        let times = asked.times();
        tokio::select! {
            () = poster.finish() => {}
            // Whoever does not want to wait leaves the rest to the next scheduler.
            () = asked.reach(times + 1) => {}
        }
        let mut told = HashSet::new();
        while let Ok(trouble) = troubles.try_recv() {
            if told.insert(trouble.clone()) {
                notice(&format!("{}: {}", trouble.0, trouble.1));
            }
        }
    }
    // The printer ends when nobody is left to tell it anything.
    drop(worker);
    let shown = printer.await.map_err(|error| Fail::new(Exit::Unavailable, format!("the output ended: {error}")))?;
    match driven {
        // What ran is told; what it said is not all there.
        Ok(driven) if matches!(driven.stop, Some(Stop::Store(_))) => Ok(shown.exit.min(Exit::Unavailable)),
        // Where nothing is left to wait for, the one document is still to come.
        Ok(Driven { verdict, .. })
            if let Some(wait) = launch.wait
                && (verdict.is_none() || global.output == Format::Json) =>
        {
            // Whoever has pressed Ctrl-C does not want to wait; once more, nor to see how it stands.
            let times = asked.times();
            let (wait, exit) = if times > 0 { (Duration::ZERO, Exit::Interrupted) } else { (wait.0, shown.exit) };
            tokio::select! {
                shown = wait_for(&runs, &started.run.run, wait, exit, asked.clone(), global) => shown,
                () = asked.reach(times + 2) => Ok(Exit::Interrupted),
            }
        }
        Ok(_) => Ok(shown.exit),
        // Interrupted while another process drives the run: it goes on there.
        Err(WorkError::Fenced) if gate.stopped() == Some(&Stop::Cancelled) => Ok(Exit::Interrupted),
        Err(error) => Err(not_driven(&error, &started.run.run)),
    }
}

/// Waits for detached scripts to end, or for Ctrl-C, then shows how the run stands; `exit` is what it comes to if they
/// run on.
async fn wait_for(
    runs: &Runs<AnyStore>,
    run: &RunId,
    wait: Duration,
    mut exit: Exit,
    mut asked: Asked,
    global: &Global,
) -> Result<Exit, Fail> {
    let times = asked.times();
    if let Some(care) = Care::of(runs, run, global).await? {
        tokio::select! {
            watched = care.watch(Some(Instant::now() + wait)) => drop(watched?),
            () = asked.reach(times + 1) => {
                let program = program(global).unwrap_or_else(|| "sshjob".to_owned());
                notice(&format!("interrupted: run `{run}` goes on; `{program} cancel {run}` ends it"));
                exit = Exit::Interrupted;
            }
        }
    }
    let mut console = Console::new(global.color);
    let view = status::current(runs, run, &mut console).await?;
    if global.output == Format::Ndjson {
        let summary = view.summary();
        let event = if view.verdict.is_some() { EventDocument::run_finished } else { EventDocument::run_released };
        json::line(&mut console, &event(summary));
    } else {
        let shown = status::Args { run: run.to_string(), wait: false };
        let program = status::hinting(global);
        status::show(&shown, global.output, program.as_deref(), runs, &mut console).await?;
        if global.output == Format::Text
            && view.verdict.is_none()
            && exit != Exit::Interrupted
            && let Some(program) = program
        {
            console.err(verdict::hints_of_detached(run, view.record.job.timeout, &program));
        }
    }
    let verdict = view.verdict.as_ref();
    Ok(verdict.map_or(exit, |it| verdict::exit(it.state, it.reason.as_deref(), &it.counts)))
}

/// The first Ctrl-C, or a first SIGTERM, starts no more tasks and ends those that run; the second leaves at once.
async fn obey_interrupts(mut asked: Asked, gate: Gate, run: Arc<RunRecord>, program: Option<String>) {
    asked.reach(1).await;
    gate.end(Stop::Cancelled);
    let (ends, left) = if run.job.mode.is_detached() {
        ("starting no more; what has started goes on", "what has started goes on")
    } else {
        // By their watchdogs, when the connections break; the store says what was not confirmed.
        ("ending what runs", "its hosts end what runs")
    };
    notice(&format!("interrupted: {ends}; press Ctrl-C again to leave at once"));
    tokio::select! {
        () = asked.reach(2) => {}
        () = tokio::time::sleep(END_WITHIN) => {}
    }
    let status = program.map(|program| format!("; `{program} status {}` tells what is known", run.run));
    notice(&format!("left run `{}`: {left}{}", run.run, status.unwrap_or_default()));
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

fn not_started(error: StartError) -> Fail {
    match error {
        StartError::Store(error) => error.into(),
        StartError::Random(error) => Fail::new(Exit::Unavailable, error.to_string()),
        other @ StartError::OtherRequest { .. } => Fail::usage(other.to_string()).hint("give this one another `--id`"),
    }
}

fn not_driven(error: &WorkError, run: &RunId) -> Fail {
    let cause = match error {
        WorkError::Store(error) => std::error::Error::source(&**error).map(|cause| format!(": {cause}")),
        _ => None,
    };
    Fail::new(Exit::Unavailable, format!("run `{run}`: {error}{}", cause.unwrap_or_default()))
        .hint(format!("when that is mended, `sshjob status {run}` settles what is known of it"))
}

/// Warns where `job` trusts whoever answers.
pub fn warn_of_unchecked_keys(job: &Job) {
    if job.login.host_key == HostKeyPolicy::Off {
        notice("warning: host keys are not checked (`host_key: off`); whoever answers is trusted");
    }
}

/// Says which other run of the job is not over: whoever asks for one does not wait for it, and may not know of it.
async fn tell_of_others(runs: &Runs<AnyStore>, run: &RunRecord) -> Result<(), Fail> {
    if run.job.schedule.overlap == Overlap::Allow {
        return Ok(());
    }
    let (job, others) = (&run.job.name, beside(runs, run).await?);
    match others.as_slice() {
        [] => {}
        [other] => notice(&format!("run `{other}` of job `{job}` is not over; this one goes on beside it")),
        [.., other] => notice(&format!(
            "{} runs of job `{job}` are not over, `{other}` the latest; this one goes on beside them",
            others.len()
        )),
    }
    Ok(())
}

/// Says something that is neither a result nor an error.
pub fn notice(text: &str) {
    use std::io::Write as _;
    // Where standard error is gone nobody wants to know.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// How hints call this program: with the project and the store where they are not the usual ones; `None` where there will
/// be none.
pub fn program(global: &Global) -> Option<String> {
    let mut program = "sshjob".to_owned();
    if let Some(project) = &global.project {
        program.extend([" -C ", &word(&project.display().to_string())]);
    }
    if let Some(store) = &global.store {
        program.extend([" --store ", &word(store)]);
    }
    (!global.fleeting).then_some(program)
}

/// `text` as a word of a shell's.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
