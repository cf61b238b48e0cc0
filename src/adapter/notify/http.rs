//! One POST: no redirects, no cookies, no connection kept.

use std::io::{ErrorKind, Read as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};
use zeroize::Zeroizing;

use super::{LATE, Roots, quote};

/// How much of a reply is read: enough for a reason.
const MAX_REPLY_BYTES: u64 = 4096;

/// How much a server may say before its reply.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// What is posted.
pub(super) enum Body {
    /// A JSON document.
    Json(String),
    /// Plain text.
    Text(String),
}

/// How a server is reached.
pub(super) struct Way {
    /// Who vouches for it.
    pub(super) roots: Arc<Roots>,
    /// When it is given up.
    pub(super) deadline: Duration,
    /// Whether the environment's proxy is asked.
    pub(super) through_proxy: bool,
}

/// Posts `body`, which is known to whoever gets it twice by `id`; returns the beginning of the reply.
///
/// # Errors
/// What went wrong, without the address. A status other than 2xx is an error.
pub(super) async fn post(url: Zeroizing<String>, body: Body, id: String, way: Way) -> Result<String, String> {
    // The thread ends by the deadlines within, also where nobody waits for it any more.
    let posted = tokio::task::spawn_blocking(move || post_blocking(&url, &body, &id, &way)).await;
    posted.unwrap_or_else(|error| Err(error.to_string()))
}

fn post_blocking(url: &str, body: &Body, id: &str, way: &Way) -> Result<String, String> {
    let agent = agent(url, way)?;
    let (kind, text) = match body {
        Body::Json(text) => ("application/json", text),
        Body::Text(text) => ("text/plain; charset=utf-8", text),
    };
    let request = agent.post(url).header("Content-Type", kind).header("Idempotency-Key", id);
    let mut response = request.send(text.as_str()).map_err(|error| cause(&error))?;
    let status = response.status();
    let location = response.headers().get("Location").and_then(|at| at.to_str().ok()).map(str::to_owned);
    let mut reply = Vec::new();
    // A reply that breaks off changes nothing: the status was told.
    let _ = response.body_mut().as_reader().take(MAX_REPLY_BYTES).read_to_end(&mut reply);
    let reply = String::from_utf8_lossy(&reply).into_owned();
    if status.is_success() {
        return Ok(reply);
    }
    if let Some(location) = location.filter(|_| status.is_redirection()) {
        // To follow would be to tell the secret in the address to whoever is there.
        let origin = location.split_inclusive('/').take(3).collect::<String>();
        let origin = if origin.contains("://") && !origin.contains('@') && !names_secret(&origin, url) {
            format!(" to `{}`", quote(&origin))
        } else {
            String::new()
        };
        return Err(format!("it redirects{origin} (status {}), and is not followed", status.as_u16()));
    }
    let said = quote(&reply);
    let told = if said.is_empty() || names_secret(&said, url) { String::new() } else { format!(": {said}") };
    Err(format!("status {}{told}", status.as_u16()))
}

fn agent(url: &str, way: &Way) -> Result<Agent, String> {
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
    if url.starts_with("https:") {
        let roots: Vec<_> = way.roots.get()?.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        tls = tls.root_certs(RootCerts::Specific(Arc::new(roots)));
    }
    let config = Agent::config_builder()
        .timeout_global(Some(way.deadline))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_response_header_size(MAX_HEADER_BYTES)
        .max_idle_connections(0)
        .proxy(if way.through_proxy { Proxy::try_from_env() } else { None })
        .user_agent(concat!("sshjob/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    Ok(config.build().new_agent())
}

/// Why nothing came back. The library's own words may hold the address.
fn cause(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused => "connection refused".into(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => "the connection was closed".into(),
            _ => quote(&error.to_string()),
        },
        ureq::Error::Timeout(_) => LATE.into(),
        ureq::Error::HostNotFound => "the host is not known".into(),
        ureq::Error::Rustls(error) => format!("TLS: {}", quote(&error.to_string())),
        ureq::Error::Tls(why) => format!("TLS: {why}"),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => "the answer is not HTTP".into(),
        _ => "the request failed".into(),
    }
}

/// Whether `text` holds a part of the address that could let somebody in: servers like to repeat what they got.
fn names_secret(text: &str, url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let parts = user.split(':').chain(path.split(['/', '?', '&', '=']));
    parts.filter(|part| part.len() >= 4).any(|part| text.contains(part))
}
