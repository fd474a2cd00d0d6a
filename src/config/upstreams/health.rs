//! How it is found out that an endpoint is not well: by asking (`health_check`), and by watching requests (`outliers`).

use std::{ops::RangeInclusive, time::Duration};

use http::{HeaderValue, uri::PathAndQuery};

use crate::config::{
    found::Wrong,
    kind::{Kind, integer, parsed},
    section::Section,
    units::nonzero_duration,
};

/// Requests of the gateway's own to each endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthCheck {
    pub path: PathAndQuery,
    pub interval: Duration,
    /// For an exchange, connecting included.
    pub timeout: Duration,
    /// So many good answers in a row make an endpoint healthy.
    pub healthy: u32,
    /// So many failures in a row make it unhealthy.
    pub unhealthy: u32,
    pub status: RangeInclusive<u16>,
    /// `None`: the endpoint's own.
    pub host: Option<HeaderValue>,
}

/// What requests show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outliers {
    /// In a row; 0: nothing is ejected.
    pub failures: u32,
    pub eject_for: Duration,
    /// Percent of the endpoints that may be out at once.
    pub max_ejected: u32,
}

impl HealthCheck {
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(super) fn read_in(s: &mut Section<'_>) -> Option<Option<Self>> {
        s.optional_section(
            "health_check",
            "Asks each endpoint by a GET of the gateway's own; the first answer decides, later ones by their number. \
             Without this table nobody is asked.",
            Self::read,
        )
    }

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let path = s.key("path", "What is asked for.", path()).required("/health");
        let interval = s
            .key(
                "interval",
                "Between two questions to an endpoint, varied by a tenth.",
                nonzero_duration(),
            )
            .or("5s");
        let timeout = s
            .key(
                "timeout",
                "How long connecting and answering may take; later is a failure.",
                nonzero_duration(),
            )
            .or("2s");
        let healthy = s
            .key(
                "healthy",
                "Good answers in a row that make an endpoint healthy.",
                integer(1..=100),
            )
            .or("2");
        let unhealthy = s
            .key(
                "unhealthy",
                "Failures in a row that make it unhealthy: it gets no requests while another is healthy.",
                integer(1..=100),
            )
            .or("3");
        let status = s
            .key("status", "Which statuses are good answers.", status())
            .or("200-399");
        let host = s
            .key(
                "host",
                "What the question's Host says. Absent: the endpoint's own host and port.",
                parsed("a host, perhaps with a port, such as \"app.example.com\"", |text| {
                    text.parse::<http::uri::Authority>()
                        .ok()
                        .filter(|authority| !authority.as_str().contains('@'))
                        .and_then(|authority| HeaderValue::try_from(authority.as_str()).ok())
                        .ok_or_else(|| "not a host".into())
                }),
            )
            .optional("app.example.com");
        Some(Self {
            path: path?,
            interval: interval?,
            timeout: timeout?,
            healthy: healthy?,
            unhealthy: unhealthy?,
            status: status?,
            host: host?,
        })
    }
}

impl Outliers {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let failures = s
            .key(
                "failures",
                "Failures in a row that eject an endpoint. 0: nothing is ejected.",
                integer(0..=1000),
            )
            .or("5");
        let eject_for = s
            .key(
                "eject_for",
                "For how long it then gets no requests; after that its first failure ejects it again.",
                nonzero_duration(),
            )
            .or("10s");
        let max_ejected = s
            .key(
                "max_ejected",
                "Percent of the endpoints that may be out at once, unhealthy ones included: past it nothing is \
                 ejected, so that the rest is not overrun.",
                integer(0..=100),
            )
            .or("50");
        Some(Self {
            failures: failures?,
            eject_for: eject_for?,
            max_ejected: max_ejected?,
        })
    }
}

fn path() -> Kind<PathAndQuery> {
    parsed("a path such as \"/health\"", |text| {
        if !text.starts_with('/') {
            return Err(Wrong::but("a path begins with /", format!("/{text}")));
        }
        if text.contains('#') {
            return Err("a fragment is never sent".into());
        }
        text.parse().map_err(|_| "not a path that can be asked for".into())
    })
}

fn status() -> Kind<RangeInclusive<u16>> {
    parsed("a status or a range of them, such as \"200\" or \"200-399\"", |text| {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            text.trim()
                .parse::<u16>()
                .ok()
                .filter(|status| (100..=599).contains(status))
        };
        match (number(low), number(high)) {
            (Some(low), Some(high)) if low <= high => Ok(low..=high),
            (Some(low), Some(high)) => Err(Wrong::but("the range ends before it begins", format!("{high}-{low}"))),
            _ => Err("not a status from 100 to 599".into()),
        }
    })
}
