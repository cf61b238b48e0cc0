//! Where a private key or a store lives.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a private key comes from: `s3://bucket/path`, a file, or `agent`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// An object in S3.
    S3 {
        /// The bucket.
        bucket: String,
        /// The key of the object.
        key: String,
    },
    /// A file; relative to the project's folder.
    File(PathBuf),
    /// The SSH agent at `SSH_AUTH_SOCK`.
    Agent,
}

/// Why a location was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a location: `s3://bucket/path`, a file, or `agent`")]
pub struct InvalidLocation(String);

impl FromStr for Location {
    type Err = InvalidLocation;
    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return match rest.split_once('/') {
                Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                    Ok(Self::S3 { bucket: bucket.to_owned(), key: key.to_owned() })
                }
                _ => Err(InvalidLocation(text.to_owned())),
            };
        }
        match text {
            "agent" => Ok(Self::Agent),
            "" => Err(InvalidLocation(String::new())),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl TryFrom<String> for Location {
    type Error = InvalidLocation;
    fn try_from(text: String) -> Result<Self, InvalidLocation> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Agent => f.write_str("agent"),
        }
    }
}
