//! A request on its way to an upstream: its head as HTTP/1.1 has it on the wire, and its body.
//!
//! The head is written once. A second try sends the same bytes, and who speaks HTTP/2, or asks for a tunnel, gets it
//! taken apart again. Where the body ends is not in it until it is sent: that is said by what the body itself knows, and
//! never by a client's own word, since what disagrees with the body would be read as the next request.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};
use http_body::Body;

use super::body::RequestBody;
use crate::fields::{self, Lines};

/// A head that is longer needs another piece of memory.
const ROOM: usize = 1024;

pub struct Outgoing {
    pub(super) method: Method,
    target: PathAndQuery,
    /// The request line and the fields, then what [`Self::finish`] adds.
    head: Vec<u8>,
    /// Where the fields begin in it.
    fields: usize,
    /// Where they end, once it was finished.
    end: Option<usize>,
    /// The client said how long the body is, even if there is none.
    declared: bool,
    /// The fields that may come behind the body, as `Trailer` has them.
    trailers: Option<HeaderValue>,
    pub(super) body: RequestBody,
    /// A map that nobody needs any more: the answer's fields can have its memory.
    pub(super) spare: HeaderMap,
}

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

impl Outgoing {
    /// Without fields yet.
    pub fn new(method: Method, target: PathAndQuery, body: RequestBody) -> Self {
        let mut head = Vec::with_capacity(ROOM);
        head.extend_from_slice(method.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(target.as_str().as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\n");
        Self {
            method,
            target,
            fields: head.len(),
            head,
            end: None,
            declared: false,
            trailers: None,
            body,
            spare: HeaderMap::new(),
        }
    }

    /// One more field; but none that says where the body ends.
    pub fn put(&mut self, name: &HeaderName, value: &HeaderValue) {
        if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            fields::put(&mut self.head, name, value);
        }
    }

    pub fn put_lines(&mut self, lines: &Lines) {
        self.head.extend_from_slice(lines.as_bytes());
    }

    /// The client said how long the body is.
    pub const fn declare_length(&mut self) {
        self.declared = true;
    }

    /// These fields may come behind the body.
    pub fn announce(&mut self, trailers: HeaderValue) {
        self.put(&header::TRAILER, &trailers);
        self.trailers = Some(trailers);
    }

    /// A map that is not needed any more.
    pub fn reuse(&mut self, mut map: HeaderMap) {
        map.clear();
        self.spare = map;
    }

    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The whole head, and how it announces the body.
    pub(super) fn finish(&mut self) -> Length {
        let end = *self.end.get_or_insert(self.head.len());
        self.head.truncate(end);
        let length = self.length();
        match &length {
            // Methods for which a body would mean something should say that there is none (RFC 9110, 8.6).
            Length::Empty if self.declared || matches!(self.method, Method::POST | Method::PUT | Method::PATCH) => {
                self.head.extend_from_slice(b"content-length: 0\r\n");
            }
            Length::Empty => {}
            Length::Known(length) => {
                self.head.extend_from_slice(b"content-length: ");
                self.head.extend_from_slice(length.to_string().as_bytes());
                self.head.extend_from_slice(b"\r\n");
            }
            Length::Chunked { .. } => self.head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        self.head.extend_from_slice(b"\r\n");
        length
    }

    fn length(&self) -> Length {
        if self.body.is_empty() {
            return Length::Empty;
        }
        self.body.size_hint().exact().map_or_else(
            || Length::Chunked {
                trailers: self.trailers.clone(),
            },
            Length::Known,
        )
    }

    /// The head as [`Self::finish`] left it, and the body.
    pub(super) fn parts(&mut self) -> (&[u8], &mut RequestBody) {
        (&self.head, &mut self.body)
    }

    /// The request taken apart, as HTTP/1.1 has it. The body goes with it; the head stays, to be sent again.
    pub fn take_request(&mut self) -> Request<RequestBody> {
        let mut request = Request::new(std::mem::replace(&mut self.body, RequestBody::EMPTY));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        let lines = self.head.get(self.fields..self.end.unwrap_or(self.head.len()));
        *request.headers_mut() = fields::to_map(lines.unwrap_or_default());
        request
    }
}

/// Fields may hold secrets.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({} {})", self.method, self.target.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(method: Method) -> Outgoing {
        let mut outgoing = Outgoing::new(method, PathAndQuery::from_static("/path?query"), RequestBody::EMPTY);
        outgoing.put(&header::HOST, &HeaderValue::from_static("app.example.com"));
        outgoing
    }

    #[test]
    fn a_length_that_the_body_does_not_have_is_not_passed_on() {
        let mut outgoing = outgoing(Method::GET);
        outgoing.put(&header::CONTENT_LENGTH, &HeaderValue::from_static("5"));
        outgoing.put(&header::TRANSFER_ENCODING, &HeaderValue::from_static("chunked"));
        let plain = "GET /path?query HTTP/1.1\r\nhost: app.example.com\r\n";
        outgoing.finish();
        assert_eq!(outgoing.parts().0, format!("{plain}\r\n").as_bytes());
        outgoing.declare_length();
        for _ in 0..2 {
            outgoing.finish();
            assert_eq!(
                outgoing.parts().0,
                format!("{plain}content-length: 0\r\n\r\n").as_bytes(),
                "however often it is sent"
            );
        }
    }

    #[test]
    fn taken_apart_it_is_what_it_was() {
        let mut outgoing = outgoing(Method::POST);
        outgoing.put(&header::COOKIE, &HeaderValue::from_static("a=1; b=\u{7e}"));
        outgoing.finish();
        for _ in 0..2 {
            let request = outgoing.take_request();
            assert_eq!(
                (request.method(), request.uri()),
                (&Method::POST, &Uri::from_static("/path?query"))
            );
            let fields: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect();
            assert_eq!(fields, [("host", &b"app.example.com"[..]), ("cookie", b"a=1; b=~")]);
        }
    }
}
