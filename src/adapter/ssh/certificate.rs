//! What an authority says of a key: OpenSSH user certificates, checked before they are shown to anyone.
//!
//! A host judges a certificate; what is checked here is what would be refused everywhere, to say why.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
pub use russh::keys::Certificate;
use russh::keys::PublicKey;
use russh::keys::ssh_key::certificate::CertType;

/// The longest certificate file: one with RSA keys of 16384 bits and a hundred principals has half of it.
const MAX_BYTES: u64 = 32 * 1024;

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It certifies a host.
    #[error("the certificate `{origin}` is one of a host, not of a user")]
    OfHost {
        /// Where it is.
        origin: String,
    },
    /// It certifies another key than the one it lies beside.
    #[error("the certificate `{origin}` is not of this key, but of {found}")]
    OtherKey {
        /// Where it is.
        origin: String,
        /// The fingerprint of the key that it certifies.
        found: String,
    },
    /// Its time has not come.
    #[error("the certificate `{origin}` is not valid before {from}")]
    NotYet {
        /// Where it is.
        origin: String,
        /// When its time comes.
        from: String,
    },
    /// Its time is over.
    #[error("the certificate `{origin}` expired at {at}")]
    Expired {
        /// Where it is.
        origin: String,
        /// When it was.
        at: String,
    },
    /// It is none, or not all there.
    #[error("`{origin}` is not a certificate that can be read: {why}")]
    Damaged {
        /// Where it is.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be read.
    #[error("cannot read the certificate `{origin}`: {source}")]
    Unreadable {
        /// Where it is.
        origin: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the certificate of the key in the file `key` is looked for: beside it, as `KEY-cert.pub`.
pub fn beside(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push("-cert.pub");
    name.into()
}

/// Loads the certificate of `key` in the file `path`, to be used `now`; `None` where there is no such file.
///
/// # Errors
/// [`CertificateError`]: it is not to be shown to a host.
pub fn load(path: &Path, key: &PublicKey, now: Timestamp) -> Result<Option<Certificate>, CertificateError> {
    let origin = path.display().to_string();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(CertificateError::Damaged { origin, why: "it is not text".to_owned() });
        }
        Err(source) => return Err(CertificateError::Unreadable { origin, source }),
        Ok(length) if length as u64 > MAX_BYTES => {
            let why = format!("it has more than {} KiB", MAX_BYTES / 1024);
            return Err(CertificateError::Damaged { origin, why });
        }
        Ok(_) => {}
    }
    let certificate = match Certificate::from_openssh(text.trim()) {
        Ok(certificate) => certificate,
        Err(error) => return Err(CertificateError::Damaged { origin, why: error.to_string() }),
    };
    check(certificate, origin, key, now).map(Some)
}

fn check(
    certificate: Certificate,
    origin: String,
    key: &PublicKey,
    now: Timestamp,
) -> Result<Certificate, CertificateError> {
    if certificate.cert_type() != CertType::User {
        return Err(CertificateError::OfHost { origin });
    }
    if certificate.public_key() != key.key_data() {
        let found = certificate.public_key().fingerprint(russh::keys::HashAlg::Sha256).to_string();
        return Err(CertificateError::OtherKey { origin, found });
    }
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    if now < certificate.valid_after() {
        return Err(CertificateError::NotYet { origin, from: shown(certificate.valid_after()) });
    }
    if now >= certificate.valid_before() {
        return Err(CertificateError::Expired { origin, at: shown(certificate.valid_before()) });
    }
    Ok(certificate)
}

/// What a host may dislike about a certificate: for whom it is, by which authority, and under which conditions.
pub(super) fn told(certificate: &Certificate) -> String {
    const SHOWN: usize = 5;
    let quoted = |text: &String| {
        let text: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
        format!("`{text}`")
    };
    let principals = certificate.valid_principals();
    let mut names: Vec<String> = principals.iter().take(SHOWN).map(quoted).collect();
    if principals.len() > SHOWN {
        names.push("others".to_owned());
    }
    let whom = if names.is_empty() { "anybody".to_owned() } else { names.join(", ") };
    let authority = certificate.signature_key().fingerprint(russh::keys::HashAlg::Sha256);
    let conditions = certificate.critical_options().iter().take(SHOWN).map(|(name, value)| match name.as_str() {
        "source-address" => format!(", valid from {} alone", quoted(value)),
        _ => format!(", with the critical option {}", quoted(name)),
    });
    format!("for {whom}, by {authority}{}", conditions.collect::<String>())
}

/// Seconds since the epoch as a time; far beyond the calendar they stay a number.
fn shown(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("second {seconds}"), |time| time.to_string())
}
