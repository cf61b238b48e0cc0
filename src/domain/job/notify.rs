//! Who is told of a run, of what, and by which channel.

mod address;
mod mail;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::address::{Endpoint, Topic, check_url};
pub use self::mail::{Email, MailServer};
use super::read::some_of;
use crate::domain::decode::At;
use crate::domain::diagnostic::quoted;
use crate::domain::quantity::Span;

/// Who is told of a run, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Of what they are told; `ping` is told of every run.
    #[serde(default)]
    pub on: Vec<NotifyOn>,
    /// When a run counts as slow; none means [`SlowAfter::DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_after: Option<SlowAfter>,
    /// An SNS topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sns: Option<Topic>,
    /// An address that is sent JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Endpoint>,
    /// An incoming webhook of Slack, or of what understands the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<Endpoint>,
    /// People with mailboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// A dead-man's switch in the form of Healthchecks: told of every start and every end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping: Option<Endpoint>,
}

impl Notify {
    /// The channels that are set up.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        let set = [
            (Channel::Sns, self.sns.is_some()),
            (Channel::Webhook, self.webhook.is_some()),
            (Channel::Slack, self.slack.is_some()),
            (Channel::Email, self.email.is_some()),
            (Channel::Ping, self.ping.is_some()),
        ];
        set.into_iter().filter(|(_, set)| *set).map(|(channel, _)| channel)
    }

    /// The same, fit to be shown: of a typed-out address only the host is left.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mask = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(Endpoint::masked);
        let (webhook, slack, ping) = (mask(&self.webhook), mask(&self.slack), mask(&self.ping));
        Self { webhook, slack, ping, ..self.clone() }
    }
}

/// What people want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifyOn {
    /// The run did not succeed.
    Failure,
    /// The run succeeded.
    Success,
    /// The run succeeded after one that did not.
    Recovery,
    /// A firing was missed or skipped.
    Missed,
    /// The run took longer than it usually does.
    Slow,
}

/// A way to tell people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// An SNS topic.
    Sns,
    /// An address that is sent JSON.
    Webhook,
    /// An incoming webhook in Slack's form.
    Slack,
    /// E-mail.
    Email,
    /// A dead-man's switch.
    Ping,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sns => "sns",
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Email => "email",
            Self::Ping => "ping",
        })
    }
}

/// From when on a run is slow: `2x` the usual time, or a time such as `10m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SlowAfter {
    /// This many tenths of the usual time.
    Tenths(u32),
    /// This long, whatever is usual.
    Span(Span),
}

impl SlowAfter {
    /// Twice as long as usual.
    pub const DEFAULT: Self = Self::Tenths(20);
}

impl FromStr for SlowAfter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(factor) = text.strip_suffix('x') else {
            let span: Span = text.parse().map_err(|error| format!("{error}; or a factor such as `2x`"))?;
            return if span.0.is_zero() { Err("must be longer than 0s".to_owned()) } else { Ok(Self::Span(span)) };
        };
        let (whole, tenth) = factor.split_once('.').unwrap_or((factor, "0"));
        let digits = |part: &str, most| {
            let good = (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u32>().ok().filter(|_| good)
        };
        let tenths = digits(whole, 3).zip(digits(tenth, 1)).map(|(whole, tenth)| whole * 10 + tenth);
        match tenths.filter(|tenths| (11..=1000).contains(tenths)) {
            Some(tenths) => Ok(Self::Tenths(tenths)),
            None => Err(format!("{} is not a factor from `1.1x` to `100x`", quoted(text))),
        }
    }
}

impl TryFrom<String> for SlowAfter {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SlowAfter> for String {
    fn from(slow: SlowAfter) -> Self {
        slow.to_string()
    }
}

impl fmt::Display for SlowAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenths(tenths) if tenths.is_multiple_of(10) => write!(f, "{}x", tenths / 10),
            Self::Tenths(tenths) => write!(f, "{}.{}x", tenths / 10, tenths % 10),
            Self::Span(span) => write!(f, "{span}"),
        }
    }
}

/// Reads who is told.
pub(super) fn notify(at: &At<'_>) -> Option<Notify> {
    let mut fields = at.fields("a map such as `{ on: [failure], webhook: \"https://…\" }`")?;
    let channels = ["sns", "webhook", "slack", "email", "ping"];
    let others = channels.iter().any(|channel| *channel != "ping" && fields.has(channel));
    let read_on = |at: &At<'_>| some_of(at, at.one_or_many(At::choice)?, "kind of end");
    let on = if others || !fields.has("ping") {
        fields.need("on", "say of what, as `on: [failure]`", read_on).map(|on| on.value)
    } else {
        Some(fields.get("on", read_on).map(|on| on.value).unwrap_or_default())
    };
    let slow_after = fields.get("slow_after", |at| {
        if on.as_ref().is_some_and(|on| !on.contains(&NotifyOn::Slow)) {
            return at.fault_with_hint("nobody is told of slow runs", "add `slow` to `on`, or leave the key out");
        }
        at.parse("a factor such as `2x`, or a duration such as `10m`,")
    });
    let sns = fields.get("sns", |at| at.convert::<Topic>("the ARN of an SNS topic"));
    let endpoint = |at: &At<'_>| at.convert::<Endpoint>("an address");
    let webhook = fields.get("webhook", endpoint);
    let slack = fields.get("slack", endpoint);
    let email = fields.get("email", mail::email);
    let ping = fields.get("ping", endpoint);
    if !channels.iter().any(|channel| fields.has(channel)) {
        let hint = "add `webhook`, `slack`, `email`, `ping` or `sns`";
        fields.fault(fields.place(), "nobody is told", Some(hint));
    }
    fields.finish();
    Some(Notify {
        on: on?,
        slow_after: slow_after.map(|slow| slow.value),
        sns: sns.map(|sns| sns.value),
        webhook: webhook.map(|webhook| webhook.value),
        slack: slack.map(|slack| slack.value),
        email: email.map(|email| email.value),
        ping: ping.map(|ping| ping.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_after_is_a_factor_or_a_duration() {
        for text in ["2x", "1.5x", "100x", "1.1x", "10m", "1h30m"] {
            assert_eq!(text.parse::<SlowAfter>().unwrap().to_string(), text);
        }
        for text in ["1x", "0x", "1.05x", "101x", "x", "2.x", ".5x", "-2x", "+2x", "2", "0s", "2X", "99999999999x"] {
            text.parse::<SlowAfter>().unwrap_err();
        }
    }
}
