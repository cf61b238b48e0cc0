//! A notice in the words of each channel.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{HostNotice, Notice};
use crate::domain::document::Schema;
use crate::domain::id::{JobName, RunId};
use crate::domain::job::NotifyOn;
use crate::domain::run::RunState;
use crate::domain::task::{Counts, TaskState};

/// A notice as machines read it. Every key is always there; what is not known is `null`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NoticeDocument<'n> {
    /// The version of this document.
    pub schema: Schema,
    /// Names the run; the same whenever this is sent again, so that a receiver can tell.
    #[schemars(extend("format" = "uuid"))]
    pub id: String,
    /// What makes it worth telling, what weighs most first.
    pub kinds: &'n [NotifyOn],
    /// The run.
    #[schemars(with = "String")]
    pub run: &'n RunId,
    /// Its job.
    #[schemars(with = "String")]
    pub job: &'n JobName,
    /// How it ended.
    pub state: RunState,
    /// One line for people.
    pub headline: String,
    /// Why it ended so, where the counts do not say it.
    pub reason: Option<&'n str>,
    /// How many tasks ended in each state.
    pub counts: &'n Counts,
    /// Hosts that did not succeed, at most ten.
    pub hosts: &'n [HostNotice],
    /// How many more did not succeed.
    pub more_hosts: u32,
    /// When it was to start, for a firing.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub scheduled_for: Option<Timestamp>,
    /// When it started.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Timestamp,
    /// When it ended.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<Timestamp>,
    /// How long it took from its first start, in milliseconds.
    pub duration_ms: Option<u64>,
    /// How long the job usually takes, in milliseconds.
    pub usual_ms: Option<u64>,
    /// The run whose tasks it ran again.
    #[schemars(with = "Option<String>")]
    pub retry_of: Option<&'n RunId>,
}

impl<'n> NoticeDocument<'n> {
    /// The document of `notice`.
    pub fn of(notice: &'n Notice) -> Self {
        let millis = |span: Duration| u64::try_from(span.as_millis()).ok();
        Self {
            schema: Schema::V1,
            id: notice.uuid(),
            kinds: &notice.kinds,
            run: &notice.run,
            job: &notice.job,
            state: notice.state,
            headline: notice.headline(),
            reason: notice.reason.as_deref(),
            counts: &notice.counts,
            hosts: &notice.hosts,
            more_hosts: notice.more_hosts(),
            scheduled_for: notice.scheduled_for,
            started_at: notice.started_at,
            finished_at: notice.finished_at,
            duration_ms: notice.took.and_then(|took| millis(took.0)),
            usual_ms: notice.usual.and_then(|usual| millis(usual.0)),
            retry_of: notice.retry_of.as_ref(),
        }
    }
}

impl Notice {
    /// One line for people: names of jobs and numbers, nothing that a host said.
    pub fn headline(&self) -> String {
        let (job, total) = (&self.job, self.counts.total());
        let hosts = |count: u32| if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") };
        match (self.kinds.first(), self.state) {
            (_, RunState::Failed) if total > 0 => {
                format!("{job} failed: {} of {} did not succeed", self.counts.errors(), hosts(total))
            }
            (_, RunState::Failed) => format!("{job} failed: nothing was started"),
            (_, RunState::Cancelled) => {
                format!("{job} was cancelled: {} of {} succeeded", self.counts.of(TaskState::Succeeded), hosts(total))
            }
            (_, RunState::Skipped) => match self.scheduled_for {
                Some(at) => format!("{job} did not run at {at}"),
                None => format!("{job} did not run"),
            },
            (Some(NotifyOn::Recovery), _) => format!("{job} succeeds again: {}", hosts(total)),
            (Some(NotifyOn::Slow), _) => format!("{job} succeeded, slower than it should: {}", self.times()),
            (_, RunState::Succeeded) => format!("{job} succeeded: {}", hosts(total)),
            (_, state) => format!("{job} is {}", state.as_str()),
        }
    }

    /// The notice as plain text.
    pub fn plain(&self) -> String {
        let mut text = format!("{}\n", self.headline());
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        };
        if let Some(reason) = &self.reason {
            line(format_args!("{reason}"));
        }
        if !self.hosts.is_empty() {
            line(format_args!(""));
        }
        for host in &self.hosts {
            line(format_args!("  {}: {}", host.label(), host.end()));
        }
        if self.more_hosts() > 0 {
            line(format_args!("  and {} more", self.more_hosts()));
        }
        line(format_args!(""));
        for (name, value) in self.facts() {
            line(format_args!("{name:<10} {value}"));
        }
        text
    }

    /// The notice as Slack's incoming webhooks want it, and what imitates them.
    ///
    /// Source: Slack, Formatting text for app surfaces: `&`, `<` and `>` are escaped, and nothing else can be. What a
    /// host said stands between backticks, where nobody can be called by name.
    pub fn slack(&self) -> serde_json::Value {
        let code = |text: &str| {
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'");
            format!("`{text}`")
        };
        let mark = match self.state {
            RunState::Succeeded if self.kinds.first() == Some(&NotifyOn::Slow) => ":warning:",
            RunState::Succeeded => ":white_check_mark:",
            RunState::Skipped => ":warning:",
            _ => ":x:",
        };
        let mut lines = vec![format!("{mark} *{}*", self.headline())];
        lines.extend(self.reason.as_deref().map(code));
        lines.extend(self.hosts.iter().map(|host| {
            let why = host.reason.as_deref().map(|reason| format!(": {}", code(reason))).unwrap_or_default();
            format!("• {} {}{why}", code(&host.label()), host.state)
        }));
        if self.more_hosts() > 0 {
            lines.push(format!("and {} more", self.more_hosts()));
        }
        lines.extend(self.facts().into_iter().map(|(name, value)| format!("{name}: {}", code(&value))));
        serde_json::json!({ "text": lines.join("\n") })
    }

    /// The subject of a mail: one line, safe in a header.
    pub fn subject(&self) -> String {
        format!("[sshjob] {}", self.headline())
    }

    /// The address that a dead-man's switch at `url` is told of this by.
    ///
    /// Source: Healthchecks.io, Pinging API: `/start`, `/fail`, and `rid`, the UUID that joins a start and its end.
    pub fn ping_url(&self, url: &str) -> String {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let step = match self.state {
            RunState::Succeeded => "",
            state if !state.is_final() => "/start",
            _ => "/fail",
        };
        let and = if query.is_empty() { "" } else { "&" };
        format!("{}{step}?{query}{and}rid={}", path.trim_end_matches('/'), self.uuid())
    }

    fn more_hosts(&self) -> u32 {
        self.counts.errors().saturating_sub(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX))
    }

    /// How long it took, and how long it usually takes.
    fn times(&self) -> String {
        let took = self.took.map(|took| format!("took {took}"));
        let usual = self.usual.map(|usual| format!("usually {usual}"));
        took.into_iter().chain(usual).collect::<Vec<_>>().join(", ")
    }

    /// What else is worth knowing, line by line.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let counts: Vec<String> = self.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let facts = [
            ("run", Some(self.run.to_string())),
            ("tasks", Some(counts.join(", ")).filter(|counts| !counts.is_empty())),
            ("scheduled", self.scheduled_for.map(|at| at.to_string())),
            ("started", Some(self.started_at.to_string())),
            ("finished", self.finished_at.map(|at| at.to_string())),
            ("time", Some(self.times()).filter(|times| !times.is_empty())),
            ("retry of", self.retry_of.as_ref().map(ToString::to_string)),
            ("details", Some(format!("sshjob status {}", self.run))),
        ];
        facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl HostNotice {
    fn label(&self) -> String {
        match &self.name {
            Some(name) if name != self.instance.as_str() => format!("{name} ({})", self.instance),
            _ => self.instance.to_string(),
        }
    }

    fn end(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.state),
            None => self.state.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use NotifyOn::{Failure, Missed, Recovery, Slow, Success};

    use super::*;
    use crate::domain::quantity::Span;

    fn notice(kinds: &[NotifyOn], state: RunState, counts: &[TaskState]) -> Notice {
        let at = |text: &str| text.parse().unwrap();
        Notice {
            kinds: kinds.to_vec(),
            run: "web-20261122T221500Z".parse().unwrap(),
            job: "web".parse().unwrap(),
            state,
            reason: Some("so be it".to_owned()),
            counts: counts.iter().copied().collect(),
            hosts: Vec::new(),
            scheduled_for: Some(at("2026-11-22T22:15:00Z")),
            started_at: at("2026-11-22T22:15:00Z"),
            took: Some(Span(Duration::from_mins(12))),
            finished_at: Some(at("2026-11-22T22:27:00Z")),
            usual: Some(Span(Duration::from_mins(5))),
            retry_of: Some("web-20261122T220000Z".parse().unwrap()),
        }
    }

    #[test]
    fn headline_says_what_weighs_most() {
        let (good, bad) = (TaskState::Succeeded, TaskState::Lost);
        for (kinds, state, counts, expected) in [
            (&[Failure, Slow][..], RunState::Failed, &[good, bad][..], "web failed: 1 of 2 hosts did not succeed"),
            (&[Failure], RunState::Failed, &[bad], "web failed: 1 of 1 host did not succeed"),
            (&[Failure], RunState::Failed, &[], "web failed: nothing was started"),
            (&[Failure], RunState::Cancelled, &[good, bad], "web was cancelled: 1 of 2 hosts succeeded"),
            (&[Missed], RunState::Skipped, &[], "web did not run at 2026-11-22T22:15:00Z"),
            (&[Recovery, Slow], RunState::Succeeded, &[good, good], "web succeeds again: 2 hosts"),
            (&[Slow], RunState::Succeeded, &[good], "web succeeded, slower than it should: took 12m, usually 5m"),
            (&[Success], RunState::Succeeded, &[good], "web succeeded: 1 host"),
            (&[], RunState::Running, &[], "web is running"),
        ] {
            assert_eq!(notice(kinds, state, counts).headline(), expected);
        }
    }

    #[test]
    fn plain_text_tells_how_many_more_hosts_there_are() {
        let mut notice = notice(&[Failure], RunState::Failed, &[TaskState::Lost; 12]);
        notice.hosts = vec![HostNotice {
            instance: "i-1".parse().unwrap(),
            name: Some("web-1".to_owned()),
            state: TaskState::Lost,
            reason: None,
        }];
        assert_eq!(
            notice.plain(),
            "web failed: 12 of 12 hosts did not succeed\nso be it\n\n  web-1 (i-1): lost\n  and 11 more\n\n\
             run        web-20261122T221500Z\ntasks      12 lost\nscheduled  2026-11-22T22:15:00Z\n\
             started    2026-11-22T22:15:00Z\nfinished   2026-11-22T22:27:00Z\ntime       took 12m, usually 5m\n\
             retry of   web-20261122T220000Z\ndetails    sshjob status web-20261122T221500Z\n"
        );
    }

    #[test]
    fn ping_address_keeps_its_query() {
        let ended = notice(&[], RunState::Failed, &[]);
        let rid = ended.uuid();
        for (url, expected) in [
            ("https://hc.example/5f1b", format!("https://hc.example/5f1b/fail?rid={rid}")),
            ("https://hc.example/5f1b/", format!("https://hc.example/5f1b/fail?rid={rid}")),
            ("https://hc.example/k/job?create=1", format!("https://hc.example/k/job/fail?create=1&rid={rid}")),
        ] {
            assert_eq!(ended.ping_url(url), expected);
        }
    }
}
