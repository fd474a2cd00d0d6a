//! What makes a request a gRPC call: its calls are HTTP/2 streams with messages both ways and a status behind them.
//!
//! A call is forwarded like any request. It differs in how it is refused ([`crate::problem::Form::Grpc`]), and in that
//! either end may be silent for as long as it likes. gRPC-Web is ordinary HTTP, and not meant here.

use http::{HeaderMap, HeaderValue, Method, Version, header};

use super::Inbound;
use crate::config::{self, Protocol, Scheme};

/// Whether it is a call, as far as a client says so: what depends on it must be harmless if it is not true. Calls are
/// POSTs; to what else came under their media type, 200 would not be a refusal: to an extended CONNECT it is a tunnel.
pub fn is_call(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 && *method == Method::POST && headers.get(header::CONTENT_TYPE).is_some_and(names)
}

/// Whether an upstream has gRPC services, as far as its configuration says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Served {
    /// It was said that all its endpoints speak HTTP/2: whoever sends a call there may be silent from the start.
    Surely,
    /// All may: an application says so by how it answers, and until then its clients are hurried as any other's.
    Perhaps,
}

impl Served {
    /// `None`: the request is no call, or its upstream has no services.
    pub(super) fn to(inbound: &Inbound, upstream: &config::Upstream) -> Option<Self> {
        let Inbound {
            method,
            version,
            headers,
            ..
        } = inbound;
        is_call(method, *version, headers).then(|| Self::by(upstream)).flatten()
    }

    /// `None`: some endpoint speaks HTTP/1.1, in which there are no calls.
    fn by(upstream: &config::Upstream) -> Option<Self> {
        let mut served = Self::Surely;
        for endpoint in &upstream.endpoints {
            match (endpoint.scheme, upstream.protocol) {
                (Scheme::H2c, _) | (Scheme::Https, Protocol::Http2) => {}
                (Scheme::Https, Protocol::Negotiated) => served = Self::Perhaps,
                (Scheme::Http, _) | (Scheme::Https, Protocol::Http1) => return None,
            }
        }
        Some(served)
    }
}

/// Whether a content type is gRPC's: `application/grpc`, with or without a message format.
pub(super) fn names(media: &HeaderValue) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let Some((name, rest)) = media.as_bytes().split_at_checked(NAME.len()) else {
        return false;
    };
    name.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_formats_are_grpc_and_grpc_web_is_not() {
        for (media, is) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grp", false),
            ("text/plain", false),
        ] {
            assert_eq!(names(&HeaderValue::from_static(media)), is, "{media}");
        }
    }
}
