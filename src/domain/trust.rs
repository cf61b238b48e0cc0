//! Whether a host key is trusted: judged by what was known of the host before it presented one.

use jiff::Timestamp;
use ssh_key::Algorithm;

use super::certificate::{Certificate, Flaw};
use super::id::InstanceId;
use super::job::HostKeyPolicy;
use super::known_hosts::{InvalidPublicKey, Known, PublicKey};

/// Where the keys that `strict` believes stand.
const VOUCHED: &str = "known_hosts or an import has";

/// What is known of a host before it presents a key.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// How a key comes to be trusted.
    pub policy: HostKeyPolicy,
    /// The host, as `sshjob trust` names it.
    pub instance: InstanceId,
    /// What a certificate may call it.
    pub names: Vec<String>,
    /// The keys that are pinned for it.
    pub pinned: Option<Pinned>,
    /// What `known_hosts` says of it, and which authorities may vouch for it.
    pub known: Known,
}

/// The pinned keys of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// Whether someone vouched for them; otherwise the first of them was merely the first.
    pub vouched: bool,
}

/// A host key as presented.
#[derive(Debug, Clone)]
pub struct Presented {
    /// The key; the host has proven to have it.
    pub key: PublicKey,
    /// The certificate that it came in.
    pub certificate: Option<Certificate>,
}

/// What makes a key a trusted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trusted {
    /// Anything is.
    Unchecked,
    /// It is pinned.
    Pinned,
    /// `known_hosts` has it.
    Known,
    /// An authority has certified it.
    Certified,
    /// It is the first: trusted as soon as it is pinned.
    First,
}

/// What a host key will be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Any key will do.
    Anything,
    /// The pin of an earlier use.
    Pinned,
    /// What someone vouched for: an import or `known_hosts`.
    Vouched,
    /// The word of an authority.
    Certified,
    /// Nothing yet: the key will be pinned.
    FirstUse,
    /// Nothing, and so the key will be rejected.
    Nothing,
}

/// Why a host key is not trusted. Nothing has been sent to the host then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is another one than before: the host was built anew, or is not the one it says it is.
    #[error("the host key is {found}; {what} {expected}", expected = join(.expected))]
    Changed {
        /// The instance, as `sshjob trust` names it.
        instance: InstanceId,
        /// The key that was presented.
        found: PublicKey,
        /// Where the others stand, as `pinned on first use is`.
        what: &'static str,
        /// The keys that are trusted.
        expected: Vec<PublicKey>,
    },
    /// Nothing vouches for it, as `strict` demands.
    #[error("the host key is {found}; neither known_hosts nor an imported pin has a key of `{instance}`")]
    Unknown {
        /// The instance, as `sshjob trust` names it.
        instance: InstanceId,
        /// The key that was presented.
        found: PublicKey,
    },
    /// Nobody may have it any more.
    #[error("the host key is {found}, which known_hosts marks as revoked")]
    Revoked {
        /// The key that was presented.
        found: PublicKey,
    },
    /// Nobody may vouch with the key that vouches for it.
    #[error("the host key is {found}; its certificate is signed by {authority}, which known_hosts marks as revoked")]
    RevokedAuthority {
        /// The key that was presented.
        found: PublicKey,
        /// The key that signed the certificate.
        authority: PublicKey,
    },
    /// It comes alone, where only certificates are believed.
    #[error("the host key is {found}, and no certificate comes with it; `host_key: ca` believes nothing else")]
    Uncertified {
        /// The key that was presented.
        found: PublicKey,
    },
    /// Its certificate is not believed.
    #[error("the host key is {found}; its certificate {flaw}")]
    Certificate {
        /// The key that was presented.
        found: PublicKey,
        /// Why not.
        flaw: Flaw,
    },
    /// It is not a key.
    #[error(transparent)]
    Unreadable(#[from] InvalidPublicKey),
}

impl Rejection {
    /// What to do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { found, expected, .. } if expected.iter().all(|key| key.kind() != found.kind()) => Some(
                "only keys of other types are known of it; `sshjob trust import FILE` vouches for this one".to_owned(),
            ),
            Self::Changed { instance, what, .. } => {
                let or = if *what == VOUCHED { "mend known_hosts or " } else { "" };
                Some(format!("if the host was built anew, {or}`sshjob trust forget {instance}`"))
            }
            Self::Unknown { .. } => Some("`sshjob trust import FILE` vouches for it".to_owned()),
            Self::Uncertified { .. } => Some("`HostCertificate` of its sshd names the file to present".to_owned()),
            Self::Certificate { flaw, .. } => flaw.hint().map(str::to_owned),
            Self::Revoked { .. } | Self::RevokedAuthority { .. } | Self::Unreadable(_) => None,
        }
    }
}

impl Presented {
    /// Reads a key and the certificate that it came in, as OpenSSH writes them.
    ///
    /// # Errors
    /// Where either cannot be read.
    pub fn read(key: &str, certificate: Option<&str>) -> Result<Self, Rejection> {
        let key: PublicKey = key.parse()?;
        let certificate = certificate.map(str::parse).transpose();
        match certificate {
            Ok(certificate) => Ok(Self { key, certificate }),
            Err(flaw) => Err(Rejection::Certificate { found: key, flaw }),
        }
    }
}

impl Evidence {
    /// The types of the keys that are known of the host.
    pub fn known_types(&self) -> Vec<Algorithm> {
        let mut types: Vec<Algorithm> = self.expected().filter_map(PublicKey::algorithm).collect();
        types.sort();
        types.dedup();
        types
    }

    /// Whether a certificate could make its key a trusted one.
    pub fn wants_certificate(&self) -> bool {
        match self.policy {
            HostKeyPolicy::Ca => true,
            HostKeyPolicy::Strict => !self.known.authorities.is_empty(),
            HostKeyPolicy::Pinned | HostKeyPolicy::Off => false,
        }
    }

    /// What the key will be held against.
    pub fn basis(&self) -> Basis {
        let pinned = self.pinned.as_ref().map(|pinned| pinned.vouched);
        match self.policy {
            HostKeyPolicy::Off => Basis::Anything,
            HostKeyPolicy::Pinned => match pinned {
                None => Basis::FirstUse,
                Some(true) => Basis::Vouched,
                Some(false) => Basis::Pinned,
            },
            HostKeyPolicy::Strict if self.expected().next().is_some() => Basis::Vouched,
            HostKeyPolicy::Ca | HostKeyPolicy::Strict if !self.known.authorities.is_empty() => Basis::Certified,
            HostKeyPolicy::Ca | HostKeyPolicy::Strict => Basis::Nothing,
        }
    }

    /// Judges what the host presents.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn judge(&self, presented: &Presented, now: Timestamp) -> Result<Trusted, Rejection> {
        let found = || presented.key.clone();
        if self.policy == HostKeyPolicy::Off {
            return Ok(Trusted::Unchecked);
        }
        if self.known.revoked.contains(&presented.key) {
            return Err(Rejection::Revoked { found: found() });
        }
        let authority = presented.certificate.as_ref().map(Certificate::authority);
        if let Some(authority) = authority.filter(|authority| self.known.revoked.contains(authority)) {
            return Err(Rejection::RevokedAuthority { found: found(), authority: authority.clone() });
        }
        if self.policy == HostKeyPolicy::Ca {
            return self.judge_certificate(presented, now);
        }
        let pinned = self.believed_pin();
        if pinned.is_some_and(|pinned| pinned.keys.contains(&presented.key)) {
            return Ok(Trusted::Pinned);
        }
        if self.policy == HostKeyPolicy::Strict {
            return self.judge_strictly(presented, now);
        }
        let Some(Pinned { keys, vouched }) = pinned else { return Ok(Trusted::First) };
        let what = if *vouched { "imported is" } else { "pinned on first use is" };
        Err(Rejection::Changed { instance: self.instance.clone(), found: found(), what, expected: keys.clone() })
    }

    fn judge_strictly(&self, presented: &Presented, now: Timestamp) -> Result<Trusted, Rejection> {
        let (found, instance) = (presented.key.clone(), self.instance.clone());
        if self.known.keys.contains(&presented.key) {
            return Ok(Trusted::Known);
        }
        let certified = self.judge_certificate(presented, now);
        // Whose authority vouched for it, that one's word is what is wrong with it; everyone else just has another key.
        let is_claimed =
            presented.certificate.as_ref().is_some_and(|it| self.known.authorities.contains(it.authority()));
        let mut expected: Vec<PublicKey> = self.expected().cloned().collect();
        expected.dedup();
        match certified {
            Ok(trusted) => Ok(trusted),
            Err(rejection) if is_claimed => Err(rejection),
            Err(_) if expected.is_empty() => Err(Rejection::Unknown { instance, found }),
            Err(_) => Err(Rejection::Changed { instance, found, what: VOUCHED, expected }),
        }
    }

    fn judge_certificate(&self, presented: &Presented, now: Timestamp) -> Result<Trusted, Rejection> {
        let found = presented.key.clone();
        let Some(certificate) = &presented.certificate else { return Err(Rejection::Uncertified { found }) };
        match certificate.check(&self.known.authorities, &self.names, now) {
            Ok(()) => Ok(Trusted::Certified),
            Err(flaw) => Err(Rejection::Certificate { found, flaw }),
        }
    }

    /// The pin, where the policy believes it: `strict` does not believe what was merely first.
    fn believed_pin(&self) -> Option<&Pinned> {
        self.pinned.as_ref().filter(|pinned| match self.policy {
            HostKeyPolicy::Pinned => true,
            HostKeyPolicy::Strict => pinned.vouched,
            HostKeyPolicy::Ca | HostKeyPolicy::Off => false,
        })
    }

    /// The keys that the host may present, certificates aside.
    fn expected(&self) -> impl Iterator<Item = &PublicKey> {
        let known = if self.policy == HostKeyPolicy::Strict { self.known.keys.as_slice() } else { &[] };
        known.iter().chain(self.believed_pin().into_iter().flat_map(|pinned| &pinned.keys))
    }
}

fn join(keys: &[PublicKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
