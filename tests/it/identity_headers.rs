//! The identity that upstreams are told comes from the gateway alone.

use crate::harness::Gateway;

#[tokio::test]
async fn an_upstream_is_told_who_it_is() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.get("/api/me").with(&ada).await;
    let head = gateway.upstream().last().head;
    for (name, value) in [
        ("X-User-Id", ada.id.as_str()),
        ("X-User-Email", "ada@example.com"),
        ("X-User-Email-Verified", "true"),
        ("X-User-Name", "Ada%20Lovelace"),
        ("X-Auth-Time", "2026-11-21T08:00:00.000Z"),
        ("X-Auth-Methods", "pwd"),
    ] {
        let sent = head.one(name).unwrap_or_else(|| panic!("{name} is missing: {head:?}"));
        assert!(sent == value || sent == value.replace("%20", " "), "{name}: {sent}");
    }
    let session_id = head.one("X-Session-Id").unwrap();
    assert_ne!(session_id, ada.token, "the public id, never the token");
}

#[tokio::test]
async fn spoof_01_spoof_02_spoof_03_spoof_04_no_spelling_of_an_identity_header_gets_through() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for name in [
        "X-User-Id",
        "x-user-id",
        "x-USER-id",
        "X_User_Id",
        "X_User-Id",
        "X.User.Id",
        "x-user_id",
    ] {
        for (path, expected) in [("/api/me", Some(ada.id.as_str())), ("/public/x", None)] {
            let call = gateway
                .get(path)
                .header(name, "1")
                .header("Accept", "*/*")
                .header(name, "2");
            let call = if expected.is_some() { call.with(&ada) } else { call };
            assert_eq!(call.await.status(), 200);
            let head = gateway.upstream().last().head;
            assert_eq!(head.one("x-user-id"), expected, "{name} on {path}");
            assert_eq!(
                head.spellings("x-user-id").len(),
                usize::from(expected.is_some()),
                "{name} on {path}: {head:?}"
            );
        }
    }
}

#[tokio::test]
async fn spoof_06_a_public_route_sees_no_identity_at_all() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let call = gateway
        .get("/public/x")
        .with(&ada)
        .header("X-User-Id", "1")
        .header("X-User-Roles", "admin");
    assert_eq!(call.header("X-Vestibule-Assertion", "e30.e30.").await.status(), 200);
    let head = gateway.upstream().last().head;
    for name in [
        "x-user-id",
        "x-user-email",
        "x-user-roles",
        "x-session-id",
        "x-auth-time",
        "x-vestibule-assertion",
    ] {
        assert_eq!(head.spellings(name), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn an_optional_route_sees_the_identity_if_there_is_one() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.get("/optional/x").with(&ada).header("X-User-Id", "1").await;
    assert_eq!(gateway.upstream().last().head.one("x-user-id"), Some(ada.id.as_str()));
    gateway.get("/optional/x").header("X-User-Id", "1").await;
    assert_eq!(gateway.upstream().last().head.one("x-user-id"), None);
}

#[tokio::test]
async fn spoof_11_a_claim_that_a_user_lacks_is_not_the_clients_to_make() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.get("/api/me").with(&ada).header("X-User-Roles", "admin").await;
    let head = gateway.upstream().last().head;
    assert_ne!(head.one("x-user-roles"), Some("admin"));
}

#[tokio::test]
async fn spoof_08_connection_can_not_name_the_identity_away() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    for value in ["close, X-User-Id", "x-user-id, x-user-email", "X-User-Id"] {
        gateway.get("/api/me").with(&ada).header("Connection", value).await;
        let head = gateway.upstream().last().head;
        assert_eq!(head.one("x-user-id"), Some(ada.id.as_str()), "{value}");
        assert!(
            !head.all("connection").join(",").to_ascii_lowercase().contains("x-user"),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn spoof_17_a_name_is_one_well_formed_value_whatever_it_holds() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = gateway.db().client().await;
    for (name, sent) in [
        ("Zoë 🙂", Some("Zo%C3%AB%20%F0%9F%99%82")),
        ("a\r\nX-User-Roles: admin", None),
        ("100% % \u{7f}\u{85}", None),
        ("", None),
    ] {
        client.execute("UPDATE users SET name = $1", &[&name]).await.unwrap();
        gateway.clock().advance(std::time::Duration::from_secs(11));
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200, "{name:?}");
        let head = gateway.upstream().last().head;
        let value = head.one("x-user-name").unwrap_or_default();
        assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{value:?}");
        if let Some(sent) = sent {
            assert!(value == sent || value == sent.replace("%20", " "), "{value:?}");
        }
        assert_ne!(head.one("x-user-roles"), Some("admin"), "{head:?}");
    }
}
