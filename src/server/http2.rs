//! HTTP/2 from clients: how it is told from HTTP/1.1, what it may cost us, and where its requests differ.
//!
//! hyper and its `h2` speak it. They refuse fields that belong to a connection (RFC 9113, 8.2.2), bodies that disagree
//! with their `content-length`, and streams beyond what was announced. Every limit is set here, none is left to a
//! default; for how long a head may take says `blocks.rs`, and how much may be asked for nothing `calm.rs`. HTTP/2 by
//! `Upgrade: h2c` is not spoken: it would carry requests past us (see `headers::upgrade_of`).
//!
//! Clients are not asked whether they are still there (PING): an answer may lie behind megabytes that the client is about to
//! read, in its own time. Who is gone is noticed by TCP, by `Pace`, or by `taking.rs`.

pub(super) mod blocks;
mod calm;

use std::{future::Future, io, sync::Arc};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header, request::Parts, uri};
use hyper::{body::Body, server::conn::http2::Builder};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::connection::{Conversation, Protocol};
use crate::{
    config,
    proxy::{
        body::ProxyBody,
        error::BadHeader,
        pace::Paced,
        taking::{Taken, Taking, Turns, while_taken},
    },
    telemetry::Limit,
};

/// What a client of HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at once to tell the protocol by. An ordinary head fits, so that HTTP/1.1 does not read twice for it.
const FIRST_READ: usize = 1024;

/// Of each request body so much may be under way: enough for 40 MB/s over a round trip of 12 ms.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Of all bodies of a connection together; this much memory a client can make us hold. More than one stream's, so that
/// an upload which its upstream does not read can't stop the others.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The specification's smallest: larger frames delay other streams' frames and save next to nothing.
const MAX_FRAME: u32 = 16 * 1024;
/// Of each answer so much may wait for a client that does not take it.
const SEND_BUFFER: usize = 128 * 1024;
/// The table by which a client compresses its fields.
const HEADER_TABLE: u32 = 4096;
/// Streams that a client opened and reset before we looked at them; more end the connection ("rapid reset"). Those that we
/// have looked at are `server.max_resets`.
const PENDING_RESETS: usize = 20;

/// By the first bytes: which protocol a client speaks that was not asked. They are left to be read.
///
/// Waits only while they might still become the preface. Not cancel-safe.
pub(super) async fn sniff<S: AsyncRead + Unpin>(stream: &mut Paced<S>) -> io::Result<Protocol> {
    let mut first = BytesMut::with_capacity(FIRST_READ);
    let protocol = loop {
        let read = stream.read_buf(&mut first).await?;
        let begins = first.iter().zip(PREFACE).all(|(sent, expected)| sent == expected);
        if read == 0 || !begins {
            break Protocol::Http1;
        }
        if first.len() >= PREFACE.len() {
            break Protocol::Http2;
        }
    };
    stream.put_back(first.freeze());
    Ok(protocol)
}

/// With every limit set. `turns` are told what the connection sends; `is_proxy`: the client is one of
/// `server.trusted_proxies`, whose connections others share.
pub(super) fn builder(
    conversation: &Arc<Conversation>,
    turns: Arc<Turns>,
    server: &config::Server,
    is_proxy: bool,
) -> Builder<Streams> {
    let mut builder = Builder::new(Streams {
        conversation: Arc::clone(conversation),
        taking: Taking {
            silence: server.body_timeout,
            min_rate: server.min_body_rate,
        },
        turns,
    });
    builder
        .max_concurrent_streams(server.max_streams)
        // What a field costs is its name, its value and 32 bytes (RFC 9113, 6.5.2).
        .max_header_list_size(u32::try_from(server.max_header_bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        // Streams that a client's mistakes have us reset ("MadeYouReset"), in the life of the connection.
        .max_local_error_reset_streams((!is_proxy).then(|| usize::try_from(server.max_resets).unwrap_or(usize::MAX)))
        // WebSockets over HTTP/2 (RFC 8441).
        .enable_connect_protocol();
    builder
}

/// Runs a connection's requests as tasks of its worker.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    conversation: Arc<Conversation>,
    taking: Taking,
    turns: Arc<Turns>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        // In a box: what a task wraps around it would be moved along with all of it, several times.
        let stream = Box::pin(stream);
        let (taking, turns) = (self.taking, Arc::clone(&self.turns));
        let worker = &self.conversation.worker;
        let stats = Arc::clone(&worker.recorder.stats);
        let stream = async move {
            if while_taken(stream, taking, &turns).await == Taken::GivenUp {
                stats.limit(Limit::BodyTimeout);
            }
        };
        worker.tasks.spawn("stream", stream);
    }
}

/// An answer to `HEAD`: it says how long the content would be, and has none (RFC 9110, 9.3.2). On HTTP/1.1 hyper sees to
/// it; here it would send all of it, and clients give such an answer up.
pub(super) fn to_head(mut response: Response<ProxyBody>) -> Response<ProxyBody> {
    if let Some(length @ 1..) = response.body().size_hint().exact() {
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(ProxyBody::unsaid)
}

/// Makes one of a request's cookie lines, as RFC 9113, 8.2.3 demands before anybody reads them: clients split them to
/// compress better.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(_), Some(_)) = (lines.next(), lines.next()) else {
        return;
    };
    let mut joined = BytesMut::new();
    // An empty one would leave a blank at the end.
    let lines = headers.get_all(header::COOKIE).iter();
    for line in lines.filter(|line| !line.is_empty()) {
        if !joined.is_empty() {
            joined.put_slice(b"; ");
        }
        joined.put_slice(line.as_bytes());
    }
    // Values and what is between them are bytes that a value may have.
    match HeaderValue::from_maybe_shared(joined.freeze()) {
        Ok(value) => headers.insert(header::COOKIE, value),
        Err(_) => headers.remove(header::COOKIE),
    };
}

/// Refuses what `h2` lets pass though a request must not have it.
pub(super) fn check_head(parts: &Parts) -> Result<(), BadHeader> {
    // Blanks around a value (RFC 9113, 8.2.1): on the way through HTTP/1.1 it would become another value.
    let blank = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        is_blank(bytes.first()) || is_blank(bytes.last())
    };
    if parts.headers.values().any(blank) {
        return Err(BadHeader::Blank);
    }
    let known = |scheme: &uri::Scheme| *scheme == uri::Scheme::HTTP || *scheme == uri::Scheme::HTTPS;
    if parts.uri.scheme().is_some_and(|scheme| !known(scheme)) {
        return Err(BadHeader::Scheme);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::proxy::pace::Pace;

    async fn sniffed(pieces: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut client, ours) = tokio::io::duplex(4096);
        let mut stream = Paced::new(ours, Arc::new(Pace::new()), |_| false);
        let sending = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let (protocol, ()) = tokio::join!(sniff(&mut stream), sending);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        (protocol.unwrap(), all)
    }

    #[tokio::test]
    async fn the_preface_is_told_from_requests_wherever_a_read_ends() {
        for at in 0..PREFACE.len() {
            let (begin, end) = PREFACE.split_at(at);
            let (protocol, all) = sniffed(&[begin, end, b"settings"]).await;
            assert_eq!(protocol, Protocol::Http2, "cut at {at}");
            assert_eq!(all, [PREFACE, b"settings"].concat());
        }
        for other in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"P",
            b"",
            b"POST / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
            b"\x16\x03\x01",
        ] {
            let (begin, end) = other.split_at(other.len() / 2);
            let (protocol, all) = sniffed(&[begin, end]).await;
            assert_eq!(protocol, Protocol::Http1, "{other:?}");
            assert_eq!(all, other);
        }
    }

    #[test]
    fn cookie_lines_become_one() {
        let joined = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            join_cookies(&mut headers);
            let mut left = headers.get_all(header::COOKIE).iter();
            let value = left.next().map(|value| value.to_str().unwrap().to_owned());
            assert!(left.next().is_none());
            value
        };
        assert_eq!(joined(&[]), None);
        assert_eq!(joined(&["a=1"]).as_deref(), Some("a=1"));
        assert_eq!(joined(&["", "a=1", "", "b=2", ""]).as_deref(), Some("a=1; b=2"));
        assert_eq!(
            joined(&["a=1", "b=2; c=3", "d=4"]).as_deref(),
            Some("a=1; b=2; c=3; d=4")
        );
    }

    #[test]
    fn blanks_around_values_and_foreign_schemes_are_refused() {
        let checked = |uri: &str, value: &'static str| {
            let request = http::Request::get(uri).header("x", value).body(()).unwrap();
            check_head(&request.into_parts().0)
        };
        assert_eq!(checked("https://a/x", "a b"), Ok(()));
        assert_eq!(checked("http://a/x", ""), Ok(()));
        assert_eq!(checked("/x", " a"), Err(BadHeader::Blank));
        assert_eq!(checked("/x", "a\t"), Err(BadHeader::Blank));
        assert_eq!(checked("ftp://a/x", "a"), Err(BadHeader::Scheme));
    }
}
