//! Tells people: webhooks, Slack and dead-man's switches by HTTP, mail by SMTP.
//!
//! Whatever is at the other end, a message takes ten seconds at most, and of a reply no more than its beginning is
//! read. Addresses and passwords are fetched when they are needed, and named in no error.

mod http;
mod mail;
mod roots;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use zeroize::Zeroizing;

pub use roots::Roots;

use crate::domain::job::notify::{Channel, Endpoint, Topic, check_url};
use crate::domain::job::{Notify, SecretRef};
use crate::domain::notice::Notice;
use crate::domain::notice::text::NoticeDocument;
use crate::port::{Notifier, NotifyError, Topics};

/// The longest that one message may take: long for any server that is well.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The longest subject that SNS takes: less than 100 characters.
///
/// Source: SNS API Reference, Publish, `Subject`.
const MAX_TOPIC_SUBJECT: usize = 99;

/// What is said of a server that does not answer in time.
const LATE: &str = "no answer in time";

/// Tells people by the network; `R` finds secrets, `T` publishes to SNS topics.
#[derive(Clone)]
pub struct Network<R, T = NoTopics> {
    resolve: R,
    topics: T,
    roots: Arc<Roots>,
    deadline: Duration,
    through_proxy: bool,
}

impl<R> Network<R>
where
    R: Fn(&SecretRef) -> Result<Zeroizing<String>, String> + Send + Sync,
{
    /// Finds secrets by `resolve`, whose errors name no secret, and believes the servers that `roots` vouch for.
    pub fn new(resolve: R, roots: Roots) -> Self {
        Self { resolve, topics: NoTopics, roots: Arc::new(roots), deadline: DEADLINE, through_proxy: false }
    }
}

impl<R, T> Network<R, T>
where
    R: Fn(&SecretRef) -> Result<Zeroizing<String>, String> + Send + Sync,
    T: Topics,
{
    /// The same, publishing to SNS topics by `topics`.
    #[must_use]
    pub fn publishing<U: Topics>(self, topics: U) -> Network<R, U> {
        let Self { resolve, roots, deadline, through_proxy, .. } = self;
        Network { resolve, topics, roots, deadline, through_proxy }
    }

    /// The same, with another longest time that one message may take.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same, posting through the proxy that `HTTPS_PROXY` and its like name, if any; `NO_PROXY` is obeyed.
    #[must_use]
    pub fn through_proxy(self) -> Self {
        Self { through_proxy: true, ..self }
    }

    /// The address that an endpoint stands for.
    fn url(&self, endpoint: &Endpoint) -> Result<Zeroizing<String>, NotifyError> {
        match endpoint {
            Endpoint::Url(url) => Ok(Zeroizing::new(url.clone())),
            Endpoint::Secret(secret) => {
                let found = self.secret(secret)?;
                let url = found.trim();
                // What is wrong with it may be that it is another secret.
                check_url(url).map_err(|_| {
                    NotifyError(format!("what `{}` holds is not an address", String::from(secret.clone())))
                })?;
                Ok(Zeroizing::new(url.to_owned()))
            }
        }
    }

    fn secret(&self, secret: &SecretRef) -> Result<Zeroizing<String>, NotifyError> {
        (self.resolve)(secret).map_err(NotifyError)
    }

    async fn post(
        &self,
        endpoint: Option<&Endpoint>,
        notice: &Notice,
        body: http::Body,
        address: impl FnOnce(&str) -> String + Send,
    ) -> Result<String, NotifyError> {
        let endpoint = endpoint.ok_or_else(|| NotifyError("no address is set".to_owned()))?;
        let url = Zeroizing::new(address(&self.url(endpoint)?));
        let way =
            http::Way { roots: Arc::clone(&self.roots), deadline: self.deadline, through_proxy: self.through_proxy };
        http::post(url, body, notice.uuid(), way).await.map_err(NotifyError)
    }

    async fn send_now(&self, notice: &Notice, rule: &Notify, channel: Channel) -> Result<(), NotifyError> {
        let json = |value: serde_json::Result<String>| {
            value.map(http::Body::Json).map_err(|error| NotifyError(error.to_string()))
        };
        let same = |url: &str| url.to_owned();
        match channel {
            Channel::Webhook => {
                let body = json(serde_json::to_string(&NoticeDocument::of(notice)))?;
                self.post(rule.webhook.as_ref(), notice, body, same).await.map(drop)
            }
            Channel::Slack => {
                let body = json(serde_json::to_string(&notice.slack()))?;
                self.post(rule.slack.as_ref(), notice, body, same).await.map(drop)
            }
            Channel::Ping => {
                let body = http::Body::Text(notice.plain());
                let reply = self.post(rule.ping.as_ref(), notice, body, |url| notice.ping_url(url)).await?;
                // Healthchecks.io, Pinging API: it answers 200 also where there is no such check.
                if reply.contains("(not found)") {
                    return Err(NotifyError("the server knows no check of this address".to_owned()));
                }
                Ok(())
            }
            Channel::Email => {
                let email = rule.email.as_ref().ok_or_else(|| NotifyError("no mailbox is set".to_owned()))?;
                let password = email.password.as_ref().map(|password| self.secret(password)).transpose()?;
                mail::send(email, password, notice, &self.roots).await.map_err(NotifyError)
            }
            Channel::Sns => {
                let topic = rule.sns.as_ref().ok_or_else(|| NotifyError("no topic is set".to_owned()))?;
                let subject: String = notice.subject().chars().take(MAX_TOPIC_SUBJECT).collect();
                self.topics.publish(topic, &subject, &notice.plain()).await
            }
        }
    }
}

impl<R, T> Notifier for Network<R, T>
where
    R: Fn(&SecretRef) -> Result<Zeroizing<String>, String> + Send + Sync,
    T: Topics,
{
    async fn send(&self, notice: &Notice, rule: &Notify, channel: Channel) -> Result<(), NotifyError> {
        let sent = timeout(self.deadline, self.send_now(notice, rule, channel)).await;
        sent.unwrap_or_else(|_| Err(NotifyError(LATE.to_owned())))
    }
}

/// Publishes to no SNS topic: there is no AWS here.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTopics;

impl Topics for NoTopics {
    async fn publish(&self, topic: &Topic, _subject: &str, _text: &str) -> Result<(), NotifyError> {
        Err(NotifyError(format!("publishing to `{}` needs a build with AWS", topic.arn())))
    }
}

/// What a server said, fit for a message: one line, short.
fn quote(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}
