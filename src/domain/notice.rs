//! What people are told of one run: what it is worth telling, and in which words.
//!
//! There is one notice per run, however many hosts it has. [`text`](mod@text) puts it into words for each channel.

pub mod text;

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use super::id::{InstanceId, JobName, RunId};
use super::job::notify::{Channel, SlowAfter};
use super::job::{Notify, NotifyOn};
use super::quantity::Span;
use super::run::{RunRecord, RunState, Target, Verdict};
use super::task::{Counts, TaskRecord, TaskState};

/// How many hosts a notice names: enough to see a pattern, few enough to read on a telephone.
const MAX_HOSTS: usize = 10;

/// How many characters of a reason or a name are told; the rest is in the store.
const MAX_CHARS: usize = 200;

/// With fewer earlier runs than this nobody can say what is usual.
const FEW: usize = 3;

/// What is told of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What makes it worth telling; the first of them is its headline. Empty for what only `ping` is told.
    pub kinds: Vec<NotifyOn>,
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// How it stands; not final where it has just started.
    pub state: RunState,
    /// Why, where the counts do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many tasks ended in each state.
    #[serde(default)]
    pub counts: Counts,
    /// Hosts that did not succeed, at most ten; those that failed come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostNotice>,
    /// When the run was to start, for a firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// How long it took from its first start, once it has ended; none where nothing started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Span>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How long the job usually takes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<Span>,
    /// The run whose tasks this one runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RunId>,
}

/// A host that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostNotice {
    /// The instance.
    #[schemars(with = "String")]
    pub instance: InstanceId,
    /// Its `Name` tag.
    #[serde(default)]
    pub name: Option<String>,
    /// How its task ended.
    pub state: TaskState,
    /// Why, in a few words.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Notice {
    /// A run that has just been claimed: only `ping` is told.
    pub fn started(record: &RunRecord) -> Self {
        Self {
            kinds: Vec::new(),
            run: record.run.clone(),
            job: record.job.name.clone(),
            state: RunState::Running,
            reason: None,
            counts: Counts::default(),
            hosts: Vec::new(),
            scheduled_for: record.scheduled_for,
            started_at: record.started_at,
            took: None,
            finished_at: None,
            usual: None,
            retry_of: record.retry_of.clone(),
        }
    }

    /// A run that has ended, with its tasks in any order.
    ///
    /// `previous` is how the job's last run before it that was not skipped ended, `usual` how long it [`usual`]ly takes.
    pub fn ended<'t>(
        record: &RunRecord,
        verdict: &Verdict,
        tasks: impl IntoIterator<Item = (&'t Target, &'t TaskRecord)>,
        previous: Option<RunState>,
        usual: Option<Duration>,
    ) -> Self {
        let took = verdict.took();
        let rule = record.job.notify.as_deref();
        Self {
            kinds: rule.map(|rule| notices(rule, verdict.state, took, previous, usual)).unwrap_or_default(),
            state: verdict.state,
            reason: verdict.reason.as_deref().map(tame),
            counts: verdict.counts.clone(),
            hosts: hosts(tasks),
            took: verdict.began_at.map(|_| Span(took)),
            finished_at: Some(verdict.finished_at),
            usual: usual.map(Span),
            ..Self::started(record)
        }
    }

    /// Whether `channel` is told of this.
    pub fn concerns(&self, channel: Channel) -> bool {
        match channel {
            // What was skipped did not run, and a switch that is not reset is the point of a dead-man's switch.
            Channel::Ping => self.state != RunState::Skipped,
            _ => !self.kinds.is_empty(),
        }
    }

    /// Names the run in the form of a UUID: the same for the start and the end of a run, and for whatever is sent twice.
    ///
    /// Source: RFC 9562, section 5.5 (version 5).
    pub fn uuid(&self) -> String {
        /// Of run ids, and of nothing else.
        const NAMESPACE: [u8; 16] = *b"sshjob run ids/1";
        let digest = Sha1::new().chain_update(NAMESPACE).chain_update(self.run.as_str()).finalize();
        let bits = digest.iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let bits = bits & !(0xf << 76) | 5 << 76;
        let bits = bits & !(0b11 << 62) | 0b10 << 62;
        let hex = format!("{bits:032x}");
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default());
        parts.join("-")
    }
}

/// Of what `rule` wants to hear when a run ended in `state` after `took`; what weighs most comes first.
///
/// `previous` is how the job's last run before it that was not skipped ended, `usual` how long it [`usual`]ly takes.
pub fn notices(
    rule: &Notify,
    state: RunState,
    took: Duration,
    previous: Option<RunState>,
    usual: Option<Duration>,
) -> Vec<NotifyOn> {
    let ran = matches!(state, RunState::Succeeded | RunState::Failed | RunState::Cancelled);
    let limit = match rule.slow_after.unwrap_or(SlowAfter::DEFAULT) {
        SlowAfter::Span(span) => Some(span.0),
        SlowAfter::Tenths(tenths) => usual.map(|usual| usual.saturating_mul(tenths) / 10),
    };
    let found = [
        (NotifyOn::Failure, ran && state != RunState::Succeeded),
        (NotifyOn::Missed, state == RunState::Skipped),
        (
            NotifyOn::Recovery,
            state == RunState::Succeeded && matches!(previous, Some(RunState::Failed | RunState::Cancelled)),
        ),
        (NotifyOn::Slow, ran && limit.is_some_and(|limit| took > limit)),
        (NotifyOn::Success, state == RunState::Succeeded),
    ];
    found.into_iter().filter(|(kind, found)| *found && rule.on.contains(kind)).map(|(kind, _)| kind).collect()
}

/// How long a job usually takes: the median of what its last runs took; `None` while there are too few of them.
pub fn usual(mut durations: Vec<Duration>) -> Option<Duration> {
    if durations.len() < FEW {
        return None;
    }
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied()
}

/// The hosts to name.
fn hosts<'t>(tasks: impl IntoIterator<Item = (&'t Target, &'t TaskRecord)>) -> Vec<HostNotice> {
    // Skipped and cancelled tasks are what others led to: they come last in the order of summaries, as they should.
    let rank = |state: TaskState| TaskState::ALL.iter().position(|other| *other == state);
    let mut failed: Vec<_> =
        tasks.into_iter().filter(|(_, task)| task.state.is_final() && task.state != TaskState::Succeeded).collect();
    failed.sort_by_key(|(_, task)| rank(task.state));
    failed.into_iter().take(MAX_HOSTS).map(|(target, task)| HostNotice::of(target, task)).collect()
}

impl HostNotice {
    fn of(target: &Target, task: &TaskRecord) -> Self {
        let reason = task.reason.as_deref().map(tame);
        let reason = reason.or_else(|| task.exit_code.map(|code| format!("exit {code}")));
        let reason = reason.or_else(|| task.signal.as_deref().map(|signal| tame(&format!("signal {signal}"))));
        let name = target.name.as_deref().map(tame).filter(|name| !name.is_empty());
        Self { instance: target.instance.clone(), name, state: task.state, reason }
    }
}

/// Text that a host or a cloud gave, on one line, short, and unable to steer what shows it.
fn tame(text: &str) -> String {
    // Unicode, Bidirectional Algorithm, section 2: these turn round what stands beside them.
    let steers =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let words = text.split(|c: char| c.is_whitespace() || c.is_control() || steers(c)).filter(|word| !word.is_empty());
    let mut tamed = String::new();
    for (count, c) in words.flat_map(|word| [" ", word]).flat_map(str::chars).skip(1).enumerate() {
        if count == MAX_CHARS {
            tamed.push('…');
            break;
        }
        tamed.push(c);
    }
    tamed
}

#[cfg(test)]
mod tests {
    use NotifyOn::{Failure, Missed, Recovery, Slow, Success};
    use RunState::{Cancelled, Failed, Skipped, Succeeded};

    use super::*;

    fn rule(slow_after: Option<&str>) -> Notify {
        Notify {
            on: vec![Success, Slow, Recovery, Missed, Failure],
            slow_after: slow_after.map(|text| text.parse().unwrap()),
            sns: None,
            webhook: None,
            slack: None,
            email: None,
            ping: None,
        }
    }

    #[test]
    fn verdict_is_worth_what_the_rule_asks_for() {
        let all = rule(None);
        let told = |rule: &Notify, state, took, previous, usual: Option<u64>| {
            notices(rule, state, Duration::from_secs(took), previous, usual.map(Duration::from_secs))
        };
        for (state, took, previous, usual, expected) in [
            (Succeeded, 10, None, None, vec![Success]),
            (Succeeded, 10, Some(Succeeded), Some(10), vec![Success]),
            (Succeeded, 10, Some(Failed), Some(10), vec![Recovery, Success]),
            (Succeeded, 10, Some(Cancelled), Some(5), vec![Recovery, Success]),
            (Succeeded, 11, Some(Skipped), Some(5), vec![Slow, Success]),
            (Failed, 10, Some(Failed), Some(5), vec![Failure]),
            (Failed, 11, Some(Succeeded), Some(5), vec![Failure, Slow]),
            (Cancelled, 1, None, Some(5), vec![Failure]),
            (Skipped, 99, Some(Failed), Some(5), vec![Missed]),
        ] {
            assert_eq!(told(&all, state, took, previous, usual), expected, "{state:?} {took} {previous:?} {usual:?}");
        }
        assert_eq!(told(&rule(Some("1.5x")), Failed, 8, None, Some(5)), [Failure, Slow]);
        assert_eq!(told(&rule(Some("1.5x")), Failed, 7, None, Some(5)), [Failure]);
        assert_eq!(told(&rule(Some("10s")), Failed, 11, None, None), [Failure, Slow]);
        let one = Notify { on: vec![Recovery], ..all };
        assert_eq!(told(&one, Succeeded, 11, Some(Failed), Some(5)), [Recovery]);
        assert_eq!(told(&one, Failed, 11, Some(Failed), Some(5)), []);
    }

    #[test]
    fn usual_is_the_median_of_enough_runs() {
        let seconds = |seconds: &[u64]| usual(seconds.iter().copied().map(Duration::from_secs).collect());
        assert_eq!(seconds(&[1, 9]), None);
        assert_eq!(seconds(&[100, 1, 3]), Some(Duration::from_secs(3)));
        assert_eq!(seconds(&[4, 1, 3, 2]), Some(Duration::from_secs(3)));
    }

    #[test]
    fn ten_hosts_are_named_those_that_failed_first() {
        let target = |n: usize| Target {
            instance: format!("i-{n}").parse().unwrap(),
            account: String::new(),
            region: String::new(),
            name: Some("\u{202e}".repeat(n)),
            address: None,
            address_kind: None,
            port: 22,
            user: String::new(),
            jump: None,
            keys: Vec::new(),
        };
        let task = |n: usize| {
            let state = [TaskState::Succeeded, TaskState::Skipped, TaskState::Lost, TaskState::Failed][n % 4];
            TaskRecord { state, reason: Some("x".repeat(n)), ..TaskRecord::pending() }
        };
        let all: Vec<_> = (0..1000).map(|n| (target(n), task(n))).collect();
        let named = hosts(all.iter().map(|(target, task)| (target, task)));
        assert_eq!(named.len(), MAX_HOSTS);
        assert!(named.iter().all(|host| host.state == TaskState::Failed && host.name.is_none()), "{named:?}");
        let few = hosts(all.iter().skip(996).map(|(target, task)| (target, task)));
        assert_eq!(
            few.iter().map(|host| host.state).collect::<Vec<_>>(),
            [TaskState::Failed, TaskState::Lost, TaskState::Skipped]
        );
        assert_eq!(few[0].reason, Some(format!("{}…", "x".repeat(MAX_CHARS))));
    }

    proptest::proptest! {
        #[test]
        fn tamed_text_is_one_short_line(text in "(?s).{0,300}") {
            let tamed = tame(&text);
            proptest::prop_assert!(tamed.chars().count() <= MAX_CHARS + 1);
            proptest::prop_assert!(!tamed.contains(char::is_control));
        }
    }
}
