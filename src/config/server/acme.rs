//! `[server.acme]`: certificates that the gateway orders for itself (RFC 8555).
//!
//! The section is in force as soon as `domains` names one. Wildcards and addresses are refused: they need a challenge by
//! DNS, which the gateway can't answer.

use std::net::IpAddr;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rustls::pki_types::CertificateDer;
use url::Url;

use super::host_name;
use crate::{
    config::{
        found::Wrong,
        kind::{Kind, boolean, choice, list, one_or_more, parsed, secret},
        pem::authorities,
        section::Section,
    },
    secret::Secret,
};

/// As the authority that most people use has it; it takes 300 names an order, and 50 certificates a week of a registered
/// domain's.
const MAX_DOMAINS: usize = 200;
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Who issues certificates, and for which names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acme {
    /// Lower case, each once; at least one.
    pub domains: Vec<String>,
    /// URLs such as `mailto:ops@example.com`; none, or some.
    pub contact: Vec<String>,
    /// As it is written: accounts and certificates are kept by it.
    pub directory: String,
    pub challenge: Challenge,
    /// Authorities that are trusted for the directory beside the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    pub eab: Option<ExternalAccount>,
    /// One of those that the directory lists.
    pub profile: Option<String>,
}

/// How the authority sees that a name is ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Challenge {
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// A request on port 80 (RFC 8555, section 8.3).
    Http01,
}

/// An account that one has with the authority already (RFC 8555, section 7.3.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalAccount {
    pub key_id: String,
    /// In base64url, as authorities show it.
    pub hmac_key: Secret<String>,
}

impl Acme {
    /// `Some(None)`: no certificates are ordered.
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(super) fn read(s: &mut Section<'_>) -> Option<Option<Self>> {
        s.shown_as_comment();
        let domains = s
            .key(
                "domains",
                "Names to order certificates for, one each. The listeners speak TLS then. Absent: none are ordered.",
                list(domain()),
            )
            .optional("[\"app.example.com\"]");
        let agreed = s
            .key(
                "agree_to_terms",
                "Say true if you agree to the authority's terms of service: without that it issues nothing.",
                boolean(),
            )
            .optional("true");
        let contact = s
            .key(
                "contact",
                "Mail addresses that the authority may write to; several: an array. Some authorities demand one.",
                one_or_more(contact),
            )
            .optional("ops@example.com");
        let directory = s
            .key(
                "directory",
                "Where the authority begins. Try out against a staging one: the real ones count, and lock out who asks \
                 too often.",
                directory(),
            )
            .or(LETS_ENCRYPT);
        let challenge = s
            .key(
                "challenge",
                "How the authority sees that a name is yours: a handshake on port 443, or a request on port 80.",
                choice(&[("tls-alpn-01", Challenge::TlsAlpn01), ("http-01", Challenge::Http01)]),
            )
            .or("tls-alpn-01");
        let ca = s
            .key(
                "ca",
                "Certificates in PEM that are trusted for the directory beside the system's: for an authority of your \
                 own.",
                authorities(),
            )
            .optional("acme-root.pem");
        let profile = s
            .key(
                "profile",
                "Which kind of certificate, of those that the directory lists.",
                profile(),
            )
            .optional("shortlived");
        let eab = s.section(
            "eab",
            "Binds the account to one that you have with the authority: ZeroSSL, Google and others demand it.",
            ExternalAccount::read,
        );
        let domains = domains?.unwrap_or_default();
        if domains.is_empty() {
            report_without_domains(s);
            return Some(None);
        }
        report_twice(s, &domains);
        if domains.len() > MAX_DOMAINS {
            s.report(
                s.wrong("domains", "more than one gateway should order for")
                    .found(domains.len().to_string())
                    .allowed(format!("at most {MAX_DOMAINS} names")),
            );
        }
        if agreed.is_some_and(|agreed| agreed != Some(true)) {
            let problem = if s.has("agree_to_terms") {
                "nothing can be ordered without"
            } else {
                "missing"
            };
            s.report(
                s.wrong("agree_to_terms", problem)
                    .allowed("true, once you have read the terms of service that the directory names"),
            );
        }
        Some(Some(Self {
            domains,
            contact: contact?.unwrap_or_default(),
            directory: directory?,
            challenge: challenge?,
            ca: ca?,
            eab: eab?,
            profile: profile?,
        }))
    }
}

impl ExternalAccount {
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    fn read(s: &mut Section<'_>) -> Option<Option<Self>> {
        s.shown_as_comment();
        let key_id = s
            .key("key_id", "As the authority shows it.", key_id())
            .optional("kid-1");
        let hmac_key = s
            .key(
                "hmac_key",
                "As the authority shows it, in base64url. It is a secret: keep it out of this file.",
                hmac_key(),
            )
            .optional("{ env = \"ACME_HMAC_KEY\" }");
        match (key_id?, hmac_key?) {
            (Some(key_id), Some(hmac_key)) => Some(Some(Self { key_id, hmac_key })),
            (None, None) => Some(None),
            (id, _) => {
                let missing = if id.is_none() { "key_id" } else { "hmac_key" };
                s.report(
                    s.wrong(missing, "missing")
                        .allowed("both `key_id` and `hmac_key`, or neither"),
                );
                None
            }
        }
    }
}

/// Nothing may be accepted and ignored.
fn report_without_domains(s: &Section<'_>) {
    const OTHERS: [&str; 7] = [
        "agree_to_terms",
        "contact",
        "directory",
        "challenge",
        "ca",
        "profile",
        "eab",
    ];
    if let Some(key) = OTHERS.into_iter().find(|key| s.has(key)) {
        let error = s.wrong("domains", format!("missing, without which `{key}` means nothing"));
        s.report(error.allowed("the names to order certificates for, such as [\"app.example.com\"]"));
    }
}

fn report_twice(s: &Section<'_>, domains: &[String]) {
    let twice = domains
        .iter()
        .enumerate()
        .find(|(index, domain)| domains.iter().take(*index).any(|other| other == *domain));
    if let Some((_, domain)) = twice {
        s.report(
            s.wrong("domains", "named twice")
                .found(format!("{domain:?}"))
                .allowed("each name once"),
        );
    }
}

fn domain() -> Kind<String> {
    parsed(
        "a host name such as \"app.example.com\", without scheme and port",
        |text| {
            if text.starts_with("*.") {
                return Err(
                    "wildcards need a challenge by DNS, which the gateway can't answer: name the hosts, or have the \
                     certificate made elsewhere and name its files in [server.tls]"
                        .into(),
                );
            }
            let host = host_name(text)?;
            if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
                return Err("an address, not a name".into());
            }
            // What `host_name` lets pass may still be no name that the DNS could hold (RFC 1035, section 2.3.1).
            let label = |label: &str| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            if host.len() > 253 || !host.split('.').all(label) {
                return Err("not a name that certificates are issued for".into());
            }
            Ok(host)
        },
    )
}

/// RFC 8555, section 7.3, knows other URLs, but all authorities take this one alone.
fn contact() -> Kind<String> {
    parsed("a mail address such as \"ops@example.com\"", |text| {
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        match address.parse::<lettre::Address>() {
            // RFC 8555, section 7.3: neither header fields nor more than one address.
            Ok(_) if !address.contains(['?', ',', '%']) => Ok(format!("mailto:{address}")),
            _ => Err("not a mail address".into()),
        }
    })
}

/// RFC 8555, section 6.1: https alone.
fn directory() -> Kind<String> {
    parsed(format!("an https URL such as {LETS_ENCRYPT:?}"), |text| {
        let url = Url::parse(text).map_err(|_| "not a URL")?;
        match url.scheme() {
            "https" if url.has_host() && url.username().is_empty() && url.password().is_none() => Ok(text.to_owned()),
            "http" => Err(Wrong::but(
                "without encryption anybody on the way could have certificates made",
                text.replacen("http:", "https:", 1),
            )),
            _ => Err("not an https URL".into()),
        }
    })
}

fn profile() -> Kind<String> {
    parsed("the name of a profile, such as \"shortlived\"", |text| {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("not the name of a profile".into());
        }
        Ok(text.to_owned())
    })
}

fn key_id() -> Kind<String> {
    parsed("a key's id, as the authority shows it", |text| {
        if text.is_empty() || text.trim() != text {
            return Err("empty, or with white space around it".into());
        }
        Ok(text.to_owned())
    })
}

fn hmac_key() -> Kind<Secret<String>> {
    secret(
        "a key in base64url, as the authority shows it",
        |text| match Base64UrlUnpadded::decode_vec(text.trim_end_matches('=')) {
            Ok(key) if key.len() >= 16 => Ok(()),
            Ok(_) => Err("shorter than the 128 bits that make a key".into()),
            Err(_) => Err("not base64url".into()),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    /// A configuration with `acme`, and whatever follows it.
    fn with(acme: &str) -> Result<Config, String> {
        let rest = "[server]\npublic_url = 'https://app.example.com'\n[database]\nurl = 'postgres://localhost/x'\n\
                    [auth]\nsecret = 'long enough to be a secret, and only here'\n[mail]\nfrom = 'a@example.com'\n\
                    smtp = 'smtp://localhost'\n";
        parse(&format!("{rest}[server.acme]\n{acme}"), "gateway.toml", &|_| None).map_err(|errors| errors.to_string())
    }

    #[test]
    fn little_has_to_be_said() {
        let config = with("domains = ['app.example.com', 'www.example.com']\nagree_to_terms = true").unwrap();
        let acme = config.server.acme.unwrap();
        assert_eq!(acme.domains, ["app.example.com", "www.example.com"]);
        assert_eq!(
            (acme.directory.as_str(), acme.challenge),
            (LETS_ENCRYPT, Challenge::TlsAlpn01)
        );
        assert!(acme.contact.is_empty() && acme.eab.is_none());
        assert!(
            config.server.tls.unwrap().certificates.is_empty(),
            "TLS is spoken, with what is ordered"
        );
        let none = with("").unwrap().server;
        assert!(none.acme.is_none() && none.tls.is_none());
    }

    #[test]
    fn all_of_it_can_be_said() {
        let acme = "domains = ['app.example.com']\nagree_to_terms = true\ncontact = 'ops@example.com'\n\
                    directory = 'https://acme.example.net/dir'\nchallenge = 'tls-alpn-01'\nprofile = 'shortlived'\n\
                    eab = { key_id = 'kid-1', hmac_key = 'MDEyMzQ1Njc4OWFiY2RlZg' }";
        let acme = with(acme).unwrap().server.acme.unwrap();
        assert_eq!(acme.contact, ["mailto:ops@example.com"]);
        assert_eq!(acme.eab.unwrap().key_id, "kid-1");
    }

    #[test]
    fn what_can_not_be_ordered_is_refused_with_the_reason() {
        let named = |domains: &str| format!("domains = {domains}\nagree_to_terms = true");
        for (acme, says) in [
            ("domains = ['app.example.com']".to_owned(), "agree_to_terms"),
            (
                "contact = 'ops@example.com'".to_owned(),
                "without which `contact` means nothing",
            ),
            (named("['*.example.com']"), "challenge by DNS"),
            (named("['192.0.2.1']"), "an address, not a name"),
            (named("['[::1]']"), "an address, not a name"),
            (named("['https://app.example.com']"), "app.example.com"),
            (
                named("['a_b.example.com']"),
                "not a name that certificates are issued for",
            ),
            (named("['a.example.com', 'a.example.com']"), "named twice"),
            (
                named("['a.example.com']") + "\ndirectory = 'http://acme.example.net'",
                "https://acme.example.net",
            ),
            (
                named("['a.example.com']") + "\ncontact = 'nobody'",
                "not a mail address",
            ),
            (
                named("['a.example.com']") + "\neab = { key_id = 'kid' }",
                "both `key_id` and `hmac_key`",
            ),
            (
                named("['a.example.com']") + "\neab = { key_id = 'kid', hmac_key = '?!' }",
                "not base64url",
            ),
        ] {
            let error = with(&acme).expect_err(&acme);
            assert!(error.contains(says), "{acme}\n{error}");
            assert!(!error.contains("?!"), "a secret is not shown");
        }
    }
}
