//! `[database]`: where users and sessions are kept.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio_postgres::{Config, config::SslMode};

use super::{
    found::Wrong,
    kind::{Kind, choice, integer, parsed, secret},
    pem::{authorities, authorities_at},
    section::Section,
    units::nonzero_duration,
};
use crate::{
    postgres_url::{self, PostgresUrl},
    secret::Secret,
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    pub url: Secret<String>,
    /// Past a pooler; `None`: there is no other way than `url`.
    pub listen_url: Option<Secret<String>>,
    /// Who may have signed the server's certificate; `None`: the system's authorities.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    pub pooler: Pooler,
    pub pool_size: NonZeroUsize,
    pub acquire_timeout: Duration,
    pub statement_timeout: Duration,
    /// A plain lower-case SQL identifier.
    pub schema: String,
    pub migrate: Migrate,
}

/// What stands between the gateway and Postgres at `url`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pooler {
    /// Nothing that takes a connection away before its client leaves.
    None,
    /// What hands connections out by transaction.
    Transaction,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Migrate {
    OnStart,
    Manual,
}

impl Database {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let url = s
            .key(
                "url",
                "The PostgreSQL database. It holds a password: keep it out of this file.",
                database_url(),
            )
            .required("{ env = \"DATABASE_URL\" }");
        let listen_url = s
            .key(
                "listen_url",
                "The same database past a pooler: for hearing of revocations, and for migrations. `pooler = \
                 \"transaction\"` demands it.",
                database_url(),
            )
            .optional("{ env = \"DATABASE_DIRECT_URL\" }");
        let ca = s
            .key(
                "ca",
                "Who may have signed Postgres' certificate, in place of the system's authorities; also as `sslrootcert` \
                 in the URLs. With either there has to be one, without it is for the URLs to say: sslmode=verify-full.",
                authorities(),
            )
            .optional("postgres-ca.crt");
        let pooler = s
            .key(
                "pooler",
                "What stands at `url`. \"transaction\": PgBouncer or the like that hands connections out by transaction; \
                 statements are not prepared then.",
                choice(&[("none", Pooler::None), ("transaction", Pooler::Transaction)]),
            )
            .or("none");
        let pool_size = s
            .key(
                "pool_size",
                "Connections to it; a quarter of them is kept for looking up sessions.",
                integer::<usize>(1..=10_000).map(|size| NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN)),
            )
            .or("16");
        let acquire_timeout = s
            .key(
                "acquire_timeout",
                "How long a request waits for a connection, and for looking up its session as a whole; then: 503.",
                nonzero_duration(),
            )
            .or("2s");
        let statement_timeout = s
            .key(
                "statement_timeout",
                "How long one statement may take.",
                nonzero_duration(),
            )
            .or("5s");
        let schema = s
            .key("schema", "The schema that holds the gateway's tables.", schema())
            .or("auth");
        let migrate = s
            .key(
                "migrate",
                "\"manual\": refuse to start on an old schema, and say the command.",
                choice(&[("on-start", Migrate::OnStart), ("manual", Migrate::Manual)]),
            )
            .or("on-start");
        let (url, listen_url, ca, pooler) = (url?, listen_url?, ca?, pooler?);
        let ca = contradictions(s, &url, listen_url.as_ref(), ca, pooler)?;
        Some(Self {
            url,
            listen_url,
            ca,
            pooler,
            pool_size: pool_size?,
            acquire_timeout: acquire_timeout?,
            statement_timeout: statement_timeout?,
            schema: schema?,
            migrate: migrate?,
        })
    }
}

/// Read by the very parser that connects, so that whoever passes here is not refused at the start.
fn database_url() -> Kind<Secret<String>> {
    secret("a URL such as \"postgres://user:password@host:5432/name\"", |text| {
        postgres_url::parse(text)
            .map(|_| ())
            .map_err(|unreadable| unreadable.0.into())
    })
}

/// What of the keys goes together. The authorities that count, if there are any but the system's.
#[expect(
    clippy::option_option,
    reason = "the outer one is wrong or right, the inner one absent or there"
)]
fn contradictions(
    s: &Section<'_>,
    url: &Secret<String>,
    listen_url: Option<&Secret<String>>,
    ca: Option<Vec<CertificateDer<'static>>>,
    pooler: Pooler,
) -> Option<Option<Vec<CertificateDer<'static>>>> {
    // Both have been read before.
    let url = postgres_url::parse(url.expose()).ok()?;
    let listen_url = match listen_url {
        Some(listen_url) => Some(postgres_url::parse(listen_url.expose()).ok()?),
        None => None,
    };
    let mut wrong = None;
    if pooler == Pooler::Transaction {
        wrong = match &listen_url {
            None => Some(
                s.wrong("pooler", "nobody hears of revocations through such a pooler")
                    .allowed("`listen_url` as well: a connection that goes past it"),
            ),
            Some(direct) if is_same_place(&url.config, &direct.config) => Some(
                s.wrong("listen_url", "the same place as `url`, where the pooler is")
                    .allowed("a connection that goes past it"),
            ),
            Some(_) if url.config.get_options().is_some() => Some(
                s.wrong(
                    "url",
                    "it has `options`, which last longer than a transaction of the pooler",
                )
                .allowed("settings of the role: ALTER ROLE … SET …"),
            ),
            Some(_) => None,
        };
    }
    let files: Vec<(&str, &Path)> = [("url", Some(&url)), ("listen_url", listen_url.as_ref())]
        .into_iter()
        .filter_map(|(name, url)| Some((name, url?.root_certificate.as_deref()?)))
        .collect();
    if let (Some((name, _)), true) = (files.first(), ca.is_some()) {
        wrong = Some(
            s.wrong(name, "it has `sslrootcert`, and there is `ca` too")
                .allowed("one of them"),
        );
    }
    let without_tls = |url: &PostgresUrl| url.config.get_ssl_mode() == SslMode::Disable;
    let nobody_asks = without_tls(&url) && listen_url.as_ref().is_none_or(without_tls);
    if nobody_asks && (ca.is_some() || !files.is_empty()) {
        wrong = Some(
            s.wrong("url", "sslmode=disable, so that nobody shows a certificate")
                .allowed("sslmode=verify-full, or neither `ca` nor `sslrootcert`"),
        );
    }
    let both = [("url", Some(&url)), ("listen_url", listen_url.as_ref())];
    let names_authorities = ca.is_some() || both.iter().any(|(_, url)| url.is_some_and(|url| url.names_authorities));
    let nameless = |url: &PostgresUrl| url.config.get_hosts().is_empty() && !without_tls(url);
    if names_authorities && let Some((name, _)) = both.iter().find(|(_, url)| url.is_some_and(nameless)) {
        wrong = Some(
            s.wrong(name, "it has `hostaddr` alone, and certificates are for names")
                .allowed("`host` as well"),
        );
    }
    if let Some(wrong) = wrong {
        s.report(wrong);
        return None;
    }
    if files.is_empty() {
        return Some(ca);
    }
    let mut named = Vec::new();
    for (name, file) in files {
        match authorities_at(s.reader(), file) {
            Ok(certificates) => named.extend(certificates),
            Err(problem) => {
                s.report(
                    s.wrong(name, format!("sslrootcert: {}", problem.problem))
                        .allowed("the path of a file with certificates of authorities in PEM"),
                );
                return None;
            }
        }
    }
    Some(Some(named))
}

/// Whether two lead to the same listener and the same name there: a pooler may know several, with a mode each.
fn is_same_place(one: &Config, other: &Config) -> bool {
    let place = |config: &Config| {
        let (hosts, addresses) = (config.get_hosts().to_vec(), config.get_hostaddrs().to_vec());
        let ports = config.get_ports().to_vec();
        (hosts, addresses, ports, config.get_dbname().map(str::to_owned))
    };
    place(one) == place(other)
}

/// Channels for notifications are named `vestibule_<schema>`; Postgres cuts names at 63 bytes.
fn schema() -> Kind<String> {
    const MOST: usize = 53;
    let allowed = "a plain identifier: lower-case letters, digits and underscores, not starting with a digit";
    parsed(allowed, |text| {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if text.is_empty() || !plain || text.starts_with(|first: char| first.is_ascii_digit()) {
            let folded = text.to_ascii_lowercase().replace('-', "_");
            return Err(Wrong {
                problem: "not a plain identifier".to_owned(),
                nearest: (!folded.is_empty() && folded != text).then_some(folded),
            });
        }
        if text.len() > MOST {
            return Err("longer than 53 characters".into());
        }
        if text.starts_with("pg_") || text == "information_schema" {
            return Err("reserved by PostgreSQL".into());
        }
        Ok(text.to_owned())
    })
}
