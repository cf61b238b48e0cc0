//! Private keys: from what a file holds to what signs. They live in memory only.
//!
//! RSA keys sign with SHA-2 alone: which of the two the host takes is settled at authentication.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use russh::keys::{Algorithm, Error, ssh_key};
pub use russh::keys::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// The longest key file: an RSA key of 16384 bits has 13 KiB.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// Why a private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It has a passphrase, and none was given.
    #[error("the private key `{origin}` has a passphrase")]
    Encrypted {
        /// Where the key is.
        origin: String,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open the private key `{origin}`")]
    WrongPassphrase {
        /// Where the key is.
        origin: String,
    },
    /// It is the other half.
    #[error("`{origin}` is a public key; a private key is needed")]
    PublicKey {
        /// Where the key is.
        origin: String,
    },
    /// It is in `PuTTY`'s own format.
    #[error("the private key `{origin}` is in PuTTY's format")]
    Putty {
        /// Where the key is.
        origin: String,
    },
    /// A private key that this program cannot use.
    #[error("the private key `{origin}` is not supported: {what}")]
    Unsupported {
        /// Where the key is.
        origin: String,
        /// What it is.
        what: String,
    },
    /// It begins as a private key, and does not go on as one.
    #[error("the private key `{origin}` is damaged: {why}")]
    Damaged {
        /// Where the key is.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is something else.
    #[error("`{origin}` is not a private key: there is no `-----BEGIN … PRIVATE KEY-----` line in it")]
    NotAKey {
        /// Where it is.
        origin: String,
    },
    /// Larger than any key.
    #[error("`{origin}` is not a private key: it has more than {} KiB", MAX_KEY_BYTES / 1024)]
    TooLong {
        /// Where it is.
        origin: String,
    },
    /// Others can read it.
    #[error("the private key `{origin}` can be read by others: its permissions are {mode:04o}, 0600 is allowed")]
    TooOpen {
        /// Where the key is.
        origin: String,
        /// Its permissions.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("cannot read the private key `{origin}`: {source}")]
    Unreadable {
        /// Where it should be.
        origin: String,
        /// What the system said.
        source: io::Error,
    },
}

impl KeyError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Encrypted { .. } => Some("set SSHJOB_PASSPHRASE".to_owned()),
            Self::WrongPassphrase { origin } => {
                Some(format!("`ssh-keygen -y -f '{origin}'` asks for it and tells whether it is the right one"))
            }
            Self::PublicKey { origin } => {
                let private = origin.strip_suffix(".pub").filter(|name| !name.is_empty());
                private.map(|name| format!("the private key usually is `{name}`"))
            }
            Self::Putty { origin } => {
                let name = origin.strip_suffix(".ppk").unwrap_or("id_converted");
                Some(format!("convert it: `puttygen '{origin}' -O private-openssh -o '{name}'`"))
            }
            Self::Unsupported { .. } => {
                Some("supported are Ed25519, ECDSA and RSA keys in OpenSSH, PKCS#1, SEC1 and PKCS#8 files".to_owned())
            }
            Self::TooOpen { origin, .. } => Some(format!("`chmod 600 '{origin}'`")),
            Self::Damaged { .. } | Self::NotAKey { .. } | Self::TooLong { .. } | Self::Unreadable { .. } => None,
        }
    }
}

/// Loads the private key in the file `path`.
///
/// # Errors
/// [`KeyError`]; [`KeyError::Encrypted`] alone may be cured by giving a passphrase.
pub fn load(path: &Path, passphrase: Option<&Zeroizing<String>>) -> Result<PrivateKey, KeyError> {
    let origin = path.display().to_string();
    let unreadable = |source| KeyError::Unreadable { origin: origin.clone(), source };
    let file = File::open(path).map_err(unreadable)?;
    let status = file.metadata().map_err(unreadable)?;
    let mode = status.mode() & 0o7777;
    // Never grown, which would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES + 1));
    file.take(MAX_KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    // As ssh does: whoever reads another user's key is not the one to change its permissions.
    if mode & 0o077 != 0 && status.uid() == rustix::process::getuid().as_raw() && status.is_file() {
        return Err(match parse(&origin, &bytes, None) {
            Err(public @ KeyError::PublicKey { .. }) => public,
            _ => KeyError::TooOpen { origin, mode },
        });
    }
    parse(&origin, &bytes, passphrase)
}

/// Reads a private key that came from `origin`.
///
/// # Errors
/// As [`load`].
pub fn parse(origin: &str, bytes: &[u8], passphrase: Option<&Zeroizing<String>>) -> Result<PrivateKey, KeyError> {
    let origin = origin.to_owned();
    if bytes.len() > MAX_KEY_BYTES {
        return Err(KeyError::TooLong { origin });
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(KeyError::NotAKey { origin }) };
    let encrypted = match Form::of(text) {
        Form::Putty => return Err(KeyError::Putty { origin }),
        Form::Public => return Err(KeyError::PublicKey { origin }),
        Form::Other => return Err(KeyError::NotAKey { origin }),
        Form::Unsupported(what) => return Err(KeyError::Unsupported { origin, what: what.to_owned() }),
        Form::Private { encrypted } => encrypted,
    };
    let passphrase = passphrase.map(|passphrase| passphrase.as_str());
    if encrypted == Some(true) && passphrase.is_none() {
        return Err(KeyError::Encrypted { origin });
    }
    // A passphrase for what has none would be used all the same, and fail.
    let passphrase = passphrase.filter(|_| encrypted != Some(false));
    let key = match russh::keys::decode_secret_key(text, passphrase) {
        Ok(key) => key,
        Err(Error::KeyIsEncrypted) => return Err(KeyError::Encrypted { origin }),
        Err(Error::SshKey(ssh_key::Error::Crypto)) => return Err(KeyError::WrongPassphrase { origin }),
        Err(Error::UnknownAlgorithm(oid)) => {
            return Err(KeyError::Unsupported { origin, what: format!("its algorithm is {oid}") });
        }
        // What a wrong passphrase makes of the bytes is no key, in one way or another.
        Err(_) if encrypted == Some(true) => return Err(KeyError::WrongPassphrase { origin }),
        Err(error) => return Err(KeyError::Damaged { origin, why: error.to_string() }),
    };
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            Err(KeyError::Unsupported { origin, what: "it needs a security key that someone touches".to_owned() })
        }
        other => Err(KeyError::Unsupported { origin, what: format!("it is `{other}`") }),
    }
}

/// The public half of the private key in the file `path`, where it can be told without the passphrase: from the file
/// itself, else from the one beside it with `.pub` at the end.
pub fn public_half(path: &Path) -> Option<PublicKey> {
    let read = |path: &Path| {
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_BYTES + 1));
        File::open(path).ok()?.take(MAX_KEY_BYTES as u64 + 1).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let public = |text: &str| PublicKey::from_openssh(text.trim()).ok();
    let own = read(path).and_then(|text| match PrivateKey::from_openssh(text.trim()) {
        Ok(key) => Some(key.public_key().clone()),
        Err(_) => public(&text),
    });
    own.or_else(|| {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pub");
        public(&read(Path::new(&beside))?)
    })
}

/// What a file looks like from outside.
enum Form {
    /// A private key. In the OpenSSH form only its inside says whether it is encrypted.
    Private {
        encrypted: Option<bool>,
    },
    Unsupported(&'static str),
    Public,
    Putty,
    Other,
}

impl Form {
    fn of(text: &str) -> Self {
        let start = text.trim_start();
        if start.starts_with("PuTTY-User-Key-File-") {
            return Self::Putty;
        }
        if ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| start.starts_with(kind)) {
            return Self::Public;
        }
        let labels = text.lines().filter_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
        for label in labels {
            match label {
                "OPENSSH PRIVATE KEY" => return Self::Private { encrypted: None },
                "PRIVATE KEY" => return Self::Private { encrypted: Some(false) },
                "ENCRYPTED PRIVATE KEY" => return Self::Private { encrypted: Some(true) },
                "RSA PRIVATE KEY" | "EC PRIVATE KEY" => return Self::of_old_pem(text, label),
                "DSA PRIVATE KEY" => return Self::Unsupported("it is a DSA key, which hosts no longer accept"),
                "PUBLIC KEY" | "RSA PUBLIC KEY" => return Self::Public,
                _ => {}
            }
        }
        if text.contains("---- BEGIN SSH2 PUBLIC KEY ----") { Self::Public } else { Self::Other }
    }

    /// PKCS#1 and SEC1 tell of encryption in a header: `DEK-Info: AES-128-CBC,…` is what ssh-keygen writes.
    fn of_old_pem(text: &str, label: &str) -> Self {
        let encrypted = text.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"));
        if !encrypted {
            return Self::Private { encrypted: Some(false) };
        }
        if label == "RSA PRIVATE KEY" && text.contains("DEK-Info: AES-128-CBC,") {
            return Self::Private { encrypted: Some(true) };
        }
        Self::Unsupported("its old PEM encryption is not read; `ssh-keygen -p -f FILE` rewrites it in OpenSSH's form")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::process::Command;

    use proptest::prelude::*;
    use russh::keys::HashAlg;
    use tempfile::TempDir;

    use super::*;

    const PASSPHRASE: &str = "open sesame ü";

    /// Keys made by the programs that people make them with.
    struct Keys(TempDir);

    impl Keys {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Runs a command line in the folder and returns the file that it made.
        fn make(&self, line: &str, file: &str) -> PathBuf {
            let run = Command::new("sh").args(["-ec", line]).env("PASS", PASSPHRASE).current_dir(&self.0).output();
            let run = run.unwrap();
            assert!(run.status.success(), "{line}: {}", String::from_utf8_lossy(&run.stderr));
            let path = self.0.path().join(file);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        }

        /// What `error` says, with the folder's name left out.
        fn said(&self, error: &KeyError) -> String {
            let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            format!("{error}{hint}").replace(&format!("{}/", self.0.path().display()), "")
        }
    }

    fn passphrase(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    /// The fingerprint as ssh-keygen has it.
    fn fingerprint(path: &Path) -> String {
        let line =
            format!("ssh-keygen -y -P \"$PASS\" -f '{0}' >'{0}.check' && ssh-keygen -l -f '{0}.check'", path.display());
        let run = Command::new("sh").args(["-c", &line]).env("PASS", PASSPHRASE).output().unwrap();
        let text = String::from_utf8(run.stdout).unwrap();
        text.split(' ').nth(1).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&run.stderr))).to_owned()
    }

    #[test]
    fn keys_of_every_form_load_with_and_without_passphrase() {
        let keys = Keys::new();
        let kinds = [("ed25519", "-t ed25519"), ("rsa", "-t rsa -b 2048"), ("p256", "-t ecdsa -b 256")];
        let more = [("p384", "-t ecdsa -b 384"), ("p521", "-t ecdsa -b 521")];
        let mut forms = Vec::new();
        for (name, kind) in kinds.into_iter().chain(more) {
            forms.push((format!("ssh-keygen -q {kind} -N '' -f {name}"), name.to_owned(), false));
            // Deriving a key from a passphrase is slow on purpose, and slower without optimisation.
            let encrypted = name == "ed25519" || name == "rsa";
            if encrypted {
                forms.push((format!("ssh-keygen -q {kind} -N \"$PASS\" -f {name}.enc"), format!("{name}.enc"), true));
            }
            if name != "ed25519" {
                forms.push((format!("ssh-keygen -q {kind} -m PEM -N '' -f {name}.pem"), format!("{name}.pem"), false));
                let pkcs8 = format!("openssl pkcs8 -topk8 -nocrypt -in {name}.pem -out {name}.p8");
                forms.push((pkcs8, format!("{name}.p8"), false));
                let pkcs8 = format!("openssl pkcs8 -topk8 -passout env:PASS -in {name}.pem -out {name}.p8.enc");
                forms.push((pkcs8, format!("{name}.p8.enc"), true));
            }
        }
        forms.push(("ssh-keygen -q -t rsa -b 2048 -m PEM -N \"$PASS\" -f old".into(), "old".into(), true));
        forms.push(("openssl genpkey -algorithm ed25519 -out ed.p8".into(), "ed.p8".into(), false));
        forms.push(("openssl ecparam -name prime256v1 -genkey -out ec.pem".into(), "ec.pem".into(), false));
        forms.push(("sed 's/$/\\r/' ed25519 >crlf".into(), "crlf".into(), false));
        for (line, file, encrypted) in forms {
            let path = keys.make(&line, &file);
            let loaded = match load(&path, None) {
                Err(KeyError::Encrypted { .. }) if encrypted => load(&path, Some(&passphrase(PASSPHRASE))),
                // A passphrase that is not needed does no harm.
                Ok(_) if !encrypted => load(&path, Some(&passphrase(PASSPHRASE))),
                other => panic!("{line}: {:?}", other.map(|key| key.algorithm())),
            };
            let loaded = loaded.unwrap_or_else(|error| panic!("{line}: {error}"));
            // ssh-keygen reads no Ed25519 key in PKCS#8 before OpenSSH 9.6.
            if file != "ed.p8" {
                let source = if file == "crlf" { keys.0.path().join("ed25519") } else { path };
                assert_eq!(
                    loaded.public_key().fingerprint(HashAlg::Sha256).to_string(),
                    fingerprint(&source),
                    "{line}"
                );
            }
            if encrypted {
                let wrong = load(&keys.0.path().join(&file), Some(&passphrase("wrong")));
                assert!(matches!(wrong, Err(KeyError::WrongPassphrase { .. })), "{line}: {wrong:?}");
            }
        }
    }

    #[test]
    fn what_is_no_usable_key_says_what_it_is() {
        let keys = Keys::new();
        let make = "ssh-keygen -q -t ed25519 -N '' -f key && ssh-keygen -q -t ed25519 -N x -f enc && \
                    ssh-keygen -q -t ecdsa -m PEM -N secret -f oldec";
        keys.make(make, "key");
        let said = |line: &str, file: &str| keys.said(&load(&keys.make(line, file), None).unwrap_err());
        insta::assert_snapshot!(
            [
                said(":", "enc"),
                said(":", "key.pub"),
                said("ssh-keygen -e -f key.pub >rfc", "rfc"),
                said("ssh-keygen -e -m pkcs8 -f key.pub >spki || echo '-----BEGIN PUBLIC KEY-----' >spki", "spki"),
                said("echo 'PuTTY-User-Key-File-3: ssh-ed25519' >dev.ppk", "dev.ppk"),
                said("echo hello >text", "text"),
                said(": >empty", "empty"),
                said("head -c 70000 /dev/zero >zeros", "zeros"),
                said("head -n 3 key >half", "half"),
                said("sed '3s/^...../?????/' key >noise", "noise"),
                said(":", "oldec"),
                said("echo '-----BEGIN DSA PRIVATE KEY-----' >dsa", "dsa"),
            ]
            .join("\n---\n")
        );
        let path = keys.make("cp key open", "open");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        insta::assert_snapshot!(keys.said(&load(&path, None).unwrap_err()));
        insta::assert_snapshot!(keys.said(&load(&keys.0.path().join("none"), None).unwrap_err()));
    }

    proptest! {
        #[test]
        fn parse_of_anything_never_panics(
            label in "(OPENSSH |RSA |EC |ENCRYPTED |)PRIVATE KEY",
            header in "(Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,[0-9A-Fa-f]{0,40}\n\n)?",
            body in "[A-Za-z0-9+/=\n]{0,200}",
            with in proptest::option::of("[a-z]{0,5}"),
        ) {
            let text = format!("-----BEGIN {label}-----\n{header}{body}\n-----END {label}-----\n");
            let with = with.map(Zeroizing::new);
            prop_assert!(parse("x", text.as_bytes(), with.as_ref()).is_err());
        }
    }
}
