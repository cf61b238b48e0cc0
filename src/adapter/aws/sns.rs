//! Publishes to SNS topics, each in the region that it lives in.

use aws_sdk_sns::Client;
use aws_sdk_sns::config::{Builder, Region};

use super::Trouble;
use crate::domain::job::notify::Topic;
use crate::port::{NotifyError, Topics};

/// Publishes with one client, whichever its own region is.
#[derive(Debug, Clone)]
pub struct SnsTopics(Client);

impl SnsTopics {
    /// Publishes with `client`.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Topics for SnsTopics {
    async fn publish(&self, topic: &Topic, subject: &str, text: &str) -> Result<(), NotifyError> {
        let request = self.0.publish().topic_arn(topic.arn()).subject(subject).message(text).customize();
        let there = Builder::new().region(Region::new(topic.region().to_owned()));
        let sent = request.config_override(there).send().await;
        let trouble = |error| Trouble::new(&error, "sns:Publish", topic.arn()).why.replace("\nhint: ", "; ");
        sent.map(drop).map_err(|error| NotifyError(trouble(error)))
    }
}
