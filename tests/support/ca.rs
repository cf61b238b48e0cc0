//! Host certificates by `ssh-keygen`, as people make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;

use super::key;

/// An authority: a folder with its key, where certificates are made.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// One with an Ed25519 key.
    pub(crate) fn new(key: &PrivateKey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        key::write(key, &folder.path().join("ca"));
        std::fs::write(folder.path().join("ca.pub"), key.public_key().to_openssh().unwrap() + "\n").unwrap();
        Self { folder }
    }

    /// One with a fresh RSA key.
    pub(crate) fn rsa(bits: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bits = bits.to_string();
        keygen(folder.path(), &["-q", "-t", "rsa", "-b", &bits, "-N", "", "-f", "ca"]);
        Self { folder }
    }

    /// Its public key.
    pub(crate) fn public(&self) -> String {
        std::fs::read_to_string(self.public_file()).unwrap().trim().to_owned()
    }

    /// The file with its public key.
    pub(crate) fn public_file(&self) -> PathBuf {
        self.folder.path().join("ca.pub")
    }

    /// A certificate of `host`, made with these words of `ssh-keygen`.
    pub(crate) fn certify(&self, host: &PrivateKey, words: &[&str]) -> String {
        std::fs::write(self.folder.path().join("host.pub"), host.public_key().to_openssh().unwrap()).unwrap();
        let all = [&["-q", "-s", "ca", "-I", "test"], words, &["host.pub"]].concat();
        keygen(self.folder.path(), &all);
        std::fs::read_to_string(self.folder.path().join("host-cert.pub")).unwrap().trim().to_owned()
    }
}

fn keygen(folder: &Path, words: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    let made = command.args(words).current_dir(folder).env("TZ", "UTC").output().unwrap();
    assert!(made.status.success(), "{words:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// The same key every time, for what is compared whole.
pub(crate) fn fixed(seed: u8) -> PrivateKey {
    Ed25519Keypair::from_seed(&[seed; 32]).into()
}
