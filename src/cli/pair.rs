//! The pair of functions, as whoever sits at a command line asks it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};

use super::aws::Aws;
use super::context::Global;
use super::exit::{Exit, Fail};
use super::launch::notice;
use super::output::lines::clean;
use super::project::Workspace;
use crate::domain::id::RunId;
use crate::domain::run::{Again, Carrier, RunRecord};
use crate::functions::refusal::{Kind, Refusal};

impl From<Refusal> for Fail {
    fn from(refusal: Refusal) -> Self {
        let exit = if Kind::is_unavailable(refusal.kind.as_str()) { Exit::Unavailable } else { Exit::Usage };
        Self::new(exit, refusal.message)
    }
}

/// How often the trigger is asked to look after a run that somebody waits for.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// The trigger function.
#[derive(Debug, Clone)]
pub struct Pair {
    aws: Aws,
    trigger: String,
}

impl Pair {
    /// The functions that the project file of `workspace` names; none where it names none.
    pub fn of(workspace: &Workspace) -> Option<Self> {
        let functions = workspace.project.functions.as_ref()?;
        Some(Self { aws: workspace.aws.clone(), trigger: functions.value.trigger.clone() })
    }

    /// Asks for a run of `job`; `id` names the request, `tags` choose the instances in place of the job's own.
    ///
    /// # Errors
    /// Where the trigger cannot be reached, or refuses: nothing has been started then.
    pub async fn start(&self, job: &str, id: &str, tags: &BTreeMap<String, String>) -> Result<RunId, Fail> {
        self.run(json!({ "job": job, "id": id, "tags": tags })).await
    }

    /// Asks for a run of those tasks of `run` again that `tasks` means; `id` names the request.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub async fn retry(&self, run: &RunId, id: &str, tasks: Again) -> Result<RunId, Fail> {
        self.run(json!({ "retry": run, "id": id, "tasks": tasks })).await
    }

    async fn run(&self, event: Value) -> Result<RunId, Fail> {
        let said = self.aws.ask(&self.trigger, &event).await?;
        let run = said.get("run").and_then(Value::as_str).and_then(|run| run.parse().ok());
        run.ok_or_else(|| {
            let said = clean(&said.to_string());
            Fail::new(Exit::Unavailable, format!("`{}` does not answer with a run: {said}", self.trigger))
                .hint("`functions.trigger` in sshjob.yaml names the trigger function")
        })
    }

    /// Asks for a look at `run`, again and again.
    async fn keep_asking(&self, run: &RunId) -> Infallible {
        let mut told = false;
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            if let Err(fail) = self.aws.ask(&self.trigger, &json!({ "reconcile": run })).await
                && !std::mem::replace(&mut told, true)
            {
                notice(&format!("warning: {}; its next tick looks after the run", fail.text()));
            }
        }
    }
}

/// Does `work`, which waits for `run`; where functions carry it, they need not wait for their next tick meanwhile.
pub async fn hasten<T>(run: Option<&RunRecord>, global: &Global, work: impl Future<Output = T>) -> T {
    let work = Box::pin(work);
    let Some(run) = run.filter(|run| run.carrier == Carrier::Functions) else { return work.await };
    let pair = Workspace::open(global).ok().and_then(|workspace| Pair::of(&workspace));
    let asking = async {
        match &pair {
            Some(pair) => pair.keep_asking(&run.run).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = work => done,
        never = asking => match never {},
    }
}
