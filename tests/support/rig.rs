//! The engine, driven without a command line: requests in, verdicts and events out.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use sshjob::adapter::ssh::{Connector, Identity, Keyring};
use sshjob::domain::authority::Authority;
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::{Layers, Overrides};
use sshjob::domain::job::{Job, Source};
use sshjob::domain::run::Target;
use sshjob::domain::selector::Host;
use sshjob::domain::task::{TaskRecord, TaskState};
use sshjob::engine::access::Access;
use sshjob::engine::clock::Clock;
use sshjob::engine::drive::{Driven, drive};
use sshjob::engine::event::Event;
use sshjob::engine::gate::Gate;
use sshjob::engine::records::Runs;
use sshjob::engine::start::{Request, Started, start};
use sshjob::engine::trust::Trust;
use sshjob::engine::worker::{WorkError, Worker};
use sshjob::port::Store;
use tokio::sync::{Notify, mpsc};

use super::key::Login;

/// A job that runs `text` as a script.
pub(crate) fn script(text: &str) -> Job {
    job(Source::Run(text.to_owned()))
}

/// A job that runs `source` on hosts that the rig names.
pub(crate) fn job(source: Source) -> Job {
    let file = JobFile::ad_hoc("adhoc".parse().unwrap(), source);
    let hosts = vec![Host { user: None, host: "127.0.0.1".to_owned(), port: None }];
    let layers = Layers { request: Overrides { hosts, ..Overrides::default() }, ..Layers::default() };
    layers.resolve(file).unwrap()
}

/// The task on the host at `address`.
pub(crate) fn target(address: SocketAddr) -> Target {
    Target {
        instance: format!("{}:{}", address.ip(), address.port()).parse().unwrap(),
        account: "host".to_owned(),
        region: "host".to_owned(),
        name: None,
        address: Some(address.ip().to_string()),
        address_kind: None,
        port: address.port(),
        user: super::sshd::user(),
        jump: None,
        keys: Vec::new(),
    }
}

/// What came of a run.
pub(crate) struct Done {
    pub(crate) started: Started,
    pub(crate) driven: Driven,
    pub(crate) events: Vec<Event>,
}

impl Done {
    /// The final record of each task, in the order in which they ended, with its output.
    pub(crate) fn tasks(&self) -> Vec<(String, TaskRecord, String)> {
        let finished = self.events.iter().filter_map(|event| match event {
            Event::TaskFinished { target, record, stdout, .. } => {
                let output = String::from_utf8_lossy(&stdout.bytes).into_owned();
                Some((target.instance.to_string(), record.clone(), output))
            }
            _ => None,
        });
        finished.collect()
    }

    /// The final state of the task on `address`, with its reason.
    pub(crate) fn state(&self, address: SocketAddr) -> (TaskState, String) {
        let instance = target(address).instance.to_string();
        let task = self.tasks().into_iter().find(|(id, _, _)| *id == instance).expect("every target has a task");
        (task.1.state, task.1.reason.unwrap_or_default())
    }
}

/// A request to run `job` on `addresses`.
pub(crate) fn request(job: Job, addresses: &[SocketAddr], id: &str) -> Request {
    let script = match &job.source {
        Source::Run(text) => text.clone().into_bytes(),
        Source::Script(path) => std::fs::read(path).unwrap(),
        Source::Command(words) => words.join("\0").into_bytes(),
    };
    let targets = addresses.iter().copied().map(target).collect();
    let (actor, origin) = ("test".to_owned(), "test".to_owned());
    Request { job, script, origin, actor, id: id.to_owned(), retry_of: None, targets }
}

/// Trust as the job says, on a machine without `known_hosts`.
pub(crate) fn trust<S: Store>(store: &S, job: &Job) -> Trust<S> {
    let authorities = job.login.host_ca.iter().map(|authority| match authority {
        Authority::Key(key) => key.clone(),
        Authority::File(path) => panic!("a job as frozen names no file: {}", path.display()),
    });
    Trust::new(Runs::new(store.clone()), job.login.host_key, Arc::default(), authorities)
}

/// Everything a worker needs; events come out at the other end.
pub(crate) fn worker<S: Store>(
    store: &S,
    started: &Started,
    login: &Path,
) -> (Worker<S, Access<S>>, mpsc::Receiver<Event>) {
    let (events, heard) = mpsc::channel(100_000);
    let key = sshjob::adapter::ssh::key::load(login, None).unwrap();
    let worker = Worker {
        runs: Runs::new(store.clone()),
        clock: Clock::System,
        events,
        access: Access {
            connector: Connector::default(),
            keyring: Keyring::new([Identity::from(key)].into_iter().collect()),
            trust: trust(store, &started.run.job),
            clock: Clock::System,
        },
        secrets: Arc::default(),
        gate: Gate::new(started.plan.max_concurrency, started.plan.max_errors),
        batch_ended: Arc::new(Notify::new()),
    };
    (worker, heard)
}

/// Runs `request` to its verdict.
pub(crate) async fn run<S: Store>(store: &S, request: Request, login: &Login) -> Result<Done, WorkError> {
    let started = start(&Runs::new(store.clone()), request, Clock::System.now()).await.unwrap();
    let (worker, mut heard) = worker(store, &started, &login.path());
    let driven = drive(&worker, &started).await?;
    drop(worker);
    let mut events = Vec::new();
    while let Some(event) = heard.recv().await {
        events.push(event);
    }
    Ok(Done { started, driven, events })
}
