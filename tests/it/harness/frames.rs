//! HTTP/2 as bytes, for clients that no library would be.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::SOON;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Reasons of resets and goodbyes.
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields, none of them compressed (RFC 7541, 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            string(&mut block, text.as_bytes());
        }
    }
    block
}

/// A string of HPACK, as it is (RFC 7541, 5.2).
pub(crate) fn string(block: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        block.push(u8::try_from(text.len()).unwrap());
    } else {
        block.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }
    block.extend_from_slice(text);
}

/// The fields that each request has.
pub(crate) fn fields<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "app.example.com"),
        (":path", path),
    ]
}

/// A request without a body.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let block = block(&fields("GET", path));
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

/// A request whose body is still to come.
pub(crate) fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&fields("POST", path)))
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub(crate) fn more_room(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Of a reset, or a goodbye.
    pub(crate) fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection of HTTP/2 that was opened in order.
pub(crate) struct Frames {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
    /// Why the gateway said goodbye, if it has.
    goodbye: Option<u32>,
}

impl Frames {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::with_window(addr, 65_535).await
    }

    /// Each answer may send so much before it is given more room.
    pub(crate) async fn with_window(addr: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the gateway listens");
        stream.set_nodelay(true).unwrap();
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
        let mut this = Self {
            stream,
            unread: Vec::new(),
            goodbye: None,
        };
        this.send([PREFACE, &frame(SETTINGS, 0, 0, &setting), &frame(SETTINGS, ACK, 0, &[])].concat())
            .await;
        this
    }

    /// Sends as far as it is taken; whether it was.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The next frame; `None`: the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                if frame.kind == GOAWAY {
                    self.goodbye = Some(frame.reason());
                }
                return Some(frame);
            }
            let read = timeout(2 * SOON, self.stream.read_buf(&mut self.unread)).await;
            match read.expect("a frame, or the end") {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (head, rest) = self.unread.split_at_checked(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload: rest.get(..length)?.to_vec(),
        };
        self.unread.drain(..9 + length);
        Some(frame)
    }

    /// The next frame for which `is` holds.
    pub(crate) async fn until(&mut self, is: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection goes on");
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            if is(&frame) {
                return frame;
            }
        }
    }

    /// That a stream has got its answer: to its end.
    pub(crate) async fn answered(&mut self, stream: u32) {
        let ends = |frame: &Frame| frame.stream == stream && frame.kind <= HEADERS && frame.flags & END_STREAM != 0;
        self.until(ends).await;
    }

    /// Waits for the connection's end; why the gateway said goodbye, if it did. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> Option<u32> {
        while self.next().await.is_some() {}
        self.goodbye
    }
}
