//! A request that nobody sent, made of what somebody wrote. It is not judged here: that is what the gateway does.

use std::sync::Arc;

use anyhow::{Context, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    config::{Origin, Person},
    policy::connection::ClientCertificate,
};

/// A request, as it would arrive.
#[derive(Debug)]
pub(in crate::cli) struct Asked {
    pub(super) method: Method,
    /// Path and query, perhaps ones that no URL could have.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// `None`: nobody is signed in.
    pub(super) person: Option<Person>,
    /// What the client shows in the handshake.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

impl Asked {
    /// `url` whole, or a path of `public_url`. Fails if it, or a header, says nothing that could be sent.
    pub(in crate::cli) fn new(
        method: Method,
        url: &str,
        lines: Vec<(HeaderName, HeaderValue)>,
        person: Option<Person>,
        public_url: &Origin,
    ) -> anyhow::Result<Self> {
        let (authority, target) = split(url, public_url)?;
        let mut headers = HeaderMap::new();
        let host = authority.parse().context("the URL's host is no header value")?;
        headers.insert(header::HOST, host);
        for (name, value) in lines {
            headers.append(name, value);
        }
        Ok(Self {
            method,
            target,
            headers,
            person,
            certificate: None,
        })
    }

    /// The client shows a certificate.
    pub(super) fn showing(mut self, certificate: ClientCertificate) -> Self {
        self.certificate = Some(Arc::new(certificate));
        self
    }
}

/// `Name: value`.
pub(super) fn header(line: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = line
        .split_once(':')
        .with_context(|| format!("{line:?} is not \"Name: value\""))?;
    let name = name.trim();
    let name = name.parse().with_context(|| format!("{name:?} is no header name"))?;
    let value = value.trim().parse().context("that is no header value")?;
    Ok((name, value))
}

fn split(url: &str, public_url: &Origin) -> anyhow::Result<(String, String)> {
    if url.starts_with('/') {
        let authority = public_url
            .as_str()
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        return Ok((authority.to_owned(), url.to_owned()));
    }
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .with_context(|| format!("{url:?} is neither an http(s) URL nor a path"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.is_empty() {
        bail!("{url:?} names no host");
    }
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    Ok((authority.to_owned(), target))
}
