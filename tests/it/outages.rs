//! Postgres is away, in every way that it can be: what each class of request gets, in how long, and that all is as before when
//! it is back. The table in docs/postgres.md says the same.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use url::Url;

use crate::harness::{
    Database, Gateway, SOON, Setup,
    client::Response,
    eventually,
    people::User,
    relay::{Relay, Way, Whom},
    server::Server,
};

const ACQUIRE: Duration = Duration::from_millis(500);
/// For a machine that does much else.
const LENIENCY: Duration = Duration::from_secs(3);
/// How long a whole outage may go unnoticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(4);

const IMPATIENT: &str = "[database]\nacquire_timeout = '500ms'\nstatement_timeout = '1s'";

async fn status(gateway: &Gateway, user: &User) -> u16 {
    gateway.get("/api/me").with(user).await.status()
}

/// Somebody whose session is in the cache, and somebody whose is not.
async fn cached_and_not(gateway: &Gateway) -> (User, User) {
    gateway.hears().await;
    let (ada, bob) = (
        gateway.signed_in("ada@example.com").await,
        gateway.signed_in("bob@example.com").await,
    );
    for _ in 0..2 {
        assert_eq!(status(gateway, &ada).await, 200);
    }
    (ada, bob)
}

/// A refusal for want of Postgres, and how long it took.
async fn refused(call: impl IntoFuture<Output = Response>) -> Duration {
    let began = Instant::now();
    let answer = call.await;
    let took = began.elapsed();
    assert_eq!(answer.status(), 503, "{}", answer.text());
    assert_eq!(answer.head.one("retry-after"), Some("2"));
    took
}

async fn refused_sign_in(gateway: &Gateway) -> Duration {
    let body = serde_json::json!({ "email": "ada@example.com", "password": "correct horse battery staple" });
    refused(gateway.post("/api/auth/sign-in/email").json(&body)).await
}

/// The 99th of a hundred, of a thousand requests one after the other for a session that is in the cache.
async fn p99(gateway: &Gateway, user: &User) -> Duration {
    let request = format!(
        "GET /api/me HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n",
        gateway.host(),
        user.cookie
    );
    let mut client = gateway.raw().await;
    let mut took = Vec::new();
    for _ in 0..1_000 {
        let began = Instant::now();
        client.send(&request).await;
        assert_eq!(client.answer().await.status(), 200);
        took.push(began.elapsed());
    }
    took.sort();
    took[989]
}

/// As before: for those who were cached, and for those who were not, and for those who come.
async fn is_over(gateway: &Gateway, ada: &User, bob: &User) {
    for user in [ada, bob] {
        eventually(SOON, async || status(gateway, user).await == 200).await;
    }
    eventually(SOON, async || gateway.sign_in("ada@example.com").await.status() == 200).await;
    gateway.hears().await;
    let carol = gateway.signed_in("carol@example.com").await;
    for _ in 0..2 {
        assert_eq!(status(gateway, &carol).await, 200);
    }
    gateway
        .db()
        .run("UPDATE user_sessions SET revoked_at = now() WHERE user_id = (SELECT id FROM users WHERE email LIKE 'carol%')")
        .await;
    eventually(SOON, async || status(gateway, &carol).await == 401).await;
}

#[tokio::test]
async fn sess_13_with_postgres_frozen_cached_sessions_go_on_and_nobody_else_waits_for_long() {
    let server = Server::start().await;
    let gateway = Setup::default().with(IMPATIENT).start_on(server.db()).await;
    let (ada, bob) = cached_and_not(&gateway).await;
    let before = p99(&gateway, &ada).await;

    let frozen = server.freeze();
    let began = Instant::now();
    let mut first_uncached = None;
    let mut most = Duration::ZERO;
    // Before it is noticed, while it is, and after.
    while began.elapsed() < NOTICED_WITHIN + Duration::from_secs(1) {
        let p99 = p99(&gateway, &ada).await;
        most = most.max(p99);
        let took = refused(gateway.get("/api/me").with(&bob)).await;
        first_uncached.get_or_insert(took);
        assert!(took < ACQUIRE + LENIENCY, "{took:?}");
        assert_eq!(gateway.get("/public/x").await.status(), 200);
    }
    eprintln!("p99 of cached sessions: {before:?} before, {most:?} at most while Postgres is frozen");
    eprintln!("first uncached: 503 after {:?}", first_uncached.unwrap());
    assert!(most < before * 2 + Duration::from_millis(250), "{before:?}, {most:?}");

    // It is known, so that nobody waits, however many they are.
    eventually(SOON, async || gateway.degraded().await.contains("can't be reached")).await;
    let took = join_all((0..200).map(|_| refused(gateway.get("/api/me").with(&bob)))).await;
    eprintln!(
        "200 uncached at once, when it is known: 503 after {:?} at most",
        took.iter().max().unwrap()
    );
    assert!(took.iter().all(|took| *took < LENIENCY), "{took:?}");
    let took = refused_sign_in(&gateway).await;
    eprintln!("sign-in, when it is known: 503 after {took:?}");
    assert!(took < LENIENCY, "{took:?}");

    // To the end of the cache's time, and no longer.
    gateway.clock().advance(Duration::from_secs(9));
    assert_eq!(status(&gateway, &ada).await, 200);
    gateway.clock().advance(Duration::from_secs(2));
    refused(gateway.get("/api/me").with(&ada)).await;
    assert_eq!(
        gateway.get("/optional/x").await.status(),
        200,
        "without a session, nobody is asked"
    );

    drop(frozen);
    is_over(&gateway, &ada, &bob).await;
}

#[tokio::test]
async fn sess_13_with_postgres_killed_cached_sessions_go_on_and_everybody_else_is_told_at_once() {
    let server = Server::start().await;
    let gateway = Setup::default().with(IMPATIENT).start_on(server.db()).await;
    let (ada, bob) = cached_and_not(&gateway).await;

    server.kill();
    // From the first moment on.
    for _ in 0..100 {
        assert_eq!(status(&gateway, &ada).await, 200);
    }
    let took = refused(gateway.get("/api/me").with(&bob)).await;
    eprintln!("uncached: 503 after {took:?}");
    assert!(took < ACQUIRE + LENIENCY, "{took:?}");
    let took = refused_sign_in(&gateway).await;
    eprintln!("sign-in: 503 after {took:?}");
    assert!(took < ACQUIRE + LENIENCY, "{took:?}");
    assert_eq!(gateway.get("/public/x").await.status(), 200);
    eventually(SOON, async || gateway.degraded().await.contains("can't be reached")).await;
    assert_eq!(status(&gateway, &ada).await, 200);
    gateway.clock().advance(Duration::from_secs(11));
    refused(gateway.get("/api/me").with(&ada)).await;
}

#[tokio::test]
async fn an_outage_grace_lets_cached_sessions_go_on_for_so_long() {
    let server = Server::start().await;
    let grace = "[auth.session.cache]\noutage_grace = '1h'";
    let gateway = Setup::default().with(IMPATIENT).with(grace).start_on(server.db()).await;
    let (ada, bob) = cached_and_not(&gateway).await;
    gateway.clock().advance(Duration::from_secs(8));
    server.kill();
    eventually(SOON, async || gateway.degraded().await.contains("can't be reached")).await;
    // The cache's own time is 10 s.
    gateway.clock().advance(Duration::from_mins(59));
    assert_eq!(status(&gateway, &ada).await, 200);
    refused(gateway.get("/api/me").with(&bob)).await;
    gateway.clock().advance(Duration::from_mins(2));
    refused(gateway.get("/api/me").with(&ada)).await;
}

/// It is no way round the cache's time while Postgres is there.
#[tokio::test]
async fn an_outage_grace_is_nothing_while_postgres_answers() {
    let db = Database::fresh().await;
    let grace = "[auth.session.cache]\noutage_grace = '1h'";
    let gateway = Setup::default().with(grace).start_on(&db).await;
    let (ada, _) = cached_and_not(&gateway).await;
    db.run_untold("DELETE FROM user_sessions").await;
    gateway.clock().advance(Duration::from_secs(11));
    assert_eq!(status(&gateway, &ada).await, 401);
}

/// It does answer, but too late.
#[tokio::test]
async fn with_a_slow_postgres_cached_sessions_go_on_and_the_rest_is_told_in_time() {
    let db = Database::fresh().await;
    let (relay, relayed) = Relay::before(&db).await;
    let gateway = Setup::default().with(IMPATIENT).start_on(&relayed).await;
    let (ada, bob) = cached_and_not(&gateway).await;
    relay.delay(Whom::All, Way::ToClient, Duration::from_secs(6));
    let began = Instant::now();
    while began.elapsed() < NOTICED_WITHIN + Duration::from_secs(1) {
        assert_eq!(status(&gateway, &ada).await, 200);
        let took = refused(gateway.get("/api/me").with(&bob)).await;
        assert!(took < ACQUIRE + LENIENCY, "{took:?}");
        assert_eq!(gateway.get("/public/x").await.status(), 200);
    }
    relay.heal();
    is_over(&gateway, &ada, &bob).await;
}

/// They share a look-up, and do not wait for one after the other.
#[tokio::test]
async fn however_many_ask_for_one_session_that_nobody_can_look_up_none_waits_for_the_others() {
    let gateway = Setup::default().with(IMPATIENT).start().await;
    let (_, bob) = cached_and_not(&gateway).await;
    let by_hand = gateway.db().client().await;
    let lock = "BEGIN; LOCK TABLE user_sessions IN ACCESS EXCLUSIVE MODE";
    by_hand.batch_execute(lock).await.unwrap();
    let took = join_all((0..20).map(|_| refused(gateway.get("/api/me").with(&bob)))).await;
    eprintln!("20 for one session: 503 after {:?} at most", took.iter().max().unwrap());
    assert!(took.iter().all(|took| *took < ACQUIRE + LENIENCY), "{took:?}");
    by_hand.batch_execute("COMMIT").await.unwrap();
    eventually(SOON, async || status(&gateway, &bob).await == 200).await;
}

/// A database with an owner who is no superuser, as `db` is reached by them.
async fn owned(role: &str) -> (Database, Database) {
    let db = Database::empty().await;
    let mut url: Url = db.url().parse().unwrap();
    let name = url.path().trim_start_matches('/').to_owned();
    db.run(&format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'a password';
         ALTER DATABASE {name} OWNER TO {role}"
    ))
    .await;
    url.set_username(role).unwrap();
    url.set_password(Some("a password")).unwrap();
    let owned = db.by(url.as_str());
    (db, owned)
}

async fn throw_out(db: &Database) {
    db.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'vestibule'",
    )
    .await;
}

#[tokio::test]
async fn without_connections_left_cached_sessions_go_on_and_the_rest_is_told_in_time() {
    let (admin, db) = owned("no_connections_left").await;
    let gateway = Setup::default().with(IMPATIENT).start_on(&db).await;
    let (ada, bob) = cached_and_not(&gateway).await;
    admin.run("ALTER ROLE no_connections_left CONNECTION LIMIT 0").await;
    throw_out(&admin).await;
    for _ in 0..10 {
        assert_eq!(status(&gateway, &ada).await, 200);
        let took = refused(gateway.get("/api/me").with(&bob)).await;
        assert!(took < ACQUIRE + LENIENCY, "{took:?}");
        let took = refused_sign_in(&gateway).await;
        assert!(took < ACQUIRE + LENIENCY, "{took:?}");
        assert_eq!(gateway.get("/public/x").await.status(), 200);
    }
    admin.run("ALTER ROLE no_connections_left CONNECTION LIMIT -1").await;
    is_over(&gateway, &ada, &bob).await;
}

/// The others find none, and are told so within milliseconds; a server that is full is not asked again by each of them.
#[tokio::test]
async fn with_one_connection_of_several_everybody_is_looked_up_on_it() {
    let (admin, db) = owned("one_connection_left").await;
    let (relay, relayed) = Relay::before(&db).await;
    let gateway = Setup::default().start_on(&relayed).await;
    let (ada, _) = cached_and_not(&gateway).await;
    let mut people = Vec::new();
    for _ in 0..20 {
        people.push(User::of(&gateway, &gateway.sign_in("ada@example.com").await));
    }
    admin.run("ALTER ROLE one_connection_left CONNECTION LIMIT 0").await;
    // All but one of those that look sessions up. Nobody hears any more, so that each request is looked up.
    admin
        .run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename = 'one_connection_left' AND pid NOT IN (
                 SELECT pid FROM pg_stat_activity
                 WHERE usename = 'one_connection_left' AND query LIKE '%s.token_hash = ANY ($1)%'
                 ORDER BY backend_start LIMIT 1
             )",
        )
        .await;
    eventually(SOON, async || gateway.degraded().await.contains("not heard")).await;
    assert_eq!(status(&gateway, &ada).await, 200);
    let (before, began) = (relay.made(), Instant::now());
    for _ in 0..20 {
        let answers = join_all(people.iter().map(|user| status(&gateway, user))).await;
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    }
    // Look-ups ask ten times a second at most, the one that hears eight times, each time where requests ask, too.
    let most = began.elapsed().as_secs_f64() * 26.0 + 6.0;
    let made = relay.made() - before;
    eprintln!("{made} connections were asked for within {:?}", began.elapsed());
    assert!(f64::from(made) <= most, "{made}, of {most}");
    admin.run("ALTER ROLE one_connection_left CONNECTION LIMIT -1").await;
    gateway.hears().await;
}

#[tokio::test]
async fn with_a_postgres_that_only_reads_sessions_go_on_and_changes_are_told_to_wait() {
    let db = Database::fresh().await;
    let gateway = Setup::default().with(IMPATIENT).start_on(&db).await;
    let (ada, bob) = cached_and_not(&gateway).await;
    let name = db.url().rsplit('/').next().unwrap().to_owned();
    db.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"))
        .await;
    throw_out(&db).await;
    eventually(SOON, async || gateway.sign_in("ada@example.com").await.status() == 503).await;
    let took = refused_sign_in(&gateway).await;
    assert!(took < ACQUIRE + LENIENCY, "{took:?}");
    assert_eq!(status(&gateway, &ada).await, 200);
    // Half a second is little for a new connection where all tests run at once.
    eventually(SOON, async || status(&gateway, &bob).await == 200).await;
    // Not thrown out this time: connections that only read are left by themselves.
    let client = db.client().await;
    let writing_again = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    for statement in ["SET default_transaction_read_only = off", &writing_again] {
        client.batch_execute(statement).await.unwrap();
    }
    is_over(&gateway, &ada, &bob).await;
}

/// What Postgres says when it has no room: the statement fails, the server goes on.
#[tokio::test]
async fn with_a_full_disk_sessions_go_on_and_changes_are_told_to_wait() {
    let db = Database::fresh().await;
    let gateway = Setup::default().with(IMPATIENT).start_on(&db).await;
    let (ada, bob) = cached_and_not(&gateway).await;
    db.run(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             RAISE 'could not extend file \"base/1/2\": No space left on device' USING ERRCODE = 'disk_full';
         END $$;
         CREATE TRIGGER no_room BEFORE INSERT ON user_sessions EXECUTE FUNCTION no_room()",
    )
    .await;
    let took = refused_sign_in(&gateway).await;
    assert!(took < ACQUIRE + LENIENCY, "{took:?}");
    for user in [&ada, &bob] {
        assert_eq!(status(&gateway, user).await, 200);
    }
    assert_eq!(gateway.degraded().await, "");
    db.run("DROP TRIGGER no_room ON user_sessions").await;
    is_over(&gateway, &ada, &bob).await;
}

/// The same of a Postgres that really has no room: none of its files may grow.
#[tokio::test]
async fn with_files_that_can_not_grow_sessions_go_on_and_changes_are_told_to_wait() {
    // The files of Postgres's log have this size from the beginning. Half a block behind it has room.
    const MOST: u64 = (16 << 20) + 4096;
    let server = Server::start().await;
    let gateway = Setup::default().with(IMPATIENT).start_on(server.db()).await;
    let (ada, bob) = cached_and_not(&gateway).await;
    server.limit_files(Some(MOST)).await;
    let client = server.db().client().await;
    // Three rows in a block rather than fifty.
    client
        .batch_execute("ALTER TABLE user_sessions SET (fillfactor = 10)")
        .await
        .unwrap();
    let fill = "INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at)
        SELECT gen_random_uuid(), sha256(gen_random_uuid()::text::bytea), users.id, now(), now(), now()
        FROM users, generate_series(1, $1) WHERE email LIKE 'bob%'";
    for rows in [500, 1, 1] {
        let mut filled = Ok(0);
        for _ in 0..30 {
            filled = filled.and(client.execute(fill, &[&rows]).await);
        }
        let refused = filled.expect_err("it has no end");
        assert_eq!(refused.code(), Some(&SqlState::DISK_FULL), "{refused:?}");
    }

    let took = refused_sign_in(&gateway).await;
    assert!(took < ACQUIRE + LENIENCY, "{took:?}");
    for user in [&ada, &bob] {
        assert_eq!(status(&gateway, user).await, 200);
    }
    assert_eq!(gateway.degraded().await, "");
    server.limit_files(None).await;
    is_over(&gateway, &ada, &bob).await;
}

/// Many wait for it to be back: it sees no more connections than the pools have, and the two by which revocations are heard.
#[tokio::test]
async fn whoever_waited_does_not_fall_upon_a_postgres_that_is_back() {
    let server = Server::start().await;
    let gateway = Setup::default().with(IMPATIENT).start_on(server.db()).await;
    gateway.hears().await;
    gateway.verified("ada@example.com").await;
    let mut people = Vec::new();
    for _ in 0..60 {
        people.push(User::of(&gateway, &gateway.sign_in("ada@example.com").await));
    }
    let frozen = server.freeze();
    eventually(SOON, async || gateway.degraded().await.contains("can't be reached")).await;
    let coming = join_all(people.iter().map(|user| {
        let gateway = &gateway;
        async move { eventually(SOON, async || status(gateway, user).await == 200).await }
    }));
    let thaw = async {
        drop(frozen);
        let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vestibule'";
        let client = server.db().client().await;
        let mut most = 0;
        eventually(SOON, async || {
            let now: i64 = client.query_one(there, &[]).await.unwrap().get(0);
            most = most.max(now);
            gateway.degraded().await.is_empty()
        })
        .await;
        most
    };
    let (_, most) = tokio::join!(coming, thaw);
    eprintln!("at most {most} connections at once");
    // Those from before may still be on their way out.
    assert!(most <= 2 * (4 + 2), "{most}");
}
