//! Who is told of a run, of what, and by which channel.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::read::some_of;
use super::{InvalidReference, SecretRef};
use crate::domain::decode::At;
use crate::domain::diagnostic::quoted;
use crate::domain::quantity::Span;

/// More recipients than this are a mailing list's business.
const MAX_RECIPIENTS: usize = 50;

/// The longest address of a page; servers and proxies refuse longer ones.
const MAX_URL_BYTES: usize = 2048;

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

/// The ARN of a standard SNS topic: `arn:aws:sns:REGION:ACCOUNT:NAME`.
///
/// Source: SNS API Reference, `CreateTopic`, for the name; AWS IAM User Guide, ARN format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic {
    arn: String,
    region: String,
}

impl Topic {
    /// The whole ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The region that it lives in, and is published to in.
    pub fn region(&self) -> &str {
        &self.region
    }
}

impl TryFrom<String> for Topic {
    type Error = InvalidReference;
    fn try_from(arn: String) -> Result<Self, InvalidReference> {
        let lower = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let region = match arn.split(':').collect::<Vec<_>>()[..] {
            ["arn", partition, "sns", region, account, name]
                if (partition == "aws"
                    || partition.starts_with("aws-") && partition.len() <= 32 && lower(partition))
                    && (1..=32).contains(&region.len())
                    && lower(region)
                    && account.len() == 12
                    && account.bytes().all(|b| b.is_ascii_digit())
                    && (1..=256).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) =>
            {
                Some(region.to_owned())
            }
            _ => None,
        };
        let what = "the ARN of an SNS topic";
        let allowed = "`arn:aws:sns:REGION:ACCOUNT:NAME`, not of a FIFO topic, which tells no people";
        match region {
            Some(region) => Ok(Self { arn, region }),
            None => Err(InvalidReference { what, found: quoted(&arn).trim_matches('`').to_owned(), allowed }),
        }
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.arn
    }
}

/// An address that is posted to: typed out, or where it is found, for whoever knows it may write there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// `https://…` or `http://…`.
    Url(String),
    /// Where the address is found when something is sent.
    Secret(SecretRef),
}

impl Endpoint {
    /// The same, fit to be shown.
    #[must_use]
    pub fn masked(&self) -> Self {
        match self {
            Self::Url(url) => Self::Url(masked(url)),
            Self::Secret(_) => self.clone(),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(self.masked()))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(secret) = SecretRef::try_from(text.clone()) {
            return Ok(Self::Secret(secret));
        }
        check_url(&text)?;
        if authority(&text).contains('@') {
            return Err("a password does not stand in the file; write `env:NAME` and put the address there".to_owned());
        }
        Ok(Self::Url(text))
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Url(url) => url,
            Endpoint::Secret(secret) => secret.into(),
        }
    }
}

/// Checks an address that is posted to.
///
/// # Errors
/// What is wrong with it; of the address no more than the host is told.
pub fn check_url(url: &str) -> Result<(), String> {
    let shown = || quoted(&masked(url));
    if !url.starts_with("https://") && !url.starts_with("http://") {
        let what = "an address: `https://…`, or where it is found: `env:NAME` or `file:PATH`";
        return Err(format!("{} is not {what}", shown()));
    }
    let host = authority(url).rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err(format!("{} names no host", shown()));
    }
    if url.len() > MAX_URL_BYTES {
        return Err(format!("{} has {} bytes; an address has at most {MAX_URL_BYTES}", shown(), url.len()));
    }
    // RFC 3986, section 2: nothing else occurs in an address, and a line end would begin another header.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b);
    if !url.bytes().all(allowed) {
        return Err(format!("{} holds characters that no address may hold", shown()));
    }
    Ok(())
}

/// The host of an address, its port, and what stands before them.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// An address without what must not be known: `https://hooks.example.com/…`.
fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    let secret = rest.strip_prefix(authority(url)).unwrap_or_default();
    let host = authority(url).rsplit('@').next().unwrap_or_default();
    format!("{scheme}{host}{}", if secret.len() > 1 { "/…" } else { secret })
}

/// Who gets mail, and through which server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// Who gets it.
    pub to: Vec<String>,
    /// Whom it is from.
    pub from: String,
    /// Who takes it on.
    pub server: MailServer,
    /// The user there, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// A mail server: `smtps://host[:port]` (TLS from the first byte) or `smtp://host[:port]` (`STARTTLS` where it offers
/// that; where a password is to be sent it must).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MailServer {
    /// Whether TLS is spoken from the first byte.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// The port; none means the usual one.
    pub port: Option<u16>,
}

impl TryFrom<String> for MailServer {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        let read = |text: &str| {
            let (scheme, rest) = text.split_once("://")?;
            let tls = match scheme {
                "smtps" => true,
                "smtp" => false,
                _ => return None,
            };
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
                None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
            };
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-.:_".contains(&b);
            let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(()));
            let good = (1..=255).contains(&host.len()) && host.bytes().all(allowed);
            good.then_some(Self { tls, host: host.to_owned(), port: port.transpose().ok()? })
        };
        let what = "a mail server";
        let allowed = "`smtps://host[:port]` or `smtp://host[:port]`; user and password have keys of their own";
        read(&text).ok_or_else(|| {
            // What stands before an `@` may be a password.
            let found = text.rsplit('@').next().unwrap_or_default();
            InvalidReference { what, found: quoted(found).trim_matches('`').to_owned(), allowed }
        })
    }
}

impl From<MailServer> for String {
    fn from(server: MailServer) -> Self {
        let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host };
        let port = server.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("smtp{}://{host}{port}", if server.tls { "s" } else { "" })
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
    let email = fields.get("email", email);
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

/// Reads who gets mail.
fn email(at: &At<'_>) -> Option<Email> {
    let what =
        "a map such as `{ to: ops@example.com, from: sshjob@example.com, server: \"smtps://mail.example.com\" }`";
    let mut fields = at.fields(what)?;
    let to = fields.need("to", "say who gets it, as `to: ops@example.com`", |at| {
        let to = some_of(at, at.one_or_many(mailbox)?, "recipient")?;
        if to.len() > MAX_RECIPIENTS {
            return at.fault(format_args!("{} recipients; at most {MAX_RECIPIENTS} are allowed", to.len()));
        }
        Some(to)
    });
    let from = fields.need("from", "say whom it is from, as `from: sshjob@example.com`", mailbox);
    let server = fields.need("server", "name the mail server, as `server: \"smtps://mail.example.com\"`", |at| {
        at.convert::<MailServer>("a mail server: `smtps://host[:port]`")
    });
    let user = fields.get("user", |at| match at.text("a user name")? {
        name if name.is_empty() || name.len() > 256 || name.contains(char::is_control) => {
            at.fault(format_args!("{} is not a user name", quoted(name)))
        }
        name => Some(name.to_owned()),
    });
    let password = fields.get("password", |at| {
        let text = at.text("a reference to a password: `env:NAME` or `file:PATH`")?;
        // What is no reference may be the password itself, and is not shown.
        SecretRef::try_from(text.to_owned())
            .ok()
            .or_else(|| at.fault_with_hint("a password does not stand in the file", "write `env:NAME` or `file:PATH`"))
    });
    if fields.has("user") != fields.has("password") {
        let missing = if fields.has("user") { "password" } else { "user" };
        fields.fault(fields.place(), format_args!("the key `{missing}` is missing"), Some("name both, or neither"));
    }
    fields.finish();
    Some(Email {
        to: to?.value,
        from: from?.value,
        server: server?.value,
        user: user.map(|user| user.value),
        password: password.map(|password| password.value),
    })
}

/// Reads an address of e-mail, without a name before it.
fn mailbox(at: &At<'_>) -> Option<String> {
    let text = at.text("an address such as `ops@example.com`")?;
    // RFC 5322, section 3.4.1, `dot-atom`: no quoted forms, so nothing can end the header that it stands in.
    let atom = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
    let local = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    let domain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    let good = text.len() <= 254
        && text.split_once('@').is_some_and(|(name, host)| {
            atom(name) && atom(host) && name.len() <= 64 && name.bytes().all(local) && host.bytes().all(domain)
        });
    if good { Some(text.to_owned()) } else { at.fault(format_args!("{} is not an address of e-mail", quoted(text))) }
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

    #[test]
    fn endpoint_shows_no_more_than_its_host() {
        let shown = |text: &str| format!("{:?}", Endpoint::try_from(text.to_owned()).unwrap());
        assert_eq!(shown("https://hooks.slack.com/services/T0/B0/x"), "https://hooks.slack.com/…");
        assert_eq!(shown("http://intranet:8080?token=x"), "http://intranet:8080/…");
        assert_eq!(shown("https://intranet/"), "https://intranet/");
        assert_eq!(shown("env:SLACK_URL"), "env:SLACK_URL");
        assert_eq!(shown("file:///run/slack"), "file:///run/slack");
        let text = "{\"on\":[],\"ping\":\"https://hc.example/secret\",\"webhook\":\"https://a.example/secret\"}";
        let notify: Notify = serde_json::from_str(text).unwrap();
        assert!(!format!("{notify:?}").contains("secret"));
        assert!(!serde_json::to_string(&notify.masked()).unwrap().contains("secret"));
    }

    #[test]
    fn address_that_is_refused_is_shown_without_its_secret() {
        for text in [
            "htps://a.example/secret",
            "a.example/secret",
            "https://me:secret@a.example/",
            "https:///secret",
            "https://:80/secret",
            "https://a.example/secret\r\nX: y",
            "https://a.example/secret\u{e4}",
            &format!("https://a.example/{}", "secret".repeat(400)),
        ] {
            let why = Endpoint::try_from(text.to_owned()).unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn topic_is_the_arn_of_one_that_tells_people() {
        let longest = format!("arn:aws:sns:eu-central-1:123456789012:{}", "x".repeat(256));
        for (arn, region) in [
            ("arn:aws:sns:us-east-1:123456789012:ops", "us-east-1"),
            ("arn:aws-us-gov:sns:us-gov-west-1:000000000000:On_Call-2", "us-gov-west-1"),
            (&longest, "eu-central-1"),
        ] {
            let topic = Topic::try_from(arn.to_owned()).unwrap();
            assert_eq!((topic.arn(), topic.region()), (arn, region));
        }
        for arn in [
            "",
            "ops",
            "arn:aws:sqs:us-east-1:123456789012:ops",
            "arn:aws:sns:us-east-1:123456789012",
            "arn:aws:sns:us-east-1:123456789012:",
            "arn:aws:sns:us-east-1:123456789012:ops:0e2f1a",
            "arn:aws:sns:us-east-1:123456789012:ops.fifo",
            "arn:aws:sns:us-east-1:12345678901:ops",
            "arn:aws:sns::123456789012:ops",
            "arn:aws:sns:us-east-1/x:123456789012:ops",
            "arn:evil:sns:us-east-1:123456789012:ops",
            "arn:aws:sns:us-east-1:123456789012:o\u{e4}s",
            &format!("{longest}x"),
        ] {
            Topic::try_from(arn.to_owned()).unwrap_err();
        }
    }

    #[test]
    fn mail_server_is_read_as_it_is_written() {
        for text in ["smtps://mail.example.com", "smtp://127.0.0.1:2525", "smtps://[::1]:465", "smtp://[::1]"] {
            assert_eq!(String::from(MailServer::try_from(text.to_owned()).unwrap()), text);
        }
        for text in
            ["smtps://", "mail.example.com", "smtp://a:0", "smtp://a:b", "smtp://a b", "smtp://a/x", "smtp://me@a"]
        {
            MailServer::try_from(text.to_owned()).unwrap_err();
        }
        let why = MailServer::try_from("smtps://me:secret@mail".to_owned()).unwrap_err().to_string();
        assert!(!why.contains("secret"), "{why}");
    }
}
