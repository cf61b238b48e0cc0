//! `sshjob demo`: Show the whole system on an embedded fleet.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use clap::Parser as _;

use crate::adapter::fleet::{Fleet, FleetError};
use crate::cli::Cli;
use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};
use crate::cli::launch::word;
use crate::cli::signals::Signals;

/// The job that is shown, and its script: the very files of `jobs/` and `scripts/`.
const JOB: &str = include_str!("../../../jobs/hello.yaml");
const SCRIPT: &str = include_str!("../../../scripts/hello.sh");

/// Show the whole system on an embedded fleet
///
/// Starts SSH servers on this machine, with a fresh key and home directories of their own, and runs the job `hello`
/// on those tagged Environment=Dev. One of them fails and one cannot be reached; the demo succeeds when that is what
/// the run reports.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the fleet running until Ctrl-C, to try more commands on it from a second terminal
    #[arg(long)]
    keep: bool,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let stage = Stage::set().await?;
    let quiet = global.quiet;
    say(quiet, &stage.introduction());
    match stage.run_hello(Global { fleeting: !args.keep, ..global }).await? {
        Exit::Failed => {}
        Exit::Success => {
            return Err(Fail::new(
                Exit::Failed,
                "the run reports success, though two of its hosts cannot have succeeded",
            ));
        }
        other => return Ok(other),
    }
    if args.keep {
        say(quiet, &stage.more_commands());
        Signals::new()?.heard().await;
        say(quiet, "the fleet is gone\n");
    } else {
        say(quiet, &closing_words());
    }
    Ok(Exit::Success)
}

/// The fleet and the files that commands need to run on it: its folder is a project's.
struct Stage {
    fleet: Fleet,
}

impl Stage {
    async fn set() -> Result<Self, Fail> {
        let cannot = |error: FleetError| {
            Fail::new(Exit::Unavailable, error.to_string())
                .hint("the demo needs 127.0.0.1 and a directory for temporary files; `TMPDIR` names another one")
        };
        let stage = Self { fleet: Fleet::start().await.map_err(cannot)? };
        stage.write_files().map_err(|error| {
            let root = stage.fleet.root().display();
            Fail::new(Exit::Unavailable, format!("cannot write the demo's files in `{root}`: {error}"))
        })?;
        Ok(stage)
    }

    fn write_files(&self) -> io::Result<()> {
        let root = self.fleet.root();
        std::fs::create_dir(root.join("jobs"))?;
        std::fs::create_dir(root.join("scripts"))?;
        std::fs::write(root.join("jobs/hello.yaml"), JOB)?;
        std::fs::write(root.join("scripts/hello.sh"), SCRIPT)?;
        std::fs::write(root.join("sshjob.yaml"), self.project_yaml())?;
        std::fs::write(root.join("hosts.yaml"), self.fleet.inventory_yaml())
    }

    /// The project file, which leads every command in the folder to the fleet.
    fn project_yaml(&self) -> String {
        let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
        // The demo's hosts have new keys every time: pins in the user's own store would reject the next demo's.
        let (key, store) = (quoted(&self.fleet.key_path()), quoted(&self.fleet.root().join("store")));
        format!("inventory: {{ file: hosts.yaml }}\nkey: {key}\nstore: {store}\n")
    }

    /// Runs the job by the ordinary path: the command line is read and obeyed as if it had been typed.
    async fn run_hello(&self, global: Global) -> Result<Exit, Fail> {
        let root = self.fleet.root();
        // Said once more, for a variable of this name comes before the project: nothing may lead to anybody's real hosts.
        let inventory = root.join("hosts.yaml");
        let line = ["sshjob", "run", "hello", "--inventory"].map(OsString::from);
        let cli = Cli::try_parse_from(line.into_iter().chain([inventory.into()]))
            .map_err(|error| Fail::usage(format!("the demo's own command line is wrong: {error}")))?;
        let store = Some(root.join("store").display().to_string());
        let global = Global { project: Some(root.to_owned()), store, deaf: true, ..global };
        // Boxed, for this is a command that runs a command.
        Box::pin(cli.command.run(global)).await
    }

    fn introduction(&self) -> String {
        let instances = self.fleet.instances();
        let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for instance in &instances {
            let tag = |key| instance.tags.get(key).map_or("", String::as_str);
            groups.entry((tag("Environment"), tag("Role"))).or_default().push(instance.id.as_str());
        }
        let mut text = format!("{} hosts on 127.0.0.1, each with its own SSH server, key and home:\n", instances.len());
        for ((environment, role), hosts) in groups {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {environment:<5} {role:<6} {}", hosts.join(" "));
        }
        text + "Running the job `hello` on Environment=Dev. On web-4 it will fail, cache-2 will not be reached,\n\
                and prod-db-1 will not be touched.\n\n"
    }

    fn more_commands(&self) -> String {
        let (program, root) = (program(), word(&self.fleet.root().display().to_string()));
        let mut text = format!(
            "\nThe fleet goes on until you press Ctrl-C here. Its folder is a project; in a second terminal, try:\n  cd {root}\n"
        );
        let set = variables();
        if !set.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  unset {}", set.join(" "));
        }
        for line in [
            "hosts -t Role=web",
            "run -t Role=web -- hostname",
            "run -t Environment=Prod --dry-run -- hostname",
            "run -d -t Role=web -- 'for n in 1 2 3 4 5; do echo $n; sleep 1; done'",
            "logs last -f",
            "runs",
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {program} {line}");
        }
        text
    }
}

fn closing_words() -> String {
    let program = program();
    format!(
        "\nThat was the demo: one host failed and one was unreachable, as intended. The fleet is gone. Next, try:\n  \
         {program} demo --keep    the same, with a fleet that stays for your own commands\n  \
         {program} init           a project of your own: a job, a script, an inventory\n  \
         {program} run --help     what else a run can do\n"
    )
}

/// How this program was called, so that a suggested command can be copied as it is, into whatever folder.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_else(|| "sshjob".to_owned());
    match std::path::absolute(&called) {
        Ok(path) if called.contains('/') => word(&path.display().to_string()),
        _ => word(&called),
    }
}

/// The variables that are set here and would come before what the demo's project says.
fn variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("SSHJOB_") && *name == word(name)).collect();
    names.sort();
    names
}

/// Tells the person at the terminal; results alone go to standard output.
fn say(quiet: bool, text: &str) {
    if !quiet {
        // A demo without a reader is still a demo.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}
