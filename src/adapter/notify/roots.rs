//! The authorities that vouch for servers.

use std::fmt;
use std::sync::OnceLock;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// Certificate authorities: those of this machine, read when the first server is spoken to, or given ones.
#[derive(Default)]
pub struct Roots(OnceLock<Vec<CertificateDer<'static>>>);

impl Roots {
    /// These authorities, in DER, and no others.
    pub fn given(authorities: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(OnceLock::from(authorities.into_iter().map(CertificateDer::from).collect::<Vec<_>>()))
    }

    /// The authorities.
    ///
    /// # Errors
    /// Where this machine has none: nobody could be believed.
    pub(super) fn get(&self) -> Result<&[CertificateDer<'static>], String> {
        let roots = self.0.get_or_init(|| {
            // Machines hold odd ones; one that cannot be read must not keep the others from being believed.
            let known = rustls_native_certs::load_native_certs().certs.into_iter();
            known.filter(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok()).collect()
        });
        if roots.is_empty() {
            return Err("this machine knows no certificate authorities; install `ca-certificates`".to_owned());
        }
        Ok(roots)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roots").field(&self.0.get().map(Vec::len)).finish()
    }
}
