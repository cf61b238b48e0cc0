//! The outside: one module per thing; adapters never import each other.

#[cfg(any(feature = "s3", feature = "ec2", feature = "lambda"))]
#[cfg(feature = "sdk")]
pub mod aws;
pub mod dir;
pub mod fleet;
pub mod hosts;
pub mod local;
pub mod notify;
pub mod process;
pub mod ssh;

/// The SNS topics that this build can reach.
#[cfg(not(feature = "sns"))]
pub use self::notify::NoTopics as Reachable;
#[cfg(feature = "sns")]
pub use aws::sns::SnsTopics as Reachable;
