//! `sshjob run`: Run a job, a command or a script now.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::adapter::store::AnyStore;
use crate::cli::access;
use crate::cli::command::{hosts, logs, push, status};
use crate::cli::context::{Format, Global};
use crate::cli::dry_run;
use crate::cli::exit::{Exit, Fail};
use crate::cli::flags::{Execution, Login};
use crate::cli::launch::{Launch, launch, notice};
use crate::cli::output::console::Console;
use crate::cli::output::lines::clean;
use crate::cli::output::verdict;
use crate::cli::output::words::number;
use crate::cli::pair::{Pair, hasten};
use crate::cli::project::{Workspace, refuse};
use crate::cli::select::Select;
use crate::cli::store;
use crate::domain::delivery::MAX_ARGUMENT;
use crate::domain::id::RunId;
use crate::domain::job::file::JobFile;
use crate::domain::job::resolve::Overrides;
use crate::domain::job::settings::Settled;
use crate::domain::job::{Job, Source, Sudo, read};
use crate::domain::quantity::Span;
use crate::domain::run::RunState;
use crate::domain::selector::TagFilter;
use crate::engine::clock::nonce;
use crate::engine::records::Runs;
use crate::engine::worker::pack;

/// Run a job, a command or a script now
///
/// `sshjob run JOB` runs a job of the project. `sshjob run -t Environment=Dev -- COMMAND` runs a command: one word is a
/// line for the host's /bin/sh, several are a program and its arguments, exactly as given. `--script FILE` runs a file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job to run
    #[arg(conflicts_with = "script")]
    job: Option<String>,
    /// Run this file
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    login: Login,
    #[command(flatten)]
    execution: Execution,
    /// Run from here (direct), or by the functions on AWS (lambda)
    #[arg(long, value_enum, default_value_t)]
    via: Via,
    /// How long to wait for a detached run to end
    #[arg(long, value_name = "DURATION")]
    wait: Option<Span>,
    /// Show what would be run, where, and how each host would be trusted; connect to nothing
    #[arg(long)]
    dry_run: bool,
    /// List the hosts and stop
    #[arg(long)]
    list_hosts: bool,
    /// Show identical output once, under the list of its hosts
    #[arg(long)]
    group: bool,
    /// Name this request: the same name again is the same run, not a second one
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    id: Option<String>,
    /// The command and its arguments; with --script, the script's
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Who connects to the hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// This machine.
    #[default]
    Direct,
    /// The functions on AWS.
    Lambda,
}

/// Does it.
///
/// # Errors
/// What kept it from being started, or from being carried to its verdict.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    if args.via == Via::Lambda {
        return Box::pin(args.by_functions(&workspace, &global)).await;
    }
    if args.list_hosts && args.job.is_none() && args.script.is_none() && args.command.is_empty() {
        let (targets, settled) = args.select.targets(&workspace)?;
        let instances = args.select.find(&workspace, &targets, &settled).await?;
        return hosts::show(&instances, targets.address, &global);
    }
    let (job, settled) = args.job(&workspace, global.quiet)?;
    let (script, origin) = (workspace.script_of(&job).map_err(Fail::usage)?, job.source.origin());
    access::refuse_what_is_not_built(&job)?;
    if args.wait.is_some() && !job.mode.is_detached() {
        return Err(Fail::usage("`--wait` says how long to wait for a detached run, and this one is attached")
            .hint("add `-d` to run it detached, or leave out `--wait`: an attached run is waited for"));
    }
    // Refused here what no host could run: nothing has been started, and nothing is half done.
    let packed = pack(&job, &script.clone().into());
    packed.map_err(|error| Fail::usage(format!("job `{}`: {error}", job.name)))?;
    let instances = args.select.find(&workspace, &job.targets, &settled).await?;
    if args.list_hosts {
        return hosts::show(&instances, job.targets.address, &global);
    }
    let targets = args.select.reach(&job, &settled, instances)?;
    let runs = store::open(&global, Some(&workspace)).await?;
    if args.dry_run {
        return dry_run::show(&job, &script, &origin, targets, &workspace.root, &runs, &global).await;
    }
    if targets.is_empty() {
        // Only `--allow-empty` comes here.
        notice("nothing matched, so nothing was run");
        return Ok(Exit::Success);
    }
    let Args { id, group, wait, .. } = args;
    let launched = Launch { job, script, origin, targets, id, retry_of: None, group, wait };
    launch(launched, &workspace, runs, &global).await
}

impl Args {
    /// Asks the functions for a run of a job that was pushed, and follows it.
    async fn by_functions(self, workspace: &Workspace, global: &Global) -> Result<Exit, Fail> {
        let unnamed = || {
            Fail::usage("no functions are named, so there is none to run by")
                .hint("write `functions: { trigger: NAME, worker: NAME }` into sshjob.yaml, and `sshjob push`")
        };
        let pair = Pair::of(workspace).ok_or_else(unnamed)?;
        let Some(job) = &self.job else {
            return Err(Fail::usage("the functions run jobs that were pushed, and none is named")
                .hint("`sshjob run JOB --via lambda`; a command or a file runs from here, without `--via`"));
        };
        let mut said = Overrides {
            settings: self.login.settings().over(self.execution.settings()),
            env: self.execution.env.iter().cloned().collect(),
            ..Overrides::default()
        };
        self.select.add_to(&mut said)?;
        let tags = event_tags(&std::mem::take(&mut said.tags))?;
        if said != Overrides::default() || !self.command.is_empty() || self.dry_run || self.list_hosts || self.group {
            return Err(Fail::usage(
                "the functions run a job as it was pushed; with `--via lambda` only `-t` and `--id` say more",
            )
            .hint("write it into the job and `sshjob push`, or run it from here, without `--via`"));
        }
        let runs = store::open(global, Some(workspace)).await?;
        if let Ok(files) = push::collect(workspace) {
            let changes = push::compare(&runs, &files).await?;
            let others = changes.iter().filter(|(_, change, _)| *change != push::Change::Same).count();
            if others > 0 {
                notice(&format!(
                    "warning: {} here and in the store differ; the functions go by the store: `sshjob push`",
                    number(others, "file")
                ));
            }
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None => nonce().map_err(|error| Fail::new(Exit::Unavailable, error.to_string()))?,
        };
        let run = pair.start(job, &id, &tags).await?;
        follow(&run, self.wait, &runs, global).await
    }

    /// The job, complete: named, or made of the command line; and where its settings came from.
    fn job(&self, workspace: &Workspace, quiet: bool) -> Result<(Job, Settled), Fail> {
        let mut request = Overrides {
            settings: self.login.settings().over(self.execution.settings()),
            env: self.execution.env.iter().cloned().collect::<BTreeMap<_, _>>(),
            ..Overrides::default()
        };
        self.select.add_to(&mut request)?;
        let file = match (&self.job, &self.script) {
            (Some(word), _) if !self.command.is_empty() => {
                if let Some(hint) = hint_at_equals(self.execution.sudo.as_ref(), word) {
                    return Err(Fail::usage("a job and a command are given; only one can be run").hint(hint));
                }
                return Err(Fail::usage("a job and a command are given; only one can be run")
                    .hint("leave out the job to run the command: `sshjob run -t KEY=VALUE -- COMMAND`"));
            }
            (Some(name), _) => workspace.job(name).map_err(|fail| self.hint_at_dashes(fail))?,
            (None, Some(script)) => {
                request.args = Some(self.command.clone());
                let path = std::path::absolute(script).unwrap_or_else(|_| script.clone());
                let file = ad_hoc(Source::Script(path.clone()))?;
                let bytes = workspace.read_script(&path).map_err(|error| {
                    Fail::usage(format!("cannot read the script `{}`: {error}", script.display()))
                        .hint("`--script` names a file as seen from the working directory")
                })?;
                file.check_script(|_| Ok(bytes)).map_err(|wrong| refuse(vec![wrong]))?;
                file
            }
            (None, None) => match self.command.as_slice() {
                [] => {
                    return Err(Fail::usage("nothing to run: no job, no command and no script is given").hint(
                        "`sshjob run JOB`, `sshjob run -t KEY=VALUE -- COMMAND` or `sshjob run -t KEY=VALUE --script FILE`",
                    ));
                }
                // One word is a line for a shell, as with ssh; several are exact.
                [line] => ad_hoc(shell_line(line))?,
                words => {
                    if !quiet {
                        hint_at_shell_words(words);
                        hint_at_our_flags(words);
                    }
                    ad_hoc(Source::Command(words.to_vec()))?
                }
            },
        };
        let layers = workspace.layers(request);
        let settled = layers.settle(&file.settings);
        let mut job = layers.resolve(file).map_err(refuse)?;
        if self.job.is_none() {
            // Who runs a command by hand is there to see how it ends.
            job.notify = None;
        }
        Ok((job, settled))
    }

    /// Who selects hosts and names a job that is none most likely meant a command.
    fn hint_at_dashes(&self, fail: Fail) -> Fail {
        match (&fail.hint, &self.job) {
            (Some(hint), Some(word)) if self.select.names_hosts() => {
                let hint = format!("{hint}; to run a command, put `--` before it: `-- {}`", clean(word));
                let equals = hint_at_equals(self.execution.sudo.as_ref(), word);
                fail.hint(hint + &equals.map(|equals| format!("; {equals}")).unwrap_or_default())
            }
            _ => fail,
        }
    }
}

/// What runs a line as a shell does that is given it. As a program with arguments it costs a host half as much as a
/// script does, where it can be one.
fn shell_line(line: &str) -> Source {
    if line.is_empty() || line.starts_with(['-', '+']) || line.starts_with("#!") || line.len() > MAX_ARGUMENT {
        return Source::Run(line.to_owned());
    }
    Source::Command(["/bin/sh", "-c", line].map(str::to_owned).into())
}

/// Shows what comes of a run that the functions carry: all of it, or of a detached one how it stands after `wait`.
///
/// # Errors
/// Where the store does not answer.
pub async fn follow(run: &RunId, wait: Option<Span>, runs: &Runs<AnyStore>, global: &Global) -> Result<Exit, Fail> {
    if !global.quiet {
        notice(&format!("{run} is carried out by the functions"));
    }
    let record = runs.run(run).await?;
    let detached = record.as_ref().is_some_and(|record| record.job.mode.is_detached());
    let mut console = Console::new(global.color);
    let program = status::hinting(global);
    let mut status = status::Args { run: run.to_string(), wait: !detached || wait.is_some() };
    let shown = async {
        if global.output == Format::Text && !detached {
            let args = logs::Args { run: run.to_string(), follow: true, ..logs::Args::default() };
            // Where output is missing it is told, and how the run ended all the same.
            if let Err(fail) = logs::show(&args, global.output, runs, &mut console).await {
                console.err(fail.told());
            }
        }
        let view = status::current(runs, run, &mut console).await?;
        let summary = view.summary();
        if global.output == Format::Text && summary.state == RunState::Succeeded {
            console.err(verdict::line(&summary, console.err_color()));
            return Ok(Exit::Success);
        }
        status::show(&status, global.output, program.as_deref(), runs, &mut console).await
    };
    let shown = hasten(record.as_ref(), global, shown);
    let Some(wait) = wait else { return shown.await };
    if let Ok(shown) = tokio::time::timeout(wait.0, shown).await {
        return shown;
    }
    status.wait = false;
    status::show(&status, global.output, program.as_deref(), runs, &mut console).await
}

/// The filters as an event says them: the values of each tag, joined by commas, those that must not match after a `!`.
fn event_tags(filters: &[TagFilter]) -> Result<BTreeMap<String, String>, Fail> {
    let mut tags = BTreeMap::new();
    for filter in filters {
        let values = filter.any_of.iter().cloned().chain(filter.none_of.iter().map(|value| format!("!{value}")));
        let values: Vec<String> = values.collect();
        let is_clear = values.iter().all(|value| !value.contains(','));
        if !is_clear || tags.insert(filter.key.clone(), values.join(",")).is_some() {
            return Err(Fail::usage(format!("`-t {filter}` cannot be sent to the functions"))
                .hint("each tag once, its values without commas; or write it into the job and `sshjob push`"));
        }
    }
    Ok(tags)
}

/// What to write where a word after a bare `--sudo` was most likely meant for it.
pub fn hint_at_equals(sudo: Option<&Sudo>, word: &str) -> Option<String> {
    let is_user = read::word(word, read::sudo).is_ok();
    (sudo == Some(&Sudo::Root) && is_user).then(|| format!("to become that user, write `--sudo={}`", clean(word)))
}

/// Flags of ours that few other programs have.
const OUR_FLAGS: [&str; 6] =
    ["--dry-run", "--list-hosts", "--store", "--inventory", "--max-errors", "--max-concurrency"];

/// What stands after `--` is the command's, also where it looks like a flag of ours: say so, for the command runs.
fn hint_at_our_flags(words: &[String]) {
    if let [program, words @ ..] = words
        && let Some(flag) = words.iter().find(|word| OUR_FLAGS.contains(&word.as_str()))
    {
        notice(&format!("`{flag}` stands after `--`, so it goes to `{}`, not to sshjob", clean(program)));
    }
}

/// Operators mean nothing where a program gets its arguments exactly: say so before it surprises.
fn hint_at_shell_words(words: &[String]) {
    const OPERATORS: [&str; 8] = ["|", "||", "&&", ";", "&", ">", ">>", "<"];
    if let Some(operator) = words.iter().find(|word| OPERATORS.contains(&word.as_str())) {
        notice(&format!(
            "`{operator}` reaches `{}` as an argument; give the whole line as one word to have a shell read it",
            words.first().map_or("", String::as_str),
        ));
    }
}

fn ad_hoc(source: Source) -> Result<JobFile, Fail> {
    let name = "adhoc".parse().map_err(|error| Fail::usage(format!("{error}")))?;
    Ok(JobFile::ad_hoc(name, source))
}
