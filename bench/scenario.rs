//! What is asked of each entry, and which ratios the product promises.

/// One row of questions; every entry that can answer them gets the same ones.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// What `--only` picks it by.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) wire: Wire,
    pub(crate) who: Who,
    pub(crate) path: &'static str,
    /// Bytes of the request's body.
    pub(crate) upload: usize,
    /// A new connection for each request.
    pub(crate) fresh: bool,
    /// The gateway's CPU per request, as a multiple of nginx's: what must be kept, and what is aimed at.
    pub(crate) bar: Option<Bar>,
}

/// How the client speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub(crate) enum Wire {
    Plain,
    Tls,
    /// HTTP/2 over TLS.
    H2,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Who {
    /// One session, which is in the cache.
    Session,
    Nobody,
    /// Another session for each request, none of them in the cache.
    Everybody,
}

/// Ratios to nginx's CPU per request in the same round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) most: f64,
    pub(crate) goal: f64,
}

const MIB: usize = 1 << 20;

const SMALL: Scenario = Scenario {
    name: "session",
    title: "small GET, session in the cache (proxies without auth for comparison)",
    wire: Wire::Plain,
    who: Who::Session,
    path: "/api/small",
    upload: 0,
    fresh: false,
    bar: Some(Bar { most: 1.20, goal: 1.05 }),
};

pub(crate) const ALL: [Scenario; 9] = [
    SMALL,
    Scenario {
        name: "public",
        title: "small GET, public route",
        who: Who::Nobody,
        path: "/public/small",
        bar: None,
        ..SMALL
    },
    Scenario {
        name: "tls",
        title: "small GET over TLS, connections kept",
        wire: Wire::Tls,
        bar: Some(Bar { most: 1.0, goal: 0.9 }),
        ..SMALL
    },
    Scenario {
        name: "handshake",
        title: "small GET over TLS, a full handshake for each",
        wire: Wire::Tls,
        fresh: true,
        bar: Some(Bar { most: 0.8, goal: 0.7 }),
        ..SMALL
    },
    Scenario {
        name: "h2",
        title: "small GET over HTTP/2 and TLS, eight at a time on each connection",
        wire: Wire::H2,
        bar: Some(Bar { most: 1.0, goal: 0.8 }),
        ..SMALL
    },
    Scenario {
        name: "connect",
        title: "small GET, a new connection for each",
        fresh: true,
        bar: None,
        ..SMALL
    },
    Scenario {
        name: "down",
        title: "1 MiB down",
        path: "/api/large",
        bar: Some(Bar { most: 0.6, goal: 0.4 }),
        ..SMALL
    },
    Scenario {
        name: "up",
        title: "1 MiB up",
        path: "/api/upload",
        upload: MIB,
        bar: Some(Bar { most: 0.6, goal: 0.4 }),
        ..SMALL
    },
    Scenario {
        name: "miss",
        title: "small GET, another session for each, asked of Postgres (whose CPU counts)",
        who: Who::Everybody,
        bar: None,
        ..SMALL
    },
];
