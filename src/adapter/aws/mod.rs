//! AWS: instances from EC2, the store and private keys in S3, workers by Lambda.
//!
//! One configuration per process, its clients made once: TLS by `ring`, time-outs on every step, tries that are bounded.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

#[cfg(feature = "ec2")]
pub mod ec2;
mod fault;
#[cfg(feature = "lambda")]
pub mod lambda;
#[cfg(feature = "s3")]
pub mod s3;

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// How long a service may take until it begins to answer.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// How long one try may take.
const TRY_WITHIN: Duration = Duration::from_secs(20);

/// How long all tries of one request may take together.
const DONE_WITHIN: Duration = Duration::from_secs(45);

/// How often a request is made that fails in a way that may pass, as throttling; with pauses that double and jitter.
const TRIES: u32 = 6;

/// Finds the region and the credentials where the AWS CLI does; nothing is asked of any service before it is needed.
pub async fn configuration() -> SdkConfig {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(READ_WITHIN)
        .operation_attempt_timeout(TRY_WITHIN)
        .operation_timeout(DONE_WITHIN)
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
        .load()
        .await
}
