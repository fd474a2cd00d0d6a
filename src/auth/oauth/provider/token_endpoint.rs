//! What a provider's token endpoint gives for a code or a refresh token (RFC 6749, sections 4.1.3 and 6).

use std::{borrow::Cow, fmt, time::Duration};

use oauth2::{
    AccessToken, AuthType, AuthorizationCode, Client, ClientId, ClientSecret, EndpointNotSet, EndpointSet,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope, StandardRevocableToken, TokenResponse,
    TokenUrl,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType},
    helpers::deserialize_untagged_enum_case_insensitive,
};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::{ProviderError, Return, Tokens, wire::Wire};
use crate::{clock::Timestamp, secret::Secret};

/// Longer is as good as for ever, and a number may be anything.
const MAX_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// Who we are to the provider, and where to say so.
#[derive(Debug)]
pub(super) struct TokenEndpoint<'a> {
    pub(super) wire: &'a Wire,
    pub(super) url: Url,
    pub(super) client_id: &'a str,
    pub(super) client_secret: Option<Secret<String>>,
    pub(super) auth: AuthType,
    /// Between granted scopes, beside blanks.
    pub(super) scope_separator: char,
}

impl TokenEndpoint<'_> {
    pub(super) async fn exchange(&self, back: &Return<'_>) -> Result<Tokens, ProviderError> {
        let redirect = RedirectUrl::new(back.redirect_uri.to_owned());
        let redirect = redirect.map_err(|_| self.wire.unusable("the redirect URI is no URL"))?;
        let client = self.client();
        let answer = client
            .exchange_code(AuthorizationCode::new(back.code.expose().clone()))
            .set_pkce_verifier(PkceCodeVerifier::new(back.pkce_verifier.expose().clone()))
            .set_redirect_uri(Cow::Owned(redirect))
            .request_async(self.wire)
            .await;
        self.tokens(answer, back.now)
    }

    pub(super) async fn refresh(
        &self,
        refresh: &Secret<String>,
        scopes: Vec<String>,
        now: Timestamp,
    ) -> Result<Tokens, ProviderError> {
        let refresh = RefreshToken::new(refresh.expose().clone());
        let client = self.client();
        let answer = client
            .exchange_refresh_token(&refresh)
            .add_scopes(scopes.into_iter().map(Scope::new))
            .request_async(self.wire)
            .await;
        self.tokens(answer, now)
    }

    fn client(&self) -> TokenClient {
        let client = Client::new(ClientId::new(self.client_id.to_owned()))
            .set_token_uri(TokenUrl::from_url(self.url.clone()))
            .set_auth_type(self.auth.clone());
        match &self.client_secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose().clone())),
            None => client,
        }
    }

    fn tokens(&self, answer: Answer, now: Timestamp) -> Result<Tokens, ProviderError> {
        let answer = answer.map_err(|error| self.error(error))?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(self.wire.unusable("its tokens are no bearer tokens"));
        }
        let lives = |for_: Duration| (!for_.is_zero()).then(|| now.plus(for_.min(MAX_LIFETIME)));
        let given = |text: &str| (!text.is_empty()).then(|| Secret::new(text.to_owned()));
        let scopes = answer.scope.iter().flatten();
        let scopes = scopes
            .flat_map(|scope| scope.split(self.scope_separator))
            .filter(|scope| !scope.is_empty());
        Ok(Tokens {
            access: given(answer.access_token().secret()),
            refresh: answer.refresh_token().and_then(|token| given(token.secret())),
            id: answer.id_token.as_deref().and_then(given),
            access_expires_at: answer.expires_in().and_then(lives),
            refresh_expires_at: answer.refresh_token_expires_in.map(Duration::from_secs).and_then(lives),
            scopes: scopes.map(ToOwned::to_owned).collect(),
        })
    }

    fn error(&self, error: Failure) -> ProviderError {
        match error {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(no) => self.no(&no),
            // GitHub says no with status 200.
            RequestTokenError::Parse(_, body) => match serde_json::from_slice(&body) {
                Ok(no) => self.no(&no),
                Err(_) => self.wire.unusable("the token endpoint's answer can't be read"),
            },
            RequestTokenError::Other(_) => self.wire.unusable("the token endpoint's answer is empty or no JSON"),
        }
    }

    fn no(&self, no: &BasicErrorResponse) -> ProviderError {
        self.wire.refused(no.error().as_ref())
    }
}

type TokenClient = Client<
    BasicErrorResponse,
    Given,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

type Failure = RequestTokenError<ProviderError, BasicErrorResponse>;
type Answer = Result<Given, Failure>;

/// An answer of the token endpoint (RFC 6749, section 5.1), with what that does not know of.
#[derive(Deserialize, Serialize)]
struct Given {
    access_token: AccessToken,
    #[serde(deserialize_with = "deserialize_untagged_enum_case_insensitive")]
    token_type: BasicTokenType,
    expires_in: Option<u64>,
    refresh_token: Option<RefreshToken>,
    #[serde(default, deserialize_with = "listed")]
    scope: Option<Vec<Scope>>,
    id_token: Option<String>,
    /// GitHub's.
    refresh_token_expires_in: Option<u64>,
}

/// A text with blanks in it, or, by some (Twitch), a list.
fn listed<'de, D: Deserializer<'de>>(scope: D) -> Result<Option<Vec<Scope>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        List(Vec<String>),
    }
    let texts = match Option::deserialize(scope)? {
        None => return Ok(None),
        Some(Written::Text(text)) => text.split(' ').map(str::to_owned).collect(),
        Some(Written::List(texts)) => texts,
    };
    Ok(Some(texts.into_iter().map(Scope::new).collect()))
}

impl TokenResponse for Given {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        self.expires_in.map(Duration::from_secs)
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        self.scope.as_ref()
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[tokens]")
    }
}
