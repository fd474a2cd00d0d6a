//! Answers that a route gives by itself: redirects, and the same for everybody.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Response, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Semaphore;

use super::{body::ProxyBody, error::ProxyError, files};
use crate::{
    config::{Access, FixedAnswer, Piece, Redirect, Route, Target},
    policy::path::{NormalPath, PathError},
};

/// What a path may hold as it is within a query.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is known of a request that is answered here.
pub struct Asked<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// As it came.
    pub came: &'a NormalPath,
    /// As an upstream would get it.
    pub leaves: &'a NormalPath,
    /// Places for files that are being sent.
    pub open_files: &'a Arc<Semaphore>,
    /// Whether another name of the file that is asked for is for fewer.
    pub is_guarded: &'a (dyn Fn(&str) -> bool + Sync),
}

crate::secret::unprinted!(Asked<'a>);

/// Answers a request that was authorised for `route`; `None` if an upstream has to.
pub async fn answer(route: &Route, asked: &Asked<'_>) -> Result<Response<ProxyBody>, ProxyError> {
    let mut response = match &route.target {
        // The caller forwards those.
        Target::Upstream(_) => return Err(ProxyError::Internal),
        Target::Files(folder) => files::serve(folder, &route.rewrite, asked).await?,
        Target::Redirect(redirect) => redirected(redirect, asked.leaves)?,
        Target::Answer(answer) => fixed(answer),
    };
    if route.access != Access::Public {
        // Shared caches don't know cookies; and a browser asks again once its person has signed out.
        let never_shared = HeaderValue::from_static("private, no-cache");
        response.headers_mut().insert(header::CACHE_CONTROL, never_shared);
    }
    Ok(response)
}

fn redirected(redirect: &Redirect, path: &NormalPath) -> Result<Response<ProxyBody>, ProxyError> {
    let location = HeaderValue::try_from(location(redirect, path)).map_err(|_| PathError::IllegalByte)?;
    let mut response = Response::new(ProxyBody::own(bytes::Bytes::new()));
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `config` has seen to it that no piece can change which host is meant.
fn location(redirect: &Redirect, path: &NormalPath) -> String {
    let query = path.query().filter(|query| !query.is_empty());
    let pieces = redirect.to.iter().map(|piece| match piece {
        Piece::Text(text) => Cow::Borrowed(text.as_str()),
        Piece::Path => Cow::Borrowed(path.as_str()),
        Piece::PathInQuery => utf8_percent_encode(path.as_str(), IN_QUERY).into(),
        Piece::Query { lead } => match (query, lead) {
            (None, _) => Cow::Borrowed(""),
            (Some(query), None) => Cow::Borrowed(query),
            (Some(query), Some(lead)) => Cow::Owned(format!("{lead}{query}")),
        },
    });
    pieces.collect()
}

fn fixed(answer: &FixedAnswer) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::own(answer.body.clone()));
    *response.status_mut() = answer.status;
    if let Some(content_type) = &answer.content_type {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type.clone());
    }
    response
}
