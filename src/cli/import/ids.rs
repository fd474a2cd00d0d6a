//! What rows from elsewhere are called here.
//!
//! Nothing is random: whoever imports twice, or goes on after a crash, finds the same names.

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::{
    identity::{SessionId, UserId},
    secret::TokenHash,
};

/// A user's old id, if it is a UUID; else a UUID made of it: version 8 (RFC 9562, 5.8), whose other bits are the first of
/// SHA-256 over `vestibule:user:` and the old id. `docs/import.md` promises both.
pub(super) fn user(old: &str) -> UserId {
    UserId(kept(old).unwrap_or_else(|| derived("user", &[old.as_bytes()])))
}

/// Nobody outside knows the ids of accounts: made of what names one.
pub(super) fn account(user: UserId, provider: &str, account: &str) -> Uuid {
    let parts = [user.0.as_bytes().as_slice(), provider.as_bytes(), account.as_bytes()];
    derived("account", &parts)
}

/// Nor those of sessions. It is shown to people, and tells nothing of the token.
pub(super) fn session(token: &TokenHash) -> SessionId {
    SessionId(derived("session", &[token.as_bytes().as_slice()]))
}

/// Only as Postgres spells one: two texts must not become one user.
fn kept(old: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(old).ok()?;
    (id.to_string() == old).then_some(id)
}

fn derived(kind: &str, parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new_with_prefix(format!("vestibule:{kind}"));
    for part in parts {
        hash.update(b":");
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (bytes, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    Builder::from_custom_bytes(*bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_stays_and_anything_else_becomes_one() {
        let uuid = "3f0c1d52-6c0e-4a5e-9a51-1b8f3c1f7d20";
        assert_eq!(user(uuid).to_string(), uuid);
        // Once given, a name is never another: the documentation says how it is made.
        for (old, new) in [
            ("1", "4a74df83-bf90-8804-9a8a-223241416d4a"),
            (
                "bYUCnDtvEmBtuhzoZvpAHUIXeNEnI3hy",
                "c191a472-2441-8020-861c-0bb4c880c269",
            ),
        ] {
            assert_eq!(user(old).to_string(), new);
        }
    }

    #[test]
    fn other_spellings_of_a_uuid_are_names_like_any_other() {
        let uuid = "3f0c1d52-6c0e-4a5e-9a51-1b8f3c1f7d20";
        for other in [uuid.to_uppercase(), uuid.replace('-', ""), format!("{{{uuid}}}")] {
            let id = user(&other);
            assert_ne!(id.to_string(), uuid, "{other}");
            assert_eq!(id.0.get_version_num(), 8, "{other}");
        }
    }
}
