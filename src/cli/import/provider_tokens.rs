//! A provider's tokens on their way from better-auth's `account` to ours, and whose subject an account is.
//!
//! better-auth keeps tokens as the provider gave them or, with `encryptOAuthTokens`, encrypted; which, only the token
//! itself tells, and a site that switched it on has both. What may be encrypted comes over if one of `auth.secret`
//! opens it, and stays behind otherwise: a provider would take it for no token of its own. Here they are sealed.

use crate::{
    auth::vault::{self, Column},
    config::{Config, OAuthProvider},
    db::accounts::tokens::SealedTokens,
    identity::AccountId,
    secret::{
        Secret,
        sealed::{SealingKeys, open_better_auth},
    },
};

use super::source::SourceAccount;

/// How what was encrypted with one of several secrets begins.
const VERSIONED: &str = "$ba$";

/// Hexadecimal digits of the shortest text that was encrypted: a nonce, a byte, and a tag.
const SHORTEST: usize = 2 * (24 + 1 + 16);

/// Providers whose issuer is known by better-auth's name for them.
const WELL_KNOWN: [(&str, &str); 3] = [
    ("google", "https://accounts.google.com"),
    ("apple", "https://appleid.apple.com"),
    ("github", "https://github.com"),
];

/// What is needed to read tokens, and to keep them.
pub(super) struct Sealer<'c> {
    secrets: &'c [Secret<String>],
    keys: SealingKeys,
    providers: &'c [OAuthProvider],
}

impl<'c> Sealer<'c> {
    pub(super) fn new(config: &'c Config) -> Self {
        let secrets = &config.auth.secret;
        Self {
            secrets,
            keys: SealingKeys::new(secrets.iter().map(|secret| secret.expose().as_bytes())),
            providers: &config.auth.oauth,
        }
    }

    /// The tokens of a row, for the account that it becomes; and whether that is all of them.
    pub(super) fn seal(&self, account: AccountId, row: &SourceAccount) -> (SealedTokens, bool) {
        let mut all = !row.token_is_left;
        let mut sealed = |column, token: &Option<Secret<String>>| {
            let token = self.opened(token.as_ref()?);
            all &= token.is_some();
            Some(vault::seal_token(&self.keys, account, column, token?.expose()))
        };
        let (access, refresh) = (
            sealed(Column::Access, &row.access_token),
            sealed(Column::Refresh, &row.refresh_token),
        );
        let tokens = SealedTokens {
            id: sealed(Column::Id, &row.id_token),
            access_expires_at: row.access_token_expires_at.filter(|_| access.is_some()),
            refresh_expires_at: row.refresh_token_expires_at.filter(|_| refresh.is_some()),
            scopes: scopes(&row.scope),
            access,
            refresh,
        };
        (tokens, all)
    }

    /// `None`: it is encrypted with another secret.
    fn opened(&self, token: &Secret<String>) -> Option<Secret<String>> {
        if !may_be_encrypted(token.expose()) {
            return Some(token.clone());
        }
        let opened = |secret: &Secret<String>| open_better_auth(secret.expose().as_bytes(), token.expose());
        let mut plain = self.secrets.iter().find_map(opened)?;
        String::from_utf8(std::mem::take(&mut *plain)).ok().map(Secret::new)
    }

    /// Whose subject an account at this provider is; empty where that is not known, until its user signs in with it.
    pub(super) fn issuer(&self, provider: &str, stored: &str) -> String {
        let configured = self.providers.iter().find(|configured| configured.name == provider);
        let is_elsewhere = configured.is_some_and(|it| it.issuer.is_some() || it.base_url.is_some());
        let well_known = WELL_KNOWN.iter().find(|(name, _)| *name == provider);
        match well_known {
            Some(_) if is_elsewhere => String::new(),
            Some((_, issuer)) => (*issuer).to_owned(),
            None if ["https://", "http://"].iter().any(|scheme| stored.starts_with(scheme)) => stored.to_owned(),
            None => String::new(),
        }
    }
}

/// As better-auth judges it, but for what is too short to be.
fn may_be_encrypted(token: &str) -> bool {
    let is_hex = token.len().is_multiple_of(2) && token.bytes().all(|b| b.is_ascii_hexdigit());
    token.starts_with(VERSIONED) || (is_hex && token.len() >= SHORTEST)
}

/// Joined by commas there.
fn scopes(joined: &str) -> Vec<String> {
    let scopes = joined.split(',').map(str::trim).filter(|scope| !scope.is_empty());
    scopes.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_what_was_encrypted() {
        let hex = "0a".repeat(41);
        for (token, encrypted) in [
            (hex.as_str(), true),
            (&hex.to_uppercase(), true),
            ("$ba$1$00", true),
            (&"0a".repeat(40), false),
            (&format!("{hex}a"), false),
            ("ya29.a0AfB_byC", false),
            ("gho_16C7e42F292c6912E7710c838347Ae178B4a", false),
            ("16c7e42f292c6912e7710c838347ae178b4a16c7", false),
        ] {
            assert_eq!(may_be_encrypted(token), encrypted, "{token}");
        }
    }

    #[test]
    fn an_issuer_is_known_or_left_open() {
        let sealer = |providers| Sealer {
            secrets: &[],
            keys: SealingKeys::new([]),
            providers,
        };
        for (provider, stored, issuer) in [
            ("google", "", "https://accounts.google.com"),
            ("github", "local:github", "https://github.com"),
            ("apple", "", "https://appleid.apple.com"),
            ("acme", "https://login.acme.example", "https://login.acme.example"),
            ("acme", "local:acme", ""),
            ("acme", "", ""),
        ] {
            assert_eq!(sealer(&[]).issuer(provider, stored), issuer, "{provider} {stored}");
        }
    }

    #[test]
    fn scopes_are_taken_apart() {
        assert_eq!(scopes("openid, email,,profile "), ["openid", "email", "profile"]);
        assert!(scopes("").is_empty());
    }
}
