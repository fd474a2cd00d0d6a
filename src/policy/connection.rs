//! What is known of a client's connection before its first request: found out once, shared by all its requests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The facts of one connection.
#[derive(Debug)]
pub struct Connection {
    pub peer: Peer,
}

/// The other end of a connection, as far as it has a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Never an IPv4 address dressed up as IPv6: those would not be found in the networks of a configuration.
    Ip(IpAddr),
    /// A process of this machine, at a unix socket.
    Unix,
}

impl Peer {
    pub fn of(addr: SocketAddr) -> Self {
        Self::Ip(addr.ip().to_canonical())
    }

    /// Its address. A unix peer has none, and is counted and logged as `0.0.0.0`, which nobody can call from.
    pub const fn addr(self) -> IpAddr {
        match self {
            Self::Ip(addr) => addr,
            Self::Unix => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}
