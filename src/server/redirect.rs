//! Listeners without TLS that send everybody to https.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, uri::PathAndQuery};

use crate::{config::Origin, policy::client::Host, proxy::body::ProxyBody};

/// To the same target by https: at `public_url` for its host, else at the host that was asked for, on the port that
/// https has. 308 keeps method and body (RFC 9110, 15.4.9).
pub(super) fn to_https(public: &Origin, is_public: bool, host: &Host, target: &PathAndQuery) -> Response<ProxyBody> {
    let location = if is_public && public.is_https() {
        format!("{}{target}", public.as_str())
    } else {
        format!("https://{}{target}", host.name())
    };
    let mut response = Response::new(ProxyBody::own(Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    // A judged host and a judged path are visible ASCII.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
