//! Which headers carry the identity, and what they hold. Under whose names else nobody speaks is in [`Reserved`].
//!
//! [`Renderer`] writes an identity once per session; the data path only copies it.
//!
//! Values: visible ASCII and inner spaces as they are; everything else, and `%`, is percent-encoded UTF-8, so that
//! decoding gives the text back. In roles, a comma is encoded as well, for it separates them. A value longer than
//! [`MAX_VALUE`] is left out, as is an empty one.

mod reserved;

use std::sync::Arc;

use http::HeaderValue;

pub use self::reserved::{Disposition, Reserved};
use crate::{
    clock::Timestamp,
    config,
    fields::Lines,
    identity::{Identity, IdentityNames, Rendered, SessionId},
};

/// The longest value that is sent: upstreams commonly accept 8 KiB for a header line.
pub const MAX_VALUE: usize = 8 * 1024 - 256;

/// Writes identities as the configuration names their parts.
#[derive(Clone, Debug)]
pub struct Renderer {
    names: Arc<IdentityNames>,
}

impl Renderer {
    pub fn new(identity: &config::Identity) -> Self {
        Self {
            names: Arc::clone(&identity.names),
        }
    }

    /// The headers of one session, ready to be sent.
    pub fn render(
        &self,
        identity: &Identity,
        session: SessionId,
        created_at: Timestamp,
        methods: &[impl AsRef<str>],
    ) -> Rendered {
        let lines = self.lines(identity, session, created_at, methods);
        Rendered::new(Arc::clone(&self.names), lines)
    }

    fn lines(
        &self,
        identity: &Identity,
        session: SessionId,
        created_at: Timestamp,
        methods: &[impl AsRef<str>],
    ) -> Lines {
        let names = &self.names;
        let roles: Vec<String> = identity.roles.iter().map(|role| encoded(role, b",")).collect();
        let methods: Vec<String> = methods.iter().map(|method| encoded(method.as_ref(), b",")).collect();
        let mut lines = Lines::new();
        let said = [
            (&names.user_id, identity.id.to_string()),
            (&names.email, encoded(&identity.email, b"")),
            (&names.email_verified, identity.email_verified.to_string()),
            (&names.name, encoded(&identity.name, b"")),
            (&names.roles, roles.join(",")),
            (&names.session_id, session.to_string()),
            (&names.auth_time, created_at.rfc3339()),
            (&names.auth_methods, methods.join(",")),
        ];
        for (name, text) in said {
            if let Some(name) = name
                && !text.is_empty()
                && text.len() <= MAX_VALUE
                && let Ok(value) = HeaderValue::try_from(text)
            {
                lines.put(name, &value);
            }
        }
        lines.shrunk()
    }
}

/// `text` as visible ASCII and inner spaces; `also` is encoded on top.
pub fn encoded(text: &str, also: &[u8]) -> String {
    let trimmed = text.trim_matches(' ');
    let inner_from = text.len() - text.trim_start_matches(' ').len();
    let inner = inner_from..inner_from + trimmed.len();
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let plain = match byte {
            b' ' => inner.contains(&at),
            b'%' => false,
            0x21..=0x7e => !also.contains(&byte),
            _ => false,
        };
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(percent_encoding::percent_encode_byte(byte));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::identity::UserId;

    pub(super) fn settings() -> config::Identity {
        let name = |text| Some(HeaderName::from_static(text));
        config::Identity {
            names: Arc::new(IdentityNames {
                user_id: name("x-user-id"),
                email: name("x-user-email"),
                email_verified: name("x-user-email-verified"),
                name: name("x-user-name"),
                roles: name("x-user-roles"),
                session_id: name("x-session-id"),
                auth_time: None,
                auth_methods: name("company_login.how"),
            }),
            assertion: config::AssertionRules {
                send: false,
                algorithm: config::SigningAlgorithm::EdDsa,
                lifetime: std::time::Duration::from_mins(1),
                rotate_every: std::time::Duration::from_hours(1),
            },
        }
    }

    fn rendered(name: &str, roles: &[&str]) -> Vec<(String, String)> {
        let identity = Identity {
            id: UserId(Uuid::from_u128(42)),
            email: "ada@example.test".to_owned(),
            email_verified: true,
            name: name.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        };
        let session = SessionId(Uuid::from_u128(7));
        Renderer::new(&settings())
            .lines(&identity, session, Timestamp::from_secs(0), &["pwd", "otp"])
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    fn value_of(headers: &[(String, String)], name: &str) -> Option<String> {
        headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.clone())
    }

    #[test]
    fn an_identity_travels_under_the_configured_names() {
        let headers = rendered("Ada Lovelace", &["user", "admin"]);
        let expected = [
            ("x-user-id", "00000000-0000-0000-0000-00000000002a"),
            ("x-user-email", "ada@example.test"),
            ("x-user-email-verified", "true"),
            ("x-user-name", "Ada Lovelace"),
            ("x-user-roles", "user,admin"),
            ("x-session-id", "00000000-0000-0000-0000-000000000007"),
            ("company_login.how", "pwd,otp"),
        ];
        assert_eq!(
            headers,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn profile_data_can_not_break_a_header() {
        for (name, value) in [
            ("A\r\nX-User-Id: 1", Some("A%0D%0AX-User-Id: 1")),
            ("nul\0", Some("nul%00")),
            ("Zoë 😀", Some("Zo%C3%AB %F0%9F%98%80")),
            ("100%", Some("100%25")),
            (" padded ", Some("%20padded%20")),
            ("\ttab", Some("%09tab")),
            ("  ", Some("%20%20")),
            ("", None),
        ] {
            assert_eq!(
                value_of(&rendered(name, &[]), "x-user-name").as_deref(),
                value,
                "{name:?}"
            );
        }
        let headers = rendered(&"n".repeat(10 * 1024), &["a,b", "c"]);
        assert_eq!(value_of(&headers, "x-user-name"), None);
        assert_eq!(value_of(&headers, "x-user-roles").as_deref(), Some("a%2Cb,c"));
        assert_eq!(value_of(&rendered("x", &[]), "x-user-roles"), None);
    }

    proptest! {
        #[test]
        fn decoding_a_value_gives_the_text_back(text in "\\PC{0,40}|[ -~%]{0,20}") {
            let written = encoded(&text, b",");
            prop_assert!(HeaderValue::try_from(written.as_str()).is_ok_and(|value| value.to_str().is_ok()));
            prop_assert!(!written.contains(',') && written.trim() == written);
            prop_assert_eq!(percent_encoding::percent_decode_str(&written).decode_utf8().unwrap(), text);
        }
    }
}
