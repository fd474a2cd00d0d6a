//! `vestibule import better-auth`: people move here with their passwords, and stay signed in.

mod again;
mod at_providers;
mod original;
mod provider_tokens;
mod shown;
mod source;

use std::path::PathBuf;

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use tempfile::TempDir;
use vestibule::secret::SigningKeys;

use self::source::{HASH, Source, TOKENS, WORD};
use crate::harness::{
    Database, Gateway, SOON, Setup, eventually,
    program::{Ended, Program, run},
};

/// What the other server signed cookies with.
const OLD_SECRET: &str = "the secret of the server that was there before";

/// A gateway that goes on with the other server's cookies.
const SUCCESSOR: &str = "[auth]
secret = ['a secret that only the tests use, and only here', 'the secret of the server that was there before']
[auth.session.cookie]
prefix = 'better-auth'
host_prefix = false";

/// A gateway's database with its configuration, and where to import from.
struct Move {
    source: Source,
    target: Database,
    folder: TempDir,
    /// Laid over the gateway's configuration.
    over: String,
}

impl Move {
    async fn new(source: Source) -> Self {
        Self::to(source, "").await
    }

    async fn to(source: Source, over: &str) -> Self {
        Self {
            source,
            target: Database::fresh().await,
            folder: tempfile::tempdir().unwrap(),
            over: over.to_owned(),
        }
    }

    fn config(&self) -> PathBuf {
        let file = self.folder.path().join("gateway.toml");
        let nobody = "127.0.0.1:1".parse().unwrap();
        let setup = Setup::default().with(&self.over);
        std::fs::write(&file, setup.text(&self.target, nobody, nobody)).unwrap();
        file
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let config = self.config();
        let fixed = [
            "import",
            "better-auth",
            "--config",
            config.to_str().unwrap(),
            "--from",
            self.source.db.url(),
        ];
        fixed
            .iter()
            .chain(more)
            .map(|argument| (*argument).to_owned())
            .collect()
    }

    async fn run(&self, more: &[&str]) -> Ended {
        let arguments = self.arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = run(&arguments, &[], self.folder.path()).await;
        for secret in [HASH, TOKENS[0], "an-access-token"] {
            let said = [&ended.stdout, &ended.stderr];
            assert!(said.iter().all(|said| !said.contains(secret)), "{ended:?}");
        }
        ended
    }

    /// The report of a run that goes well.
    async fn import(&self, more: &[&str]) -> Value {
        let ended = self.run(&[&["--json"], more].concat()).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stderr, "", "no bar where there is no terminal");
        let mut report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(report["seconds"].take().is_f64());
        report
    }

    /// The one text, or number, that a query answers with.
    async fn text(&self, sql: &str) -> String {
        let row = self.target.client().await.query_one(sql, &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    async fn rows(&self) -> [i64; 3] {
        let mut counts = [0; 3];
        for (count, table) in counts.iter_mut().zip(["users", "accounts", "user_sessions"]) {
            *count = self.target.count(&format!("SELECT count(*) FROM {table}")).await;
        }
        counts
    }

    /// All that was imported, as one number.
    async fn everything(&self) -> String {
        let of = |table: &str| format!("(SELECT md5(string_agg(t::text, '|' ORDER BY t.id)) FROM {table} AS t)");
        self.text(&format!(
            "SELECT concat({}, {}, {})",
            of("users"),
            of("accounts"),
            of("user_sessions")
        ))
        .await
    }
}

fn counts(report: &Value, of: &str) -> [i64; 5] {
    ["read", "new", "updated", "unchanged", "leftOut"].map(|name| report[of][name].as_i64().unwrap())
}

/// The old ids that a reason was given for.
fn named(report: &Value, reason: &str) -> Vec<String> {
    let notes = report["notes"].as_array().unwrap().iter();
    let mut ids: Vec<String> = notes
        .filter(|note| note["reason"] == reason)
        .flat_map(|note| note["ids"].as_array().unwrap())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// `name=token.signature`, as the other server set it.
fn old_cookie(name: &str, token: &str) -> String {
    let signature = SigningKeys::new([OLD_SECRET.as_bytes()]).sign(token.as_bytes());
    let base64 = Base64::encode_string(&signature);
    let escaped = base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("{name}={token}.{escaped}")
}

async fn sign_in(gateway: &Gateway, email: &str) -> u16 {
    let body = json!({ "email": email, "password": WORD });
    gateway.post("/api/auth/sign-in/email").json(&body).await.status()
}

#[tokio::test]
async fn people_keep_their_passwords_and_stay_signed_in() {
    let moving = Move::new(Source::of_users(3).await).await;
    moving.source.add_sessions().await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "users"), [3, 3, 0, 0, 0]);
    assert_eq!(counts(&report, "accounts"), [3, 3, 0, 0, 0]);
    assert_eq!(counts(&report, "sessions"), [4, 2, 0, 0, 2]);

    for (over, cookie) in [
        (SUCCESSOR.to_owned(), "__Secure-better-auth.session_token"),
        (
            format!("{SUCCESSOR}\n[server]\npublic_url = 'http://localhost'"),
            "better-auth.session_token",
        ),
    ] {
        let gateway = Setup::default().with(&over).start_on(&moving.target).await;
        let cookie = old_cookie(cookie, TOKENS[0]);
        let answer = gateway.get("/api/me").header("Cookie", &cookie).await;
        assert_eq!(answer.status(), 200, "{cookie}");
        let id = moving
            .text("SELECT id::text FROM users WHERE imported_id = 'user-1'")
            .await;
        let upstream = gateway.upstream().last();
        assert_eq!(upstream.head.one("x-user-id"), Some(id.as_str()));
        assert!(
            !upstream.head.has("cookie"),
            "nor does the old cookie reach the application"
        );

        let session = gateway
            .get("/api/auth/get-session")
            .header("Cookie", &cookie)
            .await
            .json();
        assert_eq!(session["user"]["email"], "user-1@example.test");
        assert_eq!(session["session"]["token"], TOKENS[0]);
        let forged = cookie.replace(TOKENS[0], TOKENS[1]);
        assert_eq!(gateway.get("/api/me").header("Cookie", forged).await.status(), 401);

        assert_eq!(sign_in(&gateway, "user-2@example.test").await, 200);
    }
    let hash = "SELECT password_hash FROM accounts WHERE user_id = (SELECT id FROM users WHERE imported_id = 'user-2')";
    assert!(
        moving.text(hash).await.starts_with("$argon2id$"),
        "hashed anew at the first sign-in"
    );
    assert_eq!(
        moving
            .target
            .count(&format!("SELECT count(*) FROM accounts WHERE password_hash = '{HASH}'"))
            .await,
        2
    );
}

#[tokio::test]
async fn without_the_old_secret_old_cookies_are_nobodys() {
    let moving = Move::new(Source::of_users(1).await).await;
    moving.source.add_sessions().await;
    moving.import(&[]).await;
    let setup = Setup::default().with("[auth.session.cookie]\nprefix = 'better-auth'\nhost_prefix = false");
    let gateway = setup.start_on(&moving.target).await;
    let cookie = old_cookie("__Secure-better-auth.session_token", TOKENS[0]);
    assert_eq!(gateway.get("/api/me").header("Cookie", cookie).await.status(), 401);
    assert_eq!(sign_in(&gateway, "user-1@example.test").await, 200);
}

#[tokio::test]
async fn what_a_session_was_it_stays() {
    let moving = Move::new(Source::of_users(2).await).await;
    moving.source.add_sessions().await;
    moving.import(&[]).await;
    let session = moving
        .text(
            "SELECT concat_ws(' ', u.imported_id, s.created_at AT TIME ZONE 'UTC', s.expires_at AT TIME ZONE 'UTC',
                s.remembered, s.methods, host(s.ip_address), s.user_agent)
             FROM user_sessions AS s JOIN users AS u ON u.id = s.user_id
             WHERE s.token_hash = sha256('tokenOfTheFirstUserWhoIsSignedIn')",
        )
        .await;
    assert_eq!(
        session,
        "user-1 2026-11-20 08:00:00 2099-01-01 00:00:00 t {} 192.0.2.7 Mozilla/5.0"
    );
}

#[tokio::test]
async fn a_run_that_was_killed_goes_on_where_it_stopped() {
    const PEOPLE: i64 = 10_000;
    let moving = Move::new(Source::of_users(PEOPLE).await).await;
    let arguments = moving.arguments(&["--batch-size", "10"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = Program::start(&arguments, &[], moving.folder.path());
    eventually(SOON, async || moving.rows().await[0] > 0).await;
    program.kill().await;
    let [users, ..] = moving.rows().await;
    assert!((1..PEOPLE).contains(&users), "{users}: it was killed in between");
    assert_eq!(users % 10, 0, "a batch is there whole or not at all");

    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "users"), [PEOPLE, PEOPLE - users, 0, users, 0]);
    assert_eq!(moving.rows().await, [PEOPLE, PEOPLE, 0]);

    // As if it had never been interrupted.
    let at_once = Move::new(moving.source.clone()).await;
    at_once.import(&[]).await;
    assert_eq!(moving.everything().await, at_once.everything().await);
}

#[tokio::test]
async fn a_dry_run_says_what_a_run_does_and_writes_nothing() {
    let moving = Move::new(Source::odd().await).await;
    let mut foretold = moving.import(&["--dry-run", "--batch-size", "3"]).await;
    assert_eq!(foretold["dryRun"].take(), json!(true));
    assert_eq!(moving.rows().await, [0, 0, 0]);
    let mut report = moving.import(&["--batch-size", "3"]).await;
    assert_eq!(report["dryRun"].take(), json!(false));
    assert_eq!(foretold, report);

    let mut again = moving.import(&["--dry-run"]).await;
    again["dryRun"].take();
    let [read, new, .., left_out] = counts(&report, "users");
    assert_eq!(counts(&again, "users"), [read, 0, 0, new, left_out]);
    assert_eq!(again["notes"], report["notes"]);
}

#[tokio::test]
async fn what_cannot_come_over_is_named_with_its_reason() {
    let moving = Move::new(Source::odd().await).await;
    let careful = moving.import(&["--dry-run"]).await;
    assert_eq!(
        named(&careful, "second-factor"),
        ["banned"],
        "nobody is guarded less without being asked"
    );
    assert_eq!(careful["notImported"]["usersWithSecondFactor"], 0);
    let report = moving.import(&["--drop-second-factors"]).await;
    for (reason, ids) in [
        ("address-not-accepted", &["space", "umlaut"][..]),
        ("address-shared", &["shared-later", "shared-unverified"]),
        ("role-not-accepted", &["roles"]),
        ("image-too-large", &["image"]),
        ("hash-unknown", &["account-of-unknown-hash"]),
        ("no-password", &["account-without-password"]),
        ("account-replaced", &["account-older"]),
        ("user-left", &["account-of-space"]),
        ("token-not-accepted", &["session-of-other-token"]),
        ("impersonation", &["session-of-admin"]),
        ("expired", &["session-expired"]),
    ] {
        assert_eq!(named(&report, reason), ids, "{reason}: {report:#}");
    }
    assert_eq!(
        report["notImported"],
        json!({ "accountsWithProviderTokens": 0, "usersWithSecondFactor": 1, "passkeys": 0 })
    );

    let of = async |id: &str, columns: &str| {
        let sql = format!("SELECT concat_ws(' ', {columns}) FROM users WHERE imported_id = '{id}'");
        moving.text(&sql).await
    };
    assert_eq!(of("upper", "email, name").await, "upper@example.test ");
    assert_eq!(of("shared-first", "email").await, "shared@example.test");
    assert_eq!(of("roles", "roles").await, "{admin,editor}");
    assert_eq!(of("plain", "roles, banned").await, "{user} f");
    assert_eq!(
        of("banned", "banned, ban_reason, ban_expires AT TIME ZONE 'UTC'").await,
        "t Spam 2099-01-01 00:00:00"
    );
    assert_eq!(of("image", "image").await, "");
    let accounts = "SELECT string_agg(concat(provider_id, ':', account_id = user_id::text, ':', password_hash), ' '
        ORDER BY provider_id) FROM accounts WHERE user_id = (SELECT id FROM users WHERE imported_id = 'plain')";
    assert_eq!(moving.text(accounts).await, format!("credential:t:{HASH} google:f:"));
    assert_eq!(
        moving
            .text("SELECT count(*)::text FROM user_sessions WHERE NOT remembered")
            .await,
        "1"
    );
}

#[tokio::test]
async fn a_second_run_brings_what_changed_there_and_leaves_what_changed_here() {
    let moving = Move::new(Source::of_users(3).await).await;
    moving.source.add_sessions().await;
    moving.import(&[]).await;

    // There: one changes name and password, one more signs up, and a session is extended. Here: another changes the name.
    moving
        .source
        .run(
            "UPDATE \"user\" SET name = 'There', \"updatedAt\" = '2026-11-21' WHERE id = 'user-1';
             UPDATE \"user\" SET name = 'There', \"updatedAt\" = '2026-11-21' WHERE id = 'user-2';
             UPDATE account SET password = '$2b$04$drattOnGaAQL744Gehc.nOrKw3.8Gv0ssx5.5XbLQyeF18P5y2TOC',
                \"updatedAt\" = '2026-11-21' WHERE \"userId\" = 'user-1';
             UPDATE session SET \"expiresAt\" = '2099-02-01', \"updatedAt\" = '2026-11-21' WHERE id IN ('1', '2')",
        )
        .await;
    moving.source.add_users(4, 4).await;
    let here = "UPDATE users SET name = 'Here', updated_at = '2026-11-22' WHERE imported_id = 'user-2'";
    moving.target.run(here).await;
    moving
        .target
        .run("UPDATE user_sessions SET revoked_at = '2026-11-22' WHERE NOT remembered")
        .await;

    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "users"), [4, 1, 1, 2, 0]);
    assert_eq!(counts(&report, "accounts"), [4, 1, 1, 2, 0]);
    assert_eq!(counts(&report, "sessions")[1..4], [0, 1, 1]);
    let names = "SELECT string_agg(name, ' ' ORDER BY imported_id) FROM users";
    assert_eq!(moving.text(names).await, "There Here Person 3 Person 4");
    let sessions = "SELECT string_agg(concat(revoked_at IS NULL, ' ', date(expires_at)), ', ' ORDER BY remembered)
        FROM user_sessions";
    assert_eq!(moving.text(sessions).await, "f 2098-12-01, t 2099-02-01");

    let gateway = Setup::default().with(SUCCESSOR).start_on(&moving.target).await;
    assert_eq!(
        sign_in(&gateway, "user-1@example.test").await,
        200,
        "with the new password"
    );
}

#[tokio::test]
async fn whoever_signed_up_here_is_not_taken_over() {
    let moving = Move::new(Source::of_users(2).await).await;
    moving.source.add_sessions().await;
    let gateway = Gateway::on(&moving.target).await;
    gateway.verified("user-1@example.test").await;
    let before = moving.everything().await;

    let report = moving.import(&["--without-sessions"]).await;
    assert_eq!(counts(&report, "users"), [2, 1, 0, 0, 1]);
    assert_eq!(report["sessions"], Value::Null);
    assert_eq!(named(&report, "address-taken"), ["user-1"]);
    assert_eq!(named(&report, "user-left"), ["account-1"]);
    moving
        .target
        .run("DELETE FROM users WHERE imported_id IS NOT NULL")
        .await;
    assert_eq!(moving.everything().await, before);

    // A change of address there, to one that is somebody else's here.
    moving
        .source
        .run("UPDATE \"user\" SET email = 'elsewhere@example.test' WHERE id = 'user-1'")
        .await;
    moving.import(&[]).await;
    let changed = "UPDATE \"user\" SET email = 'user-1@example.test', \"updatedAt\" = '2026-11-21' WHERE id = 'user-1'";
    moving.source.run(changed).await;
    let report = moving.import(&[]).await;
    assert_eq!(named(&report, "new-address-taken"), ["user-1"]);
    let email = "SELECT email FROM users WHERE imported_id = 'user-1'";
    assert_eq!(moving.text(email).await, "elsewhere@example.test");
}

#[tokio::test]
async fn people_may_sign_up_while_others_come_over() {
    const PEOPLE: i64 = 2_000;
    let moving = Move::new(Source::of_users(PEOPLE).await).await;
    let gateway = Gateway::on(&moving.target).await;
    let signing_up = async {
        for n in (1..=PEOPLE).rev().step_by(100) {
            let answer = gateway.sign_up(&format!("user-{n}@example.test")).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
    };
    let (report, ()) = tokio::join!(moving.import(&["--batch-size", "20"]), signing_up);
    let [read, new, .., left_out] = counts(&report, "users");
    assert_eq!((read, new + left_out), (PEOPLE, PEOPLE));
    assert_eq!(moving.rows().await[0], PEOPLE, "one user for each address");
    let imported = moving
        .target
        .count("SELECT count(*) FROM users WHERE imported_id IS NOT NULL")
        .await;
    assert_eq!(imported, new);
    assert_eq!(moving.rows().await[1], PEOPLE, "and one password for each");
}

#[tokio::test]
async fn the_user_1_of_two_servers_is_not_one_user() {
    let first = Move::new(Source::of_users(1).await).await;
    first.import(&[]).await;
    let other = Source::of_users(1).await;
    other.run("UPDATE \"user\" SET email = 'eve@example.test', \"createdAt\" = '2025-01-01', \"updatedAt\" = '2030-01-01'")
        .await;
    let second = Move { source: other, ..first };
    let report = second.import(&[]).await;
    assert_eq!(counts(&report, "users"), [1, 0, 0, 0, 1]);
    assert_eq!(named(&report, "id-taken"), ["user-1"]);
    assert_eq!(second.text("SELECT email FROM users").await, "user-1@example.test");
    assert_eq!(second.rows().await, [1, 1, 0]);
}

#[tokio::test]
async fn tables_are_found_by_the_names_that_generators_give() {
    for (rename, arguments) in [
        (source::PRISMA, &[][..]),
        (source::DRIZZLE, &[]),
        (source::UUIDS, &[]),
        (source::NUMBERS, &[]),
        (
            source::OWN_NAMES,
            &[
                "--source-schema",
                "Old App",
                "--table",
                "user=people",
                "--column",
                "user.email=mail",
            ],
        ),
    ] {
        let source = Source::of_users(3).await;
        source.add_sessions().await;
        source.run(rename).await;
        let moving = Move::new(source).await;
        let report = moving.import(&[&["--batch-size", "2"], arguments].concat()).await;
        assert_eq!(counts(&report, "users"), [3, 3, 0, 0, 0], "{rename}");
        assert_eq!(counts(&report, "accounts"), [3, 3, 0, 0, 0], "{rename}");
        assert_eq!(counts(&report, "sessions"), [4, 2, 0, 0, 2], "{rename}");
        let times = "SELECT string_agg(DISTINCT (created_at AT TIME ZONE 'UTC')::text, ' ') FROM users";
        assert_eq!(moving.text(times).await, "2026-11-20 08:00:00", "{rename}");
        let kept = moving
            .target
            .count("SELECT count(*) FROM users WHERE id::text = imported_id")
            .await;
        assert_eq!(kept, if rename == source::UUIDS { 3 } else { 0 });
        let gateway = Setup::default().with(SUCCESSOR).start_on(&moving.target).await;
        assert_eq!(sign_in(&gateway, "user-3@example.test").await, 200, "{rename}");
    }
}

#[tokio::test]
async fn what_is_no_better_auth_database_is_refused_with_all_that_is_wrong() {
    let moving = Move::new(Source::of_users(1).await).await;
    moving
        .source
        .run("ALTER TABLE \"user\" DROP COLUMN \"emailVerified\"; DROP TABLE session")
        .await;
    let ended = moving.run(&[]).await;
    assert_eq!(ended.code, Some(1));
    for said in [
        "has no column for emailVerified",
        "there is no table \"session\"",
        "--without-sessions",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    assert_eq!(moving.rows().await, [0, 0, 0]);
}

#[tokio::test]
async fn wrong_usage_is_told_before_anything_is_read() {
    let moving = Move::new(Source::of_users(1).await).await;
    for wrong in [
        &["--table", "user"][..],
        &["--table", "person=x"],
        &["--column", "user.mail=x"],
        &["--batch-size", "0"],
    ] {
        let ended = moving.run(wrong).await;
        assert_eq!(ended.code, Some(2), "{wrong:?}: {ended:?}");
    }
    // The gateway's own tables, in the same database.
    let own = Move {
        source: Source {
            db: moving.target.clone(),
        },
        ..moving
    };
    let ended = own.run(&["--source-schema", "auth"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("the gateway's own schema"), "{}", ended.stderr);

    let config = own.config();
    let url = [
        "postgres://ada:hunter2@127.0.0.1:99999/x",
        "mysql://ada:hunter2@127.0.0.1/x",
    ];
    for url in url {
        let arguments = [
            "import",
            "better-auth",
            "--config",
            config.to_str().unwrap(),
            "--from",
            url,
        ];
        let ended = run(&arguments, &[], own.folder.path()).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn two_imports_into_one_schema_take_turns() {
    let moving = Move::new(Source::of_users(1).await).await;
    let other = moving.target.client().await;
    let lock = "SELECT pg_advisory_lock(hashtextextended('vestibule import auth', 0))";
    other.query_one(lock, &[]).await.unwrap();
    let ended = moving.run(&[]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("another import"), "{}", ended.stderr);
    assert_eq!(moving.rows().await, [0, 0, 0]);
    other
        .query_one("SELECT pg_advisory_unlock_all()::text", &[])
        .await
        .unwrap();
    moving.import(&[]).await;
}

#[tokio::test]
async fn tables_of_both_may_stand_in_one_database() {
    let moving = Move::new(Source::of_users(2).await).await;
    let beside = Move {
        target: moving.source.db.clone(),
        ..moving
    };
    // The schema is made on the way, as `serve` makes it.
    let report = beside.import(&[]).await;
    assert_eq!(counts(&report, "users"), [2, 2, 0, 0, 0]);
    assert_eq!(beside.rows().await, [2, 2, 0]);
}
