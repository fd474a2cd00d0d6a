//! `vestibule user` and `vestibule session`: what operators do, and that gateways which run beside it take notice.

use serde_json::{Value, json};

use crate::harness::{
    Database, SOON, Setup,
    desk::Desk,
    eventually,
    gateway::Gateway,
    people::{PASSWORD, User},
    program::run,
};

/// The keys of an object, in order.
fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The session is over; the gateway heard of it, for its cache would have known otherwise for ten seconds.
async fn is_out(gateway: &Gateway, user: &User) {
    eventually(SOON, async || gateway.get("/api/me").with(user).await.status() == 401).await;
}

async fn is_in(gateway: &Gateway, user: &User) {
    assert_eq!(gateway.get("/api/me").with(user).await.status(), 200);
}

/// Action and reason of what the command line did, in order.
async fn done(db: &Database) -> Vec<(String, Option<String>)> {
    let client = db.client().await;
    let sql = "SELECT action, reason FROM audit_log
        WHERE actor_id IS NULL AND ip_address IS NULL AND outcome = 'done' AND request_id LIKE 'cli-%'
            AND user_agent = 'vestibule-cli/' || $1 || ' (grace)'
        ORDER BY id";
    let rows = client.query(sql, &[&env!("CARGO_PKG_VERSION")]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn event(action: &str, reason: Option<&str>) -> (String, Option<String>) {
    (action.to_owned(), reason.map(str::to_owned))
}

#[tokio::test]
async fn a_user_who_was_made_signs_in_with_the_password_from_standard_input() {
    let desk = Desk::new().await;
    let args = [
        "user",
        "create",
        "Ada@Example.com",
        "--name",
        "Ada Lovelace",
        "--role",
        "admin",
        "--role",
        "user",
        "--role",
        "admin",
        "--verified",
        "--password-stdin",
        "--json",
    ];
    let ended = desk.run_with_input(&args, &format!("{PASSWORD}\n")).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let made: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(keys(&made), ["mailed", "resetLink", "user"]);
    assert_eq!((&made["mailed"], &made["resetLink"]), (&json!(false), &Value::Null));
    let user = &made["user"];
    let expected = json!({
        "id": user["id"], "email": "ada@example.com", "emailVerified": true, "name": "Ada Lovelace", "image": null,
        "roles": ["admin", "user"], "banned": false, "banReason": null, "banExpires": null,
        "createdAt": user["createdAt"], "updatedAt": user["createdAt"],
    });
    assert_eq!(*user, expected);

    let ada = User::of(&desk.gateway, &desk.gateway.sign_in("ada@example.com").await);
    assert_eq!(ada.id, text(&user["id"]));
    assert_eq!(desk.gateway.get("/admin/x").with(&ada).await.status(), 200);
    let hash = "SELECT count(*) FROM accounts WHERE password_hash LIKE '$argon2id$v=19$m=64,t=1,p=1$%'";
    assert_eq!(
        desk.gateway.db().count(hash).await,
        1,
        "hashed as the configuration says"
    );
    assert_eq!(done(desk.gateway.db()).await, [event("create-user", None)]);
}

#[tokio::test]
async fn a_user_who_can_t_be_made_is_refused_in_words() {
    let desk = Desk::new().await;
    desk.gateway.verified("ada@example.com").await;
    let create = async |args: &[&str], input| {
        let args = [&["user", "create"], args].concat();
        let ended = desk.run_with_input(&args, input).await;
        assert_eq!(ended.stdout, "", "{args:?}");
        (ended.code, ended.stderr)
    };
    let bob = "bob@example.com";
    for (args, input, code, words) in [
        (
            &["ADA@example.com", "--password-stdin"] as &[_],
            PASSWORD,
            1,
            "has a user already",
        ),
        (
            &[bob, "--password-stdin"],
            "short",
            2,
            "too short: at least 8 characters",
        ),
        (&[bob, "--password-stdin"], "", 2, "too short"),
        (
            &[bob, "--password-stdin"],
            &"x".repeat(129),
            2,
            "too long: at most 128 characters",
        ),
        (
            &[bob, "--password-stdin", "--role", "a,b"],
            PASSWORD,
            2,
            "A-Z a-z 0-9 . _ : -",
        ),
        (
            &[bob, "--password-stdin", "--no-password"],
            PASSWORD,
            2,
            "cannot be used with",
        ),
        (&["bob", "--password-stdin"], PASSWORD, 2, "not an e-mail address"),
        (&[bob], PASSWORD, 2, "--password-stdin or --no-password"),
        (
            &[bob, "--no-password", "--redirect-to", "https://evil.example/"],
            "",
            2,
            "auth.trusted_origins",
        ),
        (
            &[bob, "--no-password", "--redirect-to", "//evil.example/"],
            "",
            2,
            "auth.trusted_origins",
        ),
    ] {
        let (ended, stderr) = create(args, input).await;
        assert_eq!(ended, Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: no {words:?} in {stderr}");
    }
    assert_eq!(desk.gateway.db().count("SELECT count(*) FROM users").await, 1);
    assert_eq!(done(desk.gateway.db()).await, []);
}

#[tokio::test]
async fn a_user_without_a_password_gets_a_link_by_mail_or_in_print() {
    let desk = Desk::new().await;
    let ada = ["user", "create", "ada@example.com", "--name", "Ada", "--no-password"];
    let said = desk.says(&ada).await;
    assert!(said.contains("with the roles: user\n"), "{said}");
    assert!(!said.contains("http"), "a link that is mailed is not shown:\n{said}");
    let mail = desk.gateway.mailbox().next_to("ada@example.com").await;
    let start = "https://app.example.com/api/auth/reset-password/";
    let link = mail.link();
    let token = link
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix("?callbackURL=%2F"));
    assert_eq!(token.map(str::len), Some(43), "{link}");

    let bob = [
        "user",
        "create",
        "bob@example.com",
        "--no-password",
        "--print-link",
        "--redirect-to",
        "/new?x=1",
    ];
    let made = desk.json(&bob).await;
    let link = text(&made["resetLink"]);
    assert!(
        link.starts_with(start) && link.ends_with("?callbackURL=%2Fnew%3Fx%3D1"),
        "{link}"
    );
    assert_eq!(made["mailed"], false);
    assert!(desk.gateway.mailbox().to("bob@example.com").is_empty());
    let token = &link[start.len()..start.len() + 43];
    let rows = desk.gateway.db().client().await;
    let stored = "SELECT count(*) FROM one_time_tokens
        WHERE token_hash = sha256(convert_to($1, 'UTF8')) AND purpose = 'reset-password'";
    let stored: i64 = rows.query_one(stored, &[&token]).await.unwrap().get(0);
    assert_eq!(stored, 1);
    assert_eq!(desk.gateway.db().count("SELECT count(*) FROM accounts").await, 0);
    let expected = [
        event("create-user", None),
        event("request-password-reset", Some("mailed")),
        event("create-user", None),
        event("request-password-reset", Some("printed")),
    ];
    assert_eq!(done(desk.gateway.db()).await, expected);
}

#[tokio::test]
async fn a_newer_reset_link_voids_the_older_ones() {
    let desk = Desk::new().await;
    desk.gateway.verified("ada@example.com").await;
    let reset = ["user", "reset-password", "ada@example.com"];
    let printed = desk.json(&[&reset[..], &["--print-link"]].concat()).await;
    assert_eq!(keys(&printed), ["expiresAt", "mailed", "resetLink", "user"]);
    assert_eq!(
        (&printed["mailed"], text(&printed["user"]["email"])),
        (&json!(false), "ada@example.com")
    );
    desk.says(&reset).await;
    let mail = desk.gateway.mailbox().next_to("ada@example.com").await;
    // Signing up brought the first one.
    let mail = if mail.link().contains("reset-password") {
        mail
    } else {
        desk.gateway.mailbox().next_to("ada@example.com").await
    };
    assert!(mail.link().contains("/reset-password/") && mail.link() != text(&printed["resetLink"]));
    let good = "SELECT count(*) FROM one_time_tokens WHERE purpose = 'reset-password' AND consumed_at IS NULL";
    assert_eq!(desk.gateway.db().count(good).await, 1);
}

#[tokio::test]
async fn a_ban_ends_every_session_at_a_running_gateway_and_an_end_of_it_lets_in_again() {
    let desk = Desk::new().await;
    let ada = desk.gateway.signed_in("ada@example.com").await;
    let elsewhere = User::of(&desk.gateway, &desk.gateway.sign_in("ada@example.com").await);
    let bob = desk.gateway.signed_in("bob@example.com").await;
    for user in [&ada, &elsewhere, &bob] {
        is_in(&desk.gateway, user).await;
    }
    let banned = desk
        .json(&["user", "ban", "ada@example.com", "--reason", "spam", "--for", "7d"])
        .await;
    assert_eq!(banned["sessionsEnded"], 2);
    let user = &banned["user"];
    assert_eq!((&user["banned"], &user["banReason"]), (&json!(true), &json!("spam")));
    assert!(text(&user["banExpires"]) > text(&user["updatedAt"]));
    is_out(&desk.gateway, &ada).await;
    is_out(&desk.gateway, &elsewhere).await;
    is_in(&desk.gateway, &bob).await;
    assert_eq!(desk.gateway.sign_in("ada@example.com").await.code(), "BANNED_USER");
    let listed = desk.json(&["user", "list", "--banned"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let shown = desk.says(&["user", "show", "ada@example.com"]).await;
    assert!(
        shown.contains("banned until 2") && shown.contains("ban reason  spam"),
        "{shown}"
    );

    assert!(
        desk.says(&["user", "unban", &ada.id])
            .await
            .ends_with("is no longer banned\n")
    );
    assert!(
        desk.says(&["user", "unban", &ada.id])
            .await
            .ends_with("was not banned\n")
    );
    // The ban ended the sessions for good.
    assert_eq!(desk.gateway.get("/api/me").with(&ada).await.status(), 401);
    let ada = User::of(&desk.gateway, &desk.gateway.sign_in("ada@example.com").await);
    is_in(&desk.gateway, &ada).await;
    let expected = [
        event("ban", Some("spam")),
        event("revoke-session", Some("banned")),
        event("revoke-session", Some("banned")),
        event("unban", None),
    ];
    assert_eq!(done(desk.gateway.db()).await, expected);
    let over = desk
        .refused(&["user", "ban", &ada.id, "--until", "2020-01-01T00:00:00Z"], 2)
        .await;
    assert!(over.contains("bans nobody"), "{over}");
}

#[tokio::test]
async fn roles_that_were_set_reach_upstreams_while_the_session_lives() {
    let desk = Desk::new().await;
    let ada = desk.gateway.signed_in("ada@example.com").await;
    let roles = async || {
        is_in(&desk.gateway, &ada).await;
        let request = desk.gateway.upstream().last();
        request.head.one("x-user-roles").unwrap_or_default().to_owned()
    };
    assert_eq!(roles().await, "user");
    for (args, expected) in [
        (&["admin", "staff", "admin"] as &[_], "admin,staff"),
        (&["--add", "user", "--remove", "staff"], "admin,user"),
        (&["--remove", "admin"], "user"),
        (&["--none"], ""),
    ] {
        let args = [&["user", "set-role", "ada@example.com"], args].concat();
        let said = desk.json(&args).await;
        let stored: Vec<&str> = said["user"]["roles"].as_array().unwrap().iter().map(text).collect();
        assert_eq!(stored.join(","), expected);
        eventually(SOON, async || roles().await == expected).await;
    }
    // Nothing changes, and nothing is said to have changed.
    desk.says(&["user", "set-role", "ada@example.com", "--none"]).await;
    let expected = [
        event("set-role", Some("user -> admin,staff")),
        event("set-role", Some("admin,staff -> admin,user")),
        event("set-role", Some("admin,user -> user")),
        event("set-role", Some("user -> none")),
    ];
    assert_eq!(done(desk.gateway.db()).await, expected);
    for args in [
        &[] as &[&str],
        &["a b"],
        &["admin", "--none"],
        &["admin", "--add", "user"],
    ] {
        desk.refused(&[&["user", "set-role", "ada@example.com"], args].concat(), 2)
            .await;
    }
}

#[tokio::test]
async fn a_session_that_was_revoked_is_refused_and_others_go_on() {
    let desk = Desk::new().await;
    let ada = desk.gateway.signed_in("ada@example.com").await;
    let phone = User::of(&desk.gateway, &desk.gateway.sign_in("ada@example.com").await);
    is_in(&desk.gateway, &ada).await;
    is_in(&desk.gateway, &phone).await;
    let listed = desk.json(&["session", "list", "ada@example.com"]).await;
    let [newest, oldest] = listed.as_array().unwrap().as_slice() else {
        panic!("{listed}");
    };
    assert_eq!(
        keys(newest),
        [
            "createdAt",
            "device",
            "email",
            "expiresAt",
            "id",
            "ipAddress",
            "lastSeenAt",
            "location",
            "methods",
            "remembered",
            "updatedAt",
            "userAgent",
            "userId"
        ]
    );
    assert_eq!(
        (text(&newest["ipAddress"]), &newest["methods"]),
        ("127.0.0.1", &json!(["pwd"]))
    );
    assert_eq!(
        newest["device"],
        json!({ "browser": null, "os": null, "kind": "other" })
    );
    assert_eq!(newest["location"], Value::Null);
    assert!(text(&newest["createdAt"]) >= text(&oldest["createdAt"]));

    let id = text(&newest["id"]);
    let unknown = "00000000-0000-7000-8000-000000000000";
    let ended = desk.run(&["session", "revoke", id, unknown, "--yes", "--json"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains(&format!("no live session has the id {unknown}")),
        "{}",
        ended.stderr
    );
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(said, json!({ "revoked": [id], "notLive": [unknown] }));
    is_out(&desk.gateway, &phone).await;
    is_in(&desk.gateway, &ada).await;

    let asked = desk
        .refused(&["session", "revoke", "--user", "ada@example.com"], 2)
        .await;
    assert!(asked.contains("--yes"), "{asked}");
    is_in(&desk.gateway, &ada).await;
    let said = desk.says(&["session", "revoke", "--user", &ada.id, "--yes"]).await;
    assert_eq!(said, "sessions ended: 1\n");
    is_out(&desk.gateway, &ada).await;
    assert_eq!(desk.says(&["session", "list", &ada.id]).await, "none\n");
    let revoked = event("revoke-session", Some("operator"));
    assert_eq!(done(desk.gateway.db()).await, [revoked.clone(), revoked]);
}

#[tokio::test]
async fn a_user_who_was_deleted_is_out_and_the_log_remembers() {
    let desk = Desk::new().await;
    let ada = desk.gateway.signed_in("ada@example.com").await;
    is_in(&desk.gateway, &ada).await;
    let asked = desk.refused(&["user", "delete", "ada@example.com"], 2).await;
    assert!(asked.contains("--yes"), "{asked}");
    is_in(&desk.gateway, &ada).await;

    let deleted = desk.json(&["user", "delete", "ada@example.com", "--yes"]).await;
    assert_eq!(text(&deleted["user"]["id"]), ada.id);
    is_out(&desk.gateway, &ada).await;
    for table in ["users", "accounts", "user_sessions"] {
        assert_eq!(
            desk.gateway.db().count(&format!("SELECT count(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
    let log = desk.json(&["audit", "--user", &ada.id]).await;
    let actions: Vec<&str> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|event| text(&event["action"]))
        .collect();
    assert_eq!(actions, ["delete-user", "sign-in", "sign-up"]);
    let gone = desk.refused(&["user", "show", "ada@example.com"], 1).await;
    assert!(
        gone.contains("no user has the address ada@example.com") && gone.contains("user list"),
        "{gone}"
    );
    let gone = desk.refused(&["user", "ban", &ada.id], 1).await;
    assert!(gone.contains(&format!("no user has the id {}", ada.id)), "{gone}");
}

#[tokio::test]
async fn users_are_listed_page_by_page_and_found() {
    let desk = Desk::new().await;
    let sql = "INSERT INTO users (id, email, email_verified, name, roles, banned, ban_expires, created_at, updated_at)
        SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n || '@example.com', n % 2 = 0,
            CASE WHEN n = 3 THEN 'Grace 50%' ELSE 'Somebody' END,
            CASE WHEN n % 4 = 0 THEN '{user,admin}'::text[] ELSE '{user}' END,
            n IN (5, 6), CASE WHEN n = 6 THEN '2020-01-01'::timestamptz END, now(), now()
        FROM generate_series(1, 9) AS n";
    desk.gateway.db().run(sql).await;
    let list = async |args: &[&str]| {
        let users = desk.json(&[&["user", "list"], args].concat()).await;
        let users = users.as_array().unwrap().iter();
        users
            .map(|user| {
                text(&user["email"])
                    .trim_start_matches("user")
                    .split('@')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (args, expected) in [
        (&[] as &[_], "9 8 7 6 5 4 3 2 1"),
        (&["--search", "USER7"], "7"),
        (&["--search", "50%"], "3"),
        (&["--search", "_"], ""),
        (&["--role", "admin"], "8 4"),
        (&["--role", "user", "--limit", "2"], "9 8"),
        (&["--banned"], "5"),
        (&["--unverified"], "9 7 5 3 1"),
        (&["--unverified", "--search", "grace"], "3"),
        (&["--after", "00000000-0000-7000-8000-000000000003"], "2 1"),
    ] {
        assert_eq!(list(args).await, expected, "{args:?}");
    }

    let mut pages = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut args = vec!["user", "list", "--limit", "4", "--json"];
        if let Some(id) = &after {
            args.extend(["--after", id]);
        }
        let ended = desk.run(&args).await;
        let page: Value = serde_json::from_str(&ended.stdout).unwrap();
        let page = page.as_array().unwrap();
        pages.push(page.len());
        let end = text(&page.last().unwrap()["id"]).to_owned();
        if ended.stderr.is_empty() {
            break;
        }
        assert!(
            ended.stderr.contains(&format!("there is more: --after {end}")),
            "{}",
            ended.stderr
        );
        after = Some(end);
    }
    assert_eq!(pages, [4, 4, 1]);
    let table = desk.says(&["user", "list", "--limit", "2"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("ID ") && lines[0].contains("CREATED (UTC)"),
        "{table}"
    );
    assert!(
        lines[1].contains("user9@example.com") && lines[1].contains("unverified"),
        "{table}"
    );
    assert_eq!(lines.len(), 3, "{table}");
    assert_eq!(
        desk.says(&["user", "list", "--search", "nobody"]).await,
        "no such users\n"
    );
}

#[tokio::test]
async fn sessions_of_everybody_are_listed_page_by_page() {
    let desk = Desk::new().await;
    for name in ["ada", "bob", "cora"] {
        desk.gateway.signed_in(&format!("{name}@example.com")).await;
    }
    let ended = desk.run(&["session", "list", "--all", "--limit", "2", "--json"]).await;
    let first: Value = serde_json::from_str(&ended.stdout).unwrap();
    let emails = |page: &Value| {
        let page = page.as_array().unwrap().iter();
        page.map(|session| text(&session["email"]).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(emails(&first), ["cora@example.com", "bob@example.com"]);
    let last = text(&first[1]["id"]);
    assert!(ended.stderr.contains(last), "{}", ended.stderr);
    let rest = desk.json(&["session", "list", "--all", "--after", last]).await;
    assert_eq!(emails(&rest), ["ada@example.com"]);
    desk.refused(&["session", "list"], 2).await;
    desk.refused(&["session", "list", "--all", "ada@example.com"], 2).await;
}

#[tokio::test]
async fn a_user_is_shown_whole() {
    let desk = Desk::new().await;
    let ada = desk.gateway.signed_in("ada@example.com").await;
    let shown = desk.json(&["user", "show", "ADA@example.com"]).await;
    assert_eq!(keys(&shown), ["accounts", "audit", "sessions", "user"]);
    assert_eq!(text(&shown["user"]["id"]), ada.id);
    let [account] = shown["accounts"].as_array().unwrap().as_slice() else {
        panic!("{shown}");
    };
    assert_eq!(
        keys(account),
        [
            "accountId",
            "createdAt",
            "id",
            "passwordSetAt",
            "providerId",
            "updatedAt"
        ]
    );
    assert_eq!(
        (text(&account["providerId"]), text(&account["accountId"])),
        ("credential", ada.id.as_str())
    );
    assert_eq!(shown["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(text(&shown["audit"][0]["action"]), "sign-in");
    let all = shown.to_string();
    assert!(!all.contains("argon2") && !all.contains(&ada.token), "{all}");

    let said = desk.says(&["user", "show", &ada.id]).await;
    for expected in [
        "e-mail   ada@example.com",
        "\nways to sign in\n",
        "credential",
        "\nlive sessions\n",
        "127.0.0.1",
        "\nwhat happened\n",
        "sign-up",
    ] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
}

#[tokio::test]
async fn sessions_are_listed_with_device_and_place() {
    let desk = Desk::new().await;
    let ada = desk.gateway.signed_in("ada@example.com").await;
    let seen = "UPDATE user_sessions SET ip_address = '203.0.113.7', country = 'SE', city = 'Linköping', \
                browser = 'Firefox', os = 'Linux', device = 'desktop'";
    desk.gateway.db().run(seen).await;
    let listed = desk.json(&["session", "list", &ada.id]).await;
    assert_eq!(
        listed[0]["device"],
        json!({ "browser": "Firefox", "os": "Linux", "kind": "desktop" })
    );
    assert_eq!(listed[0]["location"], json!({ "country": "SE", "city": "Linköping" }));
    let table = desk.says(&["session", "list", &ada.id]).await;
    assert!(table.contains("203.0.113.7 (Linköping, SE)"), "{table}");
}

/// A name and a user agent as a stranger would have them, who wants to do something to the operator's terminal.
#[tokio::test]
async fn what_strangers_wrote_is_shown_without_being_obeyed() {
    let desk = Desk::new().await;
    let ada = desk.gateway.signed_in("ada@example.com").await;
    // By the front door as well: U+202E and U+009B in UTF-8, byte for byte.
    let body = json!({ "name": "Eve\u{1b}]0;owned\u{7}\u{202e}", "email": "eve@example.com", "password": PASSWORD });
    let agent = "\u{e2}\u{80}\u{ae}x\u{c2}\u{9b}2J";
    let answer = desk
        .gateway
        .post("/api/auth/sign-up/email")
        .header("User-Agent", agent)
        .json(&body)
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    desk.gateway
        .db()
        .run("UPDATE user_sessions SET user_agent = E'\\x1b[2J\\r\\nforged line'")
        .await;
    let listed = desk.says(&["user", "list"]).await;
    assert!(listed.contains(r"Eve\u{1b}]0;owned\u{7}\u{202e}"), "{listed}");
    let sessions = desk.says(&["session", "list", &ada.id]).await;
    assert!(sessions.contains(r"\u{1b}[2J\r\nforged line"), "{sessions}");
    assert_eq!(sessions.lines().count(), 2, "{sessions}");
    let log = desk.says(&["audit", "--user", "eve@example.com"]).await;
    assert!(log.contains(r"\u{202e}x\u{9b}2J"), "{log}");
    // Scripts get what was written, by numbers where a terminal would obey.
    let ended = desk.run(&["audit", "--user", "eve@example.com", "--json"]).await;
    assert!(ended.stdout.contains(r"\u202ex\u009b2J"), "{}", ended.stdout);
    let log: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(log[0]["userAgent"], "\u{202e}x\u{9b}2J");
    // What somebody types who was told to.
    let typed = desk.refused(&["user", "show", "\u{1b}[2J@example.com"], 1).await;
    assert!(typed.contains(r"\u{1b}[2j@example.com"), "{typed}");
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_what_can_t_be_done_with_1() {
    let desk = Desk::new().await;
    for args in [
        &["user"] as &[&str],
        &["user", "rename"],
        &["user", "show"],
        &["user", "show", "ada"],
        &["user", "list", "--limit", "0"],
        &["user", "list", "--limit", "10001"],
        &["user", "list", "--after", "ada@example.com"],
        &["user", "list", "--role", "a,b"],
        &["user", "ban", "ada@example.com", "--for", "7"],
        &[
            "user",
            "ban",
            "ada@example.com",
            "--for",
            "7d",
            "--until",
            "2030-01-01T00:00:00Z",
        ],
        &[
            "user",
            "reset-password",
            "ada@example.com",
            "--redirect-to",
            "https://evil.example",
        ],
        &["session"],
        &["session", "revoke"],
        &["session", "revoke", "1"],
        &["audit", "--since", "yesterday"],
        &["audit", "--action", "sign-im"],
        &["audit", "--outcome", "maybe"],
        &["audit", "--ip", "example.com"],
    ] {
        let ended = desk.run(args).await;
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.is_empty(), "{args:?} says nothing");
    }
    let listed = desk.refused(&["audit", "--action", "sign-im"], 2).await;
    assert!(listed.contains("sign-in, sign-out"), "{listed}");
}

#[tokio::test]
async fn a_database_that_is_not_ready_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let write = |db: &Database| std::fs::write(&config, Setup::default().text(db, nowhere, nowhere)).unwrap();
    let list = async || run(&["user", "list"], &[], folder.path()).await;

    write(&Database::empty().await);
    let ended = list().await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("lacks V1__users") && ended.stderr.contains("vestibule migrate"),
        "{}",
        ended.stderr
    );

    write(&Database::at("postgres://v:hunter2@127.0.0.1:1/v"));
    let ended = list().await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("database.url: could not connect to Postgres"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);

    std::fs::write(&config, "[server]\nlisten = 'nowhere'").unwrap();
    let ended = list().await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("server.listen"), "{}", ended.stderr);
}
