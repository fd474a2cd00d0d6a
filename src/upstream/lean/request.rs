//! A request's head as bytes.
//!
//! The body's length is said here, by what the body itself knows: a length that a client declared is never passed on
//! by its own word, since what disagrees with the body would be read as the next request.

use http::{HeaderName, HeaderValue, Method, header, request::Parts};
use http_body::Body;

use super::RequestBody;

/// How the upstream learns where the request's body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Length {
    /// There is none.
    Empty,
    Known(u64),
    Chunked,
}

impl Length {
    fn of(body: &RequestBody) -> Self {
        if body.is_empty() {
            return Self::Empty;
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Known)
    }
}

/// Writes the head of the request that `parts` are of, and says how it announces the body. The target is in origin form.
pub(super) fn write(parts: &Parts, body: &RequestBody, bytes: &mut Vec<u8>) -> Length {
    bytes.extend_from_slice(parts.method.as_str().as_bytes());
    bytes.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    bytes.extend_from_slice(target.as_bytes());
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    let mut declared = false;
    for (name, value) in &parts.headers {
        // What says where the body ends is said below.
        match *name {
            header::CONTENT_LENGTH => declared = true,
            header::TRANSFER_ENCODING => {}
            _ => put(bytes, name, value),
        }
    }
    let length = Length::of(body);
    put_length(bytes, length, &parts.method, declared);
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
fn put_length(bytes: &mut Vec<u8>, length: Length, method: &Method, declared: bool) {
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
        Length::Chunked => bytes.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}
