//! Another configuration for a gateway that runs: what changes, what stays, and that nobody notices.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::net::TcpStream;
use vestibule::app::reload::ReloadError;

use crate::harness::{
    Database, Gateway, RawClient, SOON, Setup, eventually, mailbox::Mailbox, program::Program, upstream::Upstream,
};

/// `/api` is open to everybody; nothing else is served.
const OPEN: &str = "[[routes]]\npath = '/api/*'\nupstream = 'app'\nauth = 'public'";
/// `/api` is for those who are signed in.
const CLOSED: &str = "[[routes]]\npath = '/api/*'\nupstream = 'app'";

async fn ask(gateway: &Gateway, client: &mut RawClient, path: &str) {
    let host = gateway.host();
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
}

async fn metric(gateway: &Gateway, name: &str) -> String {
    let metrics = gateway.admin_get("/metrics").await;
    let line = metrics.text().lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {}", metrics.text()))
        .rsplit_once(' ')
        .unwrap()
        .1
        .to_owned()
}

#[tokio::test]
async fn what_a_route_demands_changes_with_the_next_request() {
    let gateway = Gateway::start().await;
    let mut client = gateway.raw().await;
    for (rules, status) in [("", 401), (OPEN, 200), (CLOSED, 401)] {
        gateway.reload(rules).await.unwrap();
        ask(&gateway, &mut client, "/api/x").await;
        assert_eq!(
            client.answer().await.status(),
            status,
            "on the same connection: {rules}"
        );
    }
    assert_eq!(gateway.get("/public/x").await.status(), 404, "and its route is gone");
}

#[tokio::test]
async fn requests_never_notice_that_the_rules_change_back_and_forth() {
    let gateway = Arc::new(Setup::default().with("[server]\nworkers = 2").start().await);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (gateway, over) = (Arc::clone(&gateway), Arc::clone(&over));
            tokio::spawn(async move {
                let mut client = gateway.raw().await;
                let (mut open, mut closed) = (0, 0);
                while !over.load(Ordering::Relaxed) {
                    ask(&gateway, &mut client, "/api/x").await;
                    match client.answer().await.status() {
                        200 => open += 1,
                        401 => closed += 1,
                        other => panic!("{other}"),
                    }
                }
                (open, closed)
            })
        })
        .collect();
    for turn in 0..20 {
        let rules = if turn % 2 == 0 { OPEN } else { CLOSED };
        gateway.reload(rules).await.unwrap();
        let status = if turn % 2 == 0 { 200 } else { 401 };
        assert_eq!(
            gateway.get("/api/x").await.status(),
            status,
            "in force once it is said to be"
        );
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let (open, closed) = client.await.unwrap();
        assert!(open > 0 && closed > 0, "{open} {closed}");
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_by_the_rules_it_came_under() {
    let gateway = Gateway::start().await;
    let mut slow = gateway.upstream().by_hand("/public/slow");
    let mut client = gateway.raw().await;
    ask(&gateway, &mut client, "/public/slow").await;
    let mut conversation = slow.next().await;
    gateway
        .reload("[[routes]]\npath = '/other'\nupstream = 'new'\n[upstreams.new]\nendpoints = ['http://127.0.0.1:9']")
        .await
        .unwrap();
    conversation
        .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
        .await;
    assert_eq!(client.answer().await.text(), "done");
    ask(&gateway, &mut client, "/public/slow").await;
    assert_eq!(
        client.answer().await.status(),
        404,
        "the connection lives on, by the new rules"
    );
}

#[tokio::test]
async fn fail_02_a_wrong_configuration_changes_nothing_and_is_counted() {
    let gateway = Gateway::start().await;
    let hash = metric(&gateway, "vestibule_config{").await;
    let refused = gateway.reload("[server]\nworkers = -1\n[auth]\nsing_up = true").await;
    let Err(ReloadError::Config(errors)) = refused else {
        panic!("{refused:?}")
    };
    let errors = errors.to_string();
    assert!(
        errors.contains("server.workers") && errors.contains("sing_up"),
        "all of it: {errors}"
    );
    assert_eq!(gateway.get("/public/x").await.status(), 200);
    assert_eq!(
        metric(&gateway, "vestibule_reloads_total{outcome=\"refused\"}").await,
        "1"
    );
    assert_eq!(metric(&gateway, "vestibule_reloads_total{outcome=\"ok\"}").await, "0");
    assert_eq!(metric(&gateway, "vestibule_config{").await, hash);
    gateway.reload(OPEN).await.unwrap();
    assert_eq!(metric(&gateway, "vestibule_reloads_total{outcome=\"ok\"}").await, "1");
}

#[tokio::test]
async fn connections_to_an_upstream_that_stays_stay_open() {
    let gateway = Gateway::start().await;
    for turn in 0..5 {
        assert_eq!(gateway.get("/public/x").await.status(), 200);
        assert_eq!(gateway.upstream().connections(), 1, "turn {turn}");
        let other = format!("[upstreams.other]\nendpoints = ['http://127.0.0.1:{}']", 9 + turn);
        gateway.reload(&other).await.unwrap();
    }
    // Other settings are another upstream: what the old ones promised does not hold for its connections.
    gateway
        .reload("[upstreams.app]\nresponse_timeout = '7s'")
        .await
        .unwrap();
    assert_eq!(gateway.get("/public/x").await.status(), 200);
    assert_eq!(gateway.upstream().connections(), 2);
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_and_stay() {
    let gateway = Gateway::start().await;
    let new = "[server]\nworkers = 3\nlisten = '127.0.0.1:1'\n[auth]\nbase_path = '/elsewhere'\nsign_up = false\n\
               [database]\npool_size = 9\n[admin]\nlisten = '127.0.0.1:2'";
    let reloaded = gateway.reload(new).await.unwrap();
    assert_eq!(
        reloaded.need_restart,
        [
            "server.listen",
            "server.workers",
            "admin.listen",
            "database.pool_size",
            "auth.base_path"
        ]
    );
    assert_eq!(gateway.get("/api/auth/ok").await.status(), 200);
    assert!(TcpStream::connect(gateway.addr()).await.is_ok());
    assert_eq!(gateway.reload("").await.unwrap().need_restart, [""; 0]);
}

#[tokio::test]
async fn the_auth_api_goes_by_the_new_rules() {
    let gateway = Gateway::start().await;
    let sign_up = |email: &str| {
        let person = serde_json::json!({ "email": email, "password": "correct horse battery", "name": "Ada" });
        gateway.post("/api/auth/sign-up/email").json(&person)
    };
    assert_eq!(sign_up("ada@example.com").await.status(), 200);
    gateway.reload("[auth]\nsign_up = false").await.unwrap();
    assert_eq!(sign_up("bob@example.com").await.status(), 400);
    gateway.reload("[auth.password]\nmin_length = 30").await.unwrap();
    assert_eq!(sign_up("eve@example.com").await.code(), "PASSWORD_TOO_SHORT");
}

#[tokio::test]
async fn whoever_is_signed_in_stays_so_and_is_told_to_upstreams_under_new_names() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/x").with(&ada).await.status(), 200);
    assert_eq!(gateway.upstream().last().head.one("x-user-id"), Some(ada.id.as_str()));
    gateway.reload("[identity]\nuser_id = 'X-Person'").await.unwrap();
    let spoofed = gateway.get("/api/x").header("X-Person", "somebody else").with(&ada);
    assert_eq!(spoofed.await.status(), 200);
    let seen = gateway.upstream().last().head;
    assert_eq!(seen.one("x-person"), Some(ada.id.as_str()));
    assert!(!seen.has("x-user-id"), "a cached session has the old name no more");
}

/// Its client's word was judged by the old names when it came: the new ones were anybody's then.
#[tokio::test]
async fn a_request_in_flight_tells_upstreams_who_calls_under_the_names_it_came_under() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let db = gateway.db().client().await;
    db.batch_execute("BEGIN; LOCK TABLE user_sessions IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let asking = gateway
        .get("/api/x")
        .header("X-Person", "somebody else")
        .header("X-User-Id", "somebody else")
        .with(&ada);
    let asking = tokio::spawn(asking.into_future());
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%s.token_hash = ANY ($1)%'";
    eventually(SOON, async || {
        db.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        db.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    gateway.reload("[identity]\nuser_id = 'X-Person'").await.unwrap();
    db.batch_execute("COMMIT").await.unwrap();

    assert_eq!(asking.await.unwrap().status(), 200);
    let seen = gateway.upstream().last().head;
    assert_eq!(seen.one("x-user-id"), Some(ada.id.as_str()));
    assert_eq!(seen.one("x-person"), Some("somebody else"), "as before the reload");
    assert_eq!(gateway.get("/api/x").with(&ada).await.status(), 200);
    let seen = gateway.upstream().last().head;
    assert_eq!(seen.one("x-person"), Some(ada.id.as_str()));
    assert!(!seen.has("x-user-id"));
}

#[tokio::test]
async fn a_secret_is_rotated_without_signing_anybody_out() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let old = "a secret that only the tests use, and only here";
    let new = "another secret that only the tests use, longer than 32";
    let both = format!("[auth]\nsecret = ['{new}', '{old}']");
    gateway.reload(&both).await.unwrap();
    assert_eq!(gateway.get("/api/x").with(&ada).await.status(), 200);
    let only_new = format!("[auth]\nsecret = '{new}'");
    gateway.reload(&only_new).await.unwrap();
    assert_eq!(
        gateway.get("/api/x").with(&ada).await.status(),
        401,
        "nobody knows that signature any more"
    );
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = tokio::net::UnixDatagram::bind(&path).unwrap();
    let heard = async || {
        let mut message = [0; 512];
        let length = tokio::time::timeout(SOON, manager.recv(&mut message))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let (db, mailbox, upstream) = (Database::fresh().await, Mailbox::start().await, Upstream::start().await);
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, Setup::default().text(&db, mailbox.addr(), upstream.addr())).unwrap();
    let program = Program::start(
        &["serve", "--config", file.to_str().unwrap()],
        &[("NOTIFY_SOCKET", path.to_str().unwrap())],
        folder.path(),
    );
    let ready = heard().await;
    assert!(
        ready.contains("READY=1") && ready.contains(&format!("MAINPID={}", program.id())),
        "{ready}"
    );
    program.signal("HUP").await;
    let reloading = heard().await;
    assert!(
        reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="),
        "{reloading}"
    );
    assert!(heard().await.contains("READY=1"));
    program.signal("TERM").await;
    assert!(heard().await.contains("STOPPING=1"));
    assert_eq!(program.ended().await.code, Some(0));
}

#[tokio::test]
async fn limits_of_connections_grow_and_shrink() {
    let gateway = Setup::default().with("[server]\nmax_connections = 1").start().await;
    let mut first = gateway.raw().await;
    ask(&gateway, &mut first, "/public/x").await;
    assert_eq!(first.answer().await.status(), 200);
    let mut second = gateway.raw().await;
    ask(&gateway, &mut second, "/public/x").await;
    gateway.reload("[server]\nmax_connections = 2").await.unwrap();
    assert_eq!(second.answer().await.status(), 200, "a place was made for it");
    gateway.reload("[server]\nmax_connections = 1").await.unwrap();
    ask(&gateway, &mut second, "/public/x").await;
    assert_eq!(second.answer().await.status(), 200, "whoever has a place keeps it");
    drop((first, second));
    eventually(SOON, async || {
        let mut third = gateway.raw().await;
        ask(&gateway, &mut third, "/public/x").await;
        third.answer().await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn a_thousand_routes_are_in_force_at_once() {
    let gateway = Gateway::start().await;
    let route = |n: i32| format!("[[routes]]\npath = '/r{n}/*'\nupstream = 'app'\nauth = 'public'\n");
    let routes = (0..1_000).map(route).collect::<Vec<_>>().concat();
    let reloaded = gateway.reload(&routes).await.unwrap();
    assert_eq!(gateway.get("/r999/x").await.status(), 200);
    assert!(reloaded.took < SOON);
}
