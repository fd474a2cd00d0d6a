//! For how long a client of HTTP/2 may leave something unfinished that nothing else can come before: its preface, with the
//! settings behind it, and a block of fields, which may go on from frame to frame (RFC 9113, 3.4 and 4.3).
//!
//! h2 waits for the rest as long as the connection lasts, and keeps what it has. So the stream that it reads is followed
//! from frame to frame, by their lengths alone, and [`Pace`] is told while something is owed: it has the time of a head, all
//! of it, however many frames it is cut into. Nothing is refused here: what makes no sense is h2's to say.
//!
//! The other way bytes are counted alone, for streams that wait for their turn ([`Turns`]). On the same way it is seen
//! what frames cost us that carry nothing ([`Calm`]): from a client that has sent too many no more is read.
//!
//! Not here: frames of other kinds that stop half way. Bodies have time-outs of their own, and a connection on which nothing
//! else is under way is idle.

use std::{
    io::{IoSlice, Result},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    PREFACE,
    calm::{Calm, Cost},
};
use crate::{
    clock, config,
    proxy::{pace::Pace, taking::Turns},
};

/// What each frame begins with (RFC 9113, 4.1).
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// A stream of HTTP/2 that tells [`Pace`] what is owed on it.
#[derive(Debug)]
pub(crate) struct Followed<S> {
    stream: S,
    pace: Arc<Pace>,
    turns: Arc<Turns>,
    frames: Frames,
    calm: Calm,
    /// The client is asked to leave.
    deaf: bool,
}

impl<S> Followed<S> {
    /// `is_proxy`: as of [`Calm::new`].
    pub(crate) fn new(
        stream: S,
        (pace, turns): (Arc<Pace>, Arc<Turns>),
        server: &config::Server,
        is_proxy: bool,
    ) -> Self {
        Self {
            stream,
            pace,
            turns,
            frames: Frames::default(),
            calm: Calm::new(server, is_proxy),
            deaf: false,
        }
    }
}

impl<S> Followed<S> {
    fn wrote(&self, sent: Result<usize>) -> Poll<Result<usize>> {
        match &sent {
            Ok(sent) => self.turns.sent(*sent),
            Err(_) => self.pace.ends(),
        }
        Poll::Ready(sent)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Followed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.deaf {
            // Whoever looks after the connection ends it, within a time of its own.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        if read.is_err() || buf.filled().len() == before {
            this.pace.ends();
            return Poll::Ready(read);
        }
        this.turns.heard();
        let owed = this.frames.owed;
        this.frames.began = false;
        this.frames.look(buf.filled().get(before..).unwrap_or_default());
        if this.frames.owed {
            if this.frames.began {
                this.pace.block_begins(clock::monotonic());
            }
        } else if owed {
            this.pace.block_ended();
        }
        let cost = mem::take(&mut this.frames.cost);
        if cost != Cost::default()
            && let Some(why) = this.calm.take(cost, this.turns.sent_in_all())
        {
            this.deaf = true;
            this.pace.ask_to_leave(why);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Followed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.wrote(sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        if flushed.is_err() {
            self.pace.ends();
        }
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.wrote(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What the bytes that come next are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Preface,
    /// The frame behind the preface, which has to be one of settings.
    First,
    /// A frame of a block, and whether it is the last.
    Fields {
        last: bool,
    },
    Other,
}

/// Where in a connection we are.
#[derive(Debug)]
struct Frames {
    part: Part,
    /// So much of it is still to come.
    left: usize,
    /// The beginning of the next frame, as far as it is here.
    head: [u8; FRAME_HEAD],
    head_len: usize,
    /// Something has begun that must come to its end.
    owed: bool,
    /// It has begun in what was looked at last.
    began: bool,
    /// What frames cost that began in what was looked at last.
    cost: Cost,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            part: Part::Preface,
            left: PREFACE.len(),
            head: [0; FRAME_HEAD],
            head_len: 0,
            // Browsers open connections before they need them: a preface is owed once it has begun.
            owed: false,
            began: false,
            cost: Cost::default(),
        }
    }
}

impl Frames {
    fn look(&mut self, mut bytes: &[u8]) {
        if self.part == Part::Preface && !bytes.is_empty() {
            self.begin();
        }
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                bytes = bytes.get(passed..).unwrap_or_default();
                self.left -= passed;
                if self.left == 0 {
                    self.part_ends();
                }
                continue;
            }
            let (more, rest) = bytes.split_at(bytes.len().min(FRAME_HEAD - self.head_len));
            for (place, byte) in self.head.iter_mut().skip(self.head_len).zip(more) {
                *place = *byte;
            }
            self.head_len += more.len();
            bytes = rest;
            if self.head_len == FRAME_HEAD {
                self.head_len = 0;
                self.frame_begins();
            }
        }
    }

    fn begin(&mut self) {
        if !self.owed {
            self.owed = true;
            self.began = true;
        }
    }

    fn frame_begins(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.cost.add(kind, self.left);
        if self.part != Part::First {
            self.part = match kind {
                HEADERS | CONTINUATION => {
                    self.begin();
                    Part::Fields {
                        last: flags & END_HEADERS != 0,
                    }
                }
                _ => Part::Other,
            };
        }
        if self.left == 0 {
            self.part_ends();
        }
    }

    fn part_ends(&mut self) {
        match self.part {
            Part::Preface => self.part = Part::First,
            Part::First | Part::Fields { last: true } => {
                self.part = Part::Other;
                self.owed = false;
            }
            Part::Fields { last: false } | Part::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        // What is in a frame is nobody's business here, whatever it looks like.
        frame.extend(std::iter::repeat_n(HEADERS, length));
        frame
    }

    fn owed_after(pieces: &[&[u8]]) -> Vec<bool> {
        let mut frames = Frames::default();
        let look = |piece: &&[u8]| {
            frames.look(piece);
            frames.owed
        };
        pieces.iter().map(look).collect()
    }

    #[test]
    fn a_preface_is_owed_from_its_first_byte_to_the_end_of_its_settings() {
        let settings = frame(4, 0, 6);
        let (begin, end) = PREFACE.split_at(10);
        let owed = owed_after(&[b"", begin, end, &settings[..4], &settings[4..12], &settings[12..]]);
        assert_eq!(owed, [false, true, true, true, true, false]);
    }

    #[test]
    fn a_block_is_owed_until_its_last_frame_is_here() {
        let start = [PREFACE, &frame(4, 0, 0)].concat();
        let (whole, first) = (frame(HEADERS, END_HEADERS, 20), frame(HEADERS, 0, 20));
        let (more, last) = (frame(CONTINUATION, 0, 5), frame(CONTINUATION, END_HEADERS, 0));
        let data = frame(0, END_HEADERS, 30);
        let owed = owed_after(&[
            &start,
            &whole,
            &data,
            &whole[..9],
            &whole[9..],
            &first,
            &more,
            &last,
            &data[..20],
        ]);
        assert_eq!(owed, [false, false, false, true, false, true, true, false, false]);
    }

    proptest! {
        /// Wherever reads end, it comes to the same.
        #[test]
        fn reads_may_end_anywhere(
            kinds in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..40), 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..200),
        ) {
            let mut all = PREFACE.to_vec();
            for (kind, flags, length) in kinds {
                all.extend(frame(kind, flags, length));
            }
            let (mut whole, mut cut) = (Frames::default(), Frames::default());
            whole.look(&all);
            let mut rest = all.as_slice();
            for at in cuts {
                let (piece, more) = rest.split_at(at.min(rest.len()));
                cut.look(piece);
                rest = more;
            }
            cut.look(rest);
            prop_assert_eq!((whole.part, whole.left, whole.owed), (cut.part, cut.left, cut.owed));
        }
    }
}
