//! `[mail]`: who the mails are from, and who carries them.

use std::net::IpAddr;

use lettre::message::Mailbox;
use percent_encoding::percent_decode_str;

use super::{
    found::Wrong,
    is_loopback_host,
    kind::{Kind, boolean, parsed, parsed_secret},
    section::Section,
    server::is_public,
};
use crate::secret::Secret;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mail {
    /// An RFC 5322 mailbox: `Example <no-reply@example.com>`.
    pub from: String,
    pub smtp: SmtpUrl,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SmtpUrl {
    pub security: SmtpSecurity,
    pub host: String,
    pub port: u16,
    pub credentials: Option<(String, Secret<String>)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SmtpSecurity {
    /// `smtp://`
    Plain,
    /// `smtp+starttls://`: upgraded, or refused; never in the clear.
    StartTls,
    /// `smtps://`: TLS from the first byte.
    Tls,
}

impl Mail {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let from = s
            .key("from", "The sender of every mail.", mailbox())
            .required("Example <no-reply@example.com>");
        let allow_insecure = s
            .key(
                "allow_insecure",
                "Lets `smtp` have a password with smtp:// to a server that is neither on this machine nor in its network: it \
                 travels in the clear then, and so do links that sign in.",
                boolean(),
            )
            .or("false");
        let smtp = s
            .key(
                "smtp",
                "The server that takes the mails: smtp:// (no encryption), smtps:// (TLS) or smtp+starttls:// (upgraded \
                 to TLS or refused). The port is 25, 465 or 587 unless it is said. User and password are \
                 percent-encoded: keep them out of this file.",
                smtp_url(),
            )
            .required("{ env = \"SMTP_URL\" }");
        if let (Some(url), Some(false)) = (&smtp, allow_insecure)
            && url.security == SmtpSecurity::Plain
            && url.credentials.is_some()
            && !is_near(&url.host)
        {
            s.report(
                s.wrong(
                    "smtp",
                    "the password, and links that sign in, would travel in the clear beyond your network",
                )
                .allowed("smtps:// or smtp+starttls://; or `allow_insecure = true` if all of the way is yours"),
            );
        }
        Some(Self {
            from: from?,
            smtp: smtp?,
        })
    }
}

/// This machine, a private address, or a name without a dot, which only a network's own names are.
fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => !is_public(ip),
        Err(_) => is_loopback_host(host) || !host.trim_end_matches('.').contains('.'),
    }
}

fn mailbox() -> Kind<String> {
    parsed(
        "a mailbox such as \"Example <no-reply@example.com>\"",
        |text| match text.parse::<Mailbox>() {
            // Few servers take another (RFC 6531).
            Ok(mailbox) if !AsRef::<str>::as_ref(&mailbox.email).is_ascii() => {
                Err("the address has letters beyond ASCII: write its domain as `xn--…`".into())
            }
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("not a mailbox".into()),
        },
    )
}

fn smtp_url() -> Kind<SmtpUrl> {
    parsed_secret(
        "a URL such as \"smtp+starttls://user:password@mail.example.com:587\", or smtp://, smtps://",
        |text| {
            let url = url::Url::parse(text).map_err(|_| "not a URL")?;
            let (security, default_port) = match url.scheme() {
                "smtp" => (SmtpSecurity::Plain, 25),
                "smtps" => (SmtpSecurity::Tls, 465),
                "smtp+starttls" => (SmtpSecurity::StartTls, 587),
                _ => return Err("the scheme is not smtp, smtps or smtp+starttls".into()),
            };
            if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
                return Err("something follows host and port".into());
            }
            let host = url.host_str().filter(|host| !host.is_empty()).ok_or("without a host")?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let credentials = match (url.username(), url.password()) {
                ("", None) => None,
                (user, Some(password)) if !user.is_empty() => Some((decoded(user)?, Secret::new(decoded(password)?))),
                _ => return Err("user and password go together".into()),
            };
            Ok(SmtpUrl {
                security,
                host: host.to_owned(),
                port: url.port().unwrap_or(default_port),
                credentials,
            })
        },
    )
}

fn decoded(text: &str) -> Result<String, Wrong> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("user or password are not percent-encoded UTF-8".into()),
    }
}
