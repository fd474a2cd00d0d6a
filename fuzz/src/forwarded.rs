//! Property: who calls, and for which host, is whom the oracle says, whatever headers say it; a stranger's word counts for
//! nothing, and a trusted proxy's only where it is the nearest. The input is a request as HTTP/1.1 has it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::OnceLock,
};

use oracle::{
    client::{self as slow, BadCaller},
    http1::{self, Read},
};
use vestibule::policy::{
    client::{self as fast, ClientRules, HostError, Scheme},
    connection::{Connection, Peer},
};

use super::{configured, world};

const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub fn holds(input: &[u8]) {
    static RULES: OnceLock<ClientRules> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let proxies = "trusted_proxies = ['10.0.0.0/8', 'fd00::/8']";
        let config = configured::parse_with(proxies, &world::toml(&world::routes()));
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        ClientRules::new(&config)
    });
    let Read::Whole(request, _) = http1::read(input) else {
        return;
    };
    let (Some(head), Some((authority, _))) = (configured::head(&request), slow::split_target(&request.target)) else {
        return;
    };
    let mut trust = world::world(Vec::new()).trust;
    trust.proxies = vec![
        (Ipv4Addr::new(10, 0, 0, 0).into(), 8),
        ("fd00::".parse().expect("an address"), 8),
    ];
    for peer in [NEAR, FAR] {
        let due = slow::judge(peer, request.old, authority.as_ref(), &request.fields, &trust);
        let connection = Connection::plain(Peer::Ip(peer));
        let came = fast::judge(&connection, head.version, &head.uri, &head.headers, rules);
        match (came, due) {
            (Ok(came), Ok(due)) => {
                assert_eq!(came.host.value().as_bytes(), due.host.text().as_bytes(), "{request:?}");
                assert_eq!(
                    (came.host.name(), came.addr),
                    (due.host.name.as_str(), due.address),
                    "{request:?}"
                );
                assert_eq!(came.scheme == Scheme::Https, due.https, "{request:?}");
                assert_eq!(came.trusted_peer, peer == NEAR);
            }
            (Err(HostError::Bad), Err(BadCaller::Host))
            | (Err(HostError::Misdirected), Err(BadCaller::Misdirected)) => {}
            (came, due) => panic!("{came:?} rather than {due:?} of {request:?}"),
        }
    }
}
