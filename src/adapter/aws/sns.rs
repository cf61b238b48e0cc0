//! Publishes to SNS topics, each in the region that it lives in.

use std::sync::Arc;

use aws_sdk_sns::Client;
use aws_sdk_sns::config::{Builder, Region};
use tokio::sync::OnceCell;

use super::{Trouble, configuration};
use crate::domain::job::notify::Topic;
use crate::port::{NotifyError, Topics};

/// Publishes as whoever the usual variables, profiles and roles say, which are asked when there is first something to
/// publish. Clones share the client.
#[derive(Debug, Clone, Default)]
pub struct SnsTopics(Arc<OnceCell<Client>>);

impl SnsTopics {
    /// Publishes with `client`, whichever its own region is.
    pub fn new(client: Client) -> Self {
        Self(Arc::new(OnceCell::new_with(Some(client))))
    }
}

impl Topics for SnsTopics {
    async fn publish(&self, topic: &Topic, subject: &str, text: &str) -> Result<(), NotifyError> {
        let region = Region::new(topic.region().to_owned());
        // With a region given nobody is asked for it: on a machine that is none of AWS's that takes seconds.
        let make = || async { Client::new(&configuration().region(region.clone()).load().await) };
        let client = self.0.get_or_init(make).await;
        let request = client.publish().topic_arn(topic.arn()).subject(subject).message(text).customize();
        let sent = request.config_override(Builder::new().region(region)).send().await;
        let trouble = |error| Trouble::new(&error, "sns:Publish", topic.arn()).why.replace("\nhint: ", "; ");
        sent.map(drop).map_err(|error| NotifyError(trouble(error)))
    }
}
