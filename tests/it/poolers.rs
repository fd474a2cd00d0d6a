//! Behind PgBouncer in transaction mode: whatever the gateway does works as it does directly, and nothing of it is left on
//! connections that others get next.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::harness::{
    Database, Gateway, SOON, Setup, eventually,
    people::{PASSWORD, User},
    pgbouncer::{PgBouncer, SERVER_CONNECTIONS},
    program::run,
    surroundings::Surroundings,
};

/// What `[database]` says of it.
fn toml(pooler: &PgBouncer, db: &Database) -> String {
    let (through, past) = (pooler.url(), db.url());
    format!("[database]\nurl = '{through}'\nlisten_url = '{past}'\npooler = 'transaction'\n")
}

async fn gateway(pooler: &PgBouncer, db: &Database) -> Gateway {
    Setup::default().with(&toml(pooler, db)).start_on(db).await
}

async fn through(pooler: &PgBouncer) -> Client {
    let (client, connection) = tokio_postgres::connect(pooler.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_whole_conversation_works_through_one() {
    // Empty: it migrates, too.
    let db = Database::empty().await;
    let pooler = PgBouncer::before(&db).await;
    let here = gateway(&pooler, &db).await;
    let there = gateway(&pooler, &db).await;

    assert_eq!(here.sign_up("ada@example.com").await.status(), 200);
    let link = here.mailbox().next_to("ada@example.com").await.link();
    assert_eq!(here.open(&link).await.status(), 302);
    let ada = User::of(&here, &here.sign_in("ada@example.com").await);
    let other = User::of(&here, &here.sign_in("ada@example.com").await);
    for gateway in [&here, &there] {
        for session in [&ada, &other] {
            assert_eq!(gateway.get("/api/me").with(session).await.status(), 200);
        }
    }
    let listed = here.get("/api/auth/list-sessions").with(&ada).await;
    assert_eq!(listed.json().as_array().map(Vec::len), Some(2), "{}", listed.text());

    let change =
        json!({ "currentPassword": PASSWORD, "newPassword": "another horse battery", "revokeOtherSessions": true });
    let changed = here.post("/api/auth/change-password").with(&ada).json(&change).await;
    assert_eq!(changed.status(), 200, "{}", changed.text());
    let ada = User::of(&here, &changed);
    assert_eq!(here.get("/api/me").with(&other).await.status(), 401);
    eventually(SOON, async || there.get("/api/me").with(&other).await.status() == 401).await;

    here.sign_out(&ada).await;
    assert_eq!(here.get("/api/me").with(&ada).await.status(), 401);
    eventually(SOON, async || there.get("/api/me").with(&ada).await.status() == 401).await;
}

/// More of them at once than there are connections to the server.
#[tokio::test]
async fn many_at_once_share_its_connections_and_leave_nothing_on_them() {
    let db = Database::fresh().await;
    let pooler = PgBouncer::before(&db).await;
    let gateway = gateway(&pooler, &db).await;
    gateway.verified("ada@example.com").await;
    let comings = (0..24).map(|_| async {
        let ada = User::of(&gateway, &gateway.sign_in("ada@example.com").await);
        let status = gateway.get("/api/me").with(&ada).await.status();
        gateway.sign_out(&ada).await;
        (status, gateway.get("/api/me").with(&ada).await.status())
    });
    for statuses in join_all(comings).await {
        assert_eq!(statuses, (200, 401));
    }

    // All of its connections to the server, at the same time.
    let clients: Vec<Client> = join_all((0..SERVER_CONNECTIONS).map(|_| through(&pooler))).await;
    for client in &clients {
        client.batch_execute("BEGIN").await.unwrap();
    }
    for client in &clients {
        let left = "SELECT current_setting('search_path'), current_setting('statement_timeout'),
            (SELECT count(*) FROM pg_prepared_statements)::text";
        let mut said = client.simple_query(left).await.unwrap().into_iter();
        let row = said.find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.unwrap();
        let left = [0, 1, 2].map(|column| row.get(column).unwrap().to_owned());
        assert_eq!(left, ["\"$user\", public", "0", "0"]);
    }
}

#[tokio::test]
async fn a_statement_has_its_time_out_through_one() {
    let db = Database::fresh().await;
    let pooler = PgBouncer::before(&db).await;
    let short = "[database]\nstatement_timeout = '300ms'\nacquire_timeout = '10s'";
    let gateway = Setup::default()
        .with(&toml(&pooler, &db))
        .with(short)
        .start_on(&db)
        .await;
    gateway.verified("ada@example.com").await;
    let lock = db.client().await;
    lock.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let began = std::time::Instant::now();
    let answer = gateway.sign_in("ada@example.com").await;
    assert_eq!(answer.status(), 503, "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(10));
    lock.batch_execute("COMMIT").await.unwrap();
    assert_eq!(gateway.sign_in("ada@example.com").await.status(), 200);
}

#[tokio::test]
async fn commands_work_through_one() {
    let surroundings = Surroundings::on(Database::empty().await).await;
    let pooler = PgBouncer::before(&surroundings.db).await;
    let config = surroundings.config(&toml(&pooler, &surroundings.db));
    let config = config.to_str().unwrap();
    for (args, says) in [
        (vec!["migrate", "--config", config], ""),
        (
            vec![
                "user",
                "create",
                "ada@example.com",
                "--no-password",
                "--config",
                config,
                "--json",
            ],
            "ada@example.com",
        ),
        (vec!["user", "list", "--config", config, "--json"], "ada@example.com"),
        (vec!["keys", "list", "--config", config, "--json"], ""),
    ] {
        let ended = run(&args, &[], surroundings.folder.path()).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        assert!(ended.stdout.contains(says), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn who_does_not_say_that_one_stands_there_is_told() {
    let surroundings = Surroundings::new().await;
    let pooler = PgBouncer::before(&surroundings.db).await;
    let config = surroundings.config(&format!("[database]\nurl = '{}'", pooler.url()));
    let args = ["serve", "--config", config.to_str().unwrap()];
    let ended = run(&args, &[], surroundings.folder.path()).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let advice = "database.pooler = \"transaction\"";
    assert!(ended.stderr.contains(advice), "{}", ended.stderr);
}
