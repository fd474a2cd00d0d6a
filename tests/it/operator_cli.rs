//! What the commands for operators print, page by page, and how they end where they can do nothing.

use serde_json::{Value, json};

use crate::harness::{
    Database, Setup,
    desk::{Desk, keys, text},
    people::PASSWORD,
    program::run,
};

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
    assert!(
        table.contains("Linköping, SE") && table.contains("Firefox on Linux"),
        "{table}"
    );
    // The documents show the same columns.
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let printed = columns(table.lines().next().unwrap());
    let documented: Vec<_> = include_str!("../../docs/operators.md")
        .lines()
        .filter(|line| line.starts_with("ID ") && line.contains("SIGNED IN"))
        .map(columns)
        .collect();
    assert_eq!(documented, [printed.clone(), printed]);
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
