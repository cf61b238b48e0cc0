//! Keys: fresh ones at no cost.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};

/// Makes an Ed25519 key; it takes microseconds, so every host can have its own.
pub(crate) fn fresh() -> PrivateKey {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    Ed25519Keypair::from_seed(&seed).into()
}

/// Writes a key in OpenSSH's format, for its owner alone.
pub(crate) fn write(key: &PrivateKey, path: &Path) {
    // Replaces the file rather than its content: a daemon may be reading it.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
}

/// A login key: as a file for whoever connects, in public for the hosts.
pub(crate) struct Login {
    folder: tempfile::TempDir,
    key: PrivateKey,
}

impl Login {
    /// Makes one.
    pub(crate) fn fresh() -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), fresh());
        write(&key, &folder.path().join("identity"));
        Self { folder, key }
    }

    /// The one in the file `path`, which `ssh-keygen` has made.
    pub(crate) fn at(path: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("identity");
        std::fs::copy(path, &kept).unwrap();
        Self { folder, key: PrivateKey::from_openssh(std::fs::read(path).unwrap()).unwrap() }
    }

    /// The private key's file with this passphrase on it.
    pub(crate) fn with_passphrase(&self, passphrase: &str) -> Vec<u8> {
        let locked = self.folder.path().join("locked");
        if !locked.exists() {
            std::fs::copy(self.path(), &locked).unwrap();
            let mut keygen = std::process::Command::new("ssh-keygen");
            keygen.args(["-q", "-p", "-P", "", "-N", passphrase, "-a", "1", "-f"]).arg(&locked);
            assert!(keygen.output().unwrap().status.success());
        }
        std::fs::read(locked).unwrap()
    }

    /// Where the private key is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("identity")
    }

    /// The private key.
    pub(crate) fn private(&self) -> &PrivateKey {
        &self.key
    }

    /// What a host accepts.
    pub(crate) fn public(&self) -> &PublicKey {
        self.key.public_key()
    }
}
