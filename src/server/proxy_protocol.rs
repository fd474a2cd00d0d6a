//! The PROXY protocol (versions 1 and 2): a load balancer says on whose behalf it connects, before anything else.
//!
//! Only trusted proxies are asked, and they must say it: were it optional, a client could say it through a balancer that
//! doesn't. Its header is read whole before a byte behind it is looked at; what was read beyond it is put back.

use std::{io, net::SocketAddr};

use bytes::BytesMut;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::proxy::pace::Paced;

/// No header that balancers send is longer, extensions included; version 1 ends at 107 bytes.
const MAX_HEADER: usize = 4096;
/// A line of version 1, with its end: what the specification says is enough for any.
const MAX_LINE: usize = 107;
const FIRST_READ: usize = 536;
/// How version 1 begins.
const TEXT: &[u8] = b"PROXY ";
/// What stands behind that where what follows is to be ignored.
const UNKNOWN: &[u8] = b"UNKNOWN";
/// How version 2 does,
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// and goes on if the proxy speaks for itself.
const LOCAL: u8 = 0x20;
/// Which family and transport it may name that no stream has.
const UNIX_DATAGRAM: u8 = 0x32;

/// Extensions are skipped: nobody here asks for them.
const CONFIG: ParseConfig = ParseConfig {
    include_tlvs: false,
    allow_v1: true,
    allow_v2: true,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the connection ended within the header, or before it")]
    Ended,
    #[error("no PROXY header, or one that is malformed")]
    Malformed,
    #[error("the header is longer than {MAX_HEADER} bytes")]
    TooLong,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The proxy's own (`LOCAL`), as for a health check.
    Proxy,
    /// Somebody's of whom no address is told (`UNKNOWN`), or who has none of the internet's: nobody that is to be trusted as the
    /// proxy is.
    Untold,
    Client(SocketAddr),
}

/// Not cancel-safe; to be bounded by the caller.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut Paced<S>) -> Result<Source, HeaderError> {
    let mut bytes = BytesMut::with_capacity(FIRST_READ);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(HeaderError::Ended);
        }
        if let Some((source, length)) = judge(&bytes)? {
            let rest = bytes.split_off(length);
            if !rest.is_empty() {
                stream.put_back(rest.freeze());
            }
            return Ok(source);
        }
    }
}

/// The source and the header's length; `None`: it is not whole yet.
pub(super) fn judge(bytes: &[u8]) -> Result<Option<(Source, usize)>, HeaderError> {
    // The parser takes any byte for the space.
    if bytes.first() == TEXT.first() && !bytes.iter().zip(TEXT).all(|(said, due)| said == due) {
        return Err(HeaderError::Malformed);
    }
    // The parser takes a line of any length, and a sign before a port.
    if let Some(said) = bytes.strip_prefix(TEXT) {
        let line = bytes.windows(2).take(MAX_LINE - 1).position(|pair| pair == b"\r\n");
        let is_signed = |end| !said.starts_with(UNKNOWN) && bytes.iter().take(end).any(|byte| *byte == b'+');
        if line.map_or(bytes.len() >= MAX_LINE, is_signed) {
            return Err(HeaderError::Malformed);
        }
    }
    // The parser wants addresses of a proxy that speaks for itself, which may have none, and whose are to be ignored.
    if let Some([LOCAL, _, high, low]) = bytes.strip_prefix(SIGNATURE).and_then(|rest| rest.first_chunk::<4>()) {
        let whole = SIGNATURE.len() + 4 + usize::from(u16::from_be_bytes([*high, *low]));
        return match whole {
            ..=MAX_HEADER => Ok((bytes.len() >= whole).then_some((Source::Proxy, whole))),
            _ => Err(HeaderError::TooLong),
        };
    }
    // The parser takes it for a unix stream. A proxy that speaks for itself may say what it likes.
    if let Some([command, UNIX_DATAGRAM, ..]) = bytes.strip_prefix(SIGNATURE)
        && *command != LOCAL
    {
        return Err(HeaderError::Malformed);
    }
    match ProxyHeader::parse(bytes, CONFIG) {
        Ok((header, length)) => match header.proxied_address() {
            // It came by a stream.
            Some(address) if address.protocol != Protocol::Stream => Err(HeaderError::Malformed),
            _ if length > MAX_HEADER => Err(HeaderError::TooLong),
            address => {
                let source = address.map_or(Source::Untold, |address| Source::Client(address.source));
                Ok(Some((source, length)))
            }
        },
        Err(proxy_header::Error::BufferTooShort) if bytes.len() < MAX_HEADER => Ok(None),
        Err(proxy_header::Error::BufferTooShort) => Err(HeaderError::TooLong),
        Err(_) => Err(HeaderError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, Tlv};
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::proxy::pace::Pace;

    /// What is read when the bytes come in pieces of `size`, and what is left.
    async fn read_in_pieces(bytes: &[u8], size: usize) -> (Result<Source, String>, Vec<u8>) {
        let (mut client, ours) = tokio::io::duplex(1 << 16);
        let mut stream = Paced::new(ours, Arc::new(Pace::new()), |_| false);
        let sending = async {
            for piece in bytes.chunks(size) {
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let (source, ()) = tokio::join!(read(&mut stream), sending);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (source.map_err(|error| error.to_string()), rest)
    }

    fn v2(address: Option<ProxiedAddress>, tlvs: usize) -> Vec<u8> {
        let tlvs = (0..tlvs).map(|_| Tlv::Noop(200));
        let mut bytes = Vec::new();
        ProxyHeader::with_tlvs(address, tlvs).encode_v2(&mut bytes).unwrap();
        bytes
    }

    fn from(source: &str) -> ProxiedAddress {
        let source: SocketAddr = source.parse().unwrap();
        let destination = match source {
            SocketAddr::V4(_) => "192.0.2.1:443",
            SocketAddr::V6(_) => "[2001:db8::1]:443",
        };
        ProxiedAddress::stream(source, destination.parse().unwrap())
    }

    #[tokio::test]
    async fn headers_are_read_wherever_a_read_ends_and_what_follows_is_left() {
        let four = "203.0.113.7:4711";
        let six = "[2001:db8::7]:4711";
        let [four_of, six_of] = [four, six].map(|source| Source::Client(source.parse().unwrap()));
        let headers: Vec<(Vec<u8>, Source)> = vec![
            (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n".to_vec(), four_of),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), six_of),
            (b"PROXY UNKNOWN\r\n".to_vec(), Source::Untold),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Source::Untold),
            (b"PROXY UNKNOWN +1\r\n".to_vec(), Source::Untold),
            ([&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat(), Source::Untold),
            (v2(Some(from(four)), 0), four_of),
            (v2(Some(from(six)), 3), six_of),
            (v2(None, 0), Source::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0".to_vec(), Source::Untold),
            (
                [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[0; 216]].concat(),
                Source::Untold,
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x21\0\0".to_vec(), Source::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x03abc".to_vec(), Source::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x32\0\x03abc".to_vec(), Source::Proxy),
        ];
        for (header, source) in headers {
            let all = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            for size in [1, 7, 14, 16, header.len(), all.len()] {
                let (read, rest) = read_in_pieces(&all, size).await;
                assert_eq!(read, Ok(source), "{header:?} in pieces of {size}");
                assert_eq!(rest, b"GET / HTTP/1.1\r\n\r\n", "{header:?} in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let datagram = ProxiedAddress::datagram("203.0.113.7:1".parse().unwrap(), "192.0.2.1:1".parse().unwrap());
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"PROXY\x95UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 192.0.2.1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 99999 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 +4711 443\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 +443\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.7 192.0.2.1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7".to_vec(),
            [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            // A byte too long.
            [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(),
            v2(Some(datagram), 0),
            v2(Some(from("203.0.113.7:1")), 100),
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c123456789012".to_vec(),
            // Datagrams between sockets of unix.
            [&b"\r\n\r\n\0\r\nQUIT\n\x21\x32\0\xd8"[..], &[0; 216]].concat(),
            b"\x16\x03\x01".to_vec(),
            Vec::new(),
        ] {
            for size in [1, 64, 1 << 16] {
                let (read, _) = read_in_pieces(&bytes, size).await;
                assert!(read.is_err(), "{bytes:?} in pieces of {size}: {read:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = judge(&[start, &rest].concat());
        }
    }
}
