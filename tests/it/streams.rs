//! Which streams end, and when: whatever becomes of a session reaches what began in it.

use std::time::Duration;

use tokio::{io::AsyncReadExt, time::timeout};

use crate::harness::{
    Database, Gateway, RawClient, SOON, Setup, eventually,
    people::User,
    relay::{Relay, Whom},
    upstream::Conversation,
};

const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A socket that stands, both of its ends.
async fn socket(gateway: &Gateway, path: &str, user: Option<&User>) -> (RawClient, Conversation) {
    let mut ends = asked(gateway, path, user).await;
    agree(&mut ends).await;
    ends
}

/// One that the application was asked for, and has not agreed to.
async fn asked(gateway: &Gateway, path: &str, user: Option<&User>) -> (RawClient, Conversation) {
    let cookie = user.map(|user| format!("Cookie: {}\r\n", user.cookie));
    let cookie = cookie.unwrap_or_default();
    asked_as(gateway, path, (gateway.host(), gateway.site(), &cookie)).await
}

/// Of a host, from a page of an origin, with a line for the credential.
async fn asked_as(
    gateway: &Gateway,
    path: &str,
    (host, origin, credential): (&str, &str, &str),
) -> (RawClient, Conversation) {
    let mut conversations = gateway.upstream().by_hand(path);
    let mut client = gateway.raw().await;
    client
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{credential}\
             Origin: {origin}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ))
        .await;
    let upstream = conversations.next().await;
    (client, upstream)
}

async fn agree((client, upstream): &mut (RawClient, Conversation)) {
    upstream.send(AGREED).await;
    assert_eq!(client.head().await.status(), 101);
}

/// Whether bytes still pass.
async fn stands((client, upstream): &mut (RawClient, Conversation)) -> bool {
    let mut byte = [0];
    upstream.send("x").await;
    matches!(timeout(SOON, client.stream.read(&mut byte)).await, Ok(Ok(1)))
}

async fn is_closed((client, _): &mut (RawClient, Conversation)) -> bool {
    client.is_closed().await
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let metrics = gateway.admin_get("/metrics").await;
    let lines = metrics.text().lines().filter_map(|line| line.strip_prefix(name));
    lines.filter_map(|value| value.trim().parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn what_is_done_by_hand_in_the_database_ends_streams() {
    for statement in [
        "UPDATE user_sessions SET revoked_at = now() WHERE user_id = (SELECT id FROM users WHERE email LIKE 'ada%')",
        "DELETE FROM users WHERE email LIKE 'ada%'",
        "UPDATE users SET banned = true WHERE email LIKE 'ada%'",
    ] {
        let gateway = Gateway::start().await;
        let ada = gateway.signed_in("ada@example.com").await;
        let bob = gateway.signed_in("bob@example.com").await;
        let mut own = socket(&gateway, "/api/ada", Some(&ada)).await;
        let mut other = socket(&gateway, "/api/bob", Some(&bob)).await;
        let mut nobodys = socket(&gateway, "/public/ws", None).await;
        assert_eq!(metric(&gateway, "vestibule_open_streams").await, 3);
        gateway.db().run(statement).await;
        assert!(is_closed(&mut own).await, "{statement}");
        assert!(stands(&mut other).await && stands(&mut nobodys).await, "{statement}");
        eventually(SOON, async || metric(&gateway, "vestibule_open_streams").await == 2).await;
        let closed = metric(&gateway, "vestibule_streams_closed_total{reason=\"revoked\"}").await;
        assert_eq!(closed, 1, "{statement}");
    }
}

/// An application that was asked for a WebSocket may answer with a stream of events instead.
#[tokio::test]
async fn ws_02_events_in_place_of_a_socket_end_with_the_session_and_not_before() {
    let gateway = Setup::default()
        .with("[upstreams.app]\nresponse_timeout = '500ms'")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (mut client, mut upstream) = asked(&gateway, "/api/events", Some(&ada)).await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        .await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(metric(&gateway, "vestibule_open_streams").await, 1);
    // It may be silent for longer than an answer.
    tokio::time::sleep(Duration::from_millis(800)).await;
    upstream.send("data: 2\n\n").await;
    let second = async {
        let (mut read, mut piece) = (String::new(), [0; 64]);
        while !read.contains("data: 2") {
            let count = client.stream.read(&mut piece).await.unwrap();
            assert_ne!(count, 0, "it ends after {read:?}");
            read.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    };
    timeout(SOON, second).await.unwrap();
    gateway.db().run("UPDATE users SET banned = true").await;
    client.rest().await;
    let closed = metric(&gateway, "vestibule_streams_closed_total{reason=\"revoked\"}").await;
    assert_eq!(closed, 1);
}

#[tokio::test]
async fn a_sign_out_elsewhere_ends_streams_here() {
    let db = Database::fresh().await;
    let (here, there) = (Gateway::on(&db).await, Gateway::on(&db).await);
    let ada = here.signed_in("ada@example.com").await;
    let mut open = socket(&here, "/api/ws", Some(&ada)).await;
    there.sign_out(&ada).await;
    assert!(is_closed(&mut open).await);
}

#[tokio::test]
async fn an_upstream_that_ends_a_session_ends_its_streams() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut open = socket(&gateway, "/api/ws", Some(&ada)).await;
    let answer = "HTTP/1.1 200 OK\r\nX-Vestibule-Sign-Out: user\r\nContent-Length: 0\r\n\r\n";
    gateway.upstream().answer("/api/leave", answer);
    assert_eq!(gateway.get("/api/leave").with(&ada).await.status(), 200);
    assert!(is_closed(&mut open).await);
}

#[tokio::test]
async fn a_role_that_is_taken_away_ends_what_it_was_needed_for() {
    let gateway = Gateway::start().await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    let mut admins = socket(&gateway, "/admin/ws", Some(&root)).await;
    let mut anybodys = socket(&gateway, "/api/ws", Some(&root)).await;
    gateway.db().run("UPDATE users SET name = 'Somebody Else'").await;
    assert!(stands(&mut admins).await, "a name is no right");
    gateway.db().run("UPDATE users SET roles = '{}'").await;
    assert!(is_closed(&mut admins).await);
    assert!(stands(&mut anybodys).await);
    let closed = metric(&gateway, "vestibule_streams_closed_total{reason=\"not-allowed\"}").await;
    assert_eq!(closed, 1);
}

/// The cache has the session as it is now when the stream begins: that is not the one that its request came with.
#[tokio::test]
async fn a_role_that_is_taken_away_before_the_application_agrees_counts() {
    let gateway = Gateway::start().await;
    let root = gateway.signed_in_as("root@example.com", &["admin"]).await;
    eventually(SOON, async || {
        gateway.admin_get("/readyz").await.json().get("degraded").is_none()
    })
    .await;
    let mut admins = asked(&gateway, "/admin/ws", Some(&root)).await;
    let mut anybodys = asked(&gateway, "/api/ws", Some(&root)).await;
    gateway.db().run("UPDATE users SET roles = '{}'").await;
    eventually(SOON, async || gateway.get("/admin/x").with(&root).await.status() == 403).await;
    agree(&mut admins).await;
    agree(&mut anybodys).await;
    assert!(is_closed(&mut admins).await);
    assert!(stands(&mut anybodys).await);
    let closed = metric(&gateway, "vestibule_streams_closed_total{reason=\"not-allowed\"}").await;
    assert_eq!(closed, 1);
}

#[tokio::test]
async fn streams_end_when_the_sessions_time_is_over_unless_it_was_extended() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    let mut unused = socket(&gateway, "/api/ada", Some(&ada)).await;
    let mut used = socket(&gateway, "/api/bob", Some(&bob)).await;
    gateway.clock().advance(Duration::from_hours(2 * 24));
    // Slides the expiry; nobody waits for that.
    assert_eq!(gateway.get("/api/x").with(&bob).await.status(), 200);
    let extended = "SELECT count(*) FROM user_sessions WHERE expires_at > '2026-11-29'";
    eventually(SOON, async || gateway.db().count(extended).await == 1).await;
    gateway.clock().advance(Duration::from_hours(5 * 24));
    assert!(is_closed(&mut unused).await);
    assert!(stands(&mut used).await);
}

#[tokio::test]
async fn what_ended_while_nobody_heard_of_it_counts_afterwards() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    let mut own = socket(&gateway, "/api/ada", Some(&ada)).await;
    let mut other = socket(&gateway, "/api/bob", Some(&bob)).await;
    gateway.db().shut().await;
    assert!(
        stands(&mut own).await && stands(&mut other).await,
        "an outage ends nobody's stream"
    );
    gateway.db().reopen().await;
    // As if it had been done while the gateway was deaf.
    gateway
        .db()
        .run_untold("DELETE FROM user_sessions WHERE user_id = (SELECT id FROM users WHERE email LIKE 'ada%')")
        .await;
    gateway.db().shut().await;
    gateway.db().reopen().await;
    assert!(is_closed(&mut own).await);
    assert!(stands(&mut other).await);
}

/// With the triggers off, say.
#[tokio::test]
async fn what_nobody_tells_of_ends_streams_when_the_cache_s_time_is_over() {
    let gateway = Setup::default().with("[auth.session.cache]\nttl = '1s'").start().await;
    gateway.hears().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    let mut own = socket(&gateway, "/api/ada", Some(&ada)).await;
    let mut other = socket(&gateway, "/api/bob", Some(&bob)).await;
    gateway
        .db()
        .run_untold("DELETE FROM user_sessions WHERE user_id = (SELECT id FROM users WHERE email LIKE 'ada%')")
        .await;
    assert!(is_closed(&mut own).await);
    assert!(stands(&mut other).await);
    assert_eq!(gateway.degraded().await, "", "it hears");
    let closed = metric(&gateway, "vestibule_streams_closed_total{reason=\"revoked\"}").await;
    assert_eq!(closed, 1);
}

/// Deaf for good: the way past a pooler is blocked, say, while the one through it is open.
#[tokio::test]
async fn what_ends_while_nobody_can_hear_of_it_ends_streams_too() {
    let db = Database::fresh().await;
    let (past, by_past) = Relay::before(&db).await;
    let toml = format!(
        "[database]\nlisten_url = '{}'\n[auth.session.cache]\nttl = '1s'",
        by_past.url()
    );
    let gateway = Setup::default().with(&toml).start_on(&db).await;
    gateway.hears().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    let mut own = socket(&gateway, "/api/ada", Some(&ada)).await;
    let mut other = socket(&gateway, "/api/bob", Some(&bob)).await;
    past.refuse();
    past.cut(Whom::All);
    eventually(SOON, async || gateway.degraded().await.contains("not heard")).await;
    db.run("DELETE FROM users WHERE email LIKE 'ada%'").await;
    assert!(is_closed(&mut own).await);
    assert!(stands(&mut other).await);
    assert!(gateway.degraded().await.contains("not heard"));
}

const FOR_ADMINS: &str = "require = { roles = ['admin'] }";

fn routes(of_public: &str, of_api: &str) -> String {
    format!(
        "[[routes]]\npath = '/public/*'\nupstream = 'app'\n{of_public}\n\
         [[routes]]\npath = '/api/*'\nupstream = 'app'\n{of_api}"
    )
}

#[tokio::test]
async fn a_reload_ends_what_it_no_longer_allows_and_nothing_else() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut own = socket(&gateway, "/api/ada", Some(&ada)).await;
    let mut nobodys = socket(&gateway, "/public/ws", None).await;
    let other_limits = "[server]\nmax_body = '5MiB'\n[upstreams.app]\nresponse_timeout = '7s'";
    gateway.reload(other_limits).await.unwrap();
    assert!(stands(&mut own).await && stands(&mut nobodys).await);

    gateway.reload(&routes("auth = 'public'", FOR_ADMINS)).await.unwrap();
    assert!(is_closed(&mut own).await);
    assert!(stands(&mut nobodys).await);
    gateway.reload(&routes("", FOR_ADMINS)).await.unwrap();
    assert!(is_closed(&mut nobodys).await);
    let closed = |reason: &str| format!("vestibule_streams_closed_total{{reason=\"{reason}\"}}");
    assert_eq!(metric(&gateway, &closed("not-allowed")).await, 1);
    assert_eq!(metric(&gateway, &closed("reloaded")).await, 1);
}

/// Requests are finished by the rules that they came under; what goes on after that is not.
#[tokio::test]
async fn a_reload_counts_for_what_the_application_had_not_agreed_to_before() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let before = async || {
        let own = asked(&gateway, "/api/ada", Some(&ada)).await;
        (own, asked(&gateway, "/public/ws", None).await)
    };
    let (mut own, mut nobodys) = before().await;
    gateway.reload("[server]\nmax_body = '5MiB'").await.unwrap();
    for ends in [&mut own, &mut nobodys] {
        agree(ends).await;
        assert!(stands(ends).await, "a new one would be let through");
    }
    drop((own, nobodys));

    let (mut own, mut nobodys) = before().await;
    gateway.reload(&routes("", FOR_ADMINS)).await.unwrap();
    for ends in [&mut own, &mut nobodys] {
        agree(ends).await;
        assert!(is_closed(ends).await);
    }
    let closed = |reason: &str| format!("vestibule_streams_closed_total{{reason=\"{reason}\"}}");
    assert_eq!(metric(&gateway, &closed("not-allowed")).await, 1);
    assert_eq!(metric(&gateway, &closed("reloaded")).await, 1);
}

#[tokio::test]
async fn a_reload_ends_what_was_asked_for_in_a_way_that_no_longer_counts() {
    let setup = "
        auth = { trusted_origins = ['https://partner.example'] }
        server = { hosts = ['other.example.com'] }
        routes = [
            { path = '/api/*', upstream = 'app' },
            { path = '/shared/*', upstream = 'app', cors = ['https://shop.example'] },
        ]";
    let gateway = Setup::default().with(setup).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (host, site) = (gateway.host(), gateway.site());
    let cookie = format!("Cookie: {}\r\n", ada.cookie);
    let bearer = format!("Authorization: Bearer {}\r\n", ada.token);
    let stood = async |path, host, origin, credential: &str| {
        let mut ends = asked_as(&gateway, path, (host, origin, credential)).await;
        agree(&mut ends).await;
        ends
    };
    let mut own = stood("/api/own", host, site, &cookie).await;
    let mut partners = stood("/api/partner", host, "https://partner.example", &cookie).await;
    let mut shops = stood("/shared/shop", host, "https://shop.example", &cookie).await;
    let mut elsewhere = stood("/api/elsewhere", "other.example.com", site, &cookie).await;
    // No browser sends it by itself, and nobody signed it.
    let mut programs = stood("/api/program", host, "https://evil.example", &bearer).await;

    gateway.reload("[server]\nmax_body = '5MiB'").await.unwrap();
    for ends in [&mut own, &mut partners, &mut shops, &mut elsewhere, &mut programs] {
        assert!(stands(ends).await);
    }
    gateway.reload("[auth]\ntrusted_origins = []").await.unwrap();
    assert!(is_closed(&mut partners).await);
    for ends in [&mut own, &mut shops, &mut elsewhere, &mut programs] {
        assert!(stands(ends).await);
    }
    let nobodys = "routes = [
        { path = '/api/*', upstream = 'app' },
        { path = '/shared/*', upstream = 'app', cors = [] },
    ]";
    gateway.reload(nobodys).await.unwrap();
    assert!(is_closed(&mut shops).await);
    assert!(stands(&mut own).await && stands(&mut elsewhere).await && stands(&mut programs).await);
    gateway.reload("[server]\nhosts = []").await.unwrap();
    assert!(is_closed(&mut elsewhere).await);
    assert!(stands(&mut own).await && stands(&mut programs).await);

    let (old, new) = (
        "a secret that only the tests use, and only here",
        "another secret that only the tests use, longer than 32",
    );
    let both = format!("[auth]\nsecret = ['{new}', '{old}']");
    gateway.reload(&both).await.unwrap();
    assert!(stands(&mut own).await && stands(&mut programs).await);
    gateway.reload(&format!("[auth]\nsecret = '{new}'")).await.unwrap();
    assert!(is_closed(&mut own).await);
    assert!(stands(&mut programs).await);
    assert_eq!(
        metric(&gateway, "vestibule_streams_closed_total{reason=\"reloaded\"}").await,
        4
    );
}
