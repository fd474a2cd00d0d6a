//! `[auth.session]`: how long people stay signed in, by which cookie, and what is remembered of it.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use super::rate_limit::Budget;
use crate::config::{
    Origin,
    found::Wrong,
    kind::{Kind, boolean, choice, file, integer, parsed},
    section::Section,
    server::host_name,
    units::{duration, nonzero_duration},
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionRules {
    pub expires_in: Duration,
    pub refresh_after: Duration,
    pub fresh_for: Duration,
    /// 0 = no limit.
    pub max_per_user: usize,
    pub multi_session: MultiSession,
    /// Tunnels, event streams and gRPC calls end with the session that they began in.
    pub close_streams_on_revoke: bool,
    /// `None`: sessions have no place.
    pub geo_database: Option<PathBuf>,
    pub cookie: Cookie,
    pub cache: Cache,
    /// Bearer tokens without a signature that are nobody's, per network.
    pub unknown_tokens: Budget,
}

/// When a browser is given the cookies that keep several people's sessions in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MultiSession {
    /// Once a second person signs in: one person needs none.
    WhenShared,
    /// From the first sign-in on, as the original does.
    Always,
    Off,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cookie {
    pub prefix: String,
    pub same_site: SameSite,
    pub domain: Option<String>,
    pub host_prefix: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SameSite {
    Lax,
    Strict,
    None,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cache {
    pub ttl: Duration,
    /// How much longer than `ttl` while Postgres can't be reached.
    pub outage_grace: Duration,
    pub capacity: u64,
    pub lookup_queue: usize,
}

/// A session that is nearer to its end than this is left to it.
const LAST_MOMENTS: Duration = Duration::from_mins(1);

impl SessionRules {
    /// How near to its end no use extends a session any more. Whoever ends one by moving its expiry to now, by a clock that
    /// is ahead of ours, is to have their way. Of a life that is short it is less: half of the time in which a use extends.
    pub fn last_moments(&self) -> Duration {
        LAST_MOMENTS.min(self.expires_in.saturating_sub(self.refresh_after) / 2)
    }

    pub(super) fn read(s: &mut Section<'_>, public_url: Option<&Origin>) -> Option<Self> {
        let expires_in = s
            .key(
                "expires_in",
                "How long a session lasts after its last extension.",
                nonzero_duration(),
            )
            .or("7d");
        let refresh_after = s
            .key(
                "refresh_after",
                "A session used at this age is extended by `expires_in`; \"0s\": at every use.",
                duration(),
            )
            .or("1d");
        let fresh_for = s
            .key(
                "fresh_for",
                "How long after sign-in a session counts as fresh; \"0s\": always.",
                duration(),
            )
            .or("1d");
        let max_per_user = s
            .key(
                "max_per_user",
                "Sessions that a user may have; past it the oldest is revoked. 0 = no limit: then whoever knows a password \
                 can make so many that to end them all takes longer than Postgres is given.",
                integer(0..=100_000),
            )
            .or("1_000");
        let multi_session = s
            .key(
                "multi_session",
                "Whether one browser may keep the sessions of several people, who switch between them. \
                 \"when-shared\": somebody who signs in where another user is signed in is added; \"always\": each \
                 browser is prepared for that from the first sign-in, by a cookie more, as better-auth's plugin does; \
                 \"off\": a browser forgets the first when the second signs in.",
                choice(&[
                    ("when-shared", MultiSession::WhenShared),
                    ("always", MultiSession::Always),
                    ("off", MultiSession::Off),
                ]),
            )
            .or("when-shared");
        let close_streams_on_revoke = s
            .key(
                "close_streams_on_revoke",
                "Whether WebSockets and other tunnels, event streams and gRPC calls are closed when their session ends, or \
                 their user may no longer take the route.",
                boolean(),
            )
            .or("true");
        let geo_database = s
            .key(
                "geo_database",
                "Tells where people are signed in: a City or Country file in MaxMind's format, such as GeoLite2 or \
                 DB-IP. It is read again within a minute of being replaced. Absent: sessions have no place.",
                file("the path of a file in MaxMind's format (.mmdb)", is_maxmind_file),
            )
            .optional("GeoLite2-City.mmdb");
        if let (Some(refresh_after), Some(expires_in)) = (refresh_after, expires_in)
            && refresh_after > expires_in
        {
            s.report(
                s.wrong("refresh_after", "later than `expires_in`, when the session is gone")
                    .found(format!("{refresh_after:?}"))
                    .allowed(format!("at most {expires_in:?}, which means never extended")),
            );
        }
        let cookie = s.section("cookie", "The cookie that carries the session token.", |s| {
            Cookie::read(s, public_url)
        });
        let cache = s.section(
            "cache",
            "Sessions that the gateway remembers, so that a request needs no query.",
            Cache::read,
        );
        let unknown_tokens = s.section(
            "unknown_tokens",
            "Bearer tokens without a signature that are nobody's, which one address may show; past it 429 for those that \
             this gateway has not seen before, without a query.",
            |s| Budget::read(s, "600", "1m"),
        );
        Some(Self {
            expires_in: expires_in?,
            refresh_after: refresh_after?,
            fresh_for: fresh_for?,
            max_per_user: max_per_user?,
            multi_session: multi_session?,
            close_streams_on_revoke: close_streams_on_revoke?,
            geo_database: geo_database?,
            cookie: cookie?,
            cache: cache?,
            unknown_tokens: unknown_tokens?,
        })
    }
}

impl Cookie {
    fn read(s: &mut Section<'_>, public_url: Option<&Origin>) -> Option<Self> {
        let prefix = s
            .key(
                "prefix",
                "The cookie is `PREFIX.session_token`; with an https public_url `__Host-` comes before it, or \
                 `__Secure-` with a domain or without `host_prefix`.",
                cookie_prefix(),
            )
            .or("vestibule");
        let same_site = s
            .key(
                "same_site",
                "Whether other sites' requests bring the cookie.",
                choice(&[
                    ("lax", SameSite::Lax),
                    ("strict", SameSite::Strict),
                    ("none", SameSite::None),
                ]),
            )
            .or("lax");
        let domain = s
            .key(
                "domain",
                "Shares the cookie with every host below this one. Absent: only public_url's own host gets it.",
                parsed("a domain such as \"example.com\"", |text| {
                    match text.strip_prefix('.') {
                        Some(bare) => Err(Wrong::but("browsers ignore the leading dot", bare)),
                        None => host_name(text),
                    }
                }),
            )
            .optional("example.com");
        let host_prefix = s
            .key(
                "host_prefix",
                "Whether an https cookie without a domain is named `__Host-…`, which no other host can set.",
                boolean(),
            )
            .or("true");
        if same_site == Some(SameSite::None) && public_url.is_some_and(|url| !url.is_https()) {
            s.report(
                s.wrong(
                    "same_site",
                    "browsers accept it with https only, and `server.public_url` is http",
                )
                .found("\"none\"")
                .allowed("\"lax\" or \"strict\""),
            );
        }
        if let (Some(Some(domain)), Some(public_url)) = (&domain, public_url) {
            let host = public_url.host();
            let below = host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            let is_name = domain.contains('.') && matches!(url::Host::parse(domain), Ok(url::Host::Domain(_)));
            if !below || !is_name {
                s.report(
                    s.wrong("domain", "browsers would refuse the cookie")
                        .found(format!("{domain:?}"))
                        .allowed(format!("the host of `server.public_url`, {host}, or a domain above it")),
                );
            }
        }
        if host_prefix == Some(true) && s.has("host_prefix") && s.has("domain") {
            s.report(
                s.wrong("host_prefix", "a `__Host-` cookie has no domain, and `domain` is set")
                    .found("true")
                    .allowed("false, or no `domain`"),
            );
        }
        Some(Self {
            prefix: prefix?,
            same_site: same_site?,
            domain: domain?,
            host_prefix: host_prefix?,
        })
    }
}

impl Cache {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let ttl = s
            .key(
                "ttl",
                "The longest time that a missed revocation can matter.",
                nonzero_duration(),
            )
            .or("10s");
        let outage_grace = s
            .key(
                "outage_grace",
                "How much longer sessions are believed while Postgres can't be reached at all. A gateway that is cut off \
                 from it alone learns of revocations that much later.",
                duration(),
            )
            .or("0s");
        let capacity = s
            .key(
                "capacity",
                "Sessions; memory is bounded by it.",
                integer::<u64>(1..=100_000_000),
            )
            .or("100_000");
        let lookup_queue = s
            .key(
                "lookup_queue",
                "Requests that may wait for Postgres to tell whose session they bring; past it: 503 at once.",
                integer(1..=1_000_000),
            )
            .or("16_384");
        Some(Self {
            ttl: ttl?,
            outage_grace: outage_grace?,
            capacity: capacity?,
            lookup_queue: lookup_queue?,
        })
    }
}

fn cookie_prefix() -> Kind<String> {
    parsed("letters, digits, `-` and `_`, at most 40", |text| {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if text.is_empty() || text.len() > 40 || !plain {
            return Err("not fit for a cookie's name".into());
        }
        let lower = text.to_ascii_lowercase();
        if let Some(own) = ["__host-", "__secure-"].iter().find(|own| lower.starts_with(**own)) {
            let rest: String = text.chars().skip(own.len()).collect();
            return Err(Wrong {
                problem: "the gateway puts `__Host-` or `__Secure-` before it by itself".to_owned(),
                nearest: (!rest.is_empty()).then_some(rest),
            });
        }
        Ok(text.to_owned())
    })
}

/// Whether a file looks like one of MaxMind's: it is read as a whole, and for good, by who uses it.
fn is_maxmind_file(path: &Path) -> Result<(), Wrong> {
    match has_marker(path) {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err("not a file in MaxMind's format; one that was downloaded as an archive must be unpacked".into())
        }
        Err(error) => Err(format!("the file can't be read: {error}").into()),
    }
}

/// Metadata follow a marker within the last 128 KiB (MaxMind DB File Format Specification, "Database Metadata").
fn has_marker(path: &Path) -> io::Result<bool> {
    const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
    const METADATA_AT_MOST: u64 = 128 * 1024;
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(METADATA_AT_MOST)))?;
    let mut end = Vec::new();
    file.take(METADATA_AT_MOST).read_to_end(&mut end)?;
    Ok(memchr::memmem::rfind(&end, MARKER).is_some())
}
