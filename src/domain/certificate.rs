//! Host certificates: what an authority says of a host key, and whether that holds for this host, now.
//!
//! Stricter than OpenSSH where that leaves a choice: a certificate that names no host is for none, and a name is a name,
//! not a pattern. Source: OpenSSH, PROTOCOL.certkeys.

use std::str::FromStr;

use jiff::Timestamp;
use ssh_key::{Algorithm, HashAlg, public::KeyData};

use super::public_key::PublicKey;

/// The smallest RSA key that may vouch for anything.
const MIN_RSA_BITS: u32 = 2048;

/// How many names or options of a certificate are shown.
const SHOWN: usize = 5;

/// A host certificate as presented: nothing of it is believed yet.
#[derive(Debug, Clone)]
pub struct Certificate {
    inner: ssh_key::Certificate,
    authority: PublicKey,
}

/// Why a certificate is not believed: what follows "its certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is no certificate at all.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Its authority would need one itself.
    #[error("is signed with a certificate, not with a key")]
    Nested,
    /// Somebody signed it whom nobody believes.
    #[error("is signed by {0}, which is not an authority for this host")]
    Stranger(PublicKey),
    /// It is a user's.
    #[error("is one for users, not for hosts")]
    NotForHosts,
    /// Its authority's key could be broken.
    #[error("is signed by an RSA key of {0} bits; at least {MIN_RSA_BITS} are accepted")]
    WeakAuthority(u32),
    /// Its signature could be forged.
    #[error("is signed with SHA-1 (`ssh-rsa`); `rsa-sha2-256` and `rsa-sha2-512` are accepted")]
    WeakSignature,
    /// The authority has not signed this.
    #[error("bears a signature that is not its authority's")]
    Forged,
    /// It is used too early.
    #[error("is valid from {from} on, and it is {now}")]
    NotYetValid {
        /// From when on it is valid.
        from: String,
        /// The time.
        now: String,
    },
    /// It is used too late.
    #[error("was valid until {until}, and it is {now}")]
    Expired {
        /// Until when it was valid.
        until: String,
        /// The time.
        now: String,
    },
    /// It is for no host.
    #[error("names no host; it must name {wanted}")]
    NamesNobody {
        /// What it would have to name.
        wanted: String,
    },
    /// It is for other hosts.
    #[error("is for {others}, not for {wanted}")]
    NamesOthers {
        /// What it names.
        others: String,
        /// What it would have to name.
        wanted: String,
    },
    /// It is bound to conditions that nobody here can check.
    #[error("has critical options that are not known: {0}")]
    CriticalOptions(String),
}

impl Flaw {
    /// What to do about it, where there is something.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Stranger(_) => {
                Some("an authority is named in `host_ca:` or by a line `@cert-authority` of known_hosts")
            }
            Self::NotForHosts => Some("sign the host key with `ssh-keygen -h`"),
            Self::WeakAuthority(_) | Self::WeakSignature => Some("sign it anew, with an Ed25519 key"),
            Self::NotYetValid { .. } => Some("look at the clocks"),
            Self::Expired { .. } => Some("sign it anew"),
            Self::CriticalOptions(_) => Some("sign it anew, without `-O`"),
            Self::NamesNobody { .. } | Self::NamesOthers { .. } => Some("sign it anew, with such a name after `-n`"),
            Self::Unreadable(_) | Self::Nested | Self::Forged => None,
        }
    }
}

impl FromStr for Certificate {
    type Err = Flaw;

    /// Reads a certificate as OpenSSH writes it. An authority that is itself certified is not one.
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let unreadable = |error: ssh_key::Error| Flaw::Unreadable(error.to_string());
        let inner = ssh_key::Certificate::from_openssh(text).map_err(unreadable)?;
        if inner.signature_key().certificate().is_some() {
            return Err(Flaw::Nested);
        }
        let authority = ssh_key::PublicKey::from(inner.signature_key().clone()).to_openssh().map_err(unreadable)?;
        let authority = authority.parse().map_err(|_| Flaw::Unreadable("its authority has no key".to_owned()))?;
        Ok(Self { inner, authority })
    }
}

impl Certificate {
    /// The key that signed it, as it says.
    pub const fn authority(&self) -> &PublicKey {
        &self.authority
    }

    /// Checks that one of `authorities` has signed it, for a host of one of these `names`, and that it is valid `now`.
    ///
    /// # Errors
    /// The first flaw.
    pub fn check(&self, authorities: &[PublicKey], names: &[String], now: Timestamp) -> Result<(), Flaw> {
        let certificate = &self.inner;
        if !authorities.contains(&self.authority) {
            return Err(Flaw::Stranger(self.authority.clone()));
        }
        if !certificate.cert_type().is_host() {
            return Err(Flaw::NotForHosts);
        }
        if let KeyData::Rsa(rsa) = certificate.signature_key()
            && rsa.key_size() < MIN_RSA_BITS
        {
            return Err(Flaw::WeakAuthority(rsa.key_size()));
        }
        if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
            return Err(Flaw::WeakSignature);
        }
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        if seconds < certificate.valid_after() {
            return Err(Flaw::NotYetValid { from: instant(certificate.valid_after()), now: instant(seconds) });
        }
        if seconds >= certificate.valid_before() {
            return Err(Flaw::Expired { until: instant(certificate.valid_before()), now: instant(seconds) });
        }
        let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
        certificate.validate_at(seconds, [&authority]).map_err(|_| Flaw::Forged)?;
        let principals = certificate.valid_principals();
        if !principals.iter().any(|named| names.iter().any(|name| name.eq_ignore_ascii_case(named))) {
            let wanted = list(names);
            return Err(match list(principals) {
                none if none.is_empty() => Flaw::NamesNobody { wanted },
                others => Flaw::NamesOthers { others, wanted },
            });
        }
        let options = certificate.critical_options();
        if !options.is_empty() {
            return Err(Flaw::CriticalOptions(list(options.keys())));
        }
        Ok(())
    }
}

/// Words for messages: few, short, and nothing in them that a terminal would obey.
fn list<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    let mut words = words.into_iter();
    let shown = |word: &String| format!("`{}`", word.chars().filter(|c| !c.is_control()).take(60).collect::<String>());
    let first: Vec<String> = words.by_ref().take(SHOWN).map(shown).collect();
    let others = words.count();
    if others == 0 { first.join(", ") } else { format!("{} and {others} more", first.join(", ")) }
}

/// A time of a certificate, in seconds since 1970.
fn instant(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map_or_else(|| "the end of time".to_owned(), |at| at.to_string())
}
