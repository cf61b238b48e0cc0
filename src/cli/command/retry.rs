//! `sshjob retry`: Run a run's script again.

use crate::adapter::store::AnyStore;
use crate::cli::access;
use crate::cli::command::run::follow;
use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};
use crate::cli::flags::Login;
use crate::cli::launch::{Launch, launch, notice};
use crate::cli::pair::Pair;
use crate::cli::project::Workspace;
use crate::cli::store;
use crate::domain::id::RunId;
use crate::domain::job::HostKeyPolicy;
use crate::domain::layout;
use crate::domain::run::{Again, Carrier};
use crate::domain::task::TaskState;
use crate::engine::clock::{Clock, nonce};
use crate::engine::history::{self, RunView};
use crate::engine::reconcile::{Settled, reconcile};
use crate::engine::records::{Runs, damaged};
use crate::port::Store as _;

/// Run a run's script again, on the hosts it ran on
///
/// A retry is a new run that names the old one and runs the same bytes, whatever has become of the file since. It goes
/// where the old run went: to every host, or with --failed to those that did not succeed and are certainly over. A
/// task that is lost may have run: without --lost, which says that you looked and want it run again with those that did not
/// succeed, no host of such a run is retried but by --failed. It logs in as the old run did, but for
/// what `-u`, `-i` and the others under Login say, which holds for every host, whatever its own user, key, port or way was.
/// What the functions on AWS ran they run again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning of it, or `last`
    run: String,
    /// Only the hosts that did not succeed; those that are lost only with --lost
    #[arg(long)]
    failed: bool,
    /// The hosts whose outcome is unknown, too
    #[arg(long)]
    lost: bool,
    #[command(flatten)]
    login: Login,
    /// Show identical output once, under the list of its hosts
    #[arg(long)]
    group: bool,
    /// Name this request: the same name again is the same run, not a second one
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    id: Option<String>,
}

/// Does it.
///
/// # Errors
/// What kept it from being started, or from being carried to its verdict.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let workspace = Workspace::open(&global)?;
    let runs = store::open(&global, Some(&workspace)).await?;
    let id = store::find(&runs, &args.run).await?;
    let gone = || Fail::usage(format!("run `{id}` was never claimed, so there is nothing to run again"));
    let record = runs.run(&id).await?.ok_or_else(gone)?;
    let settled = reconcile(&runs, &record, Clock::System.now()).await;
    match settled.map_err(|error| Fail::new(Exit::Unavailable, error.to_string()))? {
        Settled::Finished(_) => {}
        Settled::Driven | Settled::Detached => {
            return Err(Fail::usage(format!("run `{id}` is still running"))
                .hint(format!("`sshjob status {id} --wait` waits for its end")));
        }
    }
    let view = history::load(&runs, &id).await?.ok_or_else(gone)?;
    let lost = view.counts().of(TaskState::Lost);
    if args.again() == Again::All && lost > 0 {
        let why = format!("run `{id}` has {lost} lost, which may have run, or run still");
        return Err(Fail::new(Exit::Lost, why).hint(
            "`--failed` leaves them out; look at the hosts, then `--lost` runs them again, too, with what did not succeed",
        ));
    }
    let mut targets = view.targets(args.again());
    if targets.is_empty() {
        notice(&nothing_to_do(&view));
        let is_unknown = view.counts().of(TaskState::Lost) > 0;
        return Ok(if is_unknown { Exit::Lost } else { Exit::Success });
    }
    if record.carrier == Carrier::Functions
        && let Some(pair) = Pair::of(&workspace)
    {
        // Its key may be one that nobody but the worker reads.
        return args.by_functions(&pair, &id, &runs, &global).await;
    }
    let key = layout::blob(&record.script.sha256);
    let script = runs.store().get(&key).await?.ok_or_else(|| damaged(&key, "it does not exist"))?.bytes;
    let mut job = record.job;
    args.login.change(&mut job, &mut targets);
    if !args.login.host_ca.is_empty() && job.login.host_key != HostKeyPolicy::Ca {
        let why = "`--host-ca` names authorities, and this run's `host_key` is not `ca`: nobody would ask them";
        return Err(Fail::usage(why).hint("add `--host-key ca`"));
    }
    access::refuse_what_is_not_built(&job)?;
    let launched = Launch {
        job,
        script,
        origin: record.script.origin,
        targets,
        id: args.id,
        retry_of: Some(id),
        group: args.group,
        wait: None,
    };
    launch(launched, &workspace, runs, &global).await
}

impl Args {
    const fn again(&self) -> Again {
        match (self.lost, self.failed) {
            (true, _) => Again::Lost,
            (false, true) => Again::Failed,
            (false, false) => Again::All,
        }
    }

    /// Has the functions run it again, as they ran it, and follows that.
    async fn by_functions(
        &self,
        pair: &Pair,
        run: &RunId,
        runs: &Runs<AnyStore>,
        global: &Global,
    ) -> Result<Exit, Fail> {
        if self.login != Login::default() {
            return Err(Fail::usage(format!("run `{run}` was carried out by the functions, and so is its retry"))
                .hint("leave out `-u`, `-i` and the others under Login: the functions log in as the job says"));
        }
        if self.group {
            return Err(Fail::usage(format!("run `{run}` was carried out by the functions, and so is its retry"))
                .hint("leave out `--group`: output is shown as it comes"));
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None => nonce().map_err(|error| Fail::new(Exit::Unavailable, error.to_string()))?,
        };
        let again = pair.retry(run, &id, self.again()).await?;
        follow(&again, None, runs, global).await
    }
}

fn nothing_to_do(view: &RunView) -> String {
    let run = &view.record.run;
    match view.counts().of(TaskState::Lost) {
        _ if view.tasks.is_empty() => format!("run `{run}` was never planned: there are no hosts to run it on again"),
        0 => format!("run `{run}` has nothing to run again: every task succeeded"),
        lost => format!(
            "run `{run}` has nothing that is certainly over and did not succeed; {lost} lost, which may have run: look \
             at the hosts, then add `--lost`"
        ),
    }
}
