//! What the adapters of AWS promise, against emulators on this machine, and against servers that are not well.

mod commands;
mod ec2;
mod lambda;
mod parameters;
mod s3;
mod silent;
mod sns;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use sshjob::adapter::aws;

pub use ec2::{crowd, fleet, fleet_that_is_throttled};
pub use lambda::dispatcher;
pub use s3::{bucket, other_bucket};

/// Clients of whatever listens at `url`, as the program's own, but with no pauses between tries.
async fn config(url: &str) -> SdkConfig {
    let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(1));
    let credentials = Credentials::new("AKIATEST", "secret", None, None, "test");
    let loader = aws::configuration().region(Region::new("us-east-1")).credentials_provider(credentials);
    loader.retry_config(retries).endpoint_url(url).load().await
}
