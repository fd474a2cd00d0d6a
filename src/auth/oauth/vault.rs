//! Providers' tokens at rest: sealed, each bound to its account and to what it is.
//!
//! A token that is copied to another row or another column of the database does not open there: an access token of
//! somebody else's can't be had by moving bytes. What no secret of today opens is as if it were not there: its user signs
//! in at the provider again, and nothing else is lost.

use tracing::warn;
use zeroize::Zeroizing;

use super::provider::Tokens;
use crate::{
    db::accounts::tokens::SealedTokens,
    identity::AccountId,
    secret::{Secret, sealed::SealingKeys},
};

/// A column of `accounts` that holds a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Column {
    Access,
    Refresh,
    Id,
}

impl Column {
    /// What a token is sealed for. Never to be changed: what was sealed would not open any more.
    fn context(self, account: AccountId) -> String {
        let column = match self {
            Self::Access => "access_token",
            Self::Refresh => "refresh_token",
            Self::Id => "id_token",
        };
        format!("accounts.{column} {account}")
    }
}

/// Seals one token.
pub fn seal_token(keys: &SealingKeys, account: AccountId, column: Column, token: &str) -> Vec<u8> {
    seal_bytes(keys, account, column, token.as_bytes())
}

pub(super) fn seal_bytes(keys: &SealingKeys, account: AccountId, column: Column, token: &[u8]) -> Vec<u8> {
    keys.seal(token, column.context(account).as_bytes())
}

/// Opens one token, whatever bytes it has.
pub(super) fn open_token(
    keys: &SealingKeys,
    account: AccountId,
    column: Column,
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    keys.open(sealed, column.context(account).as_bytes())
}

pub(super) fn seal(keys: &SealingKeys, account: AccountId, tokens: &Tokens) -> SealedTokens {
    let sealed = |column, token: &Option<Secret<String>>| {
        let token = token.as_ref()?;
        Some(seal_token(keys, account, column, token.expose()))
    };
    SealedTokens {
        access: sealed(Column::Access, &tokens.access),
        refresh: sealed(Column::Refresh, &tokens.refresh),
        id: sealed(Column::Id, &tokens.id),
        access_expires_at: tokens.access_expires_at,
        refresh_expires_at: tokens.refresh_expires_at,
        scopes: tokens.scopes.clone(),
    }
}

pub(super) fn open(keys: &SealingKeys, account: AccountId, sealed: &SealedTokens) -> Tokens {
    let mut lost = 0_u32;
    let mut opened = |column, sealed: &Option<Vec<u8>>| {
        let token = open_token(keys, account, column, sealed.as_deref()?).and_then(text);
        lost += u32::from(token.is_none());
        token
    };
    let tokens = Tokens {
        access: opened(Column::Access, &sealed.access),
        refresh: opened(Column::Refresh, &sealed.refresh),
        id: opened(Column::Id, &sealed.id),
        access_expires_at: sealed.access_expires_at,
        refresh_expires_at: sealed.refresh_expires_at,
        scopes: sealed.scopes.clone(),
    };
    if lost > 0 {
        warn!(
            account = %account,
            lost,
            "tokens of a provider were sealed by no auth.secret that is configured: they are as if absent until their user \
             signs in there again"
        );
    }
    tokens
}

fn text(mut opened: Zeroizing<Vec<u8>>) -> Option<Secret<String>> {
    let text = String::from_utf8(std::mem::take(&mut *opened)).ok()?;
    Some(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::Timestamp;

    const ADA: AccountId = AccountId(Uuid::from_u128(1));
    const EVE: AccountId = AccountId(Uuid::from_u128(2));

    fn keys(secrets: &[&'static str]) -> SealingKeys {
        SealingKeys::new(secrets.iter().map(|secret| secret.as_bytes()))
    }

    fn tokens() -> Tokens {
        let token = |text: &str| Some(Secret::new(text.to_owned()));
        Tokens {
            access: token("ya29.access ü"),
            refresh: token("1//refresh"),
            id: token("head.body.signature"),
            access_expires_at: Some(Timestamp::from_secs(1)),
            refresh_expires_at: None,
            scopes: vec!["openid".to_owned(), "email".to_owned()],
        }
    }

    fn texts(tokens: &Tokens) -> [Option<&str>; 3] {
        [&tokens.access, &tokens.refresh, &tokens.id].map(|token| token.as_ref().map(|token| token.expose().as_str()))
    }

    #[test]
    fn what_was_sealed_opens() {
        let keys = keys(&["one"]);
        let sealed = seal(&keys, ADA, &tokens());
        let opened = open(&keys, ADA, &sealed);
        assert_eq!(
            texts(&opened),
            [Some("ya29.access ü"), Some("1//refresh"), Some("head.body.signature")]
        );
        assert_eq!(opened.access_expires_at, Some(Timestamp::from_secs(1)));
        assert_eq!((opened.refresh_expires_at, opened.scopes), (None, tokens().scopes));
        let lies_open = |bytes: &Option<Vec<u8>>| bytes.as_ref().unwrap().windows(6).any(|part| part == b"access");
        assert!(!lies_open(&sealed.access));

        let some = Tokens {
            refresh: None,
            id: None,
            ..tokens()
        };
        let sealed = seal(&keys, ADA, &some);
        assert!(sealed.refresh.is_none() && sealed.id.is_none());
        assert_eq!(texts(&open(&keys, ADA, &sealed)), [Some("ya29.access ü"), None, None]);
    }

    #[test]
    fn a_token_opens_in_its_own_row_and_column_alone() {
        let keys = keys(&["one"]);
        let sealed = seal(&keys, ADA, &tokens());
        assert_eq!(texts(&open(&keys, EVE, &sealed)), [None; 3], "somebody else's row");
        let moved = SealedTokens {
            access: sealed.refresh.clone(),
            refresh: sealed.id.clone(),
            id: sealed.access.clone(),
            ..sealed
        };
        assert_eq!(texts(&open(&keys, ADA, &moved)), [None; 3], "another column");
    }

    #[test]
    fn a_secret_that_is_gone_takes_its_tokens_along_and_no_other() {
        let (old, both, new) = (keys(&["old"]), keys(&["new", "old"]), keys(&["new"]));
        let sealed = seal(&old, ADA, &tokens());
        assert_eq!(texts(&open(&both, ADA, &sealed)), texts(&tokens()));
        let mixed = SealedTokens {
            access: seal(&both, ADA, &tokens()).access,
            ..sealed
        };
        assert_eq!(texts(&open(&new, ADA, &mixed)), [Some("ya29.access ü"), None, None]);
    }
}
