//! A certificate authority and a server's certificate, made by openssl for one test.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// An authority and a server called `localhost` that it vouches for.
pub(crate) struct Vouched {
    /// The authority, in DER.
    pub(crate) authority: Vec<u8>,
    /// What the server shows.
    pub(crate) served: Served,
}

/// What a server shows.
#[derive(Clone)]
pub(crate) struct Served(Arc<ServerConfig>);

impl Served {
    /// Speaks TLS over `stream`.
    pub(crate) fn accept<S: std::io::Read + std::io::Write>(
        &self,
        stream: S,
    ) -> std::io::Result<StreamOwned<ServerConnection, S>> {
        let connection = ServerConnection::new(Arc::clone(&self.0)).map_err(std::io::Error::other)?;
        Ok(StreamOwned::new(connection, stream))
    }

    /// Speaks TLS over a connection that was begun in clear text.
    pub(crate) fn upgrade(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        self.accept(stream).unwrap()
    }
}

fn openssl(folder: &Path, args: &str) {
    let output = Command::new("openssl").args(args.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Vouched {
    /// Makes both.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        openssl(at, &format!("req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem"));
        openssl(
            at,
            &format!(
                "req -x509 {key} -subj /CN=localhost -CA ca.pem -CAkey ca.key -keyout leaf.key -out leaf.pem -addext \
                 subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
            ),
        );
        let certificate = |name: &str| CertificateDer::from_pem_file(at.join(name)).unwrap();
        let key = PrivateKeyDer::from_pem_file(at.join("leaf.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate("leaf.pem")], key)
            .unwrap();
        Self { authority: certificate("ca.pem").to_vec(), served: Served(Arc::new(config)) }
    }
}
