//! An upstream that shows what it received: what a gateway in front of it lets through, adds and takes away.

use std::collections::BTreeMap;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::net::TcpListener;

use super::http::{Answer, page, serve};
use crate::lifecycle::Tasks;

/// A request as the upstream saw it.
#[derive(Debug, Serialize)]
struct Seen {
    method: String,
    path: String,
    query: Option<String>,
    /// By name; the values of repeated ones in order.
    headers: BTreeMap<String, Vec<String>>,
    body_bytes: u64,
}

/// Answers every request with what it was, as JSON, until the soft stop of `tasks`.
pub async fn run(listener: TcpListener, tasks: Tasks) {
    serve(listener, "dev.upstream", show, tasks).await;
}

async fn show(request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    let mut body_bytes: u64 = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return page(
                StatusCode::BAD_REQUEST,
                "text/plain; charset=utf-8",
                "the body broke off\n",
            );
        };
        let length = frame.data_ref().map_or(0, bytes::Bytes::len);
        body_bytes = body_bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        let values = headers.entry(name.as_str().to_owned()).or_default();
        values.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers,
        body_bytes,
    };
    match serde_json::to_vec_pretty(&seen) {
        Ok(mut json) => {
            json.push(b'\n');
            page(StatusCode::OK, "application/json", json)
        }
        Err(error) => page(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain; charset=utf-8",
            format!("{error}\n"),
        ),
    }
}
