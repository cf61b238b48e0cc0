//! Telling by e-mail: who gets it, and through which server.

use serde::{Deserialize, Serialize};

use crate::domain::decode::At;
use crate::domain::diagnostic::quoted;
use crate::domain::job::read::some_of;
use crate::domain::job::{InvalidReference, SecretRef};

/// More recipients than this are a mailing list's business.
const MAX_RECIPIENTS: usize = 50;

/// Who gets mail, and through which server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// Who gets it.
    pub to: Vec<String>,
    /// Whom it is from.
    pub from: String,
    /// Who takes it on.
    pub server: MailServer,
    /// The user there, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// A mail server: `smtps://host[:port]` (TLS from the first byte) or `smtp://host[:port]` (`STARTTLS` where it offers
/// that; where a password is to be sent it must).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MailServer {
    /// Whether TLS is spoken from the first byte.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// The port; none means the usual one.
    pub port: Option<u16>,
}

impl TryFrom<String> for MailServer {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        let read = |text: &str| {
            let (scheme, rest) = text.split_once("://")?;
            let tls = match scheme {
                "smtps" => true,
                "smtp" => false,
                _ => return None,
            };
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
                None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
            };
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-.:_".contains(&b);
            let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(()));
            let good = (1..=255).contains(&host.len()) && host.bytes().all(allowed);
            good.then_some(Self { tls, host: host.to_owned(), port: port.transpose().ok()? })
        };
        let what = "a mail server";
        let allowed = "`smtps://host[:port]` or `smtp://host[:port]`; user and password have keys of their own";
        read(&text).ok_or_else(|| {
            // What stands before an `@` may be a password.
            let found = text.rsplit('@').next().unwrap_or_default();
            InvalidReference { what, found: quoted(found).trim_matches('`').to_owned(), allowed }
        })
    }
}

impl From<MailServer> for String {
    fn from(server: MailServer) -> Self {
        let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host };
        let port = server.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("smtp{}://{host}{port}", if server.tls { "s" } else { "" })
    }
}

/// Reads who gets mail.
pub(super) fn email(at: &At<'_>) -> Option<Email> {
    let what =
        "a map such as `{ to: ops@example.com, from: sshjob@example.com, server: \"smtps://mail.example.com\" }`";
    let mut fields = at.fields(what)?;
    let to = fields.need("to", "say who gets it, as `to: ops@example.com`", |at| {
        let to = some_of(at, at.one_or_many(mailbox)?, "recipient")?;
        if to.len() > MAX_RECIPIENTS {
            return at.fault(format_args!("{} recipients; at most {MAX_RECIPIENTS} are allowed", to.len()));
        }
        Some(to)
    });
    let from = fields.need("from", "say whom it is from, as `from: sshjob@example.com`", mailbox);
    let server = fields.need("server", "name the mail server, as `server: \"smtps://mail.example.com\"`", |at| {
        at.convert::<MailServer>("a mail server: `smtps://host[:port]`")
    });
    let user = fields.get("user", |at| match at.text("a user name")? {
        name if name.is_empty() || name.len() > 256 || name.contains(char::is_control) => {
            at.fault(format_args!("{} is not a user name", quoted(name)))
        }
        name => Some(name.to_owned()),
    });
    let password = fields.get("password", |at| {
        let text = at.text("a reference to a password: `env:NAME` or `file:PATH`")?;
        // What is no reference may be the password itself, and is not shown.
        SecretRef::try_from(text.to_owned())
            .ok()
            .or_else(|| at.fault_with_hint("a password does not stand in the file", "write `env:NAME` or `file:PATH`"))
    });
    if fields.has("user") != fields.has("password") {
        let missing = if fields.has("user") { "password" } else { "user" };
        fields.fault(fields.place(), format_args!("the key `{missing}` is missing"), Some("name both, or neither"));
    }
    fields.finish();
    Some(Email {
        to: to?.value,
        from: from?.value,
        server: server?.value,
        user: user.map(|user| user.value),
        password: password.map(|password| password.value),
    })
}

/// Reads an address of e-mail, without a name before it.
fn mailbox(at: &At<'_>) -> Option<String> {
    let text = at.text("an address such as `ops@example.com`")?;
    // RFC 5322, section 3.4.1, `dot-atom`: no quoted forms, so nothing can end the header that it stands in.
    let atom = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
    let local = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    let domain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    let good = text.len() <= 254
        && text.split_once('@').is_some_and(|(name, host)| {
            atom(name) && atom(host) && name.len() <= 64 && name.bytes().all(local) && host.bytes().all(domain)
        });
    if good { Some(text.to_owned()) } else { at.fault(format_args!("{} is not an address of e-mail", quoted(text))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_server_is_read_as_it_is_written() {
        for text in ["smtps://mail.example.com", "smtp://127.0.0.1:2525", "smtps://[::1]:465", "smtp://[::1]"] {
            assert_eq!(String::from(MailServer::try_from(text.to_owned()).unwrap()), text);
        }
        for text in
            ["smtps://", "mail.example.com", "smtp://a:0", "smtp://a:b", "smtp://a b", "smtp://a/x", "smtp://me@a"]
        {
            MailServer::try_from(text.to_owned()).unwrap_err();
        }
        let why = MailServer::try_from("smtps://me:secret@mail".to_owned()).unwrap_err().to_string();
        assert!(!why.contains("secret"), "{why}");
    }
}
