//! The auth API's answers to pages of other origins (section 20): those of trusted origins may call it, with cookies,
//! and read what it says, refusals too.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{AuthError, Route, http::protect};
use crate::{
    policy::{
        cors::{self, Preflight, Readers, Verdict},
        csrf::AuthOriginError,
        origin::TrustedOrigins,
    },
    problem::{Form, Problem},
};

/// What a page may read of an answer besides its body.
const EXPOSED: [HeaderName; 4] = [
    HeaderName::from_static("set-auth-token"),
    HeaderName::from_static("set-auth-jwt"),
    HeaderName::from_static("x-retry-after"),
    header::RETRY_AFTER,
];

/// Answers a preflight about `path`.
pub(super) fn preflight(
    asked: &Preflight<'_>,
    path: &str,
    trusted: &TrustedOrigins,
    request_id: &str,
) -> Response<Bytes> {
    match Readers::Trusted(trusted).judge(asked, methods(path)) {
        Verdict::Answer(fields) => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.headers_mut() = fields;
            response
        }
        Verdict::Refuse | Verdict::PassOn(_) => {
            let refusal = AuthError::Origin(AuthOriginError::Invalid);
            let mut response = Problem::from(refusal).into_response(Form::Json, request_id);
            protect(response.headers_mut());
            response
        }
    }
}

/// Those that exist at `path`. Where there is nothing, the request itself is what says so.
fn methods(path: &str) -> HeaderValue {
    let exists = |method: &Method| Route::find(method, path).is_some();
    match (exists(&Method::GET), exists(&Method::POST)) {
        (true, false) => HeaderValue::from_static("GET"),
        (false, true) => HeaderValue::from_static("POST"),
        (true, true) | (false, false) => HeaderValue::from_static("GET, POST"),
    }
}

/// Lets the page at `origin` read an answer, if it is a trusted one's.
pub(super) fn admit(origin: Option<&HeaderValue>, trusted: &TrustedOrigins, answer: &mut HeaderMap) {
    // A page of our own reads everything as it is.
    let is_own = origin.is_some_and(|origin| origin.as_bytes() == trusted.public().as_str().as_bytes());
    if !is_own && Readers::Trusted(trusted).admit(origin, answer) {
        cors::expose(answer, &EXPOSED);
    }
}
