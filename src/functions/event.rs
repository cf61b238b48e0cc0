//! What the trigger is told: a tick, a request for a run or for what a run ran again, a run to look at, an instance that has
//! started.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::refusal::{Kind, Refusal};
use crate::domain::diagnostic::quoted;
use crate::domain::id::{InstanceId, JobName, RunId};
use crate::domain::run::Again;

/// What `EventBridge` Scheduler puts in place of this is the time of the firing; where it is left as it is nobody knows it.
const UNTOLD_TIME: &str = "<aws.scheduler.scheduled-time>";

/// The longest request id, in bytes.
const MAX_ID_BYTES: usize = 256;

/// The most tags of a request.
const MAX_TAGS: usize = 50;

/// An event of the trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Fire what is due, then look after what is active.
    Tick {
        /// The time of the tick; now where it is not told.
        at: Option<Timestamp>,
    },
    /// Run a job now.
    Run {
        /// Which.
        job: JobName,
        /// Names the request: delivered twice it is one run.
        id: Option<String>,
        /// Tags that choose the instances in place of the job's.
        tags: BTreeMap<String, String>,
    },
    /// Look after one run.
    Reconcile(RunId),
    /// An instance has started.
    Started {
        /// Names the event: delivered twice it is one run.
        id: String,
        /// Which instance.
        instance: InstanceId,
        /// In which region, where that is told.
        region: Option<String>,
    },
    /// Run again what a run ran.
    Retry {
        /// The run.
        run: RunId,
        /// Names the request: delivered twice it is one run.
        id: Option<String>,
        /// Which of its tasks.
        tasks: Again,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunRequest {
    job: JobName,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReconcileRequest {
    reconcile: RunId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    retry: RunId,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    tasks: Again,
}

/// An event of `EventBridge`, of which more is of no concern.
#[derive(Deserialize)]
struct Notice {
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    detail: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StateChange {
    instance_id: InstanceId,
    state: String,
}

impl Event {
    /// Reads an event.
    ///
    /// # Errors
    /// What it holds, and what is allowed.
    pub fn read(event: Value) -> Result<Self, Refusal> {
        let Value::Object(fields) = &event else {
            return Err(refuse("it is no object"));
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        if fields.contains_key("job") {
            return decode::<RunRequest>(event).and_then(Self::request);
        }
        if fields.contains_key("reconcile") {
            return decode::<ReconcileRequest>(event).map(|asked| Self::Reconcile(asked.reconcile));
        }
        if fields.contains_key("retry") {
            return decode::<RetryRequest>(event).and_then(|RetryRequest { retry: run, id, tasks }| {
                check_id(id.as_deref())?;
                Ok(Self::Retry { run, id, tasks })
            });
        }
        if text("source") == Some("aws.ec2") {
            return decode::<Notice>(event).and_then(Self::state_change);
        }
        if fields.is_empty() || fields.contains_key("time") {
            return decode::<Notice>(event).and_then(|notice| Self::tick(&notice));
        }
        let names: Vec<String> = fields.keys().take(5).map(|name| quoted(name)).collect();
        Err(refuse(&format!("it has {}", names.join(", "))))
    }

    fn request(RunRequest { job, id, tags }: RunRequest) -> Result<Self, Refusal> {
        check_id(id.as_deref())?;
        if tags.len() > MAX_TAGS {
            return Err(refuse(&format!("it names {} tags; at most {MAX_TAGS} are allowed", tags.len())));
        }
        Ok(Self::Run { job, id, tags })
    }

    fn state_change(notice: Notice) -> Result<Self, Refusal> {
        let change = decode::<StateChange>(notice.detail)?;
        match (change.state.as_str(), notice.id) {
            ("running", Some(id)) if !id.is_empty() && id.len() <= MAX_ID_BYTES => {
                Ok(Self::Started { id, instance: change.instance_id, region: notice.region })
            }
            ("running", _) => Err(refuse("an instance runs, and the event has no `id` that names it")),
            (state, _) => Err(refuse(&format!("an instance is {}; only `running` is of concern", quoted(state)))),
        }
    }

    fn tick(notice: &Notice) -> Result<Self, Refusal> {
        let at = match notice.time.as_deref() {
            None | Some("" | UNTOLD_TIME) => None,
            Some(time) => {
                let read = time.parse::<Timestamp>();
                Some(read.map_err(|_| refuse(&format!("its `time` is {}; RFC 3339 is allowed", quoted(time))))?)
            }
        };
        Ok(Self::Tick { at })
    }
}

fn check_id(id: Option<&str>) -> Result<(), Refusal> {
    if id.is_some_and(|id| id.is_empty() || id.len() > MAX_ID_BYTES) {
        return Err(refuse(&format!("its `id` is empty or longer than {MAX_ID_BYTES} bytes")));
    }
    Ok(())
}

fn decode<T: for<'a> Deserialize<'a>>(event: Value) -> Result<T, Refusal> {
    serde_json::from_value(event).map_err(|error| {
        let told: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        refuse(&told)
    })
}

fn refuse(found: &str) -> Refusal {
    Refusal::new(
        Kind::InvalidEvent,
        format!(
            "the event is not understood: {found}\nhint: `{{}}` or `{{\"time\": …}}` is a tick, \
             `{{\"job\": …, \"id\": …, \"tags\": {{…}}}}` asks for a run, `{{\"retry\": RUN, \"id\": …, \"tasks\": \
             \"all\" | \"failed\" | \"lost\"}}` for another of its tasks, `{{\"reconcile\": RUN}}` looks after one, and \
             EC2's state changes to `running` are heard"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(event: Value) -> Event {
        Event::read(event).unwrap()
    }

    #[test]
    fn tick_is_an_empty_or_a_scheduled_event() {
        assert_eq!(read(json!({})), Event::Tick { at: None });
        assert_eq!(read(json!({ "time": UNTOLD_TIME })), Event::Tick { at: None });
        let at = "2026-11-23T10:00:00Z";
        let event = json!({ "version": "0", "id": "x", "source": "aws.scheduler", "time": at, "detail": "{}" });
        assert_eq!(read(event), Event::Tick { at: Some(at.parse().unwrap()) });
        assert_eq!(read(json!({ "time": at })), Event::Tick { at: Some(at.parse().unwrap()) });
    }

    #[test]
    fn request_names_a_job_and_may_name_itself_and_tags() {
        let job: JobName = "hello".parse().unwrap();
        let bare = Event::Run { job: job.clone(), id: None, tags: BTreeMap::new() };
        assert_eq!(read(json!({ "job": "hello" })), bare);
        let tags = BTreeMap::from([("Environment".to_owned(), "Dev".to_owned())]);
        let full = Event::Run { job, id: Some("a".to_owned()), tags };
        assert_eq!(read(json!({ "job": "hello", "id": "a", "tags": { "Environment": "Dev" } })), full);
    }

    #[test]
    fn retry_names_a_run_and_may_name_itself_and_which_tasks() {
        let run: RunId = "hello-20261123T100000Z".parse().unwrap();
        let all = Event::Retry { run: run.clone(), id: None, tasks: Again::All };
        assert_eq!(read(json!({ "retry": run })), all);
        let failed = Event::Retry { run: run.clone(), id: Some("a".to_owned()), tasks: Again::Failed };
        assert_eq!(read(json!({ "retry": run, "id": "a", "tasks": "failed" })), failed);
    }

    #[test]
    fn instance_that_has_started_is_heard() {
        let event = json!({
            "id": "e-1", "source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification",
            "time": "2026-11-23T10:00:00Z", "region": "us-east-1", "detail": { "instance-id": "i-0abc", "state": "running" },
        });
        let (id, instance) = ("e-1".to_owned(), "i-0abc".parse().unwrap());
        assert_eq!(read(event), Event::Started { id, instance, region: Some("us-east-1".to_owned()) });
    }

    #[test]
    fn other_events_are_refused_and_told_what_is_allowed() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        let wrong = [
            json!(null),
            json!([]),
            json!("tick"),
            json!({ "jobs": "hello" }),
            json!({ "job": "No Such Name" }),
            json!({ "job": "hello", "id": long }),
            json!({ "job": "hello", "tag": {} }),
            json!({ "reconcile": "../../etc" }),
            json!({ "retry": "../../etc" }),
            json!({ "retry": "hello-20261123T100000Z", "id": long }),
            json!({ "retry": "hello-20261123T100000Z", "tasks": "some" }),
            json!({ "retry": "hello-20261123T100000Z", "job": "hello" }),
            json!({ "time": "yesterday" }),
            json!({ "source": "aws.ec2", "id": "e", "detail": { "instance-id": "i-1", "state": "stopped" } }),
            json!({ "source": "aws.ec2", "detail": { "instance-id": "i-1", "state": "running" } }),
        ];
        for event in wrong {
            let refusal = Event::read(event.clone()).unwrap_err();
            assert_eq!(refusal.kind, Kind::InvalidEvent, "{event}");
            assert!(refusal.message.starts_with("the event is not understood: ") && refusal.message.len() < 900);
        }
    }
}
