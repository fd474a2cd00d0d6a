//! What operators change from the command line, and that gateways which run beside it take notice.

use serde_json::{Value, json};

use crate::harness::{
    Database, SOON,
    desk::{Desk, keys, text},
    eventually,
    gateway::Gateway,
    people::{PASSWORD, User},
};

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
    assert!(mail.resets() && mail.link() != text(&printed["resetLink"]));
    let good = "SELECT count(*) FROM one_time_tokens WHERE purpose = 'reset-password' AND consumed_at IS NULL";
    assert_eq!(desk.gateway.db().count(good).await, 1);
}

/// Whoever was handed it need not be who reads the mail: whether the address is theirs stays in doubt.
#[tokio::test]
async fn a_printed_reset_link_tells_nothing_of_who_reads_the_address() {
    let desk = Desk::new().await;
    let gateway = &desk.gateway;
    gateway.verified("ada@example.com").await;
    gateway.db().run("UPDATE users SET address_in_doubt = true").await;
    let choose = async |link: &str| {
        let token = link
            .split("/reset-password/")
            .nth(1)
            .unwrap()
            .split('?')
            .next()
            .unwrap();
        let body = json!({ "token": token, "newPassword": PASSWORD });
        let chosen = gateway.post("/api/auth/reset-password").json(&body).await;
        assert_eq!(chosen.status(), 200, "{}", chosen.text());
        gateway
            .db()
            .count("SELECT count(*) FROM users WHERE address_in_doubt")
            .await
    };
    let reset = ["user", "reset-password", "ada@example.com"];
    let printed = desk.json(&[&reset[..], &["--print-link"]].concat()).await;
    assert_eq!(choose(text(&printed["resetLink"])).await, 1);

    gateway.mailbox().next_to("ada@example.com").await;
    desk.says(&reset).await;
    let mailed = gateway.mailbox().next_to("ada@example.com").await.link();
    assert_eq!(choose(&mailed).await, 0);
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
