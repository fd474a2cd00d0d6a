//! The PROXY protocol's header, versions 1 and 2, as its specification has it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Header {
    /// More bytes have to come.
    Unfinished,
    Malformed,
    /// Of so many bytes: on whose behalf the proxy connects.
    Whole(From, usize),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum From {
    /// Nobody's: the proxy has a look by itself.
    Itself,
    Somebody,
    Address(SocketAddr),
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub fn read(bytes: &[u8]) -> Header {
    if SIGNATURE.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        return Header::Unfinished;
    }
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    if bytes.starts_with(b"PROXY ") {
        return version_1(bytes);
    }
    Header::Malformed
}

/// One line of text, of 107 bytes at most.
fn version_1(bytes: &[u8]) -> Header {
    let Some(end) = bytes.windows(2).take(106).position(|two| two == b"\r\n") else {
        return if bytes.len() < 107 {
            Header::Unfinished
        } else {
            Header::Malformed
        };
    };
    // Whatever follows is to be ignored.
    if bytes[6..end].starts_with(b"UNKNOWN") {
        return Header::Whole(From::Somebody, end + 2);
    }
    let Ok(line) = std::str::from_utf8(&bytes[6..end]) else {
        return Header::Malformed;
    };
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["TCP4", source, destination, port, other] if is_v4(source) && is_v4(destination) && is_port(other) => {
            address(source, port)
        }
        ["TCP6", source, destination, port, other] if is_v6(source) && is_v6(destination) && is_port(other) => {
            address(source, port)
        }
        _ => return Header::Malformed,
    };
    source.map_or(Header::Malformed, |source| {
        Header::Whole(From::Address(source), end + 2)
    })
}

fn address(host: &str, port: &str) -> Option<SocketAddr> {
    let host: IpAddr = host.parse().ok()?;
    is_port(port).then(|| Some(SocketAddr::new(host, port.parse().ok()?)))?
}

fn is_v4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

fn is_v6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Binary: version and command, family and protocol, length; addresses; what else somebody wants to say.
fn version_2(bytes: &[u8]) -> Header {
    let &[version, family, high, low, ..] = &bytes[SIGNATURE.len()..] else {
        return Header::Unfinished;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version >> 4 != 2 || !matches!(version & 15, 0 | 1) {
        return Header::Malformed;
    }
    let begin = SIGNATURE.len() + 4;
    let Some(rest) = bytes.get(begin..begin + length) else {
        return Header::Unfinished;
    };
    let whole = begin + length;
    // LOCAL: whatever it says of addresses is to be ignored.
    if version & 15 == 0 {
        return Header::Whole(From::Itself, whole);
    }
    let source = match (family, rest.len()) {
        // Over a stream, as this came.
        (0x11, 12..) => {
            let host: [u8; 4] = rest[..4].try_into().expect("four bytes");
            SocketAddr::new(host.into(), u16::from_be_bytes([rest[8], rest[9]]))
        }
        (0x21, 36..) => {
            let host: [u8; 16] = rest[..16].try_into().expect("sixteen bytes");
            SocketAddr::new(host.into(), u16::from_be_bytes([rest[32], rest[33]]))
        }
        // Unspecified, or unix sockets, which have no address that would count.
        (0x00, _) | (0x31, 216..) => return Header::Whole(From::Somebody, whole),
        _ => return Header::Malformed,
    };
    Header::Whole(From::Address(source), whole)
}
