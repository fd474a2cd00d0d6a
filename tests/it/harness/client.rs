//! A polite client: one request a connection, whole answers.

use std::{future::IntoFuture, net::SocketAddr, pin::Pin, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{
    canary, document,
    people::User,
    raw_client::RawClient,
    wire::{Head, read_body},
};

/// For an answer, or the end of a connection, on a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(2);

/// A request that is sent when awaited.
#[derive(Debug)]
pub(crate) struct Call {
    addr: SocketAddr,
    /// The site that browsers see: `Host`, and the `Origin` of requests that change something.
    site: String,
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    /// Whether the answer is held against `openapi.json`, if it is one of the auth API.
    is_described: bool,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(addr: SocketAddr, site: &str, method: &str, target: &str) -> Self {
        Self {
            addr,
            site: site.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: None,
            is_described: true,
        }
    }

    /// To a listener that does not serve the auth API, whatever the path.
    pub(crate) const fn undescribed(mut self) -> Self {
        self.is_described = false;
        self
    }

    /// Adds a field line.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// As a browser of theirs: with the session cookie and, where something may change, the site's origin.
    pub(crate) fn with(self, user: &User) -> Self {
        let call = self.header("Cookie", &user.cookie);
        if matches!(call.method.as_str(), "GET" | "HEAD" | "OPTIONS") {
            return call;
        }
        let site = call.site.clone();
        call.header("Origin", site)
    }

    /// As an app of theirs.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json").body(value.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The bytes of the request.
    fn bytes(&self) -> Vec<u8> {
        let host = self.site.split_once("://").map_or(self.site.as_str(), |(_, host)| host);
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut field = |name: &str, value: &str| {
            // Values are taken as Latin-1: a test that needs raw bytes gets them.
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend(
                value
                    .chars()
                    .map(|c| u8::try_from(u32::from(c)).expect("a Latin-1 field value")),
            );
            bytes.extend_from_slice(b"\r\n");
        };
        if !self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            field("Host", host);
        }
        for (name, value) in &self.fields {
            field(name, value);
        }
        if let Some(body) = &self.body {
            field("Content-Length", &body.len().to_string());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

impl Call {
    /// As if awaited, where the gateway may be killed at any moment. `None`: no whole answer came, for whatever reason.
    pub(crate) async fn attempt(self) -> Option<Response> {
        canary::of_request(&self.target, &self.fields, self.body.as_deref());
        let asking = async {
            let mut stream = BufReader::new(TcpStream::connect(self.addr).await.ok()?);
            stream.write_all(&self.bytes()).await.ok()?;
            let head = Head::read(&mut stream).await.ok()??;
            let body = read_body(&mut stream, head.response_framing(&self.method)).await.ok()?;
            Some(Response { head, body })
        };
        let answer = timeout(PATIENCE, asking).await.expect("an answer, or an end")?;
        canary::of_answer(&self.target, &answer);
        Some(answer)
    }
}

impl IntoFuture for Call {
    type Output = Response;
    type IntoFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut client = RawClient::connect(self.addr).await;
            canary::of_request(&self.target, &self.fields, self.body.as_deref());
            client.send(self.bytes()).await;
            let answer = client.answer_to(&self.method).await;
            canary::of_answer(&self.target, &answer);
            if self.is_described {
                document::saw(self.addr, &self.method, &self.target, &answer);
            }
            answer
        })
    }
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?} {:?}", self.head, self.text()))
    }

    /// The `code` of a problem.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The cookie of this name that the answer sets, with its attributes.
    pub(crate) fn set_cookie(&self, name: &str) -> Option<&str> {
        let mut cookies = self.head.all("set-cookie").into_iter();
        cookies.find(|cookie| cookie.split('=').next() == Some(name))
    }
}
