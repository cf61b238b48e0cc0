//! `sshjob cancel`: End a run.

use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::store::AnyStore;
use crate::cli::access::actor;
use crate::cli::command::status;
use crate::cli::context::Global;
use crate::cli::detached::Care;
use crate::cli::exit::{Exit, Fail};
use crate::cli::launch::notice;
use crate::cli::output::console::Console;
use crate::cli::pair::hasten;
use crate::cli::store;
use crate::domain::run::{Carrier, RunRecord};
use crate::engine::control;
use crate::engine::records::Runs;

/// How long to wait for the end: whoever drives the run looks every 5 s, and a script gets 10 s between TERM and KILL.
const WITHIN: Duration = Duration::from_secs(30);

/// The same of a run that functions carry: its workers have to be told by the trigger, whose tick comes once a minute.
const WITHIN_FUNCTIONS: Duration = Duration::from_mins(3);

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// End a run: no more tasks are started, and those that run get TERM and, 10 s later, KILL
///
/// Waits until the run has ended, and shows it as `sshjob status` does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning of it, or `last`
    run: String,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let runs = store::open_here(&global).await?;
    let run = store::find(&runs, &args.run).await?;
    let mut console = Console::new(global.color);
    // What a dead process left behind is settled first: there may be nothing left to end.
    let view = status::current(&runs, &run, &mut console).await?;
    if let Some(verdict) = &view.verdict {
        notice(&format!("run `{run}` is over already: {}", verdict.state.as_str()));
    } else {
        control::cancel(&runs, &run, &actor()).await?;
        let record = Some(&view.record);
        hasten(record, &global, wait_for_end(&runs, &view.record, &global, &mut console)).await?;
    }
    let shown = status::Args { run: run.to_string(), wait: false };
    status::show(&shown, global.output, None, &runs, &mut console).await?;
    Ok(Exit::Success)
}

async fn wait_for_end(
    runs: &Runs<AnyStore>,
    record: &RunRecord,
    global: &Global,
    console: &mut Console,
) -> Result<(), Fail> {
    let run = &record.run;
    let mut care = Care::of(runs, run, global).await?;
    let within = if record.carrier == Carrier::Functions { WITHIN_FUNCTIONS } else { WITHIN };
    let deadline = Instant::now() + within;
    while status::current(runs, run, console).await?.verdict.is_none() {
        // Again and again: a driver that has not heard of it yet may have started more.
        if let Some(care) = &mut care
            && !care.end().await?.troubles.is_empty()
        {
            return Err(Fail::new(Exit::Unavailable, format!("run `{run}`: not every host was told to end its task"))
                .hint(format!(
                    "`sshjob cancel {run}` tries again where it was not; where nobody answers until ten minutes after the \
                     task's `timeout` either, it is lost, and the run ends"
                )));
        }
        if Instant::now() >= deadline {
            return Err(Fail::new(
                Exit::Unavailable,
                format!("run `{run}` has not ended within {}s", within.as_secs()),
            )
            .hint(format!("the process that drives it was told; `sshjob status {run} --wait` waits on")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
