//! Sessions by device and place: what people are shown of where they are signed in, and what they can do with it.

use std::{fs, future::poll_fn, net::IpAddr, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};
use vestibule::session::geo::Places;

use crate::harness::{
    Database, Gateway, Setup,
    client::Response,
    mailbox::Mailbox,
    people::{PASSWORD, User},
    places_file::places_file,
    program::run,
    upstream::Upstream,
};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/17.5 Mobile/15E148 Safari/604.1";

fn place(country: &str, city: &str) -> Value {
    json!({ "country": { "iso_code": country }, "city": { "names": { "de": "anders", "en": city } } })
}

/// A file of places in a folder of its own.
fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let networks = [
        ("203.0.113.0/24", place("SE", "Linköping")),
        ("198.51.100.0/25", place("JP", "Tokyo")),
        ("2001:db8::/32", place("DE", "Berlin")),
        ("192.0.2.0/24", json!({ "country": { "iso_code": "NO" } })),
        ("10.0.0.0/8", place("XX", "Nowhere")),
    ];
    fs::write(folder.path().join("places.mmdb"), places_file(&networks)).unwrap();
    folder
}

/// Behind a proxy that is believed, with a file of places.
fn behind_proxy(folder: &TempDir) -> Setup {
    let file = folder.path().join("places.mmdb");
    Setup::default().with(&format!(
        "[server]\ntrusted_proxies = ['127.0.0.0/8']\n[auth.session]\ngeo_database = '{}'",
        file.display()
    ))
}

/// Somebody whose address is verified signs in with a browser, from an address.
async fn sign_in(gateway: &Gateway, email: &str, user_agent: &str, from: &str) -> User {
    let body = json!({ "email": email, "password": PASSWORD });
    let call = gateway.post("/api/auth/sign-in/email").json(&body);
    let call = call.header("User-Agent", user_agent).header("X-Forwarded-For", from);
    User::of(gateway, &call.await)
}

async fn sessions(gateway: &Gateway, user: &User) -> Vec<Value> {
    let answer = gateway.get("/api/auth/list-sessions").with(user).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json().as_array().unwrap().clone()
}

#[tokio::test]
async fn sessions_are_listed_with_device_and_place_and_the_current_one_marked() {
    let folder = written();
    let gateway = behind_proxy(&folder).start().await;
    gateway.verified("ada@example.com").await;
    // The left end is what the client made up.
    let desk = sign_in(&gateway, "ada@example.com", FIREFOX, "198.51.100.1, 203.0.113.7").await;
    gateway.clock().advance(Duration::from_secs(1));
    let phone = sign_in(&gateway, "ada@example.com", IPHONE, "2001:db8::7").await;

    let list = sessions(&gateway, &phone).await;
    let told: Vec<_> = list
        .iter()
        .map(|it| {
            (
                &it["current"],
                &it["device"],
                &it["location"],
                &it["ipAddress"],
                &it["lastSeenAt"],
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                &json!(true),
                &json!({ "browser": "Safari", "os": "iOS", "kind": "mobile" }),
                &json!({ "country": "DE", "city": "Berlin" }),
                &json!("2001:db8::7"),
                &json!("2026-11-21T08:00:01.000Z"),
            ),
            (
                &json!(false),
                &json!({ "browser": "Firefox", "os": "Linux", "kind": "desktop" }),
                &json!({ "country": "SE", "city": "Linköping" }),
                &json!("203.0.113.7"),
                &json!("2026-11-21T08:00:00.000Z"),
            ),
        ]
    );
    let list = sessions(&gateway, &desk).await;
    let current: Vec<_> = list.iter().map(|it| it["current"].as_bool().unwrap()).collect();
    assert_eq!(current, [false, true]);
}

#[tokio::test]
async fn other_endpoints_tell_the_contract_s_session_and_no_more() {
    let folder = written();
    let gateway = behind_proxy(&folder).start().await;
    gateway.verified("ada@example.com").await;
    let ada = sign_in(&gateway, "ada@example.com", FIREFOX, "203.0.113.7").await;
    let session = gateway.get("/api/auth/get-session").with(&ada).await.json()["session"].clone();
    for more in ["current", "device", "location", "lastSeenAt"] {
        assert!(session.get(more).is_none(), "{more}: {session}");
    }
}

#[tokio::test]
async fn what_is_not_known_of_a_session_is_null() {
    let folder = written();
    let gateway = behind_proxy(&folder).start().await;
    gateway.verified("ada@example.com").await;
    for (user_agent, from, device, location) in [
        (
            "curl/8.5.0",
            "192.0.2.1",
            json!({ "browser": "curl", "os": null, "kind": "other" }),
            json!({ "country": "NO", "city": null }),
        ),
        // The file has this one; but it is nobody's, and everybody's.
        (
            "",
            "10.1.2.3",
            json!({ "browser": null, "os": null, "kind": "other" }),
            Value::Null,
        ),
        (
            "",
            "198.51.100.200",
            json!({ "browser": null, "os": null, "kind": "other" }),
            Value::Null,
        ),
    ] {
        gateway.clock().advance(Duration::from_secs(1));
        let ada = sign_in(&gateway, "ada@example.com", user_agent, from).await;
        let current = sessions(&gateway, &ada).await[0].clone();
        assert_eq!(
            (&current["current"], &current["device"]),
            (&json!(true), &device),
            "{from}"
        );
        assert_eq!(current["location"], location, "{from}");
    }
}

#[tokio::test]
async fn without_a_file_sessions_have_no_place() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(sessions(&gateway, &ada).await[0]["location"], Value::Null);
}

#[tokio::test]
async fn an_address_from_a_client_that_nobody_trusts_is_not_believed() {
    let folder = written();
    let file = folder.path().join("places.mmdb");
    let over = format!("[auth.session]\ngeo_database = '{}'", file.display());
    let gateway = Setup::default().with(&over).start().await;
    gateway.verified("ada@example.com").await;
    let ada = sign_in(&gateway, "ada@example.com", FIREFOX, "203.0.113.7").await;
    let current = sessions(&gateway, &ada).await[0].clone();
    assert_eq!(
        (&current["ipAddress"], &current["location"]),
        (&json!("127.0.0.1"), &Value::Null)
    );
}

#[tokio::test]
async fn a_session_that_moves_is_shown_where_it_was_seen_last() {
    let folder = written();
    let db = Database::fresh().await;
    let gateway = behind_proxy(&folder).start_on(&db).await;
    gateway.verified("ada@example.com").await;
    let ada = sign_in(&gateway, "ada@example.com", FIREFOX, "203.0.113.7").await;
    gateway.clock().advance(Duration::from_mins(5));
    let clock = gateway.clock().clone();
    let used = gateway
        .get("/api/me")
        .with(&ada)
        .header("X-Forwarded-For", "198.51.100.9")
        .await;
    assert_eq!(used.status(), 200);
    // What waits is written at the stop at the latest.
    gateway.stop().await;

    let gateway = behind_proxy(&folder).clock(&clock).start_on(&db).await;
    let current = sessions(&gateway, &ada).await[0].clone();
    assert_eq!(current["location"], json!({ "country": "JP", "city": "Tokyo" }));
    assert_eq!(
        (&current["ipAddress"], &current["lastSeenAt"]),
        (&json!("198.51.100.9"), &json!("2026-11-21T08:05:00.000Z"))
    );
    assert_eq!(current["device"]["browser"], "Firefox");
}

#[tokio::test]
async fn a_move_tells_no_gateway_to_forget_the_session() {
    let db = Database::fresh().await;
    Gateway::on(&db).await.signed_in("ada@example.com").await;
    let (client, mut connection) = tokio_postgres::connect(db.url(), NoTls).await.unwrap();
    let (tell, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(heard) = message {
                tell.send(heard.payload().to_owned()).unwrap();
            }
        }
    });
    client.batch_execute("LISTEN vestibule_auth").await.unwrap();
    let moved = "UPDATE auth.user_sessions SET browser = 'x', os = 'x', device = 'bot', country = 'SE', city = 'x', \
                 ip_address = '::1'";
    assert_eq!(client.execute(moved, &[]).await.unwrap(), 1);
    client.batch_execute("NOTIFY vestibule_auth, 'the end'").await.unwrap();
    assert_eq!(heard.recv().await.as_deref(), Some("the end"));
}

#[tokio::test]
async fn a_listed_handle_ends_a_session_and_is_good_for_nothing_else() {
    let gateway = Gateway::start().await;
    let here = gateway.signed_in("ada@example.com").await;
    let there = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
    let list = sessions(&gateway, &here).await;
    let other = list.iter().find(|it| it["current"] == json!(false)).unwrap();
    let handle = other["token"].as_str().unwrap();
    assert_ne!(handle, there.token);

    let refused = |answer: &Response| answer.status() == 401;
    assert!(refused(&gateway.get("/api/me").bearer(handle).await));
    assert!(refused(&gateway.get("/api/auth/me").bearer(handle).await));
    assert!(refused(&gateway.get("/api/auth/verify-token").bearer(handle).await));
    let (_, signature) = there.cookie.rsplit_once('.').unwrap();
    for value in [handle.to_owned(), format!("{handle}.{signature}")] {
        let cookie = format!("{}={value}", gateway.session_cookie());
        assert!(
            refused(&gateway.get("/api/me").header("Cookie", &cookie).await),
            "{cookie}"
        );
        let session = gateway.get("/api/auth/get-session").header("Cookie", &cookie).await;
        assert_eq!(session.json(), Value::Null, "{cookie}");
    }
    assert_eq!(
        gateway.get("/api/me").with(&there).await.status(),
        200,
        "nothing of that ended it"
    );

    let call = gateway.post("/api/auth/revoke-session").with(&here);
    let ended = call.json(&json!({ "token": handle })).await;
    assert_eq!((ended.status(), ended.json()), (200, json!({ "status": true })));
    assert!(refused(&gateway.get("/api/me").with(&there).await));
    assert_eq!(gateway.get("/api/me").with(&here).await.status(), 200);
}

#[tokio::test]
async fn a_file_that_is_replaced_is_taken_and_a_bad_one_is_not() {
    let folder = written();
    let path = folder.path().join("places.mmdb");
    let places = Arc::new(Places::open(Some(&path)).unwrap());
    let address: IpAddr = "203.0.113.7".parse().unwrap();
    let city = || places.of(address).city;
    assert_eq!(city().as_deref(), Some("Linköping"));

    replace(&path, "half a file".as_bytes());
    places.refresh().await;
    assert_eq!(city().as_deref(), Some("Linköping"), "the file before stays in force");

    replace(&path, &places_file(&[("203.0.113.0/24", place("SE", "Norrköping"))]));
    places.refresh().await;
    assert_eq!(city().as_deref(), Some("Norrköping"));

    fs::remove_file(&path).unwrap();
    places.refresh().await;
    assert_eq!(city().as_deref(), Some("Norrköping"));
}

#[tokio::test]
async fn a_file_that_can_t_be_used_is_reported_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (mailbox, upstream) = (Mailbox::start().await, Upstream::start().await);
    // A path is relative to the configuration.
    let setup = Setup::default().with("[auth.session]\ngeo_database = 'places.mmdb'");
    let text = setup.text(
        &Database::at("postgres://localhost:1/x"),
        mailbox.addr(),
        upstream.addr(),
    );
    let config = folder.path().join("gateway.toml");
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();

    let missing = run(&["check", "--config", config], &[], elsewhere.path()).await;
    assert_eq!(missing.code, Some(78), "{}", missing.stderr);
    assert!(
        missing
            .stderr
            .contains("auth.session.geo_database: the file can't be read:"),
        "{}",
        missing.stderr
    );
    let path = folder.path().join("places.mmdb");
    fs::write(&path, "a packed archive, as it is downloaded").unwrap();
    let packed = run(&["check", "--config", config], &[], elsewhere.path()).await;
    assert_eq!(packed.code, Some(78), "{}", packed.stderr);
    assert!(packed.stderr.contains("must be unpacked"), "{}", packed.stderr);

    // The mark is there, but nothing that could be read.
    fs::write(&path, b"junk \xab\xcd\xefMaxMind.com junk").unwrap();
    let broken = run(&["serve", "--config", config], &[], elsewhere.path()).await;
    assert_eq!(broken.code, Some(1), "{}", broken.stderr);
    assert!(
        broken.stderr.contains("places.mmdb, is not a MaxMind database"),
        "{}",
        broken.stderr
    );

    fs::write(&path, places_file(&[("203.0.113.0/24", place("SE", "Linköping"))])).unwrap();
    let fine = run(&["check", "--config", config], &[], elsewhere.path()).await;
    assert_eq!(fine.code, Some(0), "{}", fine.stderr);
}

/// As operators do it: written beside, then renamed.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[test]
fn what_a_file_says_does_not_reach_the_database_unjudged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("places.mmdb");
    let networks = [
        ("203.0.113.0/24", place("Sweden", "a\0b")),
        ("198.51.100.0/24", json!({ "country": "SE", "city": ["Tokyo"] })),
        ("192.0.2.0/24", place("NO", &"x".repeat(200))),
    ];
    fs::write(&path, places_file(&networks)).unwrap();
    let places = Places::open(Some(&path)).unwrap();
    for (address, country) in [("203.0.113.7", None), ("198.51.100.7", None), ("192.0.2.7", Some("NO"))] {
        let place = places.of(address.parse().unwrap());
        assert_eq!((place.country.as_deref(), place.city), (country, None), "{address}");
    }
}
