//! One mail.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::Address;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::extension::ClientId;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{Roots, quote};
use crate::domain::job::notify::{Email, MailServer};
use crate::domain::notice::Notice;

/// The most that a server may say in one conversation, certificates included.
const MAX_SAID_BYTES: usize = 256 * 1024;

/// A mail that was taken is sent, however long the good-bye takes.
const GOODBYE: Duration = Duration::from_secs(1);

/// Sends `notice` to everybody whom `email` names.
///
/// # Errors
/// What went wrong, without the password.
pub(super) async fn send(
    email: &Email,
    password: Option<Zeroizing<String>>,
    notice: &Notice,
    roots: &Roots,
) -> Result<(), String> {
    let message = compose(email, notice)?;
    let mut connection = connect(&email.server, password.is_some(), roots).await?;
    if let (Some(user), Some(password)) = (&email.user, password) {
        let credentials = Credentials::new(user.clone(), password.to_string());
        connection.auth(DEFAULT_MECHANISMS, &credentials).await.map_err(|error| match error.status() {
            // Servers like to repeat what they got, and here that is the password.
            Some(code) => format!("the server refuses the user and the password ({code})"),
            None => cause(&error),
        })?;
    }
    connection.send(message.envelope(), &message.formatted()).await.map_err(|error| cause(&error))?;
    let _ = timeout(GOODBYE, connection.quit()).await;
    Ok(())
}

/// The mail. Sent again it has the same id, so that a mailbox may show it once.
fn compose(email: &Email, notice: &Notice) -> Result<Message, String> {
    let mailbox = |address: &str| -> Result<Mailbox, String> {
        let address: Address = address.parse().map_err(|error| format!("`{}`: {error}", quote(address)))?;
        Ok(Mailbox::new(None, address))
    };
    let from = mailbox(&email.from)?;
    let id = format!("<{}.{}@{}>", notice.uuid(), notice.state.as_str(), from.email.domain());
    let at = notice.finished_at.unwrap_or(notice.started_at);
    let mut message = Message::builder().from(from).subject(notice.subject()).message_id(Some(id)).date(at.into());
    for to in &email.to {
        message = message.to(mailbox(to)?);
    }
    message.header(ContentType::TEXT_PLAIN).body(notice.plain()).map_err(|error| quote(&error.to_string()))
}

/// Opens a conversation; with TLS wherever the server has it, and always where a password follows.
async fn connect(server: &MailServer, has_password: bool, roots: &Roots) -> Result<AsyncSmtpConnection, String> {
    let usual = match (server.tls, has_password) {
        (true, _) => 465,
        (false, true) => 587,
        (false, false) => 25,
    };
    let hello = ClientId::Domain("sshjob.localhost".to_owned());
    let host = server.host.as_str();
    let stream = TcpStream::connect((host, server.port.unwrap_or(usual))).await.map_err(|error| cause(&error))?;
    let stream = Bounded::over(stream)?;
    if server.tls {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls(roots)?).connect(name, stream).await.map_err(|error| cause(&error))?;
        let stream = Bounded { peer: stream.get_ref().0.peer, left: MAX_SAID_BYTES, stream };
        return AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello)
            .await
            .map_err(|error| cause(&error));
    }
    let connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await;
    let mut connection = connection.map_err(|error| cause(&error))?;
    if connection.can_starttls() {
        let tls = starttls(host, has_password.then_some(roots))?;
        connection.starttls(tls, &hello).await.map_err(|error| cause(&error))?;
    } else if has_password {
        return Err("the server offers no TLS, and a password is not sent without; use `smtps://`".to_owned());
    }
    Ok(connection)
}

fn tls(roots: &Roots) -> Result<Arc<ClientConfig>, String> {
    let mut believed = RootCertStore::empty();
    believed.add_parsable_certificates(roots.get()?.iter().cloned());
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(believed).with_no_client_auth()))
}

/// TLS that is begun in clear text; without `roots` with whoever is there.
fn starttls(host: &str, roots: Option<&Roots>) -> Result<TlsParameters, String> {
    let mut tls = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
    match roots {
        Some(roots) => {
            for root in roots.get()? {
                tls = tls.add_root_certificate(Certificate::from_der(root.to_vec()).map_err(|error| cause(&error))?);
            }
        }
        // Whoever could show a false certificate could as well say that there is no TLS.
        None => tls = tls.dangerous_accept_invalid_certs(true),
    }
    tls.build_rustls().map_err(|error| cause(&error))
}

/// An error and what led to it, on one line.
fn cause(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_said = inner.to_string();
        if !said.contains(&inner_said) {
            said = format!("{said}: {inner_said}");
        }
        source = inner.source();
    }
    quote(&said)
}

/// A connection that ends when the other side has said too much: a line without end would fill the memory.
struct Bounded<T> {
    stream: T,
    peer: SocketAddr,
    left: usize,
}

impl Bounded<TcpStream> {
    fn over(stream: TcpStream) -> Result<Self, String> {
        let peer = stream.peer_addr().map_err(|error| cause(&error))?;
        Ok(Self { stream, peer, left: MAX_SAID_BYTES })
    }
}

impl<T> fmt::Debug for Bounded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("peer", &self.peer).field("left", &self.left).finish_non_exhaustive()
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> AsyncTokioStream for Bounded<T> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Bounded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let said = buf.filled().len().saturating_sub(before);
        match self.left.checked_sub(said) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other("the server talks without end"))),
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Bounded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
