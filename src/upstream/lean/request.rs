//! A request's head as bytes.
//!
//! The body's length is said here, by what the body itself knows: a length that a client declared is never passed on
//! by its own word, since what disagrees with the body would be read as the next request.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body::Body;

use super::RequestBody;

/// How the upstream learns where the request's body ends.
#[derive(Debug)]
pub(super) enum Length {
    /// There is none.
    Empty,
    Known(u64),
    Chunked {
        /// The fields that may come behind it, as `Trailer` has them.
        trailers: Option<HeaderValue>,
    },
}

impl Length {
    fn of(body: &RequestBody, headers: &HeaderMap) -> Self {
        if body.is_empty() {
            return Self::Empty;
        }
        body.size_hint().exact().map_or_else(
            || Self::Chunked {
                trailers: headers.get(header::TRAILER).cloned(),
            },
            Self::Known,
        )
    }
}

/// Writes the head of `request`, and says how it announces the body. The target is in origin form.
pub(super) fn write(request: &Request<RequestBody>, bytes: &mut Vec<u8>) -> Length {
    bytes.extend_from_slice(request.method().as_str().as_bytes());
    bytes.push(b' ');
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    bytes.extend_from_slice(target.as_bytes());
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    let mut declared = false;
    for (name, value) in request.headers() {
        // What says where the body ends is said below.
        match *name {
            header::CONTENT_LENGTH => declared = true,
            header::TRANSFER_ENCODING => {}
            _ => put(bytes, name, value),
        }
    }
    let length = Length::of(request.body(), request.headers());
    put_length(bytes, &length, request.method(), declared);
    bytes.extend_from_slice(b"\r\n");
    length
}

fn put(bytes: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    bytes.extend_from_slice(name.as_str().as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value.as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

/// `declared`: the client said that there is no body, rather than saying nothing.
fn put_length(bytes: &mut Vec<u8>, length: &Length, method: &Method, declared: bool) {
    match length {
        // Methods for which a body would mean something should say that there is none (RFC 9110, 8.6).
        Length::Empty if declared || matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            bytes.extend_from_slice(b"content-length: 0\r\n");
        }
        Length::Empty => {}
        Length::Known(length) => {
            bytes.extend_from_slice(b"content-length: ");
            bytes.extend_from_slice(length.to_string().as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        Length::Chunked { .. } => bytes.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}
