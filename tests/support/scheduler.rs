//! `sshjob up` in a world: its jobs, its lines as they come, and its end.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually::eventually;
use super::world::World;

/// Writes the job `name` of a world, whose hosts all run `script`; `more` are further lines of its file.
pub(crate) fn write_job(world: &World, name: &str, script: &str, more: &str) {
    let folder = world.path().join("jobs");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "name: {name}\nschedule: \"* * * * *\"\ntargets: {{ tags: {{ Environment: Dev }} }}\n\
         env: {{ WHERE: \"{}\" }}\nrun: |\n  {}\n{more}",
        world.path().display(),
        script.trim_end().replace('\n', "\n  "),
    );
    // As an editor does it: whole or not at all.
    let draft = folder.join(format!(".{name}.draft"));
    fs::write(&draft, text).unwrap();
    fs::rename(draft, folder.join(format!("{name}.yaml"))).unwrap();
}

/// Lines of a stream, as they come.
type Lines = Arc<Mutex<Vec<String>>>;

/// A running scheduler; dropping it kills it.
pub(crate) struct Scheduler {
    child: Child,
    out: Lines,
    err: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts `command`.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (out, first) = collect(child.stdout.take().unwrap());
        let (err, second) = collect(child.stderr.take().unwrap());
        Self { child, out, err, readers: vec![first, second] }
    }

    /// What it has said on standard output so far.
    pub(crate) fn out(&self) -> Vec<String> {
        self.out.lock().unwrap().clone()
    }

    /// What it has said on standard error so far.
    pub(crate) fn err(&self) -> Vec<String> {
        self.err.lock().unwrap().clone()
    }

    /// Waits for a line on standard output that `fits`.
    #[track_caller]
    pub(crate) fn line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        wait(what, &self.out, &self.err, &self.out, fits)
    }

    /// Waits for a line on standard error that `fits`.
    #[track_caller]
    pub(crate) fn complaint(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        wait(what, &self.err, &self.err, &self.out, fits)
    }

    /// Kills it with -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
    }

    /// Asks it to go, with SIGTERM.
    pub(crate) fn ask_to_go(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        status
    }

    /// Asks it to go, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.ask_to_go();
        self.end()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait(what: &str, from: &Lines, err: &Lines, out: &Lines, fits: impl Fn(&str) -> bool) -> String {
    let find = || from.lock().unwrap().iter().find(|line| fits(line)).cloned();
    let all = || format!("{}\n{}", out.lock().unwrap().join("\n"), err.lock().unwrap().join("\n"));
    let mut found = None;
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(what, || {
            found = find();
            found.is_some()
        })
    }));
    assert!(waited.is_ok(), "{what}: not in\n{}", all());
    found.unwrap()
}

fn collect(stream: impl Read + Send + 'static) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let into = Arc::clone(&lines);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
    (lines, reader)
}

/// The run that a line of a scheduler is about.
pub(crate) fn run_of(line: &str) -> String {
    line.split_whitespace().nth(2).unwrap().to_owned()
}

/// What hosts wrote to a file of the world, line by line; nothing where there is none.
pub(crate) fn marks(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits until a script has written its process id to `path`.
#[track_caller]
pub(crate) fn pid_in(path: &PathBuf) -> i32 {
    let mut pid = None;
    eventually(&path.display().to_string(), || {
        pid = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some()
    });
    pid.unwrap()
}

/// Whether a process is there.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
