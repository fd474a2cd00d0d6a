//! The application behind every entry: as little work as possible, so that what is measured is the way to it.

use std::{io::Write as _, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What `/…/small` answers: a hundred bytes.
pub(crate) const SMALL: &str =
    "{\"message\":\"a hundred bytes of an answer, as small as many an API's; padded to its length...\",\"n\":1}";

/// What `/…/large` answers.
pub(crate) const LARGE: usize = 1 << 20;

/// Serves until killed; says its address on the first line of its output.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        println!("{addr}");
        std::io::stdout().flush().unwrap();
        let answers: &'static Answers = Box::leak(Box::new(Answers::new()));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, answers));
        }
    });
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        Self {
            small: answer(SMALL.as_bytes()),
            large: answer(&vec![b'x'; LARGE]),
        }
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// One request after the other; a body is read to its end before it is answered.
async fn serve(mut stream: TcpStream, answers: &Answers) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        if take_body(&mut stream, &head, &mut buffer).await.is_none() {
            return;
        }
        let target_ends = |name: &[u8]| {
            let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
            line.windows(name.len()).any(|window| window == name)
        };
        let written = if target_ends(b"/large ") {
            stream.write_all(&answers.large).await
        } else if target_ends(b"/echo ") {
            stream.write_all(&answer(&head)).await
        } else {
            stream.write_all(&answers.small).await
        };
        if written.is_err() {
            return;
        }
    }
}

/// Reads as many bytes as the head declares, some of which are in `buffer` already.
async fn take_body(stream: &mut TcpStream, head: &[u8], buffer: &mut Vec<u8>) -> Option<()> {
    const LENGTH: &[u8] = b"\r\ncontent-length:";
    let at = head
        .windows(LENGTH.len())
        .position(|window| window.eq_ignore_ascii_case(LENGTH));
    let Some(at) = at else { return Some(()) };
    let digits = head[at + LENGTH.len()..].split(|&byte| byte == b'\r').next()?;
    let length: usize = std::str::from_utf8(digits).ok()?.trim().parse().ok()?;
    let here = length.min(buffer.len());
    buffer.drain(..here);
    let mut missing = length - here;
    let mut sink = vec![0; 64 << 10];
    while missing > 0 {
        let most = missing.min(sink.len());
        match stream.read(&mut sink[..most]).await {
            Ok(count @ 1..) => missing -= count,
            _ => return None,
        }
    }
    Some(())
}
