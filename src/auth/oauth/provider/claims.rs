//! Claims, and what of them becomes somebody's profile.
//!
//! Nothing here is trusted to have a sensible length or content: names lose control characters and what is too long,
//! pictures are links of http or https, addresses are addresses.

use serde_json::{Map, Value};
use url::Url;

use super::{Profile, dialect::Dialect};
use crate::auth::{email::EmailAddress, input::MAX_PICTURE};

/// OpenID Connect Core 1.0, section 2: of a subject.
const MAX_SUBJECT: usize = 255;
/// Characters of a name.
const MAX_NAME: usize = 256;

/// What providers say of the address that stands beside it; the last two are Microsoft's.
const PROOFS: [&str; 3] = ["email_verified", "xms_edov", "verified_primary_email"];

/// The members of a JSON object: an id_token's payload, a userinfo answer, a profile.
#[derive(Clone, Default, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Claims(pub(super) Map<String, Value>);

crate::secret::unprinted!(Claims);

impl Claims {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A boolean, which some providers write as a text. Anything else is a no: whoever lets people enter their own claims
    /// may let them enter a 1.
    pub(super) fn says(&self, name: &str) -> Option<bool> {
        match self.0.get(name)? {
            Value::Bool(said) => Some(*said),
            Value::String(said) => Some(said == "true"),
            Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(false),
        }
    }

    /// Whether a userinfo endpoint may know more.
    pub(super) fn lack_something(&self) -> bool {
        !self.0.contains_key("email_verified") || ["email", "name", "picture"].iter().any(|name| self.is_missing(name))
    }

    /// Adds what is missing. An address and what is said of it stay together: they must be of one source.
    pub(super) fn complete(&mut self, other: Self) {
        let is_proof = |name: &str| PROOFS.contains(&name);
        let has_proof = self.0.keys().any(|name| is_proof(name));
        let takes_email = other.text("email").is_some() && (self.is_missing("email") || !has_proof);
        if takes_email {
            self.0.retain(|name, _| !is_proof(name));
        }
        for (name, value) in other.0 {
            let takes = if name == "email" || is_proof(&name) {
                takes_email
            } else {
                self.is_missing(&name)
            };
            if takes {
                self.0.insert(name, value);
            }
        }
    }

    fn is_missing(&self, name: &str) -> bool {
        self.0.get(name).is_none_or(Value::is_null)
    }
}

/// Whose claims these are. They have been checked.
pub(super) fn profile(dialect: &dyn Dialect, claims: Claims, trust_email: bool) -> Result<Profile, &'static str> {
    let email = claims.text("email").and_then(EmailAddress::parse);
    Ok(Profile {
        issuer: dialect.issuer_of(&claims),
        subject: subject(dialect.subject(&claims).ok_or("it does not say who this is")?)?,
        email_verified: email.is_some() && dialect.proves_email(&claims).unwrap_or(trust_email),
        email,
        name: claims.text("name").map(name).unwrap_or_default(),
        image: claims.text("picture").and_then(image),
        raw: Value::Object(claims.0),
    })
}

pub(super) fn subject(text: &str) -> Result<String, &'static str> {
    let sound = (1..=MAX_SUBJECT).contains(&text.len()) && !text.chars().any(char::is_control);
    sound
        .then(|| text.to_owned())
        .ok_or("its subject has no sensible length")
}

pub(super) fn name(text: &str) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(MAX_NAME).collect::<String>().trim().to_owned()
}

pub(super) fn image(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let sound = text.len() <= MAX_PICTURE && matches!(url.scheme(), "http" | "https");
    sound.then(|| url.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn names_pictures_and_subjects_are_kept_within_bounds() {
        assert_eq!(name("Ada\r\n Lovelace\u{0}"), "Ada Lovelace");
        assert_eq!(name(&"ä".repeat(5000)).chars().count(), 256);
        assert!(image("https://img.example/a.png").is_some());
        for bad in [
            "javascript:alert(1)",
            "data:image/png;base64,AAAA",
            "a.png",
            &format!("https://a/{}", "b".repeat(3000)),
        ] {
            assert!(image(bad).is_none(), "{bad}");
        }
        assert!(subject("42").is_ok() && subject(&"a".repeat(255)).is_ok());
        for bad in ["", "a\nb", &"a".repeat(256)] {
            assert!(subject(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_not_verified_by_what_is_said_of_another() {
        let mut mine = claims(json!({"sub": "1", "email": "a@example.com"}));
        mine.complete(claims(json!({"sub": "1", "email_verified": true, "name": "Ada"})));
        assert_eq!((mine.says("email_verified"), mine.text("name")), (None, Some("Ada")));

        let mut mine = claims(json!({"sub": "1", "email_verified": true}));
        mine.complete(claims(json!({"email": "eve@example.com"})));
        assert_eq!(
            (mine.text("email"), mine.says("email_verified")),
            (Some("eve@example.com"), None)
        );

        let mut mine = claims(json!({"email": "a@example.com", "email_verified": false}));
        mine.complete(claims(json!({"email": "b@example.com", "email_verified": true})));
        assert_eq!(
            (mine.text("email"), mine.says("email_verified")),
            (Some("a@example.com"), Some(false))
        );

        let mut mine = claims(json!({"xms_edov": true, "verified_primary_email": ["eve@example.com"]}));
        mine.complete(claims(json!({"email": "eve@example.com"})));
        assert_eq!((mine.text("email"), mine.0.len()), (Some("eve@example.com"), 1));
        let mut mine = claims(json!({"email": "a@example.com", "xms_edov": true}));
        mine.complete(claims(json!({"email": "b@example.com"})));
        assert_eq!(
            (mine.text("email"), mine.says("xms_edov")),
            (Some("a@example.com"), Some(true))
        );
    }
}
