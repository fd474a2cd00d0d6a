//! Fields that come behind a body, both ways.
//!
//! A recipient may merge them into the head that it has read long ago, so nothing may come there that decides how a
//! message is framed, routed, authenticated or kept (RFC 9110, 6.5.1), nor what only we may say. The rules for heads
//! (`proxy::headers`) hold here too: what a client can't say in front it can't say behind.
//!
//! HTTP/2 carries trailers always. HTTP/1.1 does if they are announced in `Trailer`, and to a client only if it said
//! `TE: trailers`; hyper drops them otherwise.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    headers::{hands_out_token, is_own},
    rewrite,
};
use crate::{
    config::{HeaderRules, Route},
    session::identity_headers::{Disposition, Reserved},
    upstream::body::CleanTrailers,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Leaves what may come behind a request's body.
pub fn of_requests(reserved: &Arc<Reserved>, route: &Arc<Route>) -> CleanTrailers {
    let (reserved, route) = (Arc::clone(reserved), Arc::clone(route));
    CleanTrailers::new(move |trailers| {
        retain(trailers, |name| {
            may_follow_request(name, &reserved, &route.request_headers)
        });
    })
}

/// Leaves what may come behind an answer's body. `rules`: its route's, if it has one.
pub(super) fn clean_answer(trailers: &mut HeaderMap, rules: Option<&HeaderRules>) {
    retain(trailers, |name| {
        may_follow_answer(name) && rules.is_none_or(|rules| !rewrite::takes_away(rules, name))
    });
}

/// Takes from what an answer announces what its route's rules take away.
pub(super) fn announce_by(rules: &HeaderRules, headers: &mut HeaderMap) {
    if !headers.contains_key(header::TRAILER) {
        return;
    }
    let announced = announced(headers, |name| !rewrite::takes_away(rules, name));
    headers.remove(header::TRAILER);
    if let Some(names) = announced {
        headers.insert(header::TRAILER, names);
    }
}

pub(super) fn may_follow_request(name: &HeaderName, reserved: &Reserved, rules: &HeaderRules) -> bool {
    reserved.classify(name) == Disposition::Pass && may_follow(name) && !rewrite::speaks_of(rules, name)
}

pub(super) fn may_follow_answer(name: &HeaderName) -> bool {
    !is_own(name) && !hands_out_token(name) && may_follow(name)
}

fn retain(trailers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let removed: Vec<HeaderName> = trailers.keys().filter(|name| !keep(name)).cloned().collect();
    for name in removed {
        trailers.remove(name);
    }
}

/// Names that one message announces, at most. A head has room for thousands, and each field that comes is looked for among
/// them.
const MAX_ANNOUNCED: usize = 64;

/// What `Trailer` announces, without the names that will not come, each once; of more than [`MAX_ANNOUNCED`] the first.
/// `None`: none of them will.
pub(super) fn announced(headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> Option<HeaderValue> {
    let mut names: Vec<HeaderName> = Vec::new();
    let said = headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .take(MAX_ANNOUNCED);
    for name in said.filter_map(|name| HeaderName::from_bytes(name).ok()) {
        if keep(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", "))
        .ok()
        .filter(|value| !value.is_empty())
}

/// Whether a client says that it keeps trailers (RFC 9110, 10.1.4).
pub(super) fn accepted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// RFC 9110, 6.5.1: framing, routing, request modifiers, authentication, response control, content format.
fn may_follow(name: &HeaderName) -> bool {
    !(matches!(
        *name,
        header::CONNECTION
            | header::CONTENT_LENGTH
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::HOST
            | header::CACHE_CONTROL
            | header::EXPECT
            | header::IF_MATCH
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::IF_RANGE
            | header::IF_UNMODIFIED_SINCE
            | header::MAX_FORWARDS
            | header::PRAGMA
            | header::RANGE
            | header::AUTHORIZATION
            | header::COOKIE
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::SET_COOKIE
            | header::WWW_AUTHENTICATE
            | header::AGE
            | header::DATE
            | header::EXPIRES
            | header::LOCATION
            | header::RETRY_AFTER
            | header::VARY
            | header::WARNING
            | header::CONTENT_ENCODING
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
    ) || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || name.as_str().starts_with("access-control-"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn map(names: &[&'static str]) -> HeaderMap {
        names
            .iter()
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")))
            .collect()
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_frames_routes_or_authenticates_does_not_come_behind_an_answer() {
        let mut trailers = map(&[
            "grpc-status",
            "grpc-message",
            "server-timing",
            "etag",
            "set-cookie",
            "content-length",
            "transfer-encoding",
            "location",
            "access-control-allow-origin",
            "x-vestibule-sign-out",
            "set-auth-token",
        ]);
        clean_answer(&mut trailers, None);
        assert_eq!(
            names(&trailers),
            ["etag", "grpc-message", "grpc-status", "server-timing"]
        );
    }

    #[test]
    fn what_a_route_removes_or_sets_does_not_come_behind_its_answers() {
        let rules = HeaderRules {
            remove: vec![HeaderName::from_static("x-internal-debug")],
            set: vec![(HeaderName::from_static("x-frame"), HeaderValue::from_static("deny"))],
            add: vec![(HeaderName::from_static("server-timing"), HeaderValue::from_static("a"))],
        };
        let mut trailers = map(&["x-internal-debug", "x-frame", "server-timing", "x-sum", "set-cookie"]);
        clean_answer(&mut trailers, Some(&rules));
        assert_eq!(names(&trailers), ["server-timing", "x-sum"]);
        let said = HeaderValue::from_static("X-Internal-Debug, X-Sum, x-frame");
        let mut headers = HeaderMap::from_iter([(header::TRAILER, said)]);
        announce_by(&rules, &mut headers);
        assert_eq!(headers[header::TRAILER], "x-sum");
        headers.insert(header::TRAILER, HeaderValue::from_static("x-frame"));
        announce_by(&rules, &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn only_what_will_come_is_announced() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::TRAILER,
            HeaderValue::from_static("X-Checksum, Set-Cookie,, b d"),
        );
        headers.append(header::TRAILER, HeaderValue::from_static("x-vestibule-a , Etag"));
        assert_eq!(announced(&headers, may_follow_answer).unwrap(), "x-checksum, etag");
        assert_eq!(announced(&map(&["host"]), may_follow_answer), None);
    }

    #[test]
    fn a_name_is_announced_once_and_few_are_looked_at() {
        let mut headers = HeaderMap::new();
        for line in 0..400 {
            let names: Vec<_> = (0..20).map(|number| format!("x-{line}-{number}, x-again")).collect();
            headers.append(header::TRAILER, HeaderValue::try_from(names.join(",, ")).unwrap());
        }
        let looked = Cell::new(0);
        let announced = announced(&headers, |_| {
            looked.set(looked.get() + 1);
            true
        });
        assert_eq!(looked.get(), MAX_ANNOUNCED);
        let announced = announced.unwrap();
        let names: Vec<_> = announced.to_str().unwrap().split(", ").collect();
        assert_eq!((names.len(), &names[..3]), (33, &["x-0-0", "x-again", "x-0-1"][..]));
    }

    #[test]
    fn a_client_says_that_it_keeps_trailers_among_other_codings() {
        for (te, accepts) in [
            ("trailers", true),
            ("gzip, Trailers", true),
            ("gzip;q=1", false),
            ("trailersx", false),
        ] {
            let headers = HeaderMap::from_iter([(header::TE, HeaderValue::from_static(te))]);
            assert_eq!(accepted(&headers), accepts, "{te}");
        }
    }
}
