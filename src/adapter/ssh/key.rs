//! STUB
pub use russh::keys::PrivateKey;
use std::path::Path;
use zeroize::Zeroizing;
/// .
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// .
    #[error("encrypted")]
    Encrypted,
    /// .
    #[error("{0}")]
    Other(String),
}
/// .
pub fn load(path: &Path, _p: Option<&Zeroizing<String>>) -> Result<PrivateKey, KeyError> {
    russh::keys::load_secret_key(path, None).map_err(|e| KeyError::Other(e.to_string()))
}
