//! An answer's body as it comes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};

use super::{Connection, Framing, LeanError, chunked::Step, take};

/// What is read at a time at first, and at most: much comes faster in large pieces, little needs no large buffers.
const READS: (usize, usize) = (16 * 1024, 128 * 1024);

/// Buffers up to so much stay with an idle connection.
const KEPT: usize = 8 * 1024;

/// The body of an answer, read from the connection that brought its head.
#[derive(Debug)]
pub(in crate::upstream) struct Answer<S> {
    connection: Connection<Reader<S>>,
    framing: Framing,
    ended: bool,
    keep_alive: bool,
    next_read: usize,
    /// Why it breaks off, once what came before had its chance to be passed on.
    broke_off: Option<LeanError>,
}

/// The side of a stream that an answer comes from.
#[derive(Debug)]
pub(in crate::upstream) enum Reader<S> {
    Whole(S),
    /// The request is still being sent on the other half.
    Half(ReadHalf<S>),
}

impl<S: AsyncRead + Unpin> AsyncRead for Reader<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Whole(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Half(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + Unpin> Answer<S> {
    pub(in crate::upstream) fn new(connection: Connection<Reader<S>>, framing: Framing, keep_alive: bool) -> Self {
        Self {
            connection,
            ended: matches!(framing, Framing::Length(0)),
            framing,
            keep_alive,
            next_read: READS.0,
            broke_off: None,
        }
    }

    /// The next of it, as [`http_body::Body::poll_frame`] has it.
    pub(in crate::upstream) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LeanError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(error) = self.broke_off.take() {
            // Nothing comes behind it.
            self.ended = true;
            self.keep_alive = false;
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.poll_next(cx)) {
            Ok(frame) => Poll::Ready(frame.map(Ok)),
            Err(error) => {
                // Whoever is told of an error forgets what it has not written yet: it writes while there is nothing new.
                self.broke_off = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, LeanError>> {
        loop {
            let unread = &mut self.connection.unread;
            match &mut self.framing {
                Framing::Length(left) if !unread.is_empty() => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                    *left -= here as u64;
                    self.ended = *left == 0;
                    return Poll::Ready(Ok(Some(Frame::data(take(unread, here)))));
                }
                Framing::Close if !unread.is_empty() => {
                    let here = unread.len();
                    return Poll::Ready(Ok(Some(Frame::data(take(unread, here)))));
                }
                Framing::Chunked(decoder) => match decoder.step(unread)? {
                    Step::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                    Step::End(trailers) => {
                        self.ended = true;
                        return Poll::Ready(Ok(trailers.map(Frame::trailers)));
                    }
                    Step::More => {}
                },
                Framing::Length(_) | Framing::Close => {}
            }
            if ready!(self.poll_read(cx))? == 0 {
                if !matches!(self.framing, Framing::Close) {
                    return Poll::Ready(Err(LeanError::Closed));
                }
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Reads more at a time while there is more, and less when there is less.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let most = match self.framing {
            // What is behind the end is not ours to read.
            Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).min(self.next_read),
            Framing::Chunked(_) | Framing::Close => self.next_read,
        };
        let read = ready!(self.connection.poll_fill(cx, most))?;
        self.next_read = if read >= self.next_read {
            (self.next_read * 2).min(READS.1)
        } else if read < self.next_read / 4 {
            (self.next_read / 2).max(READS.0)
        } else {
            self.next_read
        };
        Poll::Ready(Ok(read))
    }

    /// All of it, if it is here already.
    pub(in crate::upstream) fn take_if_whole(&mut self) -> Option<Bytes> {
        if self.ended {
            return Some(Bytes::new());
        }
        match &mut self.framing {
            Framing::Length(left) if self.connection.unread.len() as u64 >= *left => {
                // What is as long as what is in memory fits there.
                let whole = usize::try_from(*left).unwrap_or(usize::MAX);
                *left = 0;
                self.ended = true;
                Some(take(&mut self.connection.unread, whole))
            }
            Framing::Length(_) | Framing::Chunked(_) | Framing::Close => None,
        }
    }

    /// Nothing of it is left.
    pub(in crate::upstream) const fn is_end(&self) -> bool {
        self.ended
    }

    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::Close if self.ended => SizeHint::with_exact(0),
            Framing::Chunked(_) | Framing::Close => SizeHint::new(),
        }
    }

    /// The connection, if it can serve another request: the answer ended where it said, and nothing came behind it.
    pub(in crate::upstream) fn into_idle(self) -> Option<Connection<S>> {
        let usable = self.ended && self.keep_alive && self.connection.unread.is_empty();
        match self.connection {
            Connection {
                stream: Reader::Whole(stream),
                unread,
            } if usable => Some(Connection {
                stream,
                unread: Some(unread)
                    .filter(|buffer| buffer.capacity() <= KEPT)
                    .unwrap_or_default(),
            }),
            Connection { .. } => None,
        }
    }
}
