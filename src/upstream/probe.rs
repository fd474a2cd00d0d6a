//! What is private here and is tried with any bytes by the fuzz targets (`fuzz/`), which see no more of this crate than
//! others do. The gateway has no use for it.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, Method, uri::PathAndQuery};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Outgoing, body::RequestBody, lean::Connection};

/// What our HTTP/1.1 client makes of an upstream's bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body came to its end.
    pub whole: bool,
    /// The connection would carry another request.
    pub reusable: bool,
}

/// Asks by `GET` or `HEAD`; the upstream says `said`, in pieces of `piece` bytes, and hangs up. `None`: that is no answer.
pub fn read_answer(to_head: bool, said: &[u8], piece: usize) -> Option<Got> {
    let method = if to_head { Method::HEAD } else { Method::GET };
    let mut outgoing = Outgoing::new(method, PathAndQuery::from_static("/"), RequestBody::EMPTY);
    let upstream = Upstream { said, piece };
    let answered = finished(Connection::new(upstream).exchange(&mut outgoing, None)).ok()?;
    let (mut answer, response, _) = answered.into_answer();
    let (mut body, mut whole) = (Vec::new(), true);
    while let Some(frame) = finished(poll_fn(|cx| answer.poll_frame(cx))) {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => body.extend_from_slice(&data),
            Ok(Err(_)) => {}
            Err(_) => whole = false,
        }
    }
    Some(Got {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body,
        whole,
        reusable: answer.into_idle().is_some(),
    })
}

/// Nobody has to be waited for: whoever is not ready at once is the next time.
fn finished<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut nobody = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut nobody) {
            return done;
        }
    }
}

/// Listens to whatever it is told.
struct Upstream<'s> {
    said: &'s [u8],
    piece: usize,
}

impl AsyncRead for Upstream<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = self.piece.min(buf.remaining()).min(self.said.len());
        if let Some((piece, rest)) = self.said.split_at_checked(most) {
            buf.put_slice(piece);
            self.said = rest;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upstream<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
