//! A request's head as bytes.
//!
//! The body's length is said here, by what the body itself knows: a length that a client declared is never passed on
//! by its own word, since what disagrees with the body would be read as the next request.

use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body::Body;

use super::RequestBody;

/// What is written before the body.
#[derive(Debug)]
pub(in crate::upstream) struct Head {
    pub(super) bytes: Vec<u8>,
    pub(super) length: Length,
}

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

/// A head with five fields of ours and as many of the client's seldom is longer.
const USUAL: usize = 1024;

impl Head {
    /// The head of `request`, which has a target in origin form.
    pub(in crate::upstream) fn of(request: &Request<RequestBody>) -> Self {
        let length = Length::of(request.body());
        let mut bytes = Vec::with_capacity(USUAL);
        bytes.extend_from_slice(request.method().as_str().as_bytes());
        bytes.push(b' ');
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        bytes.extend_from_slice(target.as_bytes());
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in request.headers() {
            // What says where the body ends is said below.
            if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
                put(&mut bytes, name, value);
            }
        }
        put_length(
            &mut bytes,
            length,
            request.method(),
            request.headers().contains_key(header::CONTENT_LENGTH),
        );
        bytes.extend_from_slice(b"\r\n");
        Self { bytes, length }
    }
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
