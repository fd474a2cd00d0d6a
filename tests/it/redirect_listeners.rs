//! Listeners without TLS beside those with it: they send everybody to https, and serve nothing.

use crate::harness::{
    Gateway, RawClient, Setup,
    certificates::{Authority, Folder, TlsClient},
    client::Response,
    h2_client::H2Client,
};

struct Site {
    gateway: Gateway,
    authority: Authority,
    _folder: Folder,
}

async fn site() -> Site {
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let pair = folder.pair("site", &authority.issue(&["app.example.com"]));
    let toml = format!(
        "[server]\npublic_url = 'https://app.example.com:8443'\nhosts = ['other.example.com']\n\
         [server.tls]\nredirect_from = ['127.0.0.1:0']\n{pair}"
    );
    Site {
        gateway: Setup::default().with(&toml).start().await,
        authority,
        _folder: folder,
    }
}

async fn ask(site: &Site, request: &str) -> Response {
    let mut client = RawClient::connect(site.gateway.addrs()[1]).await;
    client.send(request).await;
    client.answer().await
}

#[tokio::test]
async fn everybody_is_sent_to_https() {
    let site = site().await;
    for (host, target, location) in [
        ("app.example.com", "/a?b=c", "https://app.example.com:8443/a?b=c"),
        ("APP.example.com:80", "/", "https://app.example.com:8443/"),
        ("other.example.com", "/x/../y%2e", "https://other.example.com/y."),
        (
            "other.example.com:8080",
            "/api/auth/session",
            "https://other.example.com/api/auth/session",
        ),
    ] {
        let answer = ask(&site, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status(), 308, "{host}");
        assert_eq!(answer.head.one("location"), Some(location));
    }
    let posted = ask(
        &site,
        "POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 2\r\n\r\nhi",
    )
    .await;
    assert_eq!(posted.status(), 308);
    assert_eq!(site.gateway.upstream().requests().len(), 0);
    let client = TlsClient::trusting(&site.authority);
    let answer = client
        .get(site.gateway.addr(), "app.example.com", "/public/x", "")
        .await;
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn nobody_is_sent_to_a_host_that_is_not_served() {
    let site = site().await;
    for host in ["evil.example", "app.example.com.evil.example", "127.0.0.1"] {
        let answer = ask(&site, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.head.one("location")), (421, None), "{host}");
    }
    let odd = ask(&site, "GET //evil.example/ HTTP/1.1\r\nHost: app.example.com\r\n\r\n").await;
    assert_eq!(
        odd.head.one("location"),
        Some("https://app.example.com:8443/evil.example/")
    );
}

#[tokio::test]
async fn http_2_is_sent_there_too() {
    let site = site().await;
    let client = H2Client::connect(site.gateway.addrs()[1], "app.example.com").await;
    let answer = client.get("/public/x").await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.headers["location"], "https://app.example.com:8443/public/x");
}
