//! The algorithms that we offer and accept, and what is said when a host has none of them.
//!
//! Offered is what ssh-audit neither fails nor warns about, except that it warns about every key exchange that quantum
//! computers may break, and hosts before OpenSSH 9.9 have no other that we know. ECDSA host keys are accepted of hosts
//! alone that are known to have one, or that a certificate vouches for.

use std::borrow::Cow;

use russh::client::GexParams;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{AlgorithmKind, Preferred, cipher, compression, kex, mac};

/// The name that hosts see of us, which they may log (RFC 4253, section 4.2).
pub(super) const CLIENT_ID: &str = concat!("SSH-2.0-sshjob_", env!("CARGO_PKG_VERSION"));

/// Post-quantum first. Finite fields of 3072 and 4096 bits alone: fewer are weak, and with 8192 bits one handshake costs
/// more than a second of CPU, which a hostile host would have us spend.
const KEY_EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G15_SHA512,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    // Against CVE-2023-48795 (Terrapin).
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

/// AES-GCM before `ChaCha20`: hosts of this decade have AES in hardware.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Encrypt-then-MAC alone; of use to the ciphers in counter mode only, as the others have their own.
const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

/// The types of host keys that any host may have. An RSA key's signature is with SHA-2.
const HOST_KEYS: [Algorithm; 3] = [
    Algorithm::Ed25519,
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// The types of host keys that are accepted of who is known to have one.
const KNOWN_HOST_KEYS: [Algorithm; 3] = [
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// A host's names of algorithms are told up to this number; OpenSSH has ten or so of a kind.
const MAX_NAMES: usize = 12;

/// The longest name of an algorithm (RFC 4251, section 6).
const MAX_NAME_CHARS: usize = 64;

/// The finite fields, in bits, that hosts may choose from in a group exchange: the least, the best and the most.
pub(super) fn group_exchange() -> GexParams {
    // The library's own range, up to 8192 bits, is only for where it would not take ours.
    GexParams::new(3072, 3072, 4096).unwrap_or_default()
}

/// What is offered to a host whose keys of the types `known` are known, and whether `certificates` of its host keys are
/// asked for, before plain keys.
///
/// The known types come first: a host has keys of several types, and another one than the known says nothing.
pub(super) fn preferred(known: &[Algorithm], certificates: bool) -> Preferred {
    let is_known = |key: &Algorithm| match key {
        Algorithm::Rsa { .. } => known.iter().any(|known| matches!(known, Algorithm::Rsa { .. })),
        other => known.contains(other),
    };
    let (mut key, others): (Vec<_>, Vec<_>) = HOST_KEYS.into_iter().partition(is_known);
    key.extend(KNOWN_HOST_KEYS.into_iter().filter(is_known));
    key.extend(others);
    let mut certified = Vec::new();
    if certificates {
        // An authority vouches for the key, whatever its type; there is no other way to make the type known.
        certified.extend(key.iter().cloned());
        certified.extend(KNOWN_HOST_KEYS.into_iter().filter(|key| !is_known(key)));
    }
    Preferred {
        kex: Cow::Borrowed(KEY_EXCHANGES),
        key: Cow::Owned(key),
        host_key_certificates: Cow::Owned(certified),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// Tells that a host offers nothing that we accept: of which `kind`, what it offers, and what is accepted.
pub(super) fn nothing_in_common(kind: &AlgorithmKind, ours: &[String], theirs: &[String]) -> String {
    let kind = match kind {
        AlgorithmKind::Kex => "key exchange",
        AlgorithmKind::Key => "host key type",
        AlgorithmKind::Cipher => "cipher",
        AlgorithmKind::Mac => "MAC",
        AlgorithmKind::Compression => "compression",
    };
    let (theirs, ours) = (listed(theirs), listed(ours));
    format!("no common {kind}: the host offers {theirs}; accepted are {ours}")
}

/// Names of algorithms in a row, without the protocol extensions that travel as key exchanges.
fn listed(names: &[String]) -> String {
    let is_extension = |name: &str| name.starts_with("ext-info-") || name.starts_with("kex-strict-");
    let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !is_extension(name)).collect();
    let printable =
        |name: &&str| -> String { name.chars().filter(char::is_ascii_graphic).take(MAX_NAME_CHARS).collect() };
    let mut shown: Vec<String> = names.iter().take(MAX_NAMES).map(printable).filter(|name| !name.is_empty()).collect();
    if shown.is_empty() {
        return "none".to_owned();
    }
    if let Some(more) = names.len().checked_sub(MAX_NAMES).filter(|more| *more > 0) {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn host_keys(known: &[Algorithm]) -> Vec<String> {
        preferred(known, false).key.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn known_types_come_first_and_ecdsa_only_where_it_is_known() {
        let [ed25519, rsa] = [["ssh-ed25519"].as_slice(), &["rsa-sha2-512", "rsa-sha2-256"]];
        assert_eq!(host_keys(&[]), [ed25519, rsa].concat());
        assert_eq!(host_keys(&[Algorithm::Rsa { hash: None }]), [rsa, ed25519].concat());
        let p384 = Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 };
        assert_eq!(host_keys(std::slice::from_ref(&p384)), [&["ecdsa-sha2-nistp384"], ed25519, rsa].concat());
        assert_eq!(host_keys(&[p384, Algorithm::Ed25519]), [ed25519, &["ecdsa-sha2-nistp384"], rsa].concat());
        assert_eq!(host_keys(&[Algorithm::Dsa]), host_keys(&[]));
    }

    #[test]
    fn certificates_are_asked_for_of_every_type_where_they_are_at_all() {
        let p256 = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
        assert!(preferred(&[p256], false).host_key_certificates.is_empty());
        let asked = preferred(&[], true);
        assert_eq!(asked.host_key_certificates.iter().filter(|key| HOST_KEYS.contains(key)).count(), 3);
        assert_eq!(asked.host_key_certificates.iter().filter(|key| KNOWN_HOST_KEYS.contains(key)).count(), 3);
        assert_eq!(asked.key.as_ref(), HOST_KEYS);
    }

    #[test]
    fn host_without_a_common_algorithm_is_told_in_one_bounded_line() {
        let ours = names(&["curve25519-sha256", "ext-info-c"]);
        assert_eq!(
            nothing_in_common(
                &AlgorithmKind::Kex,
                &ours,
                &names(&["diffie-hellman-group1-sha1", "kex-strict-s-v00@x"])
            ),
            "no common key exchange: the host offers diffie-hellman-group1-sha1; accepted are curve25519-sha256"
        );
        assert_eq!(
            nothing_in_common(&AlgorithmKind::Compression, &names(&["none"]), &names(&["", "\u{1b}[2J\n"])),
            "no common compression: the host offers [2J; accepted are none"
        );
        assert_eq!(
            nothing_in_common(&AlgorithmKind::Mac, &ours, &[]),
            "no common MAC: the host offers none; accepted are curve25519-sha256"
        );
        let flood = vec!["x".repeat(10_000); 1_000];
        let line = nothing_in_common(&AlgorithmKind::Cipher, &ours, &flood);
        assert!(line.starts_with("no common cipher: the host offers xxx") && line.contains(", 988 more; "), "{line}");
        assert!(line.len() < 1_000);
    }
}
