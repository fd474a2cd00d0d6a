//! The bytes of an SMTP conversation: requests and messages come in, replies go out.

use std::io;

use smtp_proto::{
    Error, Request,
    request::receiver::{DataReceiver, RequestReceiver},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{MAX_MESSAGE, SILENCE};

/// What the client wants.
pub(super) enum Asked {
    Request(Request<String>),
    /// Not understood; here is what to say.
    Nonsense(&'static str),
    /// It has left, or must.
    End,
}

pub(super) struct Wire<'s, S> {
    stream: &'s mut S,
    requests: RequestReceiver,
    /// Read from the stream, not yet understood. A client may send several requests at once.
    unread: Vec<u8>,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Wire<'s, S> {
    pub(super) fn new(stream: &'s mut S) -> Self {
        Self {
            stream,
            requests: RequestReceiver::default(),
            unread: Vec::new(),
        }
    }

    pub(super) async fn request(&mut self) -> io::Result<Asked> {
        loop {
            let mut bytes = self.unread.iter();
            let asked = match self.requests.ingest(&mut bytes) {
                Ok(request) => Some(Asked::Request(request.into_owned())),
                Err(Error::NeedsMoreData { .. }) => None,
                Err(Error::ResponseTooLong) => Some(Asked::End),
                Err(Error::UnknownCommand) => Some(Asked::Nonsense("500 5.5.1 Unknown command")),
                Err(_) => Some(Asked::Nonsense("501 5.5.4 Syntax error")),
            };
            self.unread = bytes.as_slice().to_vec();
            if let Some(asked) = asked {
                return Ok(asked);
            }
            // The receiver keeps the beginning of a line that is not complete.
            self.unread.clear();
            if !self.read().await? {
                return Ok(Asked::End);
            }
        }
    }

    /// The message up to its lone dot, without it and without the dots that were put before others. `None` if it is
    /// too large.
    pub(super) async fn data(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        let mut receiver = DataReceiver::new();
        loop {
            let mut bytes = self.unread.iter();
            let whole = receiver.ingest(&mut bytes, &mut message);
            self.unread = bytes.as_slice().to_vec();
            if message.len() > MAX_MESSAGE {
                return Ok(None);
            }
            if whole {
                return Ok(Some(message));
            }
            if !self.read().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(super) async fn reply(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    /// Whether there was more.
    async fn read(&mut self) -> io::Result<bool> {
        self.unread.reserve(8 << 10);
        let read = timeout(SILENCE, self.stream.read_buf(&mut self.unread)).await??;
        Ok(read > 0)
    }
}
