//! Where a Postgres is, as operators write it: what libpq reads, in terms of our client.
//!
//! The client verifies certificates whenever there is TLS, host names included, and knows neither `verify-full` nor
//! `sslrootcert`: both are taken out here. Of several hosts the gateway wants the one that takes writes.
//!
//! Errors are in words of ours: the client's may repeat a part of the text, hence of a password with an `@` or a `?` that
//! isn't encoded.

use std::{error::Error as _, iter::Peekable, path::PathBuf, str::CharIndices, str::FromStr as _};

use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{SslMode, TargetSessionAttrs},
};

/// What a URL, or a list of `key=value`, says.
#[derive(Debug)]
pub struct PostgresUrl {
    /// Its `Debug` hides the password.
    pub config: Config,
    /// `sslrootcert`: authorities that certificates may be of, in place of the system's.
    pub root_certificate: Option<PathBuf>,
    /// `sslrootcert` names those or the system's.
    pub names_authorities: bool,
}

impl PostgresUrl {
    /// Insists on TLS unless there is to be none at all: for who has said whose certificates to trust. Elsewhere whoever is on
    /// the way may say that the server has none.
    pub fn insist_on_tls(&mut self) {
        if self.config.get_ssl_mode() == SslMode::Prefer {
            self.config.ssl_mode(SslMode::Require);
        }
    }
}

/// What is wrong with one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

impl From<&str> for Unreadable {
    fn from(words: &str) -> Self {
        Self(words.to_owned())
    }
}

/// Reads what [`tokio_postgres`] reads, and more of libpq's.
///
/// # Errors
/// Never with a part of `text` in them that could be of a password.
pub fn parse(text: &str) -> Result<PostgresUrl, Unreadable> {
    let url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    let pairs = !text.contains("://") && text.contains('=');
    let understood = match (url, pairs) {
        (true, _) => of_url(text),
        (false, true) => of_pairs(text),
        (false, false) => return Err("not a PostgreSQL URL".into()),
    };
    if understood.verify_ca {
        return Err("host names are verified as well, always: write sslmode=verify-full".into());
    }
    let mut config = Config::from_str(&understood.text).map_err(|error| unreadable(&error))?;
    let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
    match config.get_target_session_attrs() {
        _ if hosts == 0 => return Err("names no host".into()),
        TargetSessionAttrs::ReadOnly => {
            return Err("the gateway writes: target_session_attrs can't be read-only".into());
        }
        // One that only reads is of no use, and the others may well be such.
        TargetSessionAttrs::Any if hosts > 1 => {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        _ => {}
    }
    Ok(PostgresUrl {
        config,
        root_certificate: understood.root_certificate,
        names_authorities: understood.names_authorities,
    })
}

/// A text that the client reads, and what it would not have.
#[derive(Default)]
struct Understood {
    text: String,
    root_certificate: Option<PathBuf>,
    names_authorities: bool,
    verify_ca: bool,
}

impl Understood {
    /// What the client is told of a parameter, if anything.
    fn take(&mut self, key: &str, value: &str) -> Told {
        match (key, value) {
            ("sslrootcert", path) => {
                self.names_authorities = true;
                // libpq's word for what is the case anyhow.
                self.root_certificate = (path != "system").then(|| PathBuf::from(path));
                Told::Nothing
            }
            ("sslmode", "verify-full") => Told::Require,
            ("sslmode", "verify-ca") => {
                self.verify_ca = true;
                Told::Nothing
            }
            _ => Told::AsItIs,
        }
    }
}

enum Told {
    Nothing,
    /// `sslmode=require`.
    Require,
    AsItIs,
}

fn of_url(text: &str) -> Understood {
    let mut understood = Understood::default();
    // As the client looks for them: what is before the first `@` are credentials, whatever else is in them.
    let (credentials, rest) = text.split_once('@').map_or(("", text), |(before, rest)| (before, rest));
    let Some((place, query)) = rest.split_once('?') else {
        text.clone_into(&mut understood.text);
        return understood;
    };
    let mut kept = Vec::new();
    for parameter in query.split('&') {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        match understood.take(key, &value) {
            Told::Nothing => {}
            Told::Require => kept.push("sslmode=require"),
            Told::AsItIs => kept.push(parameter),
        }
    }
    let credentials_end = if credentials.is_empty() && !text.contains('@') {
        ""
    } else {
        "@"
    };
    let begin = if kept.is_empty() { "" } else { "?" };
    understood.text = format!("{credentials}{credentials_end}{place}{begin}{}", kept.join("&"));
    understood
}

fn of_pairs(text: &str) -> Understood {
    let mut understood = Understood::default();
    let mut at = text.char_indices().peekable();
    let mut kept_from = 0;
    while let Some((from, key, value)) = next_pair(text, &mut at) {
        let to = at.peek().map_or(text.len(), |(index, _)| *index);
        let told = match understood.take(key, &value) {
            Told::AsItIs => continue,
            Told::Nothing => "",
            Told::Require => "sslmode=require",
        };
        understood.text += text.get(kept_from..from).unwrap_or_default();
        understood.text += told;
        kept_from = to;
    }
    understood.text += text.get(kept_from..).unwrap_or_default();
    understood
}

/// The next `key = value` or `key = 'a value'`, where a backslash takes the next character as it is; and where it begins.
fn next_pair<'t>(text: &'t str, at: &mut Peekable<CharIndices<'_>>) -> Option<(usize, &'t str, String)> {
    while at.next_if(|(_, next)| next.is_whitespace()).is_some() {}
    let (from, _) = *at.peek()?;
    let (equals, _) = at.find(|(_, next)| *next == '=')?;
    let key = text.get(from..equals)?.trim();
    while at.next_if(|(_, next)| next.is_whitespace()).is_some() {}
    let quoted = at.next_if(|(_, next)| *next == '\'').is_some();
    let mut value = String::new();
    while let Some((_, next)) = at.next_if(|(_, next)| quoted || !next.is_whitespace()) {
        match next {
            '\'' if quoted => break,
            '\\' => value.extend(at.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    Some((from, key, value))
}

/// Parameters that libpq has and we have not.
const OF_LIBPQ: &[&str] = &[
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "passfile",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
];

/// What the client found wrong.
fn unreadable(error: &tokio_postgres::Error) -> Unreadable {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let quoted = cause.split('`').nth(1).unwrap_or_default();
    if cause.starts_with("invalid value for option") {
        return match quoted {
            "sslmode" => "`sslmode` is not disable, prefer, require or verify-full; the last two are the same, since \
                          certificates are always verified"
                .into(),
            option => Unreadable(format!("the value of `{option}` is not allowed")),
        };
    }
    if OF_LIBPQ.contains(&quoted) {
        return Unreadable(format!("the parameter `{quoted}` is not supported"));
    }
    if cause.starts_with("unknown option") {
        return "there is a parameter that nobody knows; is a character of the password not percent-encoded?".into();
    }
    "can't be read; is a character of the password not percent-encoded?".into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio_postgres::config::SslMode;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_the_text() {
        for (url, says) in [
            (
                "postgres://u:hunter2@h/x?sslmode=verify-ca",
                "write sslmode=verify-full",
            ),
            ("host=h password=hunter2 sslmode=verify-ca", "write sslmode=verify-full"),
            ("postgres://u:hunter2@h/x?sslmode=always", "verify-full"),
            ("postgres://u:hunter2@h:99999/x", "`port`"),
            ("postgres://u:hunter2@h/x?sslcert=/a", "`sslcert` is not supported"),
            ("postgres://u:hunter2@h/x?hunter2=1", "a parameter that nobody knows"),
            ("host=h password='hunter2", "can't be read"),
            ("host=h password=x hunter2=y", "a parameter that nobody knows"),
            (
                "postgres://u:hunter2@a,b/x?target_session_attrs=read-only",
                "the gateway writes",
            ),
            ("mysql://u:hunter2@h/x", "not a PostgreSQL URL"),
            ("dbname=x", "names no host"),
        ] {
            let problem = parse(url).expect_err(url).0;
            assert!(problem.contains(says), "{url}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        for fine in [
            "postgres://u:p@h/x?sslmode=require&connect_timeout=3",
            "host=h user=u dbname=x",
            "postgres:///x?host=/run/postgresql",
        ] {
            parse(fine).unwrap_or_else(|error| panic!("{fine}: {error}"));
        }
    }

    #[test]
    fn what_libpq_says_of_certificates_is_understood() {
        for text in [
            "postgres://u:p%3Fw@h:1/x?sslmode=verify-full&sslrootcert=%2Fetc%2Four%20ca.pem&connect_timeout=3",
            "postgres://u:p?w@h:1/x?sslrootcert=/etc/our ca.pem&connect_timeout=3&sslmode=verify-full",
            "host=h port=1 sslmode=verify-full sslrootcert='/etc/our ca.pem' user=u password=p?w dbname=x connect_timeout=3",
            "sslrootcert = /etc/our\\ ca.pem host=h port=1 user=u password='p?w' dbname=x connect_timeout=3 sslmode = verify-full",
        ] {
            let url = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                url.root_certificate.as_deref(),
                Some(Path::new("/etc/our ca.pem")),
                "{text}"
            );
            let config = url.config;
            assert_eq!(config.get_ssl_mode(), SslMode::Require, "{text}");
            assert_eq!(config.get_password(), Some(b"p?w".as_slice()), "{text}");
            assert_eq!(
                (config.get_ports(), config.get_dbname()),
                ([1].as_slice(), Some("x")),
                "{text}"
            );
            assert_eq!(
                config.get_connect_timeout().map(std::time::Duration::as_secs),
                Some(3),
                "{text}"
            );
        }
        let system = parse("postgres://h/x?sslrootcert=system").unwrap();
        assert_eq!(system.root_certificate, None);
    }

    #[test]
    fn of_several_hosts_the_one_that_takes_writes_is_meant() {
        let attrs = |text| parse(text).unwrap().config.get_target_session_attrs();
        assert_eq!(attrs("postgres://h/x"), TargetSessionAttrs::Any);
        assert_eq!(attrs("postgres://h1,h2:6/x"), TargetSessionAttrs::ReadWrite);
        assert_eq!(
            attrs("postgres://h/x?target_session_attrs=read-write"),
            TargetSessionAttrs::ReadWrite
        );
    }
}
