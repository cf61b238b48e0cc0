//! Further keys of a trusted host: announced by it after the login, proven by it beside what the connection is for.
//!
//! Source: OpenSSH, PROTOCOL, section 2.5, `hostkeys-00@openssh.com` and `hostkeys-prove-00@openssh.com`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use russh::client::Handle;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{HashAlg, PublicKey};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::HostKey;
use super::error::told;
use super::handler::{MIN_RSA_BITS, Verifier};

/// The most keys of which proof is asked for: a host has one of each of a handful of types, twice while they rotate.
const MAX_KEYS: usize = 64;

/// How long a host may take to prove its keys; nothing waits for it.
const PROOF: Duration = Duration::from_secs(10);

/// How long it may take to write down what was learned: a connection that ends waits for that.
const NOTE: Duration = Duration::from_secs(10);

/// What a host has announced and not yet proven.
pub(super) struct Announced {
    /// The keys, those that are known left out.
    pub(super) keys: Vec<PublicKey>,
    /// Hears of them once they are proven.
    pub(super) tell: Box<dyn FnOnce(Vec<HostKey>) -> BoxFuture<'static, ()> + Send>,
}

/// Keys are being asked for and written down. Dropping it ends the asking, never the writing.
pub(super) struct Learning {
    asking: DropGuard,
    task: JoinHandle<()>,
}

impl Learning {
    /// Waits beside the connection for what `host` announces.
    pub(super) fn start(announced: oneshot::Receiver<Announced>, handle: Arc<Handle<Verifier>>, host: String) -> Self {
        let ended = CancellationToken::new();
        let asking = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let proven = ended.run_until_cancelled(prove(announced, handle, &host)).await.flatten();
            let Some((keys, tell)) = proven else { return };
            if timeout(NOTE, tell(keys)).await.is_err() {
                tracing::warn!(%host, "its further host keys could not be written down in time");
            }
        });
        Self { asking, task }
    }

    /// Ends the asking, and waits until what was proven is written down.
    pub(super) async fn finish(self) {
        let Self { asking, task } = self;
        drop(asking);
        // Where it failed it has told why.
        let _ = task.await;
    }
}

type Proven = (Vec<HostKey>, Box<dyn FnOnce(Vec<HostKey>) -> BoxFuture<'static, ()> + Send>);

/// Has the host prove what it announces; `None` where there is nothing, or no proof.
async fn prove(announced: oneshot::Receiver<Announced>, handle: Arc<Handle<Verifier>>, host: &str) -> Option<Proven> {
    let Announced { keys, tell } = announced.await.ok()?;
    let count = keys.len();
    let proven: Vec<HostKey> = keys.iter().filter_map(|key| host_key(key).ok()).collect();
    let unproven = match timeout(PROOF, handle.hostkeys_prove(keys)).await {
        Ok(Ok(())) => return Some((proven, tell)),
        Ok(Err(error)) => told(&error),
        Err(_) => format!("no answer within {}s", PROOF.as_secs()),
    };
    tracing::info!(%host, "announces {count} further host keys that it does not prove: {unproven}; they are not pinned");
    None
}

/// Those of `keys` that are not `known` and that we would accept, as many as proof may be asked for.
pub(super) fn unknown(keys: Vec<PublicKey>, known: &[String]) -> Vec<PublicKey> {
    let mut unknown: Vec<PublicKey> = Vec::new();
    for key in keys {
        let is_known = key.to_openssh().is_ok_and(|text| known.contains(&text));
        if is_acceptable(key.key_data()) && !is_known && !unknown.contains(&key) && unknown.len() < MAX_KEYS {
            unknown.push(key);
        }
    }
    unknown
}

fn is_acceptable(key: &KeyData) -> bool {
    match key {
        KeyData::Rsa(rsa) => rsa.key_size() >= MIN_RSA_BITS,
        // By what it is, not by its algorithm: that of a certificate is its key's.
        key => matches!(key, KeyData::Ed25519(_) | KeyData::Ecdsa(_)),
    }
}

/// A key without a certificate, in our words.
pub(super) fn host_key(key: &PublicKey) -> Result<HostKey, russh::keys::ssh_key::Error> {
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    Ok(HostKey { openssh: key.to_openssh()?, fingerprint, certificate: None })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::private::Ed25519Keypair;
    use russh::{client, server};

    use super::*;
    use crate::adapter::ssh::Steps;

    fn key(seed: u8) -> PrivateKey {
        Ed25519Keypair::from_seed(&[seed; 32]).into()
    }

    /// A host that lets everyone in and refuses every request that it does not know: to prove keys, too.
    struct Unproving;

    impl server::Handler for Unproving {
        type Error = russh::Error;

        async fn auth_none(&mut self, _user: &str) -> Result<server::Auth, russh::Error> {
            Ok(server::Auth::Accept)
        }
    }

    async fn logged_in() -> Handle<Verifier> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let config = Arc::new(server::Config { keys: vec![key(1)], ..server::Config::default() });
        tokio::spawn(async move { server::run_stream(config, theirs, Unproving).await?.await });
        let verify = Box::new(|_| Box::pin(async { Ok(None) }) as BoxFuture<'static, _>);
        let (verifier, _announced) = Verifier::new(verify, Arc::new(Steps::default()), Arc::default());
        let mut handle =
            client::connect_stream(super::super::config(&[], false, 16), ours, verifier).await.ok().unwrap();
        assert!(handle.authenticate_none("me").await.unwrap().success());
        handle
    }

    #[tokio::test]
    async fn keys_that_a_host_does_not_prove_are_told_to_nobody_and_the_connection_goes_on() {
        let handle = Arc::new(logged_in().await);
        let told = Arc::new(AtomicBool::new(false));
        let (announce, announced) = oneshot::channel();
        let heard = Arc::clone(&told);
        let tell = Box::new(move |_| {
            heard.store(true, Ordering::Relaxed);
            Box::pin(std::future::ready(())) as BoxFuture<'static, _>
        });
        let _ = announce.send(Announced { keys: vec![key(2).public_key().clone()], tell });
        assert!(prove(announced, Arc::clone(&handle), "host").await.is_none());
        assert!(!told.load(Ordering::Relaxed));
        assert!(handle.send_ping().await.is_ok());
    }

    #[tokio::test]
    async fn connection_that_ends_waits_for_no_announcement_and_no_proof() {
        let handle = Arc::new(logged_in().await);
        let (announce, announced) = oneshot::channel();
        Learning::start(announced, handle, "host".to_owned()).finish().await;
        assert!(announce.is_closed());
    }

    #[test]
    fn proof_is_asked_for_few_keys_each_once_and_none_that_is_known_or_weak() {
        let known = key(1).public_key().to_openssh().unwrap();
        let keys: Vec<PublicKey> = (1..=200).chain(1..=200).map(|seed| key(seed).public_key().clone()).collect();
        let unknown = unknown(keys.clone(), &[known]);
        assert_eq!(unknown, keys.get(1..=MAX_KEYS).unwrap());
        let certificate = {
            use russh::keys::ssh_key::certificate::Builder;
            let mut builder = Builder::new(vec![0; 16], key(3).public_key().key_data().clone(), 0, 1).unwrap();
            builder.all_principals_valid().unwrap();
            PublicKey::from(KeyData::from(builder.sign(&key(4)).unwrap()))
        };
        assert_eq!(super::unknown(vec![certificate], &[]), []);
    }
}
