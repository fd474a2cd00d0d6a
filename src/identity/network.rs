//! Whom an address stands for, where somebody is counted who has not said who they are.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// Whom an address stands for: itself, or of IPv6 its /64, which is the least that anybody is given.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Network(IpAddr);

impl Network {
    pub fn of(addr: IpAddr) -> Self {
        const OF_64: u128 = u128::MAX << 64;
        Self(match addr.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & OF_64)),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "{v4}"),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}
