//! One question to a provider and its answer, whatever it is about.
//!
//! A server that is away, overloaded or limits us (5xx, 429, and 403 where that is what it means) is [`ProviderError::Unreachable`] here, so that nobody else
//! needs to know of statuses. Errors name what went wrong, never what an answer said: it may hold tokens.

use std::pin::Pin;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use serde::de::DeserializeOwned;
use url::Url;

use super::ProviderError;
use crate::{chain::Chain, outbound::Outbound, secret::Secret};

/// Of a provider's error code in our log (RFC 6749 has `unsupported_grant_type` as the longest).
const MAX_CODE: usize = 100;

#[derive(Debug)]
pub(super) struct Wire {
    provider: String,
    outbound: Outbound,
}

impl Wire {
    pub(super) fn new(provider: &str, outbound: Outbound) -> Self {
        Self {
            provider: provider.to_owned(),
            outbound,
        }
    }

    /// Whether the provider may be spoken to there.
    pub(super) fn check(&self, url: &Url) -> Result<(), ProviderError> {
        let refused = |error| self.unusable(format!("an endpoint is out of bounds: {}", Chain(&error)));
        self.outbound.check(url).map_err(refused)
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ProviderError> {
        let answer = self.outbound.send(request).await;
        let answer = answer.map_err(|error| self.unreachable(Chain(&error).to_string()))?;
        match answer.status() {
            status
                if status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS
                    || (status == StatusCode::FORBIDDEN && is_limited(answer.headers())) =>
            {
                Err(self.unreachable(format!("HTTP {}", status.as_u16())))
            }
            _ => Ok(answer),
        }
    }

    /// A document in JSON, and the answer's header.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        url: &Url,
        bearer: Option<&Secret<String>>,
    ) -> Result<(T, HeaderMap), ProviderError> {
        self.read(url, self.ask(url, bearer).await?)
    }

    /// As [`Self::get`]; `None`: the token does not reach so far.
    pub(super) async fn get_if_granted<T: DeserializeOwned>(
        &self,
        url: &Url,
        bearer: Option<&Secret<String>>,
    ) -> Result<Option<T>, ProviderError> {
        let answer = self.ask(url, bearer).await?;
        match answer.status() {
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(None),
            _ => self.read(url, answer).map(|(document, _)| Some(document)),
        }
    }

    async fn ask(&self, url: &Url, bearer: Option<&Secret<String>>) -> Result<Response<Vec<u8>>, ProviderError> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(url.as_str())
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| self.unusable("an endpoint's URL can't be asked for"))?;
        if let Some(token) = bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| self.unusable("the access token does not fit into a header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        self.send(request).await
    }

    fn read<T: DeserializeOwned>(&self, url: &Url, answer: Response<Vec<u8>>) -> Result<(T, HeaderMap), ProviderError> {
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err(self.refused_with(format!("HTTP {}", head.status.as_u16())));
        }
        let read = serde_json::from_slice(&body);
        let read =
            read.map_err(|error| self.unusable(format!("{} is no such JSON: {:?}", url.path(), error.classify())));
        read.map(|document| (document, head.headers))
    }

    pub(super) fn unreachable(&self, why: impl Into<String>) -> ProviderError {
        ProviderError::Unreachable {
            provider: self.provider.clone(),
            why: why.into(),
        }
    }

    /// `code`: as the provider gave it. All that are registered are words of small letters (RFC 6749, section 11.4.1), and
    /// anything else may be a sentence that repeats what we sent, tokens and all: it must not get into the log.
    pub(super) fn refused(&self, code: &str) -> ProviderError {
        let is_word = code.len() <= MAX_CODE && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        self.refused_with(if is_word { code } else { "its code is none" })
    }

    fn refused_with(&self, code: impl Into<String>) -> ProviderError {
        ProviderError::Refused {
            provider: self.provider.clone(),
            code: code.into(),
        }
    }

    pub(super) fn unusable(&self, why: impl Into<String>) -> ProviderError {
        ProviderError::Unusable {
            provider: self.provider.clone(),
            why: why.into(),
        }
    }
}

/// How GitHub says that it has been asked too often, with status 403.
fn is_limited(header: &HeaderMap) -> bool {
    header.contains_key(header::RETRY_AFTER) || header.get("x-ratelimit-remaining").is_some_and(|left| left == "0")
}

/// As `oauth2` asks. The future is boxed because the compiler can't see that one which borrows from a closure's
/// environment is `Send`.
impl<'c> AsyncHttpClient<'c> for Wire {
    type Error = ProviderError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, ProviderError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
