//! `sshjob up`: The scheduler on this machine.

use std::path::PathBuf;

use crate::cli::access::raise_open_files;
use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::words::number;
use crate::cli::project::{Workspace, shown};
use crate::cli::store;
use crate::cli::up::book::Book;
use crate::cli::up::scheduler::{Scheduler, Setup};
use crate::cli::up::tell::Teller;
use crate::domain::job::read;
use crate::domain::quantity::Span;

/// Run the project's jobs on their schedules, from this machine
///
/// Prints one line per firing, skip and verdict. Jobs and scripts are read again when they change. Ctrl-C or SIGTERM ends it:
/// attached scripts may end within the grace, detached ones stay, and what has not started is left to the next `sshjob up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fire what is due now, take it to its end, and exit: for cron
    #[arg(long)]
    once: bool,
    /// How long attached scripts may go on when the scheduler is asked to go
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = |text: &str| read::word(text, read::duration))]
    grace: Span,
    /// Where hosts are looked up: `ec2`, or an inventory file [default: the project's]
    #[arg(long, value_name = "ec2|FILE", env = "SSHJOB_INVENTORY")]
    inventory: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// What kept it from being started.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    if global.output == Format::Json && !args.once {
        return Err(Fail::usage("`-o json` writes one document at the end, and `sshjob up` has none")
            .hint("use `-o ndjson`, or `--once`"));
    }
    let workspace = Workspace::open(&global)?;
    let runs = store::open(&global, Some(&workspace)).await?;
    raise_open_files();
    let (book, news) = Book::open(&global, workspace);
    let mut teller = Teller::new(&global)?;
    for wrong in &news.wrong {
        teller.note(wrong);
    }
    if book.workspace().job_paths()?.is_empty() {
        teller.remark(&book.workspace().emptiness());
    }
    if !args.once {
        let jobs = number(book.jobs().scheduled.len(), "scheduled job");
        teller.remark(&format!("up with {jobs} of `{}`", shown(&book.workspace().root)));
    }
    let grace = args.grace.0;
    let scheduler = Scheduler::new(Setup { runs, book, inventory: args.inventory, grace, teller });
    if args.once { scheduler.once().await } else { scheduler.run().await }
}
