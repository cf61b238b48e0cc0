//! Authorities whose host certificates are believed.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::public_key::{InvalidPublicKey, PublicKey};

/// An authority: its public key, or a file with the keys of one or several.
///
/// A job as frozen holds keys alone: what it believes does not change with a file, and is the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Authority {
    /// The key itself.
    Key(PublicKey),
    /// A file with a public key per line; relative to the project's folder.
    File(PathBuf),
}

/// Why a text names no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// It is empty.
    #[error("an authority is wanted: a public key as `ssh-ed25519 AAAA…`, or a file of such")]
    Empty,
    /// It begins as a key does, and is none.
    #[error(transparent)]
    Key(#[from] InvalidPublicKey),
}

impl TryFrom<String> for Authority {
    type Error = InvalidAuthority;
    fn try_from(text: String) -> Result<Self, InvalidAuthority> {
        let kind = text.split_ascii_whitespace().next().ok_or(InvalidAuthority::Empty)?;
        let is_key = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| kind.starts_with(start));
        // A file of such a name is written `./ssh-…`.
        if is_key && kind.len() < text.trim().len() {
            Ok(Self::Key(text.parse()?))
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

impl From<Authority> for String {
    fn from(authority: Authority) -> Self {
        authority.to_string()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key.as_str()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Reads a file of authorities: a public key per line, as `ssh-keygen` writes them.
///
/// # Errors
/// The first line that is none.
pub fn parse(text: &str) -> Result<Vec<PublicKey>, (usize, InvalidPublicKey)> {
    let lines = text.lines().map(str::trim).enumerate();
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    keys.map(|(index, line)| line.parse().map_err(|error| (index + 1, error))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn authority_is_a_key_where_it_looks_like_one_and_a_file_otherwise() {
        let read = |text: &str| Authority::try_from(text.to_owned()).map_err(|error| error.to_string());
        assert_eq!(read(&format!("{ED} ca@example.org")), Ok(Authority::Key(ED.parse().unwrap())));
        assert_eq!(read("keys/ca.pub"), Ok(Authority::File("keys/ca.pub".into())));
        assert_eq!(read("ssh-ca.pub"), Ok(Authority::File("ssh-ca.pub".into())));
        assert!(read("ssh-ed25519 AAAA").unwrap_err().starts_with("`ssh-ed25519 AAAA` is not a public key: "));
        assert!(read(" ").unwrap_err().starts_with("an authority is wanted"));
    }

    #[test]
    fn file_of_authorities_names_the_line_that_is_none() {
        assert_eq!(parse(&format!("# ours\n\n{ED} ca\n")), Ok(vec![ED.parse().unwrap()]));
        assert_eq!(parse(&format!("{ED}\n@cert-authority * {ED}\n")).unwrap_err().0, 2);
    }
}
