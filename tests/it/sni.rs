//! Which certificate a client is shown, and which hosts it may ask for on that connection.

use crate::harness::{
    Gateway, Setup,
    certificates::{Authority, Folder, Pair, TlsClient, get_on},
    h2_client::H2Client,
};

struct Site {
    authority: Authority,
    first: Pair,
    other: Pair,
    wild: Pair,
    gateway: Gateway,
    _folder: Folder,
}

async fn site() -> Site {
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let first = authority.issue(&["app.example.com", "admin.example.com"]);
    let other = authority.issue(&["other.example.com"]);
    let wild = authority.issue(&["*.wild.example.com"]);
    let toml = format!(
        "[server]\nhosts = ['*']\n[server.tls]\n{}[[server.tls.certificates]]\n{}[[server.tls.certificates]]\n{}",
        folder.pair("first", &first),
        folder.pair("other", &other),
        folder.pair("wild", &wild),
    );
    Site {
        gateway: Setup::default().with(&toml).start().await,
        authority,
        first,
        other,
        wild,
        _folder: folder,
    }
}

#[tokio::test]
async fn the_certificate_is_the_one_for_the_host() {
    let site = site().await;
    let client = TlsClient::trusting(&site.authority);
    for (host, pair) in [
        ("app.example.com", &site.first),
        ("APP.example.com", &site.first),
        ("admin.example.com", &site.first),
        ("other.example.com", &site.other),
        ("a.wild.example.com", &site.wild),
    ] {
        let stream = client.connect(site.gateway.addr(), host).await.unwrap();
        assert!(
            stream.get_ref().1.peer_certificates().unwrap()[0] == pair.der(),
            "{host}"
        );
    }
    for host in ["stranger.example.com", "wild.example.com", "a.b.wild.example.com"] {
        let refused = client.connect(site.gateway.addr(), host).await.unwrap_err();
        assert!(
            refused.to_string().contains("not valid for name"),
            "{host} is shown the first: {refused}"
        );
    }
}

#[tokio::test]
async fn a_connection_is_for_the_hosts_of_its_certificate() {
    let site = site().await;
    let addr = site.gateway.addr();
    let client = TlsClient::trusting(&site.authority);
    for (asked, host, status) in [
        ("app.example.com", "app.example.com", 200),
        ("app.example.com", "admin.example.com", 200),
        ("app.example.com", "other.example.com", 421),
        ("app.example.com", "stranger.example.com", 421),
        ("other.example.com", "app.example.com", 421),
        ("a.wild.example.com", "b.wild.example.com", 200),
        ("a.wild.example.com", "app.example.com", 421),
        ("other.example.com", "OTHER.example.com.", 200),
    ] {
        let stream = client.connect(addr, asked).await.unwrap();
        let answer = get_on(stream, host, "/public/x", "").await.unwrap();
        assert_eq!(answer.status(), status, "{host} where {asked} was asked for");
    }
    assert_eq!(site.gateway.upstream().requests().len(), 4);
}

#[tokio::test]
async fn http_2_connections_are_coalesced_only_where_the_certificate_allows() {
    let site = site().await;
    let client = TlsClient::trusting(&site.authority).offering(&["h2"]);
    let stream = client.connect(site.gateway.addr(), "app.example.com").await.unwrap();
    let (client, _) = H2Client::over(stream, "https://app.example.com").await;
    let with = |authority: &str| {
        let uri = format!("https://{authority}/public/x");
        let request = http::Request::get(uri).version(http::Version::HTTP_2);
        client.send(request.body(http_body_util::Full::default()).unwrap())
    };
    assert_eq!(with("app.example.com").await.unwrap().status, 200);
    assert_eq!(with("admin.example.com").await.unwrap().status, 200);
    let foreign = with("other.example.com").await.unwrap();
    assert_eq!(
        (foreign.status, foreign.code()),
        (421, "MISDIRECTED_REQUEST".to_owned())
    );
    // The stream is refused, the connection is not.
    assert_eq!(with("app.example.com").await.unwrap().status, 200);
}
