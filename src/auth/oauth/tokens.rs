//! get-access-token, refresh-token and account-info: a provider's tokens, for the user whose they are (section 11).
//!
//! They are for the application's own code, which asks with the session of its user: nobody gets at another's account,
//! and whoever has no session is told nothing at all. Like every answer here, these are never to be cached.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tracing::warn;
use utoipa::openapi::ObjectBuilder;

use super::{
    provider::{Profile, Provider, Tokens},
    refresh::{self, Seen},
    vault,
};
use crate::{
    auth::{
        AuthError,
        email::EmailAddress,
        http::{Answer, Call, Refresh},
        input::Fields,
        openapi::{
            Description, Field, Group, Who, Work, Yes, date, flag, list, nullable_date, nullable_text, object, text,
        },
    },
    chain::Chain,
    clock::Timestamp,
    db::{
        accounts::{self, Account, tokens::SealedTokens},
        users::User,
    },
    secret::Secret,
};

/// An access token that ends sooner is refreshed first: it has to last for the request that it is wanted for.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// POST /get-access-token
pub(in crate::auth) async fn get_access_token(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let selection = Selection::read(&mut call.body)?;
    let user = session_user(call).await?;
    let account = selection.pick(&accounts_of(call, &user).await?, Names::Ours)?;
    let provider = supported(call, &account)?;
    let tokens = good_tokens(call, provider, &account).await?;
    let mut body = Map::new();
    body.insert(
        "accessToken".to_owned(),
        exposed(tokens.access.as_ref()).unwrap_or_default().into(),
    );
    if let Some(expires_at) = tokens.access_expires_at {
        body.insert("accessTokenExpiresAt".to_owned(), expires_at.rfc3339().into());
    }
    body.insert("scopes".to_owned(), json!(tokens.scopes));
    if let Some(id_token) = exposed(tokens.id.as_ref()) {
        body.insert("idToken".to_owned(), id_token.into());
    }
    Ok(Answer::json(body.into()))
}

/// POST /refresh-token
pub(in crate::auth) async fn refresh(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let selection = Selection::read(&mut call.body)?;
    let user = session_user(call).await?;
    let account = selection.pick(&accounts_of(call, &user).await?, Names::Ours)?;
    let provider = supported(call, &account)?;
    let (sealed, held) = held(call, &account).await?;
    if held.refresh.is_none() {
        return Err(AuthError::RefreshTokenNotFound);
    }
    let seen = Seen {
        account: &account,
        sealed: &sealed,
        tokens: &held,
    };
    let refreshed = refresh::refresh(call.auth, provider, seen, call.request_id).await;
    let tokens = refreshed.map_err(|failure| failure.told(AuthError::RefreshFailed))?;
    let Some(access_token) = exposed(tokens.access.as_ref()) else {
        return Err(AuthError::RefreshFailed);
    };
    let mut body = Map::new();
    body.insert("accessToken".to_owned(), access_token.into());
    body.insert("refreshToken".to_owned(), exposed(tokens.refresh.as_ref()).into());
    if let Some(expires_at) = tokens.access_expires_at {
        body.insert("accessTokenExpiresAt".to_owned(), expires_at.rfc3339().into());
    }
    let refresh_expires_at = tokens.refresh_expires_at.map(Timestamp::rfc3339);
    body.insert("refreshTokenExpiresAt".to_owned(), refresh_expires_at.into());
    let scope = (!tokens.scopes.is_empty()).then(|| tokens.scopes.join(","));
    body.insert("scope".to_owned(), scope.into());
    body.insert("idToken".to_owned(), exposed(tokens.id.as_ref()).into());
    body.insert("providerId".to_owned(), account.provider_id.into());
    body.insert("accountId".to_owned(), account.id.to_string().into());
    Ok(Answer::json(body.into()))
}

/// GET /account-info: what the provider says of the user, as `Provider::account_info` gets it.
pub(in crate::auth) async fn account_info(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let selection = Selection::read(&mut call.query)?;
    info_of(call, selection).await
}

/// POST /account-info
pub(in crate::auth) async fn account_info_of_body(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let selection = Selection::read(&mut call.body)?;
    info_of(call, selection).await
}

async fn info_of(call: &mut Call<'_>, selection: Selection) -> Result<Answer, AuthError> {
    let user = session_user(call).await?;
    let account = selection.pick(&accounts_of(call, &user).await?, Names::OursOrTheProviders)?;
    let provider = configured(call, &account).ok_or(AuthError::ProviderNotConfigured)?;
    let tokens = good_tokens(call, provider, &account).await?;
    if tokens.access.is_none() {
        return Err(AuthError::AccessTokenNotFound);
    }
    let (request_id, id) = (call.request_id, account.id);
    let profile = provider.account_info(&tokens).await.map_err(|error| {
        warn!(
            error = %Chain(&error),
            provider = provider.name(), account = %id, request_id, "a provider did not say who its user is"
        );
        AuthError::NoUserInfo
    })?;
    let Profile {
        email,
        email_verified,
        name,
        image,
        raw,
        ..
    } = profile;
    Ok(Answer::json(json!({
        "user": {
            "name": name,
            "email": email.as_ref().map(EmailAddress::as_str),
            "image": image,
            "emailVerified": email_verified,
        },
        "data": raw,
        "account": {
            "id": account.id.to_string(),
            "providerId": account.provider_id,
            "accountId": account.account_id,
        },
    })))
}

/// Which account is meant: by the row's id, or as older clients name it, by provider (section 24).
struct Selection {
    provider: Option<String>,
    account: Option<String>,
}

/// What an account may be called where no provider is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Names {
    Ours,
    /// Clients up to 1.6 ask for account-info by the provider's own id alone.
    OursOrTheProviders,
}

impl Selection {
    fn read(fields: &mut Fields) -> Result<Self, AuthError> {
        let mut check = fields.check();
        let provider = check.optional_text("providerId");
        let account = match provider {
            Some(_) => check.optional_text("accountId"),
            None => Some(check.text("accountId")),
        };
        check.done()?;
        Ok(Self { provider, account })
    }

    fn pick(&self, accounts: &[Account], names: Names) -> Result<Account, AuthError> {
        let is_called = |account: &Account| self.account.as_ref().is_none_or(|id| account.account_id == *id);
        let found = match &self.provider {
            Some(provider) => accounts
                .iter()
                .find(|account| account.provider_id == *provider && is_called(account)),
            None => accounts
                .iter()
                .find(|account| self.account.as_ref().is_some_and(|id| account.id.to_string() == *id))
                .or_else(|| {
                    let mut known = accounts.iter().filter(|_| names == Names::OursOrTheProviders);
                    known.find(|account| is_called(account))
                }),
        };
        found.cloned().ok_or(AuthError::AccountNotFound)
    }
}

/// Whoever has no session gets no word.
async fn session_user(call: &mut Call<'_>) -> Result<User, AuthError> {
    let current = call.session(Refresh::Slide).await?.ok_or(AuthError::NoSession)?;
    Ok(current.user)
}

async fn accounts_of(call: &Call<'_>, user: &User) -> Result<Vec<Account>, AuthError> {
    let client = call.auth.db.client().await?;
    Ok(accounts::of(&client, user.id).await?)
}

fn supported<'a>(call: &Call<'a>, account: &Account) -> Result<&'a Provider, AuthError> {
    configured(call, account).ok_or_else(|| AuthError::ProviderNotSupported(account.provider_id.clone()))
}

/// The provider that gave the tokens. A name that means another issuer today is not handed the tokens of the one before.
fn configured<'a>(call: &Call<'a>, account: &Account) -> Option<&'a Provider> {
    call.auth.providers.of(account)
}

async fn held(call: &Call<'_>, account: &Account) -> Result<(SealedTokens, Tokens), AuthError> {
    let client = call.auth.db.client().await?;
    let held = accounts::tokens::held(&client, account.id).await?;
    let sealed = held.ok_or(AuthError::AccountNotFound)?.sealed;
    let tokens = vault::open(&call.auth.sealing, account.id, &sealed);
    Ok((sealed, tokens))
}

/// The tokens of an account, refreshed if the access token is about to end and that can be done.
async fn good_tokens(call: &Call<'_>, provider: &Provider, account: &Account) -> Result<Arc<Tokens>, AuthError> {
    let (sealed, held) = held(call, account).await?;
    if is_good(&held, call.now) {
        return Ok(Arc::new(held));
    }
    if held.refresh.is_none() {
        // What there is, is all that the provider gave; unless it gave more, which does not open any more.
        let is_lost = sealed.refresh.is_some() || (sealed.access.is_some() && held.access.is_none());
        return if is_lost {
            Err(AuthError::NoValidAccessToken)
        } else {
            Ok(Arc::new(held))
        };
    }
    let seen = Seen {
        account,
        sealed: &sealed,
        tokens: &held,
    };
    let refreshed = refresh::refresh(call.auth, provider, seen, call.request_id).await;
    refreshed.map_err(|failure| failure.told(AuthError::NoValidAccessToken))
}

fn is_good(tokens: &Tokens, now: Timestamp) -> bool {
    tokens.access.is_some() && tokens.access_expires_at.is_none_or(|end| end >= now.plus(GOOD_FOR))
}

fn exposed(token: Option<&Secret<String>>) -> Option<&str> {
    token.map(|token| token.expose().as_str())
}

fn selection_fields() -> [Field; 2] {
    [
        Field::text("accountId", "0199f3a2-7c41-7d0a-9b1e-6f1f0c2d3e4f")
            .shown()
            .says("The `id` of the account; with `providerId` the provider's own id, and then it may be left out."),
        Field::text("providerId", "google"),
    ]
}

const EXAMPLE_TOKEN: &str = "ya29.a0AfB_byC";

pub(in crate::auth) fn describe_get_access_token() -> Description {
    let answer = object([
        ("accessToken", text(EXAMPLE_TOKEN).into()),
        ("scopes", list(text("email").into())),
    ])
    .property("accessTokenExpiresAt", date())
    .property("idToken", text("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"));
    Description::of(
        Group::Account,
        "A provider's access token",
        "For calls to the provider in the user's name. One that ends within 5 seconds is refreshed first. What the \
         provider did not give is left out; an access token that it did not give is empty.",
    )
    .who(Who::WithSessionOrSilence)
    .work(Work::Database)
    .body(selection_fields())
    .answers([Yes::json("The token.", answer)])
    .refuses([
        AuthError::AccountNotFound,
        AuthError::ProviderNotSupported("credential".to_owned()),
        AuthError::NoValidAccessToken,
    ])
}

pub(in crate::auth) fn describe_refresh() -> Description {
    let answer = object([
        ("accessToken", text(EXAMPLE_TOKEN).into()),
        ("refreshToken", nullable_text("1//0gRefresh").into()),
        ("refreshTokenExpiresAt", nullable_date().into()),
        ("scope", nullable_text("openid,email").into()),
        ("idToken", nullable_text(Value::Null).into()),
        ("providerId", text("google").into()),
        ("accountId", text("0199f3a2-7c41-7d0a-9b1e-6f1f0c2d3e4f").into()),
    ])
    .property("accessTokenExpiresAt", date());
    Description::of(
        Group::Account,
        "Refresh a provider's tokens",
        "Whether or not they are about to end. Requests at the same time share one refresh.",
    )
    .who(Who::WithSessionOrSilence)
    .work(Work::Database)
    .body(selection_fields())
    .answers([Yes::json("The new tokens.", answer)])
    .refuses([
        AuthError::AccountNotFound,
        AuthError::ProviderNotSupported("credential".to_owned()),
        AuthError::RefreshTokenNotFound,
        AuthError::RefreshFailed,
    ])
}

pub(in crate::auth) fn describe_account_info() -> Description {
    describe_info("What a provider says of the user").query(selection_fields())
}

pub(in crate::auth) fn describe_account_info_of_body() -> Description {
    describe_info("What a provider says of the user, as older clients ask").body(selection_fields())
}

fn describe_info(summary: &'static str) -> Description {
    let user = object([
        ("name", text("Ada Lovelace").into()),
        ("email", nullable_text("ada@example.com").into()),
        ("image", nullable_text(Value::Null).into()),
        ("emailVerified", flag(true).into()),
    ]);
    let account = object([
        ("id", text("0199f3a2-7c41-7d0a-9b1e-6f1f0c2d3e4f").into()),
        ("providerId", text("google").into()),
        ("accountId", text("110169484474386276334").into()),
    ]);
    let data = ObjectBuilder::new().description(Some("As the provider has it."));
    let answer = object([
        ("user", user.into()),
        ("data", data.into()),
        ("account", account.into()),
    ]);
    Description::of(
        Group::Account,
        summary,
        "As its userinfo endpoint or API has it now; of a provider without one, such as Google, Apple and Microsoft unless \
         `userinfo_endpoint` is configured, as the id_token had it that came last.",
    )
    .who(Who::WithSessionOrSilence)
    .work(Work::Database)
    .answers([Yes::json("The profile.", answer)])
    .refuses([
        AuthError::AccountNotFound,
        AuthError::ProviderNotConfigured,
        AuthError::NoValidAccessToken,
        AuthError::AccessTokenNotFound,
        AuthError::NoUserInfo,
    ])
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::identity::{AccountId, UserId};

    fn account(number: u128, provider: &str, name: &str) -> Account {
        Account {
            id: AccountId(Uuid::from_u128(number)),
            user_id: UserId(Uuid::nil()),
            provider_id: provider.to_owned(),
            account_id: name.to_owned(),
            issuer: String::new(),
            scopes: Vec::new(),
            password_set_at: None,
            created_at: Timestamp::from_secs(0),
            updated_at: Timestamp::from_secs(0),
        }
    }

    #[test]
    fn an_account_is_picked_by_any_of_its_names() {
        let ours = [
            account(1, "credential", "user"),
            account(2, "google", "1234"),
            account(3, "google", "5678"),
            account(4, "github", "1234"),
        ];
        let id = |number: u128| Uuid::from_u128(number).to_string();
        for (query, names, picked) in [
            (format!("accountId={}", id(3)), Names::Ours, Some(3)),
            ("accountId=1234".to_owned(), Names::Ours, None),
            ("accountId=1234".to_owned(), Names::OursOrTheProviders, Some(2)),
            ("providerId=google".to_owned(), Names::Ours, Some(2)),
            ("providerId=google&accountId=5678".to_owned(), Names::Ours, Some(3)),
            (format!("providerId=google&accountId={}", id(3)), Names::Ours, None),
            (
                "providerId=github&accountId=5678".to_owned(),
                Names::OursOrTheProviders,
                None,
            ),
            (format!("accountId={}", id(9)), Names::OursOrTheProviders, None),
        ] {
            let selection = Selection::read(&mut Fields::of_query(Some(&query))).unwrap();
            let found = selection.pick(&ours, names).ok().map(|account| account.id.0);
            assert_eq!(found, picked.map(Uuid::from_u128), "{query}");
        }
        assert!(Selection::read(&mut Fields::of_query(None)).is_err());
    }

    #[test]
    fn an_access_token_is_refreshed_in_time() {
        let now = Timestamp::from_secs(1_000);
        let tokens = |ends: Option<i64>| Tokens {
            access: Some(Secret::new("token".to_owned())),
            refresh: None,
            id: None,
            access_expires_at: ends.map(|ends| Timestamp::from_micros(now.micros() + ends)),
            refresh_expires_at: None,
            scopes: Vec::new(),
        };
        for (ends, good) in [
            (None, true),
            (Some(5_000_001), true),
            (Some(5_000_000), true),
            (Some(4_999_999), false),
            (Some(-1), false),
        ] {
            assert_eq!(is_good(&tokens(ends), now), good, "{ends:?}");
        }
        let absent = Tokens {
            access: None,
            ..tokens(None)
        };
        assert!(!is_good(&absent, now));
    }
}
