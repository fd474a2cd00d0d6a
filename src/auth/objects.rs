//! Users and sessions as the wire contract writes them (section 2): every field is there, `null` when unset.

use serde_json::{Value, json};

use super::openapi::{
    Shape, TOKEN, date, flag, list, named, nullable_date, nullable_text, object, or_null, text, word,
};
use crate::{
    clock::Timestamp,
    db::{accounts::Account, sessions::StoredSession, users::User},
    identity::{DeviceKind, Place},
};

pub(super) fn user(user: &User) -> Value {
    json!({
        "id": user.id.to_string(),
        "name": user.name,
        "email": user.email,
        "emailVerified": user.email_verified,
        "image": user.image,
        "createdAt": user.created_at.rfc3339(),
        "updatedAt": user.updated_at.rfc3339(),
        "twoFactorEnabled": false,
        // Somebody without roles has none, and upstreams are told of none either. New users have one: see `sign_up`.
        "role": (!user.roles.is_empty()).then(|| user.roles.join(",")),
        "banned": user.banned,
        "banReason": user.ban_reason,
        "banExpires": user.ban_expires.map(Timestamp::rfc3339),
    })
}

/// `token` is the session's own for the one who holds it; for anybody else's eyes it is the session's id, which
/// `revoke-session` takes as well.
pub(super) fn session(session: &StoredSession, token: &str) -> Value {
    json!({
        "id": session.id.to_string(),
        "token": token,
        "userId": session.user_id.to_string(),
        "expiresAt": session.expires_at.rfc3339(),
        "createdAt": session.created_at.rfc3339(),
        "updatedAt": session.updated_at.rfc3339(),
        "ipAddress": session.ip_address.map(|address| address.to_string()).unwrap_or_default(),
        "userAgent": session.user_agent,
        "impersonatedBy": null,
    })
}

/// Without tokens or password: those are nobody's to read.
pub(super) fn account(account: &Account) -> Value {
    json!({
        "id": account.id.to_string(),
        "providerId": account.provider_id,
        "accountId": account.account_id,
        "userId": account.user_id.to_string(),
        "createdAt": account.created_at.rfc3339(),
        "updatedAt": account.updated_at.rfc3339(),
        "scopes": account.scopes,
    })
}

/// A session as `list-sessions` shows it: the contract's fields, and what people recognise their sessions by.
pub(super) fn listed(stored: &StoredSession, token: &str, is_current: IsCurrent) -> Value {
    let mut listed = session(stored, token);
    let more = json!({
        "current": is_current == IsCurrent::Yes,
        "lastSeenAt": stored.last_seen_at.map(Timestamp::rfc3339),
        "device": {
            "browser": stored.device.browser,
            "os": stored.device.os,
            "kind": stored.device.kind.as_str(),
        },
        "location": (stored.place != Place::default()).then(|| json!({
            "country": stored.place.country,
            "city": stored.place.city,
        })),
    });
    if let (Some(listed), Value::Object(more)) = (listed.as_object_mut(), more) {
        listed.extend(more);
    }
    listed
}

/// Whether a session is the one that asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IsCurrent {
    Yes,
    No,
}

/// What the functions above write, by name, for `openapi.json`.
pub(super) fn shapes() -> [(&'static str, Shape); 5] {
    let id = || Shape::from(text("0199f3a2-7c41-7d0a-9b1e-6f1f0c2d3e4f"));
    let unset = || Shape::from(nullable_text(Value::Null));
    let token = || text(TOKEN);
    let role = nullable_text("user").description(Some("Several are joined by commas."));
    let user = object([
        ("id", id()),
        ("name", text("Ada Lovelace").into()),
        ("email", text("ada@example.com").into()),
        ("emailVerified", flag(true).into()),
        ("image", unset()),
        ("createdAt", date().into()),
        ("updatedAt", date().into()),
        ("twoFactorEnabled", flag(false).into()),
        ("role", role.into()),
        ("banned", flag(false).into()),
        ("banReason", unset()),
        ("banExpires", nullable_date().into()),
    ]);
    let session = || {
        object([
            ("id", id()),
            ("token", token().into()),
            ("userId", id()),
            ("expiresAt", date().into()),
            ("createdAt", date().into()),
            ("updatedAt", date().into()),
            ("ipAddress", text("203.0.113.7").into()),
            ("userAgent", text("Mozilla/5.0").into()),
            ("impersonatedBy", unset()),
        ])
    };
    let place = object([
        ("country", nullable_text("SE").into()),
        ("city", nullable_text("Stockholm").into()),
    ]);
    let device = object([
        ("browser", nullable_text("Firefox").into()),
        ("os", nullable_text("Linux").into()),
        ("kind", word(DeviceKind::ALL.map(DeviceKind::as_str)).into()),
    ]);
    let handle = token().description(Some(
        "The current session's own; of each other a handle to revoke it with.",
    ));
    let besides = [
        ("current", flag(true).into()),
        ("lastSeenAt", nullable_date().into()),
        ("device", device.into()),
        ("location", or_null(place.into())),
    ];
    let listed = besides
        .into_iter()
        .fold(session().property("token", handle), |listed, (name, shape)| {
            listed.property(name, shape).required(name)
        });
    let account = object([
        ("id", id()),
        ("providerId", text("credential").into()),
        ("accountId", id()),
        ("userId", id()),
        ("createdAt", date().into()),
        ("updatedAt", date().into()),
        ("scopes", list(text("email").into())),
    ]);
    [
        ("User", user.into()),
        ("Session", session().into()),
        ("ListedSession", listed.into()),
        (
            "SessionAndUser",
            object([("session", named("Session")), ("user", named("User"))]).into(),
        ),
        ("Account", account.into()),
    ]
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        identity::{Device, DeviceKind, SessionId, UserId},
        secret::TokenHash,
    };

    #[test]
    fn a_user_has_every_field_of_the_contract() {
        let mut ada = User {
            id: UserId(Uuid::nil()),
            email: "ada@example.test".to_owned(),
            email_verified: true,
            name: "Ada".to_owned(),
            image: None,
            roles: vec!["user".to_owned(), "admin".to_owned()],
            banned: false,
            ban_reason: None,
            ban_expires: Some(Timestamp::from_secs(1)),
            created_at: Timestamp::from_secs(0),
            updated_at: Timestamp::from_micros(1_234_567),
        };
        assert_eq!(
            user(&ada),
            json!({
                "id": "00000000-0000-0000-0000-000000000000", "name": "Ada", "email": "ada@example.test",
                "emailVerified": true, "image": null, "createdAt": "1970-01-01T00:00:00.000Z",
                "updatedAt": "1970-01-01T00:00:01.234Z", "twoFactorEnabled": false, "role": "user,admin",
                "banned": false, "banReason": null, "banExpires": "1970-01-01T00:00:01.000Z",
            })
        );
        ada.roles.clear();
        assert_eq!(user(&ada)["role"], Value::Null);
    }

    fn stored() -> StoredSession {
        StoredSession {
            id: SessionId(Uuid::nil()),
            token_hash: TokenHash::of(b"secret"),
            user_id: UserId(Uuid::max()),
            created_at: Timestamp::from_secs(0),
            updated_at: Timestamp::from_secs(1),
            expires_at: Timestamp::from_secs(2),
            remembered: true,
            methods: vec!["pwd".to_owned()],
            ip_address: None,
            user_agent: String::new(),
            device: Device::default(),
            place: Place::default(),
            last_seen_at: None,
        }
    }

    #[test]
    fn a_session_has_every_field_of_the_contract_and_no_other() {
        assert_eq!(
            session(&stored(), "handle"),
            json!({
                "id": "00000000-0000-0000-0000-000000000000", "token": "handle",
                "userId": "ffffffff-ffff-ffff-ffff-ffffffffffff", "expiresAt": "1970-01-01T00:00:02.000Z",
                "createdAt": "1970-01-01T00:00:00.000Z", "updatedAt": "1970-01-01T00:00:01.000Z",
                "ipAddress": "", "userAgent": "", "impersonatedBy": null,
            })
        );
    }

    #[test]
    fn a_listed_session_tells_device_and_place_besides() {
        let mut stored = stored();
        let bare = listed(&stored, "handle", IsCurrent::No);
        assert_eq!((&bare["token"], &bare["current"]), (&json!("handle"), &json!(false)));
        assert_eq!(bare["device"], json!({ "browser": null, "os": null, "kind": "other" }));
        assert_eq!((&bare["location"], &bare["lastSeenAt"]), (&Value::Null, &Value::Null));

        stored.device.browser = Some("Firefox".to_owned());
        stored.device.kind = DeviceKind::Tablet;
        stored.place.country = Some("SE".to_owned());
        stored.last_seen_at = Some(Timestamp::from_secs(3));
        let full = listed(&stored, "token", IsCurrent::Yes);
        assert_eq!(full["current"], true);
        assert_eq!(full["lastSeenAt"], "1970-01-01T00:00:03.000Z");
        assert_eq!(
            full["device"],
            json!({ "browser": "Firefox", "os": null, "kind": "tablet" })
        );
        assert_eq!(full["location"], json!({ "country": "SE", "city": null }));
    }
}
