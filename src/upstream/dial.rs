//! A TCP connection to one of several addresses: Happy Eyeballs (RFC 8305).
//!
//! Address families take turns; the next address is tried when the one before fails, or has had its head start. The
//! first that connects wins, the rest is dropped. A host whose IPv6 is broken so costs a quarter of a second, not a
//! time-out.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{net::TcpStream, time::sleep};

/// RFC 8305, 8: the Connection Attempt Delay that is recommended.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to one of `addresses`. Without an end of its own: the caller has one. Cancel-safe.
pub(super) async fn first_of(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    if let [only] = addresses {
        return TcpStream::connect(only).await.map(|stream| (stream, *only));
    }
    let mut waiting = alternating(addresses).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failure = None;
    loop {
        match waiting.next() {
            Some(addr) => trying.push(async move { (TcpStream::connect(addr).await, addr) }),
            None if trying.is_empty() => {
                let nobody = || io::Error::new(io::ErrorKind::NotFound, "there is no address");
                return Err(failure.unwrap_or_else(nobody));
            }
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some((outcome, addr)) = trying.next() => match outcome {
                Ok(stream) => return Ok((stream, addr)),
                Err(error) => failure = Some(error),
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

/// The families in turn, beginning with that of the first: the resolver has put the best first (RFC 8305, 4).
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let v6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(|addr| addr.is_ipv6() == v6_first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        let before = ordered.len();
        ordered.extend(one.next());
        ordered.extend(other.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use socket2::{Domain, Socket, Type};
    use tokio::{net::TcpListener, time::timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// An address at which connecting neither succeeds nor fails: its queue is full and nobody takes from it.
    async fn silent() -> (SocketAddr, Vec<TcpStream>, Socket) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(addr)).await {
            filling.push(stream.unwrap());
        }
        (addr, filling, socket)
    }

    /// An address at which nobody listens.
    async fn refusing() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_does_not_hold_up_the_next() {
        let (silent, _filling, _socket) = silent().await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let good = listener.local_addr().unwrap();
        let (_, reached) = timeout(SOON, first_of(&[silent, good])).await.unwrap().unwrap();
        assert_eq!(reached, good);
    }

    #[tokio::test]
    async fn addresses_that_refuse_are_passed_over() {
        let (one, two) = (refusing().await, refusing().await);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let good = listener.local_addr().unwrap();
        let (_, reached) = first_of(&[one, two, good]).await.unwrap();
        assert_eq!(reached, good);
        let error = first_of(&[one, two]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_of(&[]).await.is_err());
    }

    #[test]
    fn families_take_turns_and_none_is_lost() {
        let parsed = |list: &[&str]| {
            list.iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<SocketAddr>>()
        };
        let addresses = parsed(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"]);
        assert_eq!(
            alternating(&addresses),
            parsed(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"])
        );
        let addresses = parsed(&["10.0.0.1:1", "10.0.0.2:1", "[::1]:1"]);
        assert_eq!(
            alternating(&addresses),
            parsed(&["10.0.0.1:1", "[::1]:1", "10.0.0.2:1"])
        );
    }
}
