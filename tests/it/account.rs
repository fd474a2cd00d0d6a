//! What users change about their account: password, profile, address, ways to sign in, and its end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Database, Gateway, SOON, Setup,
    client::Response,
    eventually,
    people::{PASSWORD, User},
};

const NEW: &str = "another horse, another battery";

async fn post(gateway: &Gateway, path: &str, user: &User, body: &Value) -> Response {
    gateway.post(&format!("/api/auth/{path}")).with(user).json(body).await
}

async fn again(gateway: &Gateway, email: &str) -> User {
    User::of(gateway, &gateway.sign_in(email).await)
}

async fn session_of(gateway: &Gateway, user: &User) -> Value {
    gateway.get("/api/auth/get-session").with(user).await.json()
}

#[tokio::test]
async fn every_endpoint_needs_a_session() {
    let gateway = Gateway::start().await;
    for (path, body) in [
        ("change-password", json!({ "currentPassword": "x", "newPassword": "y" })),
        ("set-password", json!({ "newPassword": NEW })),
        ("verify-password", json!({ "password": "x" })),
        ("change-email", json!({ "newEmail": "new@example.com" })),
        ("update-user", json!({ "name": "x" })),
        ("update-session", json!({})),
        ("delete-user", json!({})),
        ("unlink-account", json!({ "accountId": "x" })),
        ("multi-session/revoke", json!({ "sessionToken": "x" })),
    ] {
        let answer = gateway.post(&format!("/api/auth/{path}")).json(&body).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (401, "UNAUTHORIZED".to_owned()),
            "{path}"
        );
    }
    assert_eq!(gateway.get("/api/auth/list-accounts").await.code(), "UNAUTHORIZED");
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let elsewhere = again(&gateway, "ada@example.com").await;
    let change = async |old: &str, new: &str| {
        let body = json!({ "currentPassword": old, "newPassword": new });
        post(&gateway, "change-password", &ada, &body).await
    };
    let wrong = change("not the password", NEW).await;
    assert_eq!((wrong.status(), wrong.code()), (400, "INVALID_PASSWORD".to_owned()));
    assert_eq!(change(PASSWORD, "short").await.code(), "PASSWORD_TOO_SHORT");
    assert_eq!(change(PASSWORD, &"x".repeat(129)).await.code(), "PASSWORD_TOO_LONG");
    assert_eq!(change(&"x".repeat(129), NEW).await.code(), "PASSWORD_TOO_LONG");

    let changed = change(PASSWORD, NEW).await;
    assert_eq!(changed.status(), 200, "{}", changed.text());
    assert_eq!(changed.json()["token"], Value::Null);
    assert_eq!(changed.json()["user"]["email"], "ada@example.com");
    // Sessions stay unless somebody asks for their end.
    assert_eq!(gateway.get("/api/me").with(&elsewhere).await.status(), 200);
    assert_eq!(
        gateway.sign_in("ada@example.com").await.code(),
        "INVALID_EMAIL_OR_PASSWORD"
    );
}

#[tokio::test]
async fn sess_07_changing_a_password_may_end_all_sessions_but_a_new_one() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let elsewhere = again(&gateway, "ada@example.com").await;
    for user in [&ada, &elsewhere] {
        assert_eq!(gateway.get("/api/me").with(user).await.status(), 200);
    }
    let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW, "revokeOtherSessions": true });
    let changed = post(&gateway, "change-password", &ada, &body).await;
    let renewed = User::of(&gateway, &changed);
    assert_ne!(renewed.token, ada.token);
    let bearer = changed.head.one("set-auth-token").expect("for clients without cookies");
    assert!(bearer.starts_with(&format!("{}.", renewed.token)), "{bearer}");
    let exposed = changed.head.one("access-control-expose-headers").unwrap_or_default();
    assert!(exposed.split(", ").any(|name| name == "set-auth-token"), "{exposed}");
    for (user, status) in [(&ada, 401), (&elsewhere, 401), (&renewed, 200)] {
        assert_eq!(gateway.get("/api/me").with(user).await.status(), status);
    }
}

#[tokio::test]
async fn sess_07_an_operator_may_have_every_change_end_the_others() {
    let gateway = Setup::default()
        .with("[auth.password]\nchange_revokes_others = true")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    let elsewhere = again(&gateway, "ada@example.com").await;
    let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW });
    assert_eq!(post(&gateway, "change-password", &ada, &body).await.status(), 200);
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    assert_eq!(gateway.get("/api/me").with(&elsewhere).await.status(), 401);
}

#[tokio::test]
async fn a_password_is_verified_and_a_first_one_set() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let verify = async |password: &str| {
        let answer = post(&gateway, "verify-password", &ada, &json!({ "password": password })).await;
        (answer.status(), answer.code())
    };
    assert_eq!(verify(PASSWORD).await, (200, String::new()));
    assert_eq!(verify("not the password").await, (400, "INVALID_PASSWORD".to_owned()));
    let set = json!({ "newPassword": NEW });
    assert_eq!(
        post(&gateway, "set-password", &ada, &set).await.code(),
        "PASSWORD_ALREADY_SET"
    );

    gateway.db().run("DELETE FROM accounts").await;
    assert_eq!(verify(PASSWORD).await, (400, "INVALID_PASSWORD".to_owned()));
    let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW });
    assert_eq!(
        post(&gateway, "change-password", &ada, &body).await.code(),
        "CREDENTIAL_ACCOUNT_NOT_FOUND"
    );
    assert_eq!(post(&gateway, "set-password", &ada, &set).await.status(), 200);
    assert_eq!(verify(NEW).await, (200, String::new()));
    gateway.db().run("DELETE FROM accounts").await;
    gateway.clock().advance(Duration::from_hours(25));
    assert_eq!(
        post(&gateway, "set-password", &ada, &set).await.code(),
        "SESSION_NOT_FRESH"
    );
}

#[tokio::test]
async fn a_profile_is_updated_and_upstreams_are_told() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    let body = json!({ "name": "Countess", "image": "https://img.example/a.png" });
    let updated = post(&gateway, "update-user", &ada, &body).await;
    assert_eq!((updated.status(), updated.json()), (200, json!({ "status": true })));
    let cookie = updated
        .set_cookie(gateway.session_cookie())
        .expect("the cookie is set again");
    assert!(cookie.starts_with(&ada.cookie), "{cookie}");
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    assert_eq!(gateway.upstream().last().head.one("x-user-name"), Some("Countess"));

    assert_eq!(
        post(&gateway, "update-user", &ada, &json!({ "image": null }))
            .await
            .status(),
        200
    );
    let user = &session_of(&gateway, &ada).await["user"];
    assert_eq!((&user["name"], &user["image"]), (&json!("Countess"), &Value::Null));

    for (body, code, message) in [
        (json!({}), "", "No fields to update"),
        (
            json!({ "email": "new@example.com" }),
            "EMAIL_CAN_NOT_BE_UPDATED",
            "Email can not be updated",
        ),
        (
            json!({ "role": "admin" }),
            "FIELD_NOT_ALLOWED",
            "role is not allowed to be set",
        ),
        (
            json!({ "name": 7 }),
            "VALIDATION_ERROR",
            "[body.name] Invalid input: expected string, received number",
        ),
    ] {
        let answer = post(&gateway, "update-user", &ada, &body).await;
        assert_eq!((answer.status(), answer.code()), (400, code.to_owned()), "{body}");
        assert_eq!(answer.json()["message"], message);
    }
    let session = post(&gateway, "update-session", &ada, &json!({ "theme": "dark" })).await;
    assert_eq!(
        (session.status(), session.json()["message"].clone()),
        (400, json!("No fields to update"))
    );
    assert!(session.json().get("code").is_none());
}

#[tokio::test]
async fn an_address_changes_once_both_have_agreed() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let body = json!({ "newEmail": "New@Example.com", "callbackURL": "/settings" });
    let asked = post(&gateway, "change-email", &ada, &body).await;
    assert_eq!((asked.status(), asked.json()), (200, json!({ "status": true })));
    gateway.mailbox().next_to("ada@example.com").await;
    let approve = gateway.mailbox().next_to("ada@example.com").await;
    assert!(approve.text.contains("new@example.com"), "{}", approve.text);
    assert!(
        gateway.mailbox().to("new@example.com").is_empty(),
        "the old address first"
    );

    for _ in 0..2 {
        let approved = gateway.open(&approve.link()).await;
        assert_eq!(
            (approved.status(), approved.head.one("location")),
            (302, Some("/settings"))
        );
    }
    assert_eq!(session_of(&gateway, &ada).await["user"]["email"], "ada@example.com");
    let confirm = gateway.mailbox().next_to("new@example.com").await.link();

    // A scanner comes first: the address changes, the scanner gets no session, and the person finds it done.
    let scanned = gateway.open(&confirm).await;
    assert_eq!(scanned.status(), 302);
    assert!(!scanned.head.has("set-cookie"), "{:?}", scanned.head);
    let plain = confirm.split("&callbackURL").next().unwrap();
    let opened = gateway.open(plain).with(&ada).await;
    assert_eq!(opened.json()["user"]["email"], "new@example.com", "{}", opened.text());

    let user = &session_of(&gateway, &ada).await["user"];
    assert_eq!(
        (&user["email"], &user["emailVerified"]),
        (&json!("new@example.com"), &json!(true))
    );
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    assert_eq!(
        gateway.upstream().last().head.one("x-user-email"),
        Some("new@example.com")
    );
    // The new one was asked once, and the old one is told.
    let told = gateway.mailbox().next_to("ada@example.com").await;
    assert!(told.subject.contains("changed"), "{}", told.subject);
    assert_eq!(gateway.mailbox().to("new@example.com").len(), 1);
    assert_eq!(gateway.sign_in("new@example.com").await.status(), 200);
    assert_eq!(gateway.sign_in("ada@example.com").await.status(), 401);
}

#[tokio::test]
async fn where_the_new_address_alone_decides_the_browser_that_asked_is_signed_in() {
    let gateway = Setup::default()
        .with("[auth.account]\nchange_email = 'new'")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;
    let asked = post(
        &gateway,
        "change-email",
        &ada,
        &json!({ "newEmail": "new@example.com" }),
    )
    .await;
    let mark = asked
        .set_cookie("__Host-vestibule.sign_up")
        .expect("the browser is marked");
    let mark = mark.split(';').next().unwrap().to_owned();
    let link = gateway.mailbox().next_to("new@example.com").await.link();

    let grace = gateway.signed_in("grace@example.com").await;
    let plain = link.split("&callbackURL").next().unwrap();
    let foreign = gateway.open(plain).with(&grace).await;
    assert_eq!((foreign.status(), foreign.code()), (401, "INVALID_USER".to_owned()));
    let foreign = gateway.open(&link).with(&grace).await;
    assert_eq!(foreign.head.one("location"), Some("/?error=INVALID_USER"));

    // Signed out meanwhile, but in the same browser.
    gateway.sign_out(&ada).await;
    let opened = gateway.open(plain).header("Cookie", &mark).await;
    assert_eq!(opened.json()["user"]["email"], "new@example.com", "{}", opened.text());
    let cookie = opened.set_cookie(gateway.session_cookie()).expect("a session");
    let cookie = cookie.split(';').next().unwrap();
    let session = gateway
        .get("/api/auth/get-session")
        .header("Cookie", cookie)
        .await
        .json();
    assert_eq!(session["user"]["email"], "new@example.com");
}

#[tokio::test]
async fn an_address_that_nobody_verified_is_not_told_of_a_change() {
    let gateway = Setup::default()
        .with("[auth.email_verification]\nrequired = false")
        .start()
        .await;
    // Grace has never heard of it: Eve entered her address, and changes it again and again.
    let eve = User::of(&gateway, &gateway.sign_up("grace@example.com").await);
    let body = json!({ "newEmail": "eve@example.com" });
    assert_eq!(post(&gateway, "change-email", &eve, &body).await.status(), 200);
    let confirm = gateway.mailbox().next_to("eve@example.com").await.link();
    gateway.open(&confirm).with(&eve).await;
    assert_eq!(session_of(&gateway, &eve).await["user"]["email"], "eve@example.com");

    // From an address that is verified there is something to tell.
    let body = json!({ "newEmail": "other@example.com" });
    assert_eq!(post(&gateway, "change-email", &eve, &body).await.status(), 200);
    let approve = gateway.mailbox().next_to("eve@example.com").await.link();
    gateway.open(&approve).await;
    let confirm = gateway.mailbox().next_to("other@example.com").await.link();
    gateway.open(&confirm).with(&eve).await;
    let told = gateway.mailbox().next_to("eve@example.com").await;
    assert!(told.subject.contains("changed"), "{}", told.subject);
    let mails = "SELECT count(*) FROM mail_outbox WHERE recipient LIKE 'grace%'";
    assert_eq!(gateway.db().count(mails).await, 0);
}

#[tokio::test]
async fn a_change_of_address_is_refused_or_left_without_a_word() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;
    gateway.mailbox().next_to("grace@example.com").await;
    let taken = post(
        &gateway,
        "change-email",
        &ada,
        &json!({ "newEmail": "grace@example.com" }),
    )
    .await;
    assert_eq!((taken.status(), taken.json()), (200, json!({ "status": true })));
    let same = post(
        &gateway,
        "change-email",
        &ada,
        &json!({ "newEmail": "ADA@example.com" }),
    )
    .await;
    assert_eq!(
        (same.status(), same.json()["message"].clone()),
        (400, json!("Email is the same"))
    );
    assert!(same.json().get("code").is_none());
    let bad = post(&gateway, "change-email", &ada, &json!({ "newEmail": "nobody" })).await;
    assert_eq!(bad.code(), "VALIDATION_ERROR");
    assert_eq!(
        gateway.db().count("SELECT count(*) FROM mail_outbox").await,
        2,
        "no mail but the two of sign-up"
    );

    let off = Setup::default()
        .with("[auth.account]\nchange_email = 'off'")
        .start()
        .await;
    let ada = off.signed_in("ada@example.com").await;
    let refused = post(&off, "change-email", &ada, &json!({ "newEmail": "new@example.com" })).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (400, "CHANGE_EMAIL_DISABLED".to_owned())
    );
}

#[tokio::test]
async fn a_change_voids_what_was_mailed_to_the_old_address_and_a_newer_one_the_older() {
    let gateway = Setup::default()
        .with("[auth.account]\nchange_email = 'new'")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    let reset = json!({ "email": "ada@example.com", "redirectTo": "/r" });
    gateway.post("/api/auth/request-password-reset").json(&reset).await;
    post(
        &gateway,
        "change-email",
        &ada,
        &json!({ "newEmail": "first@example.com" }),
    )
    .await;
    let first = gateway.mailbox().next_to("first@example.com").await.link();
    post(
        &gateway,
        "change-email",
        &ada,
        &json!({ "newEmail": "second@example.com" }),
    )
    .await;
    let second = gateway.mailbox().next_to("second@example.com").await.link();

    let void = gateway.open(&first).with(&ada).await;
    assert_eq!(void.head.one("location"), Some("/?error=TOKEN_EXPIRED"));
    assert_eq!(gateway.open(&second).with(&ada).await.head.one("location"), Some("/"));
    gateway.mailbox().next_to("ada@example.com").await;
    let reset = gateway.mailbox().next_to("ada@example.com").await.link();
    let followed = gateway.open(&reset).await;
    assert!(
        followed.head.one("location").unwrap().contains("error=INVALID_TOKEN"),
        "{:?}",
        followed.head
    );
}

#[tokio::test]
async fn an_account_is_deleted_by_its_password_or_in_a_fresh_session() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
    gateway.clock().advance(Duration::from_hours(25));
    let stale = post(&gateway, "delete-user", &ada, &json!({})).await;
    assert_eq!((stale.status(), stale.code()), (400, "SESSION_EXPIRED".to_owned()));
    let wrong = post(
        &gateway,
        "delete-user",
        &ada,
        &json!({ "password": "not the password" }),
    )
    .await;
    assert_eq!((wrong.status(), wrong.code()), (400, "INVALID_PASSWORD".to_owned()));
    let deleted = post(&gateway, "delete-user", &ada, &json!({ "password": PASSWORD })).await;
    assert_eq!(deleted.json(), json!({ "success": true, "message": "User deleted" }));
    let cleared = deleted
        .set_cookie(gateway.session_cookie())
        .expect("the cookie is cleared");
    assert!(cleared.contains("Max-Age=0"), "{cleared}");
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
    for table in ["users", "accounts", "user_sessions"] {
        assert_eq!(
            gateway.db().count(&format!("SELECT count(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
    let noted = "SELECT count(*) FROM audit_log WHERE action = 'delete-user' AND outcome = 'done' \
                 AND email = 'ada@example.com'";
    assert_eq!(gateway.db().count(noted).await, 1);

    let grace = gateway.signed_in("grace@example.com").await;
    assert_eq!(post(&gateway, "delete-user", &grace, &json!({})).await.status(), 200);
    assert_eq!(
        gateway.sign_up("grace@example.com").await.status(),
        200,
        "the address is free again"
    );
}

#[tokio::test]
async fn where_a_mail_must_prove_it_only_the_user_s_own_browser_deletes() {
    let gateway = Setup::default()
        .with("[auth.account]\ndelete_user = 'mail'")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    let grace = gateway.signed_in("grace@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;
    let asked = post(
        &gateway,
        "delete-user",
        &ada,
        &json!({ "password": PASSWORD, "callbackURL": "/bye" }),
    )
    .await;
    assert_eq!(
        asked.json(),
        json!({ "success": true, "message": "Verification email sent" })
    );
    let mail = gateway.mailbox().next_to("ada@example.com").await;
    let link = mail.link();

    let scanner = gateway.open(&link).await;
    assert_eq!(
        (scanner.status(), scanner.code()),
        (404, "FAILED_TO_GET_USER_INFO".to_owned())
    );
    let other = gateway.open(&link).with(&grace).await;
    assert_eq!((other.status(), other.code()), (404, "INVALID_TOKEN".to_owned()));
    let posted = post(&gateway, "delete-user", &grace, &json!({ "token": mail.token() })).await;
    assert_eq!((posted.status(), posted.code()), (404, "INVALID_TOKEN".to_owned()));
    let own = gateway.open(&link).with(&ada).await;
    assert_eq!((own.status(), own.head.one("location")), (302, Some("/bye")));
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);

    gateway.mailbox().next_to("grace@example.com").await;
    post(&gateway, "delete-user", &grace, &json!({})).await;
    let token = gateway.mailbox().next_to("grace@example.com").await.token();
    gateway.clock().advance(Duration::from_hours(24));
    let late = post(&gateway, "delete-user", &grace, &json!({ "token": token })).await;
    assert_eq!(late.code(), "INVALID_TOKEN");
    post(&gateway, "delete-user", &grace, &json!({})).await;
    let token = gateway.mailbox().next_to("grace@example.com").await.token();
    let deleted = post(&gateway, "delete-user", &grace, &json!({ "token": token })).await;
    assert_eq!(deleted.json()["message"], "User deleted");
}

#[tokio::test]
async fn where_deletion_is_off_it_is_not_there() {
    let gateway = Setup::default()
        .with("[auth.account]\ndelete_user = 'off'")
        .start()
        .await;
    let ada = gateway.signed_in("ada@example.com").await;
    let answer = post(&gateway, "delete-user", &ada, &json!({ "password": PASSWORD })).await;
    assert_eq!((answer.status(), answer.text()), (404, ""));
    let link = gateway.get("/api/auth/delete-user/callback?token=x").with(&ada).await;
    assert_eq!((link.status(), link.code()), (404, "NOT_FOUND".to_owned()));
    assert_eq!(gateway.db().count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn the_last_way_to_sign_in_stays() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let grace = gateway.signed_in("grace@example.com").await;
    let list = async |user: &User| gateway.get("/api/auth/list-accounts").with(user).await.json();
    let accounts = list(&ada).await;
    let own = &accounts[0];
    assert_eq!(
        (&own["providerId"], &own["accountId"]),
        (&json!("credential"), &json!(ada.id))
    );
    assert_eq!((&own["userId"], &own["scopes"]), (&json!(ada.id), &json!([])));
    assert!(!accounts.to_string().contains("argon2"), "{accounts}");

    let by_row = json!({ "accountId": own["id"] });
    let refused = post(&gateway, "unlink-account", &ada, &by_row).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (400, "FAILED_TO_UNLINK_LAST_ACCOUNT".to_owned())
    );
    for (provider, account) in [("google", "g-1"), ("github", "77")] {
        let sql = format!(
            "INSERT INTO accounts (id, user_id, provider_id, account_id, created_at, updated_at)
             VALUES (gen_random_uuid(), '{}', '{provider}', '{account}', now(), now())",
            ada.id
        );
        gateway.db().run(&sql).await;
    }
    let foreign = json!({ "accountId": list(&grace).await[0]["id"] });
    assert_eq!(
        post(&gateway, "unlink-account", &ada, &foreign).await.code(),
        "ACCOUNT_NOT_FOUND"
    );
    let wrong = json!({ "providerId": "google", "accountId": "g-2" });
    assert_eq!(
        post(&gateway, "unlink-account", &ada, &wrong).await.code(),
        "ACCOUNT_NOT_FOUND"
    );
    // As clients up to 1.6 say it.
    for older in [
        json!({ "providerId": "google", "accountId": "g-1" }),
        json!({ "providerId": "github" }),
    ] {
        let unlinked = post(&gateway, "unlink-account", &ada, &older).await;
        assert_eq!(
            (unlinked.status(), unlinked.json()),
            (200, json!({ "status": true })),
            "{older}"
        );
    }
    assert_eq!(list(&ada).await.as_array().unwrap().len(), 1);
    gateway.clock().advance(Duration::from_hours(25));
    assert_eq!(
        post(&gateway, "unlink-account", &ada, &by_row).await.code(),
        "SESSION_NOT_FRESH"
    );
}

#[tokio::test]
async fn page_01_the_error_page_shows_words_as_words() {
    let gateway = Gateway::start().await;
    let shown = gateway
        .get("/api/auth/error?error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E")
        .await;
    assert_eq!(shown.status(), 200);
    assert_eq!(shown.head.one("content-type"), Some("text/html; charset=utf-8"));
    let policy = shown.head.one("content-security-policy").expect("a policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(
        shown.text().contains("access_denied") && shown.text().contains("&lt;script&gt;"),
        "{}",
        shown.text()
    );
    assert!(!shown.text().contains("<script>"));
    let odd = gateway.get("/api/auth/error?error=%3Cb%3E").await;
    assert!(
        odd.text().contains("UNKNOWN") && !odd.text().contains("<b>"),
        "{}",
        odd.text()
    );
}

/// A thief of a session asks for another address; the owner changes the password: the thief's link is worth nothing.
#[tokio::test]
async fn a_changed_password_voids_a_change_of_address_that_is_under_way() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    post(
        &gateway,
        "change-email",
        &ada,
        &json!({ "newEmail": "eve@example.com" }),
    )
    .await;
    gateway.mailbox().next_to("ada@example.com").await;
    let approve = gateway.mailbox().next_to("ada@example.com").await.link();
    gateway.open(&approve).await;
    let confirm = gateway.mailbox().next_to("eve@example.com").await.link();
    let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW, "revokeOtherSessions": true });
    let changed = post(&gateway, "change-password", &ada, &body).await;
    let ada = User::of(&gateway, &changed);
    let opened = gateway.open(&confirm).await;
    assert_eq!(opened.head.one("location"), Some("/?error=TOKEN_EXPIRED"));
    assert_eq!(session_of(&gateway, &ada).await["user"]["email"], "ada@example.com");
}

/// Whether an older link still works must not tell if the address that was asked for has a user.
#[tokio::test]
async fn a_change_to_a_taken_address_voids_the_one_before_like_any_other() {
    let gateway = Setup::default()
        .with("[auth.account]\nchange_email = 'new'")
        .start()
        .await;
    gateway.verified("grace@example.com").await;
    let ada = gateway.signed_in("ada@example.com").await;
    for (first, second) in [
        ("one@example.com", "grace@example.com"),
        ("two@example.com", "free@example.com"),
    ] {
        post(&gateway, "change-email", &ada, &json!({ "newEmail": first })).await;
        let link = gateway.mailbox().next_to(first).await.link();
        post(&gateway, "change-email", &ada, &json!({ "newEmail": second })).await;
        let opened = gateway.open(&link).with(&ada).await;
        assert_eq!(opened.head.one("location"), Some("/?error=TOKEN_EXPIRED"), "{second}");
    }
}

/// A thief of a session asks for another address; the owner ends the session, or an operator bans the user. Nothing is left
/// of it, while the owner's own change goes on.
#[tokio::test]
async fn a_change_of_address_ends_with_the_session_in_which_it_was_asked_for() {
    let gateway = Setup::default()
        .with("[auth.account]\nchange_email = 'new'")
        .start()
        .await;
    for (number, (way, error)) in [
        ("others", "TOKEN_EXPIRED"),
        ("one", "INVALID_TOKEN"),
        ("all", "TOKEN_EXPIRED"),
        // Nor do thieves save their change by leaving.
        ("left, others", "TOKEN_EXPIRED"),
        ("left, all", "TOKEN_EXPIRED"),
        ("by hand", "INVALID_TOKEN"),
        ("deleted", "INVALID_TOKEN"),
        ("banned", "INVALID_TOKEN"),
    ]
    .into_iter()
    .enumerate()
    {
        let (email, evil) = (format!("ada{number}@example.com"), format!("eve{number}@example.com"));
        let ada = gateway.signed_in(&email).await;
        let stolen = again(&gateway, &email).await;
        post(&gateway, "change-email", &stolen, &json!({ "newEmail": evil })).await;
        let link = gateway.mailbox().next_to(&evil).await.link();
        match way {
            "others" => drop(post(&gateway, "revoke-other-sessions", &ada, &json!({})).await),
            "one" => drop(post(&gateway, "revoke-session", &ada, &json!({ "token": stolen.token })).await),
            "all" => drop(post(&gateway, "revoke-sessions", &ada, &json!({})).await),
            "left, others" | "left, all" => {
                assert_eq!(post(&gateway, "sign-out", &stolen, &json!({})).await.status(), 200);
                let whose = if way == "left, all" { "" } else { "other-" };
                let ended = post(&gateway, &format!("revoke-{whose}sessions"), &ada, &json!({})).await;
                assert_eq!(ended.status(), 200);
            }
            "by hand" => {
                let ended = format!(
                    "UPDATE user_sessions SET revoked_at = now() WHERE user_id = '{}'",
                    ada.id
                );
                gateway.db().run(&ended).await;
            }
            "deleted" => {
                let ended = format!("DELETE FROM user_sessions WHERE user_id = '{}'", ada.id);
                gateway.db().run(&ended).await;
            }
            _ => {
                let banned = format!("UPDATE users SET banned = true WHERE id = '{}'", ada.id);
                gateway.db().run(&banned).await;
            }
        }
        let opened = gateway.open(&link).await;
        let location = format!("/?error={error}");
        assert_eq!(opened.head.one("location"), Some(&*location), "{way}");
        let moved = format!("SELECT count(*) FROM users WHERE email = '{evil}'");
        assert_eq!(gateway.db().count(&moved).await, 0, "{way}");
    }

    let ada = gateway.signed_in("ada@example.com").await;
    again(&gateway, "ada@example.com").await;
    post(
        &gateway,
        "change-email",
        &ada,
        &json!({ "newEmail": "new@example.com" }),
    )
    .await;
    let link = gateway.mailbox().next_to("new@example.com").await.link();
    post(&gateway, "revoke-other-sessions", &ada, &json!({})).await;
    gateway.open(&link).with(&ada).await;
    assert_eq!(session_of(&gateway, &ada).await["user"]["email"], "new@example.com");
}

/// What the old address had agreed to is not good any more, either.
#[tokio::test]
async fn nor_does_an_old_address_agree_for_a_session_that_has_ended() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.mailbox().next_to("ada@example.com").await;
    let stolen = again(&gateway, "ada@example.com").await;
    post(
        &gateway,
        "change-email",
        &stolen,
        &json!({ "newEmail": "eve@example.com" }),
    )
    .await;
    let approve = gateway.mailbox().next_to("ada@example.com").await.link();
    post(&gateway, "revoke-other-sessions", &ada, &json!({})).await;
    let opened = gateway.open(&approve).await;
    assert_eq!(opened.head.one("location"), Some("/?error=TOKEN_EXPIRED"));
    let mails = "SELECT count(*) FROM mail_outbox WHERE recipient LIKE 'eve%'";
    assert_eq!(gateway.db().count(mails).await, 0);
}

/// The session was good when the request came, and had ended when its turn came.
#[tokio::test]
async fn who_was_signed_out_meanwhile_changes_nothing() {
    let db = Database::fresh().await;
    // Also where transactions see only what was before them, unless they say otherwise.
    let by_default = "DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation TO %L', current_database(), 'repeatable read');
        END $$";
    db.run(by_default).await;
    let gateway = Setup::default()
        .with("[auth.account]\nchange_email = 'new'")
        .start_on(&db)
        .await;
    let everything = "SELECT u.email, (SELECT count(*) FROM accounts AS a WHERE a.user_id = u.id)::text,
            coalesce((SELECT max(a.password_set_at) FROM accounts AS a WHERE a.user_id = u.id)::text, ''),
            (SELECT count(*) FROM one_time_tokens AS t WHERE t.user_id = u.id AND t.purpose <> 'verify-email')::text,
            u.name,
            (SELECT count(*) FROM user_sessions AS s WHERE s.user_id = u.id AND s.revoked_at IS NULL)::text
        FROM users AS u WHERE u.id = $1::text::uuid";
    let change = json!({ "currentPassword": PASSWORD, "newPassword": NEW });
    for (number, (path, body)) in [
        ("change-email", json!({ "newEmail": "eve@example.com" })),
        ("change-password", change),
        ("set-password", json!({ "newPassword": NEW })),
        ("delete-user", json!({ "password": PASSWORD })),
        ("unlink-account", json!({ "providerId": "elsewhere" })),
        ("update-user", json!({ "name": "Eve" })),
        ("revoke-sessions", json!({})),
        ("revoke-other-sessions", json!({})),
        ("revoke-session", json!({ "token": "the owner's" })),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("ada{number}@example.com");
        let ada = gateway.signed_in(&email).await;
        let owner = again(&gateway, &email).await;
        let body = match path {
            "revoke-session" => json!({ "token": owner.token }),
            _ => body,
        };
        let by_hand = gateway.db().client().await;
        let another = "INSERT INTO accounts (id, user_id, provider_id, account_id, issuer, created_at, updated_at)
            SELECT gen_random_uuid(), id, 'elsewhere', id::text, 'https://elsewhere.example', now(), now() FROM users
            WHERE id = $1::text::uuid";
        by_hand.execute(another, &[&ada.id]).await.unwrap();
        if path == "set-password" {
            let without = "DELETE FROM accounts WHERE provider_id = 'credential' AND user_id = $1::text::uuid";
            by_hand.execute(without, &[&ada.id]).await.unwrap();
        }
        let row = async || {
            let row = by_hand.query_one(everything, &[&ada.id]).await.unwrap();
            (0..6).map(|at| row.get::<_, String>(at)).collect::<Vec<_>>()
        };
        let mut before = row().await;
        by_hand.batch_execute("BEGIN").await.unwrap();
        let lock = "SELECT 1 FROM users WHERE id = $1::text::uuid FOR UPDATE";
        by_hand.execute(lock, &[&ada.id]).await.unwrap();
        let call = gateway.post(&format!("/api/auth/{path}")).with(&ada).json(&body);
        let call = tokio::spawn(call.into_future());
        let waits = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'";
        eventually(SOON, async || gateway.db().count(waits).await == 1).await;
        let end = "UPDATE user_sessions SET revoked_at = now() WHERE token_hash = sha256(convert_to($1::text, 'utf8'))";
        assert_eq!(by_hand.execute(end, &[&ada.token]).await.unwrap(), 1);
        by_hand.batch_execute("COMMIT").await.unwrap();
        before[5] = "1".to_owned();
        let answer = call.await.unwrap();
        assert_eq!(answer.status(), 401, "{path}: {}", answer.text());
        assert_eq!(row().await, before, "{path}");
    }
}

/// Where people have few sessions, signing in again in that browser may end the one in which the change was asked for.
#[tokio::test]
async fn a_change_of_address_outlives_a_sign_in_in_its_browser() {
    let gateway = Setup::default()
        .with("[auth.session]\nmax_per_user = 1\n[auth.account]\nchange_email = 'new'")
        .start()
        .await;
    for (same_browser, email) in [(true, "new@example.com"), (false, "ada@example.com")] {
        let ada = gateway.signed_in("ada@example.com").await;
        let body = json!({ "newEmail": "new@example.com" });
        post(&gateway, "change-email", &ada, &body).await;
        let link = gateway.mailbox().next_to("new@example.com").await.link();
        let body = json!({ "email": "ada@example.com", "password": PASSWORD });
        let sign_in = gateway.post("/api/auth/sign-in/email");
        let sign_in = if same_browser { sign_in.with(&ada) } else { sign_in };
        let newest = User::of(&gateway, &sign_in.json(&body).await);
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 401);
        gateway.open(&link).with(&newest).await;
        assert_eq!(session_of(&gateway, &newest).await["user"]["email"], email);
        gateway.db().run("DELETE FROM users").await;
    }
}
