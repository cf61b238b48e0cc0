//! AWS: how its services are reached, and what their errors mean. One module per service.

#[cfg(feature = "ec2")]
pub mod ec2;
#[cfg(feature = "s3")]
pub mod keys;
#[cfg(feature = "lambda")]
pub mod lambda;
#[cfg(feature = "ssm")]
pub mod parameters;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(feature = "sns")]
pub mod sns;

use std::error::Error;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, tls};
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::domain::diagnostic::chain;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// How long an answer may take to begin.
const READ: Duration = Duration::from_secs(10);

/// How long one operation may take, with all its tries.
const OPERATION: Duration = Duration::from_secs(30);

/// How often a request is tried at most; with the pauses between, about as long as an operation may take.
const TRIES: u32 = 6;

/// What the SDK says before it lists every place where there could have been credentials.
const NO_CREDENTIALS: &str = "no credentials found in chain";

/// How services say that somebody may not do something.
const DENIED: [&str; 6] = [
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "AuthorizationError",
    "AuthorizationErrorException",
    "UnauthorizedOperation",
];

/// How they say that somebody's credentials are too old.
const EXPIRED: [&str; 4] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"];

/// How they say that a request was signed at another time than theirs.
const SKEWED: [&str; 2] = ["RequestTimeTooSkewed", "RequestInTheFuture"];

/// What clients are made with: the usual variables, profiles and roles say where and as whom; nothing waits for ever.
pub fn configuration() -> ConfigLoader {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(READ).operation_timeout(OPERATION);
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(Late(Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https()))
        .timeout_config(timeouts.build())
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
}

/// [`configuration`], read.
pub async fn configured() -> SdkConfig {
    configuration().load().await
}

/// A client that reads the machine's certificate authorities when it first connects, not when it is made: a function
/// that starts has better to do.
#[derive(Debug)]
struct Late(SharedHttpClient);

impl HttpClient for Late {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        self.0.http_connector(settings, components)
    }
}

/// What went wrong with a request.
#[derive(Debug)]
struct Trouble {
    /// The status of the answer; none where there was none.
    status: Option<u16>,
    /// What the service calls it; empty where it does not say.
    code: String,
    /// The whole of it for people: the action, the resource, what was said, what to do.
    why: String,
}

impl Trouble {
    /// Says of `error` that `action` (as a policy names it) on `resource` came to nothing.
    fn new<E: Error + ProvideErrorMetadata + 'static>(
        error: &SdkError<E, Response>,
        action: &str,
        resource: &str,
    ) -> Self {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let told = match error {
            SdkError::ServiceError(_) => {
                let said = error.message().filter(|said| !said.is_empty());
                match (code.as_str(), said) {
                    ("", None) => format!("status {}", status.unwrap_or_default()),
                    (code, None) => code.to_owned(),
                    (code, Some(said)) => format!("{code}: {said}"),
                }
            }
            other => chain(other),
        };
        if told.contains(NO_CREDENTIALS) {
            let hint = "`aws configure` sets some up; `AWS_PROFILE` names those of another profile";
            let why = format!("`{action}` on `{resource}`: no credentials were found\nhint: {hint}");
            return Self { status, code, why };
        }
        let told: String = told.chars().filter(|c| !c.is_control()).take(600).collect();
        let mut trouble = Self { status, code, why: format!("`{action}` on `{resource}`: {told}") };
        let hint = if trouble.is_denied() {
            format!("allow `{action}` on `{resource}` to whoever this runs as")
        } else if trouble.is_one_of(&EXPIRED) {
            "the credentials have expired: get new ones".to_owned()
        } else if trouble.is_one_of(&SKEWED) {
            "is the clock of this machine right?".to_owned()
        } else {
            return trouble;
        };
        trouble.why = format!("{}\nhint: {hint}", trouble.why);
        trouble
    }

    /// Whether it is for want of a permission. An answer to `HEAD` has no code; of one that has, the status says less:
    /// who has expired, or whose clock is wrong, is answered 403, too, and may be let in a moment later.
    fn is_denied(&self) -> bool {
        if self.code.is_empty() { self.status == Some(403) } else { self.is_one_of(&DENIED) }
    }

    /// Whether the service calls it one of `codes`.
    fn is_one_of(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }

    /// Whether it may have been done all the same: no answer came, or one that says nothing of it.
    fn is_ambiguous(&self) -> bool {
        self.status.is_none_or(|status| status >= 500)
    }
}
