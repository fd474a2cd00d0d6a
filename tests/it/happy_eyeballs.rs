//! A name with several addresses works as long as one of them does (RFC 8305).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::lookup_host;

use crate::harness::{Setup, backend::Backend};

#[tokio::test]
async fn a_name_is_reached_whichever_of_its_addresses_listens() {
    let known: Vec<SocketAddr> = lookup_host(("localhost", 80)).await.unwrap().collect();
    let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut reached = 0;
    // Nobody listens on the other one.
    for ip in loopbacks
        .into_iter()
        .filter(|ip| known.iter().any(|addr| addr.ip() == *ip))
    {
        let Ok(listener) = tokio::net::TcpListener::bind((ip, 0)).await else {
            continue;
        };
        let backend = Backend::listening("app", listener);
        let endpoint = format!("http://localhost:{}", backend.addr().port());
        let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
        assert_eq!(gateway.get("/public/x").await.status(), 200, "{ip}");
        reached += 1;
    }
    assert!(reached > 0, "localhost is {known:?}");
}
