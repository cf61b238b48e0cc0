//! A job file: every key checked, every default still open.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::settings::{Settings, Settled};
use super::{Event, Mode, RetryOn, SecretRef, Source, read};
use crate::domain::decode::{At, Fields, Spanned};
use crate::domain::diagnostic::{Diagnostic, Faults, Place, quoted};
use crate::domain::id::JobName;
use crate::domain::quantity::{Amount, Span};
use crate::domain::schedule::blackout::Blackout;
use crate::domain::schedule::{Expression, InvalidSchedule};
use crate::domain::script::{InvalidScript, interpreter};
use crate::domain::selector::{Host, TagFilter};
use crate::domain::yaml::{self, Value};

/// The longest time that an attached task may take in a worker function: its fifteen minutes less one to report.
///
/// Source: Lambda quotas, function timeout.
pub const WORKER_TIMEOUT: Span = Span(Duration::from_mins(14));

/// The most schedule expressions: an expression that never fires takes a walk through four centuries to tell.
const MAX_EXPRESSIONS: usize = 50;

/// A job as its file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFile {
    /// The file, as diagnostics name it; empty for a job without one.
    pub file: String,
    /// Identifies the job: the key `name`, or the file's stem.
    pub name: JobName,
    /// One line for people.
    pub description: Option<String>,
    /// Schedule expressions; none means on demand only.
    pub schedule: Vec<Spanned<String>>,
    /// Whether firings are suspended.
    pub paused: bool,
    /// Local date(-time) ranges without firings, as written.
    pub blackout: Vec<String>,
    /// Events that also fire the job.
    pub on: Vec<Event>,
    /// What chooses its instances.
    pub targets: TargetsFile,
    /// What it runs, and where that is said.
    pub source: Spanned<Source>,
    /// Arguments of the script.
    pub args: Vec<String>,
    /// Configuration that the script sees in its environment.
    pub env: BTreeMap<String, String>,
    /// Where the secrets are that the script sees in its environment.
    pub secrets: BTreeMap<String, SecretRef>,
    /// What flags, environment and project may say too.
    pub settings: Settings,
}

/// What chooses instances, as a job file tells it under `targets`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetsFile {
    /// Filters on tags.
    pub tags: Vec<TagFilter>,
    /// Hosts named one by one.
    pub hosts: Vec<Host>,
    /// Ids, addresses or `Name` globs that are left out.
    pub exclude: Vec<String>,
    /// At most this many or this share of the matches.
    pub limit: Option<Amount>,
}

impl JobFile {
    /// Reads the text of a job file. `file` is its name for people, `stem` the name that the job has if it gives none.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(text: &str, file: &str, stem: &str) -> Result<Self, Vec<Diagnostic>> {
        let faults = Faults::of(file);
        let mut subject = stem.parse::<JobName>().map(|name| format!("job `{name}`: ")).unwrap_or_default();
        let job = yaml::load(text, yaml::MAX_FILE_BYTES, &faults).and_then(|node| {
            let mut fields = At::root(&node, &faults).fields("a map of a job's keys")?;
            let name = read_name(&mut fields, stem);
            if let Some(name) = &name {
                subject = format!("job `{name}`: ");
            }
            let job = read_job(&mut fields, name, file);
            fields.finish();
            job
        });
        faults.settle(&subject, job)
    }

    /// A job without a file, which runs `source` on what flags select.
    pub fn ad_hoc(name: JobName, source: Source) -> Self {
        Self {
            file: String::new(),
            name,
            description: None,
            schedule: Vec::new(),
            paused: false,
            blackout: Vec::new(),
            on: Vec::new(),
            targets: TargetsFile::default(),
            source: Spanned { value: source, place: Place::START },
            args: Vec::new(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            settings: Settings::default(),
        }
    }

    /// Checks the script that the job names; `load` reads a file of the project.
    ///
    /// # Errors
    /// That it cannot be read, or could not run as its author meant it.
    pub fn check_script(&self, load: impl FnOnce(&Path) -> Result<Vec<u8>, String>) -> Result<(), Diagnostic> {
        let Source::Script(path) = &self.source.value else { return Ok(()) };
        let shown = path.display();
        let (message, hint) = match load(path).map(|bytes| interpreter(&bytes)) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => (format!("`{shown}`: {error}"), script_hint(&error, &format!("`{shown}`"))),
            Err(error) => {
                let hint = "the path is relative to the folder that holds `jobs/`".to_owned();
                (format!("cannot read the script `{shown}`: {error}"), Some(hint))
            }
        };
        Err(self.diagnostic(self.source.place, &message, hint))
    }

    /// Checks that a scheduled job fits into a worker function; `settled` is what its settings come to.
    ///
    /// Only what a function runs has that bound: jobs without a schedule run from the command line, which waits.
    ///
    /// # Errors
    /// That it could not end in time.
    pub fn check_worker(&self, settled: &Settled) -> Result<(), Diagnostic> {
        let timeout = &settled.timeout;
        if self.schedule.is_empty() || settled.mode.value != Mode::Attached || timeout.value <= WORKER_TIMEOUT {
            return Ok(());
        }
        let message =
            format!("job `{}`: attached timeout `{}` exceeds the worker's {WORKER_TIMEOUT}", self.name, timeout.value);
        Err(timeout.diagnostic(message, Some("set `mode: detached`")))
    }

    /// Checks that a detached job asks for no attempt after a script that has ended; `settled` is what its settings come to.
    ///
    /// By then whoever has its secrets and may start it is gone, and who sees the end may do neither. What a project says
    /// of all jobs is not meant for a command that has no file.
    ///
    /// # Errors
    /// That it does.
    pub fn check_retries(&self, settled: &Settled) -> Result<(), Diagnostic> {
        if !settled.mode.value.is_detached() || settled.attempts.value < 2 || self.file.is_empty() {
            return Ok(());
        }
        let on = &settled.retry_on;
        let Some(end) = on.value.iter().find(|on| **on != RetryOn::Unreachable) else { return Ok(()) };
        let message = format!(
            "job `{}`: `retries.on`: after `{}` a detached script is not tried again, but only after `unreachable`",
            self.name,
            end.as_str()
        );
        Err(on.diagnostic(message, Some("set `on: [unreachable]`, or `mode: attached`")))
    }

    fn diagnostic(&self, place: Place, message: &str, hint: Option<String>) -> Diagnostic {
        let file = Some(self.file.clone()).filter(|file| !file.is_empty());
        let place = file.as_ref().map(|_| place);
        Diagnostic { file, place, message: format!("job `{}`: {message}", self.name), hint }
    }
}

fn read_name(fields: &mut Fields<'_>, stem: &str) -> Option<JobName> {
    if fields.has("name") {
        return fields.get("name", |at| at.convert("a job's name")).map(|name| name.value);
    }
    // Known all the same, for hints on misspelt keys.
    fields.get("name", |_| None::<()>);
    match stem.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            fields.fault(Place::START, error, Some("rename the file, or give the job a `name`"));
            None
        }
    }
}

/// Reads everything but the name; every key is read, so that every error is found.
fn read_job(fields: &mut Fields<'_>, name: Option<JobName>, file: &str) -> Option<JobFile> {
    let description = fields.get("description", |at| at.text("a line of text").map(str::to_owned));
    let schedule = fields.get("schedule", read_schedule);
    let paused = fields.get("paused", At::flag);
    let blackout = fields.get("blackout", |at| at.one_or_many(read_blackout));
    let on = fields.get("on", |at| at.one_or_many(At::choice));
    let mut reach = Settings::default();
    let targets = fields.need("targets", "say on what it runs, as `targets: { tags: { Environment: Dev } }`", |at| {
        read_targets(at, &mut reach, file)
    });
    let script = fields.get("script", read_script);
    let run = fields.get("run", read_run);
    let source = match (fields.has("script"), fields.has("run")) {
        (true, true) => {
            let place = script.as_ref().map_or(fields.place(), |script| script.place);
            fields.fault(place, "`script` and `run` exclude each other", Some("keep one of them"));
            None
        }
        (false, false) => {
            let hint = "add `script: scripts/….sh`, or `run: |` with the text of a script";
            fields.fault(fields.place(), "nothing to run: neither `script` nor `run` is given", Some(hint));
            None
        }
        _ => script.or(run),
    };
    let args = fields.get("args", read::args);
    let env = fields.get("env", read::env);
    let secrets = fields.get("secrets", read::secrets);
    let env = env.map(|env| env.value).unwrap_or_default();
    if let Some(secrets) = &secrets {
        for name in secrets.value.keys().filter(|name| env.contains_key(*name)) {
            let message = format!("`{name}` stands both in `env` and in `secrets`");
            fields.fault(secrets.place, message, Some("keep one of them"));
        }
    }
    let settings = Settings::read(fields, file).over(reach);
    Some(JobFile {
        file: file.to_owned(),
        name: name?,
        description: description.map(|description| description.value),
        schedule: schedule.map(|schedule| schedule.value).unwrap_or_default(),
        paused: paused.is_some_and(|paused| paused.value),
        blackout: blackout.map(|blackout| blackout.value).unwrap_or_default(),
        on: on.map(|on| on.value).unwrap_or_default(),
        targets: targets?.value,
        source: source?,
        args: args.map(|args| args.value).unwrap_or_default(),
        env,
        secrets: secrets.map(|secrets| secrets.value).unwrap_or_default(),
        settings,
    })
}

fn read_schedule(at: &At<'_>) -> Option<Vec<Spanned<String>>> {
    if matches!(at.value(), Value::List(items) if items.len() > MAX_EXPRESSIONS) {
        return at.fault(format_args!("a job has at most {MAX_EXPRESSIONS} schedule expressions"));
    }
    at.one_or_many(|at| {
        let text = at.text("a schedule such as `\"*/15 * * * *\"`")?;
        match text.parse::<Expression>() {
            Ok(_) => Some(Spanned { value: text.to_owned(), place: at.place() }),
            Err(error) => refuse(at, &error),
        }
    })
}

fn refuse<T>(at: &At<'_>, error: &InvalidSchedule) -> Option<T> {
    match error.hint() {
        Some(hint) => at.fault_with_hint(error, hint),
        None => at.fault(error),
    }
}

/// Reads a range of local dates, both included, or of local times.
fn read_blackout(at: &At<'_>) -> Option<String> {
    let text = at.text("a range such as `2026-12-24/2026-12-26`")?;
    match text.parse::<Blackout>() {
        Ok(_) => Some(text.to_owned()),
        Err(error) => refuse(at, &error),
    }
}

fn read_targets(at: &At<'_>, reach: &mut Settings, file: &str) -> Option<TargetsFile> {
    let mut fields = at.fields("a map such as `{ tags: { Environment: Dev } }`")?;
    let tags = fields.get("tags", read::tags);
    let hosts = fields.get("hosts", read::hosts);
    let exclude = fields.get("exclude", |at| at.one_or_many(read_exclusion));
    let limit = fields.get("limit", read::positive_amount);
    reach.read_reach(&mut fields, file);
    let (has_tags, has_hosts) = (fields.has("tags"), fields.has("hosts"));
    if has_tags && has_hosts {
        fields.fault(fields.place(), "`tags` and `hosts` exclude each other", Some("keep one of them"));
    }
    if !has_tags && !has_hosts {
        fields.fault(fields.place(), "nothing is selected", Some(read::NEVER_ALL));
    }
    fields.finish();
    Some(TargetsFile {
        tags: tags.map(|tags| tags.value).unwrap_or_default(),
        hosts: hosts.map(|hosts| hosts.value).unwrap_or_default(),
        exclude: exclude.map(|exclude| exclude.value).unwrap_or_default(),
        limit: limit.map(|limit| limit.value),
    })
}

fn read_exclusion(at: &At<'_>) -> Option<String> {
    match at.text("an id, an address or a `Name` glob")? {
        "" => at.fault("an exclusion cannot be empty"),
        text => Some(text.to_owned()),
    }
}

fn read_script(at: &At<'_>) -> Option<Source> {
    let text = at.text("the path of a script")?;
    let path = PathBuf::from(text);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if text.is_empty() || text.contains('\0') || !inside {
        return at.fault_with_hint(
            format_args!("{} is not a path inside the project", quoted(text)),
            "name it relative to the folder that holds `jobs/`, as `scripts/hello.sh`",
        );
    }
    Some(Source::Script(path))
}

fn read_run(at: &At<'_>) -> Option<Source> {
    let text = at.text("the text of a script")?;
    match interpreter(text.as_bytes()) {
        Ok(_) => Some(Source::Run(text.to_owned())),
        Err(error) => match script_hint(&error, "the text") {
            Some(hint) => at.fault_with_hint(error, hint),
            None => at.fault(error),
        },
    }
}

fn script_hint(error: &InvalidScript, what: &str) -> Option<String> {
    match error {
        InvalidScript::Empty => None,
        InvalidScript::TooLong(_) => Some("let the script fetch its data".to_owned()),
        InvalidScript::CarriageReturn => Some(format!("save {what} with Unix line ends")),
        InvalidScript::Interpreter => Some("begin with `#!` and an absolute path, as `#!/usr/bin/env bash`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::resolve::{Layers, Overrides};
    use crate::domain::job::settings::{Origin, Sourced};
    use crate::domain::job::{Job, Sudo, User};
    use crate::domain::project::Project;

    const EVERYTHING: &str = r#"
name: hello
description: Say hello from every Dev instance
schedule: "*/15 * * * *"
timezone: Europe/Berlin
jitter: 2m
paused: false
blackout: ["2026-12-24/2026-12-26"]
on: [instance-running]
targets:
  tags:
    Environment: [Dev, "!Prod"]
  regions: [us-east-1]
  address: private
  exclude: [i-0abc, "web-9*"]
  limit: 10%
script: scripts/hello.sh
args: ["--verbose", 1.10, yes]
env: { GREETING: hello, MODE: 0644, EMPTY: "" }
secrets: { DB_PASS: "env:DB_PASS" }
user: { tag: LoginUser, default: ec2-user }
port: 2222
key: [s3://keys-bucket/keys/dev.pem, agent]
jump: bastion@10.0.0.5:22
sudo: app
mode: { detached: { unit: true, keep: 2d } }
timeout: 5m
connect_timeout: 5s
ok_exit_codes: [0, 3]
max_output: 1MiB
retries: { attempts: 2, delay: 10s, on: [unreachable] }
rollout: { max_concurrency: 25%, max_errors: 10%, canary: 1 }
hosts_per_worker: 20
overlap: queue
missed: all
deadline: 1h
notify:
  on: [failure, slow]
  slow_after: 1.5x
  webhook: "https://example.com/hook"
  slack: env:SLACK_URL
  ping: http://intranet/ping
  sns: "arn:aws:sns:us-east-1:123456789012:ops"
  email: { to: ops@example.com, from: sshjob@example.com, server: "smtps://[::1]:465", user: me, password: "file:p" }
"#;

    fn parse(text: &str) -> JobFile {
        JobFile::parse(text, "jobs/x.yaml", "x").unwrap()
    }

    #[test]
    fn every_key_reaches_the_job() {
        let job = Layers::default().resolve(parse(EVERYTHING)).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&job).unwrap());
        let frozen: Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
        assert_eq!(frozen, job);
    }

    #[test]
    fn ends_after_which_an_attached_job_is_tried_again_reach_it_and_those_of_a_detached_one_are_refused() {
        let text = "targets: { hosts: web-1 }\nrun: x\nretries: { attempts: 2, on: [failed, timed_out] }\n";
        let job = Layers::default().resolve(parse(text)).unwrap();
        assert_eq!(job.retries.on, [RetryOn::Failed, RetryOn::TimedOut]);
        let refused = |mode: &str| Layers::default().resolve(parse(&format!("{text}mode: {mode}\n"))).unwrap_err();
        let [one] = &refused("detached")[..] else { panic!("one thing is wrong") };
        let why =
            "job `x`: `retries.on`: after `failed` a detached script is not tried again, but only after `unreachable`";
        assert_eq!(one.message, why);
        // Where there is one attempt it does not matter after what there would be another.
        assert!(
            Layers::default().resolve(parse(&text.replace('2', "1").replace("run", "mode: detached\nrun"))).is_ok()
        );
    }

    #[test]
    fn job_that_says_little_gets_the_defaults() {
        let job = Layers::default().resolve(parse("targets: { hosts: web-1 }\nrun: echo hi\n")).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&job).unwrap());
    }

    #[test]
    fn first_layer_that_says_something_wins() {
        let project = Project::parse("user: project\nport: 1\ntimeout: 1m\nsudo: true\n", "sshjob.yaml").unwrap();
        let job = parse("targets: { hosts: web-1 }\nrun: echo hi\nuser: job\nport: 2\ntimeout: 2m\n");
        let environment = [("SSHJOB_USER", "environment"), ("SSHJOB_PORT", "3")];
        let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        let layers = Layers {
            request: Overrides {
                settings: Settings {
                    user: Some(Sourced::flag("--user", User::Name("flag".into()))),
                    ..Settings::default()
                },
                ..Overrides::default()
            },
            environment: Settings::from_environment(variable).unwrap(),
            project: project.settings,
        };
        let settled = layers.settle(&job.settings);
        assert_eq!(settled.user, Sourced { value: User::Name("flag".into()), origin: Origin::Flag("--user") });
        assert_eq!(settled.port, Sourced { value: 3, origin: Origin::Env("SSHJOB_PORT") });
        assert_eq!(settled.timeout.value.to_string(), "2m");
        assert_eq!(settled.timeout.origin.to_string(), "jobs/x.yaml:5:10");
        assert_eq!(settled.sudo.value, Sudo::Root);
        assert_eq!(settled.sudo.origin.to_string(), "sshjob.yaml:4:7");
        assert_eq!(settled.connect_timeout.origin, Origin::Default);
    }

    #[test]
    fn request_replaces_the_targets_and_adds_exclusions_and_variables() {
        let text = "targets: { tags: { A: b }, exclude: x, limit: 3 }\nrun: a\nenv: { P: 1, Q: 2 }\nargs: [a]\n";
        let request = Overrides {
            hosts: vec!["web-1".parse().unwrap()],
            exclude: vec!["y".into()],
            env: BTreeMap::from([("Q".into(), "3".into())]),
            args: Some(Vec::new()),
            ..Overrides::default()
        };
        let job = Layers { request, ..Layers::default() }.resolve(parse(text)).unwrap();
        let selector = job.targets.selector;
        assert_eq!((selector.tags.len(), selector.hosts.len(), selector.limit), (0, 1, Some(Amount::Count(3))));
        assert_eq!(selector.exclude, ["x", "y"]);
        assert_eq!(job.env, BTreeMap::from([("P".into(), "1".into()), ("Q".into(), "3".into())]));
        assert!(job.args.is_empty());
    }

    #[test]
    fn request_that_selects_nothing_or_names_a_secret_is_refused() {
        let ad_hoc = JobFile::ad_hoc("adhoc".parse().unwrap(), Source::Command(vec!["true".into()]));
        let wrong = Layers::default().resolve(ad_hoc).unwrap_err();
        assert_eq!(wrong[0].message, "nothing is selected");
        let job = parse("targets: { hosts: a }\nrun: a\nsecrets: { PASS: \"env:PASS\" }\n");
        let request = Overrides { env: BTreeMap::from([("PASS".into(), "x".into())]), ..Overrides::default() };
        let wrong = Layers { request, ..Layers::default() }.resolve(job).unwrap_err();
        assert_eq!(wrong[0].message, "`PASS` is a secret of job `x`");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = JobFile::parse(&text, "x.yaml", "x");
        }

        #[test]
        fn damaged_job_is_read_or_refused(cut in 0..EVERYTHING.len(), with in "[\\[\\]{}:,&*!|>'\"%@`#\n\t -]{0,4}", skip in 0..9_usize) {
            let mut text = EVERYTHING[..cut].to_owned();
            text.push_str(&with);
            text.push_str(EVERYTHING.get(cut + skip..).unwrap_or_default());
            let _ = JobFile::parse(&text, "x.yaml", "x");
        }
    }
}
