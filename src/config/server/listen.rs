//! Where the gateway takes connections, and whose word about their clients it takes.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net};

use crate::config::{
    found::Wrong,
    kind::{Kind, parsed},
    section::Section,
};

/// The kernel keeps a socket's path in so many bytes, and a zero behind it.
const MAX_SOCKET_PATH: usize = 107;
/// 0, 1 and 2 are standard input, output and error.
const FIRST_FD: u32 = 3;

/// One of `server.listen`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Listen {
    Tcp(SocketAddr),
    /// A socket of the file system, by its absolute path. Never TLS.
    Unix(PathBuf),
    /// A socket that whoever started the gateway has opened: by its name (systemd's `FileDescriptorName`), or its
    /// number from 3 on.
    Fd(String),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(name) => write!(f, "fd:{name}"),
        }
    }
}

pub(super) fn listen() -> Kind<Listen> {
    parsed(
        "an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\", \"unix:/run/vestibule/http.sock\", or \
         \"fd:NAME\" of a socket that the service manager opened",
        |text| {
            if let Some(path) = text.strip_prefix("unix:") {
                return unix(path);
            }
            if let Some(name) = text.strip_prefix("fd:") {
                return fd(name);
            }
            tcp(text).map(Listen::Tcp)
        },
    )
}

/// `"127.0.0.1:8080"`. Names are not looked up: what they stand for may change under the gateway.
pub(super) fn socket_addr() -> Kind<SocketAddr> {
    parsed(
        "an IP address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
        tcp,
    )
}

fn tcp(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let problem = "not an IP address and port";
    let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
    let Ok(port) = port.parse::<u16>() else {
        return Err(problem.into());
    };
    let addr = if text.starts_with("localhost") {
        "127.0.0.1"
    } else {
        "0.0.0.0"
    };
    Err(Wrong::but(problem, format!("{addr}:{port}")))
}

fn unix(path: &str) -> Result<Listen, Wrong> {
    if !path.starts_with('/') {
        let problem = "not an absolute path: where it leads would depend on the folder that the gateway is started in";
        return Err(Wrong::but(
            problem,
            format!("unix:/run/{}", path.trim_start_matches(['.', '/'])),
        ));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err("not the path of a file".into());
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!("longer than the {MAX_SOCKET_PATH} bytes that a socket's path may have").into());
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

fn fd(name: &str) -> Result<Listen, Wrong> {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    if name.is_empty() || name.len() > 255 || !name.bytes().all(of_name) {
        return Err("not the name of a file descriptor: letters, digits and any of -_.@".into());
    }
    if name.parse::<u32>().is_ok_and(|number| number < FIRST_FD) {
        return Err(Wrong::but(
            "standard input, output and error are no sockets to listen on",
            format!("fd:{FIRST_FD}"),
        ));
    }
    Ok(Listen::Fd(name.to_owned()))
}

/// The prefix of the widest networks that are set aside for private use: 10.0.0.0/8 (RFC 1918), fc00::/7 (RFC 4193).
const fn widest(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 7,
    }
}

/// A network of `::ffff:0:0/96` as what it is.
fn mapped(net: &IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return None };
    let prefix = v6.prefix_len().checked_sub(96)?;
    Ipv4Net::new(v6.addr().to_ipv4_mapped()?, prefix).ok().map(IpNet::V4)
}

/// Whether whoever listens at `ip` can be reached from beyond the networks that are somebody's own. All addresses of
/// a machine (`0.0.0.0`) may be any.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // RFC 6598: between a provider and its customers.
            let is_shared = matches!(ip.octets(), [100, 64..=127, _, _]);
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

/// A network, or `None` for the peers of unix sockets.
pub(super) fn trusted_proxy() -> Kind<Option<IpNet>> {
    parsed(
        "a network such as \"10.0.0.0/8\", one address, or \"unix\" for the peers of unix sockets",
        |text| {
            if text == "unix" {
                return Ok(None);
            }
            let net = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
                (Ok(net), _) => net,
                (_, Ok(addr)) => IpNet::from(addr),
                _ => return Err("not a network".into()),
            };
            if net.prefix_len() == 0 {
                return Err("trusts everybody: any client could say who it is; list your proxies".into());
            }
            if net.prefix_len() < widest(&net) {
                return Err(
                    "wider than any network of one's own: strangers in it could say who they are; list your \
                            proxies"
                        .into(),
                );
            }
            if net.trunc() != net {
                return Err(Wrong::but("bits are set behind the prefix", net.trunc().to_string()));
            }
            if let Some(v4) = mapped(&net) {
                let problem = "IPv4 in the form of IPv6, in which no address is compared";
                return Err(Wrong::but(problem, v4.to_string()));
            }
            Ok(Some(net))
        },
    )
}

/// Reports addresses of `key` at which the connections of another could arrive: of `before`, or earlier in the list.
pub(super) fn report_clashes(s: &Section<'_>, key: &str, listen: &[Listen], before: &[Listen]) {
    for (index, one) in listen.iter().enumerate() {
        let earlier = before.iter().chain(listen.iter().take(index));
        if let Some(other) = earlier.into_iter().find(|other| one.clashes(other)) {
            let problem = if one == other {
                "listed twice".to_owned()
            } else {
                format!("clashes with {other}")
            };
            s.report(
                s.wrong(key, problem)
                    .found(one.to_string())
                    .allowed("each address once"),
            );
        }
    }
}

impl Listen {
    /// Whether connections to one could arrive at the other.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => clash(*one, *other),
            _ => self == other,
        }
    }
}

/// Port 0 is a new one each time.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let (ip, other) = (a.ip(), b.ip());
    let same_ip = ip == other || (ip.is_ipv4() == other.is_ipv4() && (ip.is_unspecified() || other.is_unspecified()));
    a.port() != 0 && a.port() == b.port() && same_ip
}
