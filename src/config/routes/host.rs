//! Hosts that a route is for: one by name, or all below one.

use std::{
    cmp::{Ordering, Reverse},
    fmt,
};

use crate::config::{
    found::Wrong,
    kind::{Kind, parsed},
    server::host_name,
};

/// Lower case, in ASCII, without port or final dot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.com`: every host below `example.com`, however deep, and not that one itself. Without `*`, with the dot.
    Below(String),
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let Some(above) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(Wrong {
                    problem: "`*` stands for whole labels, and first".to_owned(),
                    nearest: text.rsplit_once('*').and_then(|(_, rest)| {
                        let rest = rest.trim_start_matches('.');
                        host_name(rest).is_ok().then(|| format!("*.{rest}"))
                    }),
                });
            }
            return host_name(text).map(Self::Exact);
        };
        host_name(above)
            .map_err(|wrong| Wrong {
                nearest: wrong.nearest.map(|nearest| format!("*.{nearest}")),
                ..wrong
            })
            .and_then(|above| {
                if above.parse::<std::net::IpAddr>().is_ok() || above.starts_with('[') {
                    return Err("no host is below an address".into());
                }
                Ok(Self::Below(format!(".{above}")))
            })
    }

    /// What [`HostPattern::Below`] may hold to match `host`: the longest first.
    pub fn endings(host: &str) -> impl Iterator<Item = &str> {
        host.match_indices('.')
            .filter(|(at, _)| *at > 0)
            .filter_map(|(at, _)| host.get(at..))
    }

    /// In which order hosts are tried: one by name, then all below one, the longer name first, then any.
    pub fn order(a: Option<&Self>, b: Option<&Self>) -> Ordering {
        let rank = |host: Option<&Self>| match host {
            Some(Self::Exact(_)) => (0, Reverse(0)),
            Some(Self::Below(above)) => (1, Reverse(above.len())),
            None => (2, Reverse(0)),
        };
        rank(a).cmp(&rank(b))
    }

    /// Whether requests for `host`, written as hosts are compared, are meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(above) => host.len() > above.len() && host.ends_with(above.as_str()),
        }
    }
}

/// As it is written in the configuration.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(above) => write!(f, "*{above}"),
        }
    }
}

pub(super) fn host_pattern() -> Kind<HostPattern> {
    parsed(
        "a host name such as \"api.example.com\", without a port; or all below one: \"*.example.com\"",
        HostPattern::parse,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_for_hosts_below_and_for_no_look_alike() {
        let pattern = HostPattern::parse("*.example.com").ok().unwrap();
        for (host, matches) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("evilexample.com", false),
            ("a.example.com.evil.net", false),
        ] {
            assert_eq!(pattern.matches(host), matches, "{host}");
        }
        assert_eq!(pattern.to_string(), "*.example.com");
    }

    #[test]
    fn what_is_no_host_says_what_to_write() {
        for (text, nearest) in [
            ("*example.com", Some("*.example.com")),
            ("a.*.example.com", Some("*.example.com")),
            ("*.Example.com", Some("*.example.com")),
            ("*.example.com:80", Some("*.example.com")),
            ("*", None),
            ("*.", None),
            ("*.127.0.0.1", None),
        ] {
            let wrong = HostPattern::parse(text).err().unwrap();
            assert_eq!(wrong.nearest.as_deref(), nearest, "{text}: {}", wrong.problem);
        }
    }
}
