//! How the bodies of mails lie in the outbox: sealed, since the links in them are as good as passwords until they are used.
//!
//! Whoever reads the database, a copy or a replica of it can ask for a link to any account, and would find it here. A
//! body is text, `sealed:` and base64; what has no such beginning was put there before bodies were sealed, and is sent as
//! it is.

use base64ct::{Base64, Encoding};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::secret::sealed::SealingKeys;

const SEALED: &str = "sealed:";

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Text,
    Html,
}

impl Part {
    /// It opens in no other column, and in no other mail.
    fn context(self, mail: Uuid) -> String {
        let column = match self {
            Self::Text => "body_text",
            Self::Html => "body_html",
        };
        format!("mail_outbox.{column} {mail}")
    }

    pub(super) fn seal(self, keys: &SealingKeys, mail: Uuid, body: &str) -> String {
        let sealed = keys.seal(body.as_bytes(), self.context(mail).as_bytes());
        format!("{SEALED}{}", Base64::encode_string(&sealed))
    }

    /// `None`: no secret of this gateway opens it.
    pub(super) fn open(self, keys: &SealingKeys, mail: Uuid, kept: &str) -> Option<Zeroizing<String>> {
        let Some(sealed) = kept.strip_prefix(SEALED) else {
            return Some(Zeroizing::new(kept.to_owned()));
        };
        let sealed = Base64::decode_vec(sealed).ok()?;
        let mut plain = keys.open(&sealed, self.context(mail).as_bytes())?;
        String::from_utf8(std::mem::take(&mut *plain)).ok().map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_opens_in_its_own_place_alone() {
        let keys = SealingKeys::new([b"a secret of the tests, long enough".as_slice()]);
        let (mail, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let sealed = Part::Text.seal(&keys, mail, "Hello, here is your link");
        assert!(sealed.starts_with("sealed:") && !sealed.contains("link"), "{sealed}");
        let opened = |part: Part, mail, keys: &SealingKeys| part.open(keys, mail, &sealed).map(|body| body.to_string());
        assert_eq!(
            opened(Part::Text, mail, &keys).as_deref(),
            Some("Hello, here is your link")
        );
        assert_eq!(opened(Part::Html, mail, &keys), None);
        assert_eq!(opened(Part::Text, other, &keys), None);
        let strangers = SealingKeys::new([b"another secret, as long as the first".as_slice()]);
        assert_eq!(opened(Part::Text, mail, &strangers), None);
        assert!(Part::Text.open(&keys, mail, "sealed:?").is_none());
    }

    #[test]
    fn what_was_put_there_before_is_sent_as_it_is() {
        let keys = SealingKeys::new([]);
        assert_eq!(
            *Part::Html.open(&keys, Uuid::nil(), "<p>Hello</p>").unwrap(),
            "<p>Hello</p>"
        );
    }
}
