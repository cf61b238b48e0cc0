//! The worker: carries out one order, with many hosts at a time, within the time of its invocation.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::environment::secret;
use super::log;
use super::refusal::{Kind, Refusal};
use crate::adapter::ssh::{Connector, Identities, Identity, Keyring, key};
use crate::domain::authority::Authority;
use crate::domain::job::{Job, SecretRef};
use crate::domain::location::Location;
use crate::domain::order::{Action, Order};
use crate::domain::plan::own_keys;
use crate::domain::run::{BatchTargets, RunRecord, Target};
use crate::domain::task::Counts;
use crate::engine::access::Access;
use crate::engine::clock::Clock;
use crate::engine::collect::{Collector, Round, give_up_batch};
use crate::engine::event::Event;
use crate::engine::fanout::note;
use crate::engine::gate::{Gate, Stop};
use crate::engine::records::Runs;
use crate::engine::trust::{self, Trust};
use crate::engine::worker::{Secrets, WorkError, Worker};
use crate::port::{KeyReadError, Keys, Parameters, Store};

/// Events of tasks that wait to be logged.
const EVENTS: usize = 256;

/// The worker function.
pub struct WorkerFunction<S, K, P> {
    /// Where runs live.
    pub runs: Runs<S>,
    /// Where private keys come from.
    pub keys: K,
    /// Where `ssm:` secrets come from.
    pub parameters: P,
    /// A variable of the environment, for `env:` secrets.
    pub variable: fn(&str) -> Option<String>,
    /// Tells the time.
    pub clock: Clock,
}

impl<S: Store, K: Keys, P: Parameters> WorkerFunction<S, K, P> {
    /// Carries out `order`; all is stored before `deadline`.
    ///
    /// # Errors
    /// [`Refusal`]: what was begun is in the store, and the next order goes on from there.
    pub async fn handle(&self, order: Value, deadline: Timestamp) -> Result<Value, Refusal> {
        let order: Order = serde_json::from_value(order).map_err(|error| {
            let told: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
            let allowed = "`{\"action\": \"run\", \"run\": …, \"job\": …, \"batch\": …, \"not_after\": …}` is";
            Refusal::new(Kind::InvalidEvent, format!("the event is no order: {told}\nhint: {allowed}"))
        })?;
        if order.not_after < self.clock.now() {
            return Ok(json!({ "run": order.run, "batch": order.batch, "done": "nothing: the order is too old" }));
        }
        let unknown = |what: &str| {
            Refusal::new(Kind::UnknownRun, format!("there is no {what} of run `{}` in the store", order.run))
        };
        let run = self.runs.run(&order.run).await?.ok_or_else(|| unknown("claim"))?;
        if self.runs.verdict(&order.run).await?.is_some() {
            return Ok(json!({ "run": order.run, "batch": order.batch, "done": "nothing: the run is over" }));
        }
        let targets = self.runs.targets(&order.run, order.batch).await?;
        let targets = targets.ok_or_else(|| unknown(&format!("batch {}", order.batch)))?;
        match order.action {
            Action::Run => self.run(&run, &order, targets, deadline).await,
            Action::Collect | Action::Cancel => self.collect(&run, &order, &targets, deadline).await,
        }
    }

    async fn run(
        &self,
        run: &RunRecord,
        order: &Order,
        targets: BatchTargets,
        deadline: Timestamp,
    ) -> Result<Value, Refusal> {
        let outcomes = self.runs.outcomes(&run.run, order.batch).await?;
        let tasks = outcomes.map(|(outcomes, _)| outcomes.tasks).unwrap_or_default();
        let is_final = |target: &Target| tasks.get(&target.instance).is_some_and(|task| task.state.is_final());
        if targets.targets.iter().all(is_final) {
            return Ok(json!({ "run": run.run, "batch": order.batch, "done": "nothing: every task is final" }));
        }
        let plan = self.runs.plan(&run.run).await?;
        let hosts = u32::try_from(targets.targets.len()).unwrap_or(u32::MAX);
        let gate = Gate::new(hosts, plan.and_then(|plan| plan.max_errors));
        let equipped = match self.keyring(&run.job, &targets.targets).await {
            Ok(keyring) => self.secrets(&run.job).await.map(|secrets| (keyring, secrets)),
            Err(refusal) => Err(refusal),
        };
        let (keyring, secrets, refused) = match equipped {
            Ok((keyring, secrets)) => (keyring, secrets, None),
            // It may be had a moment later: the next order tries again.
            Err(refusal) if Kind::is_unavailable(refusal.kind.as_str()) => {
                note(&self.runs, &run.run, &refusal.message, self.clock.now()).await;
                return Err(refusal);
            }
            Err(refusal) => {
                gate.close(Stop::Unequipped(refusal.message.clone()));
                (Keyring::new(Identities::default()), Secrets::new(), Some(refusal))
            }
        };
        let end = gate.clone();
        let (events, heard) = mpsc::channel(EVENTS);
        let telling = tokio::spawn(tell(run.clone(), heard));
        let worker = Worker {
            runs: self.runs.clone(),
            clock: self.clock,
            events,
            access: self.access(&run.job, keyring),
            secrets: Arc::new(secrets),
            gate,
            batch_ended: Arc::new(Notify::new()),
        };
        let done = worker.run_until(run, order.batch, deadline).await;
        drop(worker);
        let counts = telling.await.unwrap_or_default();
        if let Some(stop @ Stop::Store(_)) = end.stopped() {
            // Its tasks say so, too, but an alarm hears of this.
            log::failure(Some(&run.run), "its output", Kind::StoreUnavailable.as_str(), &stop.reason());
        }
        match (done, refused) {
            (Ok(()), None) => Ok(json!({ "run": run.run, "batch": order.batch, "counts": counts })),
            (Ok(()), Some(refusal)) => Err(refusal),
            (Err(WorkError::Held(_) | WorkError::Fenced), _) => {
                Ok(json!({ "run": run.run, "batch": order.batch, "done": "nothing: another worker is at it" }))
            }
            (Err(error), _) => {
                let refusal = Refusal::from(error);
                note(&self.runs, &run.run, &refusal.message, self.clock.now()).await;
                Err(refusal)
            }
        }
    }

    async fn collect(
        &self,
        run: &RunRecord,
        order: &Order,
        targets: &BatchTargets,
        deadline: Timestamp,
    ) -> Result<Value, Refusal> {
        let keyring = match self.keyring(&run.job, &targets.targets).await {
            Ok(keyring) => keyring,
            // It may be had a moment later: the next order tries again.
            Err(refusal) if Kind::is_unavailable(refusal.kind.as_str()) => return Err(refusal),
            Err(refusal) => return self.give_up(run, order, &refusal).await,
        };
        let (runs, access) = (self.runs.clone(), self.access(&run.job, keyring));
        let collector = Collector { runs, access, clock: self.clock };
        let left = std::time::Duration::try_from(deadline.duration_since(self.clock.now())).unwrap_or_default();
        let visiting = async {
            match order.action {
                Action::Cancel => collector.end_batch(run, order.batch).await,
                _ => collector.look_at_batch(run, order.batch).await,
            }
        };
        // What a host has told is in the store by then; the rest is asked again.
        let visited = tokio::time::timeout(left.mul_f64(0.9), visiting).await;
        let Round { running, troubles, survivors, .. } = match visited {
            Ok(round) => round?,
            Err(_) => return Ok(json!({ "run": run.run, "batch": order.batch, "done": "a part: the time was over" })),
        };
        for (target, why) in troubles.iter().chain(&survivors) {
            log::trouble(Some(&run.run), target.instance.as_str(), why);
        }
        Ok(json!({ "run": run.run, "batch": order.batch, "running": running, "unanswered": troubles.len() }))
    }

    /// Looks at a batch whose hosts cannot be asked, because of `refusal`. It is no failure of the order, which comes again
    /// at every tick: it is told, and what the hosts have forgotten by now is lost.
    async fn give_up(&self, run: &RunRecord, order: &Order, refusal: &Refusal) -> Result<Value, Refusal> {
        log::failure(Some(&run.run), "its hosts", refusal.kind.as_str(), &refusal.message);
        let why = refusal.message.split_once("\nhint: ").map_or(&*refusal.message, |(why, _)| why);
        let is_over = give_up_batch(&self.runs, run, order.batch, why, self.clock.now()).await?;
        let done = if is_over { "given up: its hosts cannot be asked" } else { "nothing: its hosts cannot be asked" };
        Ok(json!({ "run": run.run, "batch": order.batch, "done": done }))
    }

    fn access(&self, job: &Job, keyring: Keyring) -> Access<S> {
        let authorities = job.login.host_ca.iter().filter_map(|authority| match authority {
            Authority::Key(key) => Some(key.clone()),
            Authority::File(_) => None,
        });
        let trust = Trust::new(self.runs.clone(), job.login.host_key, Arc::default(), authorities);
        // A connector of its own: nothing of one order, not a connection to a jump host either, is there for the next.
        Access { connector: Connector::default(), keyring, trust, clock: self.clock }
    }

    /// The private keys that `targets` and the jump hosts on the way need.
    async fn keyring(&self, job: &Job, targets: &[Target]) -> Result<Keyring, Refusal> {
        let mut wanted = own_keys(job, targets);
        wanted.remove(&[][..]);
        let mut keyring = Keyring::new(self.identities(job, &job.login.keys).await?);
        for keys in wanted {
            keyring.add(keys.to_vec(), self.identities(job, keys).await?);
        }
        Ok(keyring)
    }

    async fn identities(&self, job: &Job, keys: &[Location]) -> Result<Identities, Refusal> {
        let refuse = |why: String| {
            let hint = "write `key: s3://bucket/path` in the job or in sshjob.yaml";
            Refusal::new(Kind::InvalidKey, format!("job `{}`: {why}\nhint: {hint}", job.name))
        };
        if keys.is_empty() {
            return Err(refuse("no private key is named, and a function has none of its own".to_owned()));
        }
        let mut found = Vec::new();
        for location in keys {
            let Location::S3 { bucket, key: name } = location else {
                return Err(refuse(format!(
                    "the key `{location}` is not in S3, and a function has no files and no agent"
                )));
            };
            let bytes = self.keys.read_key(bucket, name).await?;
            let parsed = key::parse(&location.to_string(), &bytes, None);
            found.push(Identity::from(parsed.map_err(|error| {
                let hint = match error {
                    key::KeyError::Encrypted { .. } => {
                        "\nhint: the bucket's encryption and policy guard it; `ssh-keygen -p -N '' -f FILE` takes the \
                         passphrase off"
                    }
                    _ => "",
                };
                Refusal::new(Kind::InvalidKey, format!("job `{}`: {error}{hint}", job.name))
            })?));
        }
        Ok(found.into_iter().collect())
    }

    async fn secrets(&self, job: &Job) -> Result<Secrets, Refusal> {
        let mut secrets = Secrets::new();
        for (name, reference) in &job.secrets {
            let found = match reference {
                SecretRef::Ssm(path) => self.parameters.read_parameter(path).await.map_err(|error| match error {
                    KeyReadError::Unavailable(why) => (Kind::SecretsUnavailable, why),
                    KeyReadError::Refused(why) => (Kind::InvalidSecret, why),
                }),
                other => secret(other, self.variable).map_err(|why| (Kind::InvalidSecret, why)),
            };
            let value = found
                .map_err(|(kind, why)| Refusal::new(kind, format!("secret `{name}` of job `{}`: {why}", job.name)))?;
            secrets.insert(name.clone(), value);
        }
        Ok(secrets)
    }
}

/// Logs each task as it ends, and counts them.
async fn tell(run: RunRecord, mut heard: mpsc::Receiver<Event>) -> Counts {
    let mut counts = Counts::default();
    while let Some(event) = heard.recv().await {
        match event {
            Event::TaskFinished { target, record, .. } => {
                log::task(&run, &target, &record);
                // Its task says so, too, but an alarm hears of this.
                if let Some(why) = record.reason.as_deref().filter(|why| why.starts_with(trust::UNKNOWN)) {
                    log::failure(Some(&run.run), target.instance.as_str(), Kind::StoreUnavailable.as_str(), why);
                }
                counts.add(record.state);
            }
            Event::Stopping { reason } => log::trouble(Some(&run.run), "stopping", &reason),
            _ => {}
        }
    }
    counts
}
