//! Public keys of hosts and of authorities, as text that can be compared.

use std::fmt;
use std::str::FromStr;

use ssh_key::{Algorithm, HashAlg};

/// A public key, as `ssh-ed25519 AAAA…`: the type and the key, without a comment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey {
    text: String,
    fingerprint: String,
}

impl PublicKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Its type, as `ssh-ed25519`.
    pub fn kind(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// Its type, as the protocol's library has it.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.kind().parse().ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fingerprint, self.kind())
    }
}

/// Why a text is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a public key: {why}")]
pub struct InvalidPublicKey {
    found: String,
    why: String,
}

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;

    fn from_str(text: &str) -> Result<Self, InvalidPublicKey> {
        let mut words = text.split_ascii_whitespace();
        let text = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let invalid = |why: String| {
            let found = text.chars().filter(|c| !c.is_control()).take(60).collect();
            InvalidPublicKey { found, why }
        };
        let key = ssh_key::PublicKey::from_openssh(&text).map_err(|error| invalid(error.to_string()))?;
        // The library takes one for the other.
        if key.key_data().certificate().is_some() {
            return Err(invalid("it is a certificate".to_owned()));
        }
        // Written anew: one key has one text, so that texts can be compared.
        let text = key.to_openssh().unwrap_or(text);
        Ok(Self { text, fingerprint: key.fingerprint(HashAlg::Sha256).to_string() })
    }
}
