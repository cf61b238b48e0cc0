//! Where is told: SNS topics, and addresses that are posted to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::diagnostic::quoted;
use crate::domain::job::{InvalidReference, SecretRef};

/// The longest address of a page; servers and proxies refuse longer ones.
const MAX_URL_BYTES: usize = 2048;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::notify::Notify;

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
}
