//! `[server]`, `[admin]` and `[log]`: where the gateway listens, whom it believes, what it bears.

mod acme;
mod listen;
mod tls;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub use self::listen::is_public;
use self::listen::{listen, report_clashes, socket_addr, trusted_proxy};
pub use self::{
    acme::{Acme, Challenge, ExternalAccount},
    listen::Listen,
    tls::{CertificateFiles, ClientAuth, Tls, TlsVersion},
};

use super::{
    Facts, Origin,
    error::nearest,
    found::Wrong,
    kind::{Kind, boolean, choice, integer, list, one_or_more, parsed, path_to_make},
    section::Section,
    units::{duration, nonzero_duration, size},
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// 1 PiB: more can't be meant.
const MAX_BODY: u64 = 1 << 50;

#[derive(Clone, Debug)]
pub struct Server {
    /// At least one.
    pub listen: Vec<Listen>,
    pub public_url: Origin,
    pub trusted_proxies: Vec<IpNet>,
    /// The peers of unix sockets are trusted proxies.
    pub trusts_unix: bool,
    /// Trusted proxies say by the PROXY protocol who their client is, and nobody else may connect.
    pub proxy_protocol: bool,
    /// `None`: plain HTTP; whatever stands in front ends TLS.
    pub tls: Option<Tls>,
    /// Runtimes that serve traffic, one thread each; never zero here (0 in the file means one per core).
    pub workers: NonZeroUsize,
    pub max_connections: usize,
    pub max_header_bytes: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_body: u64,
    pub shutdown_grace: Duration,
    pub drain_delay: Duration,
    pub stream_grace: Duration,
    /// Where a gateway that starts asks this one for its listening sockets.
    pub handover: Option<PathBuf>,
    /// Whether the memory of the process, which holds secrets, may be dumped and looked into.
    pub core_dumps: bool,
    /// Host names served besides `public_url`'s and the routes', lower case; `*` = any.
    pub hosts: Vec<String>,
    pub body_timeout: Duration,
    /// Bytes per second, demanded of a body once it has lasted 10 s.
    pub min_body_rate: u64,
    pub max_tunnels: usize,
    /// Files that routes serve and that are being sent.
    pub max_open_files: usize,
    /// Zero: no limit.
    pub tunnel_idle_timeout: Duration,
    /// Requests that a client may have under way on one HTTP/2 connection.
    pub max_streams: u32,
    /// Requests that it may take back on one at once.
    pub max_resets: u32,
    /// Frames a second that it may send on one, and that carry nothing.
    pub max_idle_frames: u32,
    /// `None`: no certificates are ordered.
    pub acme: Option<Acme>,
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: SocketAddr,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    /// In the syntax of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Json,
    Text,
}

impl Server {
    #[expect(
        clippy::too_many_lines,
        reason = "a list of keys: splitting it would hide some of them"
    )]
    pub(super) fn read(s: &mut Section<'_>, facts: &mut Facts) -> Option<Self> {
        let listen = s
            .key(
                "listen",
                "Where the gateway takes connections; several: an array. \"unix:PATH\" is a socket of the file system, \
                 \"fd:NAME\" one that the service manager opened.",
                one_or_more(listen),
            )
            .or("0.0.0.0:8080");
        let public_url = s
            .key(
                "public_url",
                "The origin that browsers see. Links, redirects, cookies and origin checks come from it, never from a \
                 request's Host.",
                public_url(),
            )
            .required("https://app.example.com");
        let allow_insecure = s
            .key(
                "allow_insecure",
                "Lets public_url be http beyond this machine: passwords and cookies travel in the clear then, so only in \
                 a network that is yours as a whole.",
                boolean(),
            )
            .or("false");
        let trusted_proxies = s
            .key(
                "trusted_proxies",
                "Whose X-Forwarded-For, -Proto and -Host are believed, such as [\"10.0.0.0/8\"]; \"unix\": the peers of \
                 unix sockets. From anyone else they are removed.",
                list(trusted_proxy()),
            )
            .or("[]");
        let proxy_protocol = s
            .key(
                "proxy_protocol",
                "Connections begin with a PROXY protocol header (v1 or v2) that names the client. They come from \
                 trusted_proxies alone.",
                boolean(),
            )
            .or("false");
        let hosts = s
            .key(
                "hosts",
                "Host names served besides public_url's and the routes'; \"*\" = any.",
                list(served_host()),
            )
            .or("[]");
        let workers = s
            .key(
                "workers",
                "Threads that serve traffic; 0 = one per core.",
                one_per_core(),
            )
            .or("0");
        let max_connections = s
            .key(
                "max_connections",
                "Open connections; past it, those that have been idle for longest make room for new ones, which else wait \
                 in the kernel's backlog.",
                integer(1..=10_000_000),
            )
            .or("10_000");
        let max_tunnels = s
            .key(
                "max_tunnels",
                "Open WebSockets and other upgrades; past it: 503.",
                integer(0..=10_000_000),
            )
            .or("5_000");
        let max_open_files = s
            .key(
                "max_open_files",
                "Files that are open at once because a route sends them (`serve`); past it: 503.",
                integer(1..=10_000_000),
            )
            .or("10_000");
        let tunnel_idle_timeout = s
            .key(
                "tunnel_idle_timeout",
                "How long nothing may pass through a WebSocket, either way; \"0s\" = as long as both ends like.",
                duration(),
            )
            .or("1h");
        let max_streams = s
            .key(
                "max_streams",
                "Requests that a client may have under way on one HTTP/2 connection; more wait at the client.",
                integer(1..=10_000),
            )
            .or("100");
        let max_resets = s
            .key(
                "max_resets",
                "Requests that a client may take back on one HTTP/2 connection at once; a tenth of them comes back each \
                 second. Past it the connection ends.",
                integer(1..=1_000_000),
            )
            .or("500");
        let max_idle_frames = s
            .key(
                "max_idle_frames",
                "Frames a second that a client may send on one HTTP/2 connection and that carry nothing of a request: \
                 pings, settings, priorities, windows beyond what answers need. Past it the connection ends.",
                integer(100..=100_000_000),
            )
            .or("10_000");
        let max_header_bytes = s
            .key(
                "max_header_bytes",
                "The largest request head; past it: 431.",
                // The HTTP parser needs 8 KiB; beyond 16 MiB nobody means it.
                size(8 * KIB..=16 * MIB).map(|size| usize::try_from(size).unwrap_or(usize::MAX)),
            )
            .or("32KiB");
        let max_body = s
            .key(
                "max_body",
                "The largest request body; a route may change it. Past it: 413.",
                body_size(),
            )
            .or("100MiB");
        let header_timeout = s
            .key(
                "header_timeout",
                "How long a client may take to send a request head.",
                nonzero_duration(),
            )
            .or("10s");
        let body_timeout = s
            .key(
                "body_timeout",
                "How long a request body may pause, and how long a client may take nothing of an answer.",
                nonzero_duration(),
            )
            .or("30s");
        let min_body_rate = s
            .key(
                "min_body_rate",
                "Bytes per second that a request body must make once it has lasted 10 s; \"0B\" = no minimum.",
                body_size(),
            )
            .or("1KiB");
        let idle_timeout = s
            .key(
                "idle_timeout",
                "How long a client's connection is kept between requests.",
                nonzero_duration(),
            )
            .or("75s");
        let drain_delay = s
            .key(
                "drain_delay",
                "At the end, how long the gateway says it is not ready before its listeners close.",
                duration(),
            )
            .or("3s");
        let shutdown_grace = s
            .key(
                "shutdown_grace",
                "Then, how long requests in flight may take to finish.",
                duration(),
            )
            .or("30s");
        let stream_grace = s
            .key(
                "stream_grace",
                "Of that, how long WebSockets and event streams may go on before they are closed.",
                duration(),
            )
            .or("10s");
        let handover = s
            .key(
                "handover",
                "A unix socket, made by the gateway, at which the next `vestibule serve` takes over the listening \
                 sockets: a restart refuses no connection. Absent: the next one starts when this one has ended.",
                path_to_make("the path of a unix socket, in a folder that only this user may write to"),
            )
            .optional("/run/vestibule/handover.sock");
        let core_dumps = s
            .key(
                "core_dumps",
                "Whether a crash may write the memory of the process to a disk, and a debugger of its user may attach. It holds \
                 keys and passwords: only to look for a fault.",
                boolean(),
            )
            .or("false");
        let acme = s.section(
            "acme",
            "Certificates that the gateway orders for itself, and renews in time.",
            Acme::read,
        );
        if let Some(listen) = &listen {
            report_clashes(s, "listen", listen, &[]);
        }
        if proxy_protocol == Some(true) && trusted_proxies.as_ref().is_some_and(Vec::is_empty) {
            s.report(
                s.wrong("proxy_protocol", "`trusted_proxies` is empty: nobody could connect")
                    .allowed("your load balancers in trusted_proxies"),
            );
        }
        let tls = s.section(
            "tls",
            "TLS towards clients. Absent: plain HTTP, for a proxy in front that ends TLS.",
            |s| {
                Tls::read(
                    s,
                    listen.as_deref().unwrap_or_default(),
                    acme.as_ref().and_then(Option::as_ref),
                )
            },
        );
        facts.listen = listen.as_ref().map(|listen| {
            let redirect_from = tls.iter().flatten().flat_map(|tls| &tls.redirect_from);
            listen.iter().chain(redirect_from).cloned().collect()
        });
        if let (Some(url), Some(listen), Some(Some(_))) = (&public_url, &listen, &tls) {
            report_plain_url(s, url, listen);
        }
        if let (Some(url), Some(false)) = (&public_url, allow_insecure) {
            report_insecure_url(s, url);
        }
        facts.public_url.clone_from(&public_url);
        Some(Self {
            listen: listen?,
            public_url: public_url?,
            trusts_unix: trusted_proxies.as_ref()?.contains(&None),
            trusted_proxies: trusted_proxies?.into_iter().flatten().collect(),
            proxy_protocol: proxy_protocol?,
            tls: tls?,
            workers: workers?,
            max_connections: max_connections?,
            max_header_bytes: max_header_bytes?,
            header_timeout: header_timeout?,
            idle_timeout: idle_timeout?,
            max_body: max_body?,
            shutdown_grace: shutdown_grace?,
            drain_delay: drain_delay?,
            stream_grace: stream_grace?,
            handover: handover?,
            core_dumps: core_dumps?,
            hosts: hosts?,
            body_timeout: body_timeout?,
            min_body_rate: min_body_rate?,
            max_tunnels: max_tunnels?,
            max_open_files: max_open_files?,
            tunnel_idle_timeout: tunnel_idle_timeout?,
            max_streams: max_streams?,
            max_resets: max_resets?,
            max_idle_frames: max_idle_frames?,
            acme: acme?,
        })
    }
}

impl Admin {
    pub(super) fn read(s: &mut Section<'_>, facts: &Facts) -> Option<Self> {
        let listen = s
            .key(
                "listen",
                "Where health, readiness and metrics are served. Keep it away from the public.",
                socket_addr(),
            )
            .or("127.0.0.1:9901");
        let allow_public = s
            .key(
                "allow_public",
                "Lets it listen where others than your own networks may come by: at a public address, or at all of the \
                 machine's (0.0.0.0). Nobody is asked who they are there.",
                boolean(),
            )
            .or("false");
        if let (Some(listen), Some(false)) = (listen, allow_public)
            && is_public(listen.ip())
        {
            s.report(
                s.wrong(
                    "listen",
                    "not an address of a private network: strangers could read the metrics",
                )
                .found(listen.to_string())
                .allowed(
                    "this machine, or an address of a private network; or `allow_public = true` if nobody else gets \
                         there",
                )
                .nearest(Some(format!("127.0.0.1:{}", listen.port()))),
            );
        }
        if let (Some(listen), Some(taken)) = (listen, &facts.listen)
            && let Some(other) = taken.iter().find(|other| other.clashes(&Listen::Tcp(listen)))
        {
            s.report(
                s.wrong("listen", format!("clashes with `server.listen`, which has {other}"))
                    .found(listen.to_string())
                    .allowed("an address and port of its own"),
            );
        }
        Some(Self { listen: listen? })
    }
}

impl Log {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let format = s
            .key(
                "format",
                "One JSON object per line for machines, or text for people.",
                choice(&[("json", LogFormat::Json), ("text", LogFormat::Text)]),
            )
            .or("json");
        let level = s
            .key(
                "level",
                "What is logged; for single modules too: \"info,vestibule::mail=debug\".",
                log_level(),
            )
            .or("info");
        Some(Self {
            format: format?,
            level: level?,
        })
    }
}

/// With TLS at every listener browsers see https: cookies without `Secure`, and links to http, would be for nobody. A unix
/// socket speaks plain HTTP beside it, for a proxy of which nobody here knows what it speaks.
fn report_plain_url(s: &Section<'_>, url: &Origin, listen: &[Listen]) {
    let some_plain = listen.iter().any(|listen| matches!(listen, Listen::Unix(_)));
    if url.is_https() || some_plain {
        return;
    }
    let https = url.as_str().replacen("http:", "https:", 1);
    s.report(
        s.wrong("public_url", "http, but with [server.tls] every listener speaks https")
            .found(format!("{:?}", url.as_str()))
            .allowed("the https origin that browsers see; without [server.tls], http for this machine")
            .nearest(Some(https)),
    );
}

/// Over http everybody on the way reads passwords and cookies, and changes pages.
fn report_insecure_url(s: &Section<'_>, url: &Origin) {
    if url.is_https() || url.is_loopback() {
        return;
    }
    s.report(
        s.wrong(
            "public_url",
            "plain http beyond this machine: if TLS ends in front of the gateway, the https URL that browsers see belongs \
             here",
        )
        .found(format!("{:?}", url.as_str()))
        .allowed("an https URL, http only for this machine; or `allow_insecure = true` if all of the way is yours"),
    );
}

fn public_url() -> Kind<Origin> {
    parsed(
        "an origin such as \"https://app.example.com\": scheme, host, perhaps a port; http only for this machine",
        |text| {
            let Some(origin) = Origin::parse(text) else {
                let cut = url::Url::parse(text).ok().and_then(|url| Origin::of(&url));
                return Err(Wrong {
                    problem: "not an origin".to_owned(),
                    nearest: cut.map(|origin| origin.as_str().to_owned()),
                });
            };
            Ok(origin)
        },
    )
}

fn served_host() -> Kind<String> {
    parsed(
        "a host name such as \"app.example.com\", without a port; or \"*\"",
        |text| {
            if text == "*" {
                return Ok(text.to_owned());
            }
            host_name(text)
        },
    )
}

/// A host as `Host` headers are compared with: lower case, in ASCII, without port or final dot.
pub(super) fn host_name(text: &str) -> Result<String, Wrong> {
    let without_port = text.split_once("://").map_or(text, |(_, rest)| rest);
    let parsed = |text: &str| url::Host::parse(text).ok().map(|host| host.to_string());
    let plain = parsed(text).map(|host| host.trim_end_matches('.').to_owned());
    match plain {
        Some(host) if host.is_empty() => Err("not a host name".into()),
        Some(host) if host == text => Ok(host),
        Some(host) => Err(Wrong::but("not written as hosts are compared", host)),
        None => Err(Wrong {
            problem: "not a host name".to_owned(),
            nearest: without_port
                .split([':', '/'])
                .next()
                .filter(|host| *host != text)
                .and_then(parsed),
        }),
    }
}

/// A number of threads; 0 in the file is what the machine has.
pub(super) fn one_per_core() -> Kind<NonZeroUsize> {
    integer::<usize>(0..=1024).map(|count| {
        NonZeroUsize::new(count)
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    })
}

pub(super) fn body_size() -> Kind<u64> {
    size(0..=MAX_BODY)
}

fn log_level() -> Kind<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    parsed(
        "\"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; for a module: \"info,vestibule::mail=debug\"",
        |text| {
            // To the filter a misspelt level is the name of a module.
            let level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
            for directive in text.split(',') {
                let word = match directive.rsplit_once('=') {
                    Some((_, level)) => level,
                    None if directive.contains('[') => continue,
                    None => directive,
                };
                if !level(word.trim()) {
                    return Err(Wrong {
                        problem: "not a level".to_owned(),
                        nearest: nearest(word.trim(), LEVELS),
                    });
                }
            }
            match tracing_subscriber::EnvFilter::builder().parse(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err("not a filter".into()),
            }
        },
    )
}
