//! The trigger: fires what is due, plans it, and sends workers for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::book::Book;
use super::event::Event;
use super::log;
use super::refusal::{Kind, Refusal};
use crate::domain::diagnostic::chain;
use crate::domain::id::{InstanceId, JobName, RunId};
use crate::domain::job;
use crate::domain::job::resolve::Overrides;
use crate::domain::layout;
use crate::domain::run::{Again, Carrier, Plan, RunRecord};
use crate::domain::selector::TagFilter;
use crate::engine::clock::Clock;
use crate::engine::fanout::fan_out;
use crate::engine::fire::{Fired, Firer};
use crate::engine::history;
use crate::engine::notify::deliver;
use crate::engine::records::Runs;
use crate::engine::start::{Errand, commission};
use crate::engine::tick::{Standing, Ticked, Ticker};
use crate::port::{Dispatcher, Inventory, InventoryError, Notifier, Store};

/// Who is said to have asked for what fires by itself.
const ACTOR: &str = "trigger";

/// How many runs are sent for at a time, each with many orders at a time.
const AT_A_TIME: usize = 4;

/// The share of its time that an invocation may wait for an inventory.
const SELECTING: f64 = 0.6;

/// The trigger function, for the time of one invocation.
#[derive(Debug, Clone)]
pub struct Trigger<S, I, D, N> {
    /// Where runs live, and the jobs and scripts.
    pub runs: Runs<S>,
    /// Where instances come from.
    pub inventory: I,
    /// Who sends for workers.
    pub dispatcher: D,
    /// Who tells people.
    pub notifier: N,
    /// Tells the time.
    pub clock: Clock,
    /// When the invocation must be over.
    pub deadline: Timestamp,
}

impl<S: Store, I: Inventory, D: Dispatcher, N: Notifier> Trigger<S, I, D, N> {
    /// Does what `event` asks for; `request` names the invocation, and is the same where that is tried again.
    ///
    /// # Errors
    /// [`Refusal`]: nothing is half done; what was begun the next tick goes on with.
    pub async fn handle(&self, event: Value, request: &str) -> Result<Value, Refusal> {
        match Event::read(event)? {
            Event::Tick { at } => self.tick(at.unwrap_or(Timestamp::MAX)).await,
            Event::Run { job, id, tags } => self.run(&job, id.as_deref().unwrap_or(request), tags).await,
            Event::Retry { run, id, tasks } => self.retry(&run, id.as_deref().unwrap_or(request), tasks).await,
            Event::Reconcile(run) => self.reconcile(&run).await,
            Event::Started { id, instance, region } => self.started(&id, &instance, region.as_ref()).await,
        }
    }

    async fn tick(&self, at: Timestamp) -> Result<Value, Refusal> {
        let book = Book::new(self.runs.clone());
        let mut read = book.read().await?;
        let scheduled = read.scheduled();
        tell_of(&read.wrong);
        let ticker = Arc::new(self.ticker());
        let Ticked { fired, active, mut troubles, silent_until } =
            ticker.tick(&scheduled, at.min(self.clock.now())).await?;
        if let Some(until) = silent_until {
            let why = format!("it was set back: nothing fires until {until}");
            log::failure(None, "the clock", "Undecided", &why);
        }
        for fired in &fired {
            if let Fired::Skipped(run, why) = fired {
                log::trouble(Some(run), "skipped", why);
            }
        }
        // One run's trouble holds up no other; the next tick tries again.
        let going = ticker.look(active).map(|(run, found)| async move {
            match found {
                Ok(None) => Ok(0),
                Ok(Some(standing)) => self.go_on(&run, standing).await.or_else(|refusal| {
                    log::failure(Some(&run), "the run", refusal.kind.as_str(), &refusal.message);
                    Ok(0)
                }),
                Err(why) => Err((run.to_string(), why)),
            }
        });
        let going = going.buffer_unordered(AT_A_TIME).collect::<Vec<Result<usize, (String, String)>>>();
        // What there is to tell by now waits for no inventory.
        let (gone, ()) = tokio::join!(going, self.tell());
        let mut sent = 0;
        for gone in gone {
            match gone {
                Ok(orders) => sent += orders,
                Err(trouble) => troubles.push(trouble),
            }
        }
        for (what, why) in &troubles {
            log::failure(None, what, "Undecided", why);
        }
        self.tell().await;
        let answer = json!({
            "fired": fired.len(), "sent": sent, "troubles": troubles.len(), "invalid_jobs": read.wrong.len(),
        });
        log::tick(&answer);
        Ok(answer)
    }

    async fn run(&self, name: &JobName, id: &str, tags: BTreeMap<String, String>) -> Result<Value, Refusal> {
        let invalid = |error: &dyn std::fmt::Display| {
            Refusal::new(Kind::InvalidEvent, format!("the event is not understood: its tags: {error}"))
        };
        let tags = tags.iter().map(|(key, value)| {
            let values: Vec<String> = value.split(',').map(str::to_owned).collect();
            TagFilter::from_values(key, &values).map_err(|error| invalid(&error))
        });
        let request = Overrides { tags: tags.collect::<Result<_, _>>()?, ..Overrides::default() };
        let book = Book::new(self.runs.clone());
        let job = book.job(name, request).await?;
        let script = book.script_of(&job).await?;
        self.commission(errand(job, script, id)).await
    }

    /// Runs the same bytes again, by the job as it was frozen, on the hosts of a run that is over.
    async fn retry(&self, of: &RunId, id: &str, tasks: Again) -> Result<Value, Refusal> {
        let unknown = || Refusal::new(Kind::UnknownRun, format!("there is no run `{of}` in the store"));
        let view = history::load(&self.runs, of).await?.ok_or_else(unknown)?;
        if view.verdict.is_none() {
            let hint = format!("`sshjob status {of} --wait` waits for its end");
            return Err(Refusal::new(Kind::InvalidEvent, format!("run `{of}` is not over\nhint: {hint}")));
        }
        let targets = view.targets(tasks);
        if targets.is_empty() {
            return Err(Refusal::new(Kind::InvalidEvent, format!("run `{of}` has no such tasks to run again")));
        }
        let key = layout::blob(&view.record.script.sha256);
        let gone =
            || Refusal::new(Kind::InvalidScript, format!("the script of run `{of}` is gone: there is no `{key}`"));
        let script = self.runs.store().bytes(&key).await?.ok_or_else(gone)?;
        let retry = Some((of.clone(), targets));
        self.commission(Errand { retry, ..errand(view.record.job, script, id) }).await
    }

    async fn started(&self, event: &str, instance: &InstanceId, region: Option<&String>) -> Result<Value, Refusal> {
        let book = Book::new(self.runs.clone());
        let read = book.read().await?;
        tell_of(&read.wrong);
        let (mut runs, mut unasked) = (Vec::new(), None);
        for job in read.jobs {
            let regions = &job.targets.regions;
            let is_elsewhere = region.is_some_and(|region| !regions.is_empty() && !regions.contains(region));
            if !job.schedule.on.contains(&job::Event::InstanceRunning) || job.schedule.paused || is_elsewhere {
                continue;
            }
            let matching = self.inventory.select_one(&job, instance).await;
            match matching {
                Ok(Some(_)) => {
                    let name = job.name.clone();
                    let started = async {
                        let script = book.script_of(&job).await?;
                        let errand = errand(job, script, event);
                        self.commission(Errand { instance: Some(instance.clone()), ..errand }).await
                    };
                    match started.await {
                        Ok(started) => runs.push(started),
                        Err(refusal) if refusal.kind == Kind::StoreUnavailable => return Err(refusal),
                        Err(refusal) => log::failure(None, name.as_str(), refusal.kind.as_str(), &refusal.message),
                    }
                }
                Ok(None) => {}
                Err(InventoryError::Invalid(why)) => {
                    log::failure(None, job.name.as_str(), Kind::InvalidJob.as_str(), &why);
                }
                Err(error) => unasked = Some(Refusal::new(Kind::InventoryUnavailable, chain(&error))),
            }
        }
        match unasked {
            // The event is tried again: what it has started by then is not started twice.
            Some(refusal) => Err(refusal),
            None => Ok(json!({ "runs": runs })),
        }
    }

    async fn commission(&self, errand: Errand) -> Result<Value, Refusal> {
        let run = commission(&self.runs, errand, self.clock.now()).await?;
        self.reconcile(&run).await
    }

    async fn reconcile(&self, run: &RunId) -> Result<Value, Refusal> {
        if self.runs.run(run).await?.is_none() {
            return Err(Refusal::new(Kind::UnknownRun, format!("there is no run `{run}` in the store")));
        }
        let standing = self.ticker().advance(run).await?;
        let sent = match standing {
            Some(standing) => self.go_on(run, standing).await?,
            None => 0,
        };
        let state = self.runs.verdict(run).await?.map(|verdict| verdict.state);
        Ok(json!({ "run": run, "sent": sent, "state": state }))
    }

    /// Takes a run on from where a tick has found it; returns how many orders were sent.
    async fn go_on(&self, run: &RunId, standing: Standing) -> Result<usize, Refusal> {
        match standing {
            Standing::Finished(record, verdict) => {
                log::verdict(&record, &verdict);
                Ok(0)
            }
            Standing::Ready(started) => self.fan_out(&started.run, &started.plan).await,
            Standing::Detached(record) => match self.runs.plan(run).await? {
                Some(plan) if record.carrier == Carrier::Functions => self.fan_out(&record, &plan).await,
                // It is looked after by whoever started it.
                _ => Ok(0),
            },
            Standing::Waiting(why) => {
                log::trouble(Some(run), "waiting", &why);
                Ok(0)
            }
            Standing::Unselected(why) => {
                log::failure(Some(run), "its instances", Kind::InventoryUnavailable.as_str(), &why);
                Ok(0)
            }
            Standing::Driven => Ok(0),
        }
    }

    async fn fan_out(&self, record: &RunRecord, plan: &Plan) -> Result<usize, Refusal> {
        let done = fan_out(&self.runs, &self.dispatcher, record, plan, self.clock.now()).await?;
        for why in &done.troubles {
            log::failure(Some(&record.run), "its workers", Kind::WorkersUnavailable.as_str(), why);
        }
        if let Some(verdict) = &done.verdict {
            log::verdict(record, verdict);
        }
        Ok(done.sent)
    }

    /// Tells people what there is to tell; whoever cannot be told is told at a later tick.
    async fn tell(&self) {
        match deliver(&self.runs, &self.notifier, self.clock.now()).await {
            Ok(delivery) => {
                for trouble in delivery.troubles {
                    log::failure(None, &format!("telling of {}", trouble.run), "Untold", &trouble.why);
                }
            }
            Err(error) => log::failure(None, "notifications", Kind::StoreUnavailable.as_str(), &chain(&error)),
        }
    }

    fn ticker(&self) -> Ticker<S, &I, Book<S>> {
        let firer = Firer {
            runs: self.runs.clone(),
            scripts: Book::new(self.runs.clone()),
            actor: ACTOR.to_owned(),
            carrier: Carrier::Functions,
            driven: BTreeSet::new(),
        };
        // Planning and sending for workers comes after it: for 100,000 instances six seconds (docs/scale.md), with four
        // tenths of five minutes to spare.
        let left = Duration::try_from(self.deadline.duration_since(self.clock.now())).unwrap_or_default();
        Ticker { firer, inventory: &self.inventory, patience: left.mul_f64(SELECTING), clock: self.clock }
    }
}

/// What is asked of the functions: to run `script` by `job`; `id` names the request.
fn errand(job: job::Job, script: Vec<u8>, id: &str) -> Errand {
    let (actor, id) = (ACTOR.to_owned(), id.to_owned());
    Errand { job, script, actor, id, instance: None, retry: None, carrier: Carrier::Functions }
}

/// Tells of the job files that are wrong.
fn tell_of(wrong: &[String]) {
    for why in wrong {
        log::failure(None, "a job", Kind::InvalidJob.as_str(), why);
    }
}
