//! `sshjob init`: Create a project skeleton.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::context::Global;
use crate::cli::exit::{Exit, Fail};
use crate::cli::output::report::report;
use crate::cli::project::{PROJECT_FILE, shown};
use crate::domain::job::schema;

/// The files of a new project; those in `scripts/` are executable.
const FILES: [(&str, &str); 4] = [
    (PROJECT_FILE, include_str!("init/sshjob.yaml")),
    ("hosts.yaml", include_str!("init/hosts.yaml")),
    ("jobs/hello.yaml", include_str!("../../../jobs/hello.yaml")),
    ("scripts/hello.sh", include_str!("../../../scripts/hello.sh")),
];

/// The schema that the job files name in their first line.
const SCHEMA_FILE: &str = "jobs/schema.json";

/// Create a project skeleton
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The project's folder [default: the working directory]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Creates what is not there yet; what is there stays as it is.
///
/// # Errors
/// That a file cannot be written.
#[expect(clippy::unused_async, reason = "every command is awaited")]
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let folder = args.folder.or_else(|| global.project.clone()).unwrap_or_else(|| PathBuf::from("."));
    let schema = format!("{:#}\n", schema::job_file());
    let mut told = String::new();
    for (name, text) in FILES.into_iter().chain([(SCHEMA_FILE, schema.as_str())]) {
        let path = folder.join(name);
        let done = if create(&path, text)? { "created" } else { "kept   " };
        told.extend([done, " ", &shown(&path), "\n"]);
    }
    let cd = if folder == Path::new(".") { String::new() } else { format!("cd {} && ", shown(&folder)) };
    told.extend(["\nName your machines in hosts.yaml, then try: ", &cd, "sshjob run hello\n"]);
    Ok(if global.quiet { Exit::Success } else { report(&told, &global) })
}

/// Creates a file and the folders above it; `false` where there is something already.
fn create(path: &Path, text: &str) -> Result<bool, Fail> {
    let failed = |error: io::Error| Fail::usage(format!("cannot create `{}`: {error}", shown(path)));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    if text.starts_with("#!") {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o777);
    }
    match options.open(path).and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}
