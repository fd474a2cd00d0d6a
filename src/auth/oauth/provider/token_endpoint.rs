//! What a provider's token endpoint gives for a code or a refresh token (RFC 6749, sections 4.1.3 and 6).

use std::{borrow::Cow, fmt, time::Duration};

use oauth2::{
    AuthType, AuthorizationCode, Client, ClientId, ClientSecret, EndpointNotSet, EndpointSet, ExtraTokenFields,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope, StandardRevocableToken,
    StandardTokenResponse, TokenResponse, TokenUrl,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType},
};
use serde::{Deserialize, Serialize};
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
        let scopes = answer.scopes().into_iter().flatten();
        let scopes = scopes
            .flat_map(|scope| scope.split(self.scope_separator))
            .filter(|scope| !scope.is_empty());
        let beyond = answer.extra_fields();
        Ok(Tokens {
            access: given(answer.access_token().secret()),
            refresh: answer.refresh_token().and_then(|token| given(token.secret())),
            id: beyond.id_token.as_deref().and_then(given),
            access_expires_at: answer.expires_in().and_then(lives),
            refresh_expires_at: beyond.refresh_token_expires_in.map(Duration::from_secs).and_then(lives),
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

type Given = StandardTokenResponse<Beyond, BasicTokenType>;
type Failure = RequestTokenError<ProviderError, BasicErrorResponse>;
type Answer = Result<Given, Failure>;

/// What RFC 6749 does not know of.
#[derive(Default, Deserialize, Serialize)]
struct Beyond {
    id_token: Option<String>,
    /// GitHub's.
    refresh_token_expires_in: Option<u64>,
}

impl ExtraTokenFields for Beyond {}

impl fmt::Debug for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[tokens]")
    }
}
