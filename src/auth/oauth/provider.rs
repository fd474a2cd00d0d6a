//! One provider, ready to be asked: where people are sent, what their code is worth, and who they are.
//!
//! What every provider must keep to is judged by what is common: `id_token.rs`, `claims.rs`, `token_endpoint.rs`. Where
//! providers differ, `dialect.rs` says how they may; each has a file of its own, and this one knows of none.

mod apple;
mod authorization;
mod claims;
mod dialect;
mod discovery;
mod github;
mod google;
mod id_token;
mod kept;
mod keys;
mod microsoft;
mod oidc;
mod said;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token_endpoint;
mod wire;

use std::{fmt, sync::Arc};

use oauth2::AuthType;
use openidconnect::{TokenUrl, UserInfoUrl, core::CoreClientAuthMethod};
use tracing::warn;
use url::Url;

pub(in crate::auth) use self::said::{Ask, Presented, Profile, ProviderError, Return, Tokens};
use self::{
    claims::Claims,
    dialect::Dialect,
    discovery::{Discovery, Metadata},
    id_token::{AGE_IN_FLOW, AGE_PRESENTED, Audience, Bad, Expected, Nonce},
    keys::Keys,
    token_endpoint::TokenEndpoint,
    wire::Wire,
};
use crate::{
    chain::Chain,
    clock::Timestamp,
    config::{OAuthProvider, ProviderEndpoints, TokenEndpointAuth},
    db::accounts::Account,
    outbound::{Outbound, Rules},
    secret::Secret,
};

/// A provider as configured. Cheap to share; keeps connections and key sets.
#[derive(Debug)]
pub(in crate::auth) struct Provider {
    settings: OAuthProvider,
    dialect: Box<dyn Dialect>,
    /// As configured, else as the dialect knows them.
    endpoints: ProviderEndpoints,
    /// For the endpoints that are not known.
    discovery: Option<Discovery>,
    keys: Keys,
    /// For what the provider publishes for everybody.
    published: Wire,
    wire: Wire,
}

impl Provider {
    /// `is_local`: `server.public_url` is a loopback name, so http and private addresses do.
    pub(in crate::auth) fn new(settings: &OAuthProvider, is_local: bool) -> Result<Self, StartError> {
        let rules = Rules {
            allow_insecure: settings.allow_insecure || is_local,
            allow_private: settings.allow_private || is_local,
            timeout: settings.timeout,
            ca: settings.ca.clone(),
        };
        let outbound = Outbound::new(rules).map_err(|error| StartError::new(settings, Chain(&error)))?;
        let dialect = dialect::of(settings)?;
        let endpoints = known_endpoints(settings, &*dialect)?;
        let ProviderEndpoints {
            authorization,
            token,
            userinfo,
            jwks,
            emails,
        } = &endpoints;
        for url in [authorization, token, userinfo, jwks, emails].into_iter().flatten() {
            outbound
                .check(url)
                .map_err(|error| StartError::new(settings, Chain(&error)))?;
        }
        let all_known = authorization.is_some() && token.is_some() && jwks.is_some();
        let discovery = (dialect.discovers() && !all_known)
            .then(|| Discovery::new(dialect.issuer()).map_err(|_| StartError::new(settings, "issuer is no URL")))
            .transpose()?;
        Ok(Self {
            settings: settings.clone(),
            dialect,
            endpoints,
            discovery,
            keys: Keys::new(),
            published: Wire::new(&settings.name, outbound.beside()),
            wire: Wire::new(&settings.name, outbound),
        })
    }

    pub(in crate::auth) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(in crate::auth) const fn settings(&self) -> &OAuthProvider {
        &self.settings
    }

    /// Whether accounts of that issuer are accounts here.
    pub(in crate::auth) fn is_issuer(&self, issuer: &str) -> bool {
        self.dialect.is_issuer(issuer)
    }

    /// What is asked for where an app wants `more` than is configured.
    pub(in crate::auth) fn scopes_with(&self, more: Vec<String>) -> Vec<String> {
        let mut scopes = self.scopes();
        for scope in more {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes
    }

    /// Where to send the browser.
    pub(in crate::auth) async fn authorization_url(&self, ask: &Ask<'_>) -> Result<Url, ProviderError> {
        let endpoint = self.endpoint(self.endpoints.authorization.as_ref(), |metadata| {
            Some(metadata.authorization_endpoint().url())
        });
        let endpoint = endpoint
            .await?
            .ok_or_else(|| self.wire.unusable("it has no authorization endpoint"))?;
        let url = authorization::url(endpoint, &self.settings, &*self.dialect, ask);
        url.map_err(|why| self.wire.unusable(why))
    }

    /// Whether the answer came from this provider, as far as it says (RFC 9207): `iss` as the answer had it.
    pub(in crate::auth) async fn check_iss(&self, iss: Option<&str>) -> Result<bool, ProviderError> {
        if let Some(iss) = iss {
            return Ok(self.dialect.is_issuer(iss));
        }
        let metadata = self.metadata().await?;
        let promised = metadata.map(|it| it.additional_metadata().authorization_response_iss_parameter_supported);
        Ok(promised != Some(true))
    }

    /// What the code is worth.
    pub(in crate::auth) async fn exchange(&self, back: &Return<'_>) -> Result<Tokens, ProviderError> {
        let mut tokens = self.token_endpoint(back.now).await?.exchange(back).await?;
        if tokens.scopes.is_empty() {
            tokens.scopes = back.asked_scopes.to_vec();
        }
        Ok(tokens)
    }

    /// Who came back: from an id_token that passes every check, or from the provider's API.
    pub(in crate::auth) async fn profile(&self, back: &Return<'_>, tokens: &Tokens) -> Result<Profile, ProviderError> {
        if !self.dialect.has_id_tokens() {
            return self.profile_from_api(tokens).await;
        }
        let id_token = tokens
            .id
            .as_ref()
            .ok_or_else(|| self.wire.unusable("it gave no id_token"))?;
        let expected = Expected {
            audience: Audience::Us(&self.settings.client_id),
            nonce: Some(Nonce::Exact(back.nonce)),
            access_token: tokens.access.as_ref(),
            max_age: AGE_IN_FLOW,
            clock_skew: self.settings.clock_skew,
            now: back.now,
        };
        let mut claims = self.verified(id_token, &expected).await?;
        if claims.lack_something() {
            self.complete(&mut claims, tokens).await?;
        }
        let mut profile = self.profile_of(claims)?;
        if let Some(name) = back.user.and_then(|user| self.dialect.name_from_browser(user)) {
            profile.name = name;
        }
        Ok(profile)
    }

    /// Whether [`Self::presented`] can be asked.
    pub(in crate::auth) fn takes_id_tokens(&self) -> bool {
        self.dialect.has_id_tokens()
    }

    /// Whose id_token an app presents.
    pub(in crate::auth) async fn presented(&self, presented: &Presented<'_>) -> Result<Profile, ProviderError> {
        let nonce = if self.dialect.may_hash_nonce() {
            Nonce::ExactOrHashed
        } else {
            Nonce::Exact
        };
        let expected = Expected {
            audience: Audience::AnyOf(&self.settings.client_id, &self.settings.audiences),
            nonce: presented.nonce.map(nonce),
            access_token: presented.access_token,
            max_age: AGE_PRESENTED,
            clock_skew: self.settings.clock_skew,
            now: presented.now,
        };
        let claims = self.verified(presented.id_token, &expected).await?;
        let mut profile = self.profile_of(claims)?;
        if profile.name.is_empty() {
            profile.name = presented.name.map(claims::name).unwrap_or_default();
        }
        Ok(profile)
    }

    /// `seen`: what there is of the account so far.
    pub(in crate::auth) async fn refresh(
        &self,
        refresh: &Secret<String>,
        seen: &Tokens,
        account: &Account,
        now: Timestamp,
    ) -> Result<Tokens, ProviderError> {
        let scopes = self.dialect.scopes_to_refresh(&seen.scopes, self.scopes());
        let given = self.token_endpoint(now).await?.refresh(refresh, scopes, now).await?;
        if let Some(id_token) = given.id.as_ref().filter(|_| self.dialect.has_id_tokens()) {
            let claims = id_token::claims_of_verified(id_token.expose());
            if !claims.is_some_and(|claims| self.is_of(&claims, account, seen)) {
                return Err(self
                    .wire
                    .unusable("what it gave for a refresh token is somebody else's"));
            }
        }
        Ok(given)
    }

    /// Whether an id_token that came of a refresh is about the account (OpenID Connect Core 1.0, section 12.2). Its
    /// signature need not be asked: it comes from the provider itself (section 3.1.3.7).
    fn is_of(&self, claims: &Claims, account: &Account, seen: &Tokens) -> bool {
        let subject = claims.text("sub");
        if !claims.text("iss").is_some_and(|iss| self.is_issuer(iss)) || subject.is_none() {
            return false;
        }
        if account.issuer.is_empty() {
            // Brought from elsewhere, where people may have been known by something else.
            let before = seen.id.as_ref();
            let before = before.and_then(|token| id_token::claims_of_verified(token.expose()));
            return before.is_none_or(|before| before.text("sub") == subject);
        }
        let names = [self.dialect.subject(claims), subject];
        self.dialect.issuer_of(claims) == account.issuer && names.contains(&Some(&account.account_id))
    }

    /// What the provider says of somebody who signed in before: now, where there is an endpoint to ask, else in the
    /// id_token that came last.
    pub(in crate::auth) async fn account_info(&self, tokens: &Tokens) -> Result<Profile, ProviderError> {
        if !self.dialect.has_id_tokens() {
            return self.profile_from_api(tokens).await;
        }
        let told = tokens
            .id
            .as_ref()
            .and_then(|token| id_token::claims_of_verified(token.expose()));
        let claims = match (told, self.userinfo(tokens).await?) {
            (Some(told), Some(mut now)) => {
                self.same_subject(&told, &now)?;
                now.complete(told);
                now
            }
            (Some(claims), None) | (None, Some(claims)) => claims,
            (None, None) => return Err(self.wire.unusable("nothing is left to know the account by")),
        };
        self.profile_of(claims)
    }

    /// The claims of an id_token that passes every check. A key that is not known may be a new one.
    async fn verified(&self, token: &Secret<String>, expected: &Expected<'_>) -> Result<Claims, ProviderError> {
        let endpoint = self.endpoint(self.endpoints.jwks.as_ref(), |metadata| Some(metadata.jwks_uri().url()));
        let endpoint = endpoint.await?.ok_or_else(|| self.wire.unusable("it has no keys"))?;
        let keys = self.keys.get(&self.published, &endpoint).await?;
        let mut checked = id_token::verify(token.expose(), &keys, &*self.dialect, expected);
        if let Err(Bad::Key(_)) = checked
            && let Some(newer) = self.keys.newer(&keys, &self.published, &endpoint).await
        {
            checked = id_token::verify(token.expose(), &newer, &*self.dialect, expected);
        }
        let refused = |why| self.wire.unusable(format!("its id_token is refused: {why}"));
        checked.map_err(|(Bad::Key(why) | Bad::Token(why))| refused(why))
    }

    /// Adds what the userinfo endpoint knows. Without an address, and what is said of it, somebody can't get in as who
    /// they are; without a picture they can.
    async fn complete(&self, claims: &mut Claims, tokens: &Tokens) -> Result<(), ProviderError> {
        match self.userinfo(tokens).await {
            Ok(None) => {}
            Ok(Some(more)) => {
                self.same_subject(claims, &more)?;
                claims.complete(more);
            }
            Err(error) if claims.text("email").is_some() && self.dialect.proves_email(claims).is_some() => {
                warn!(%error, "could not complete a profile, going on with the id_token");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// OpenID Connect Core 1.0, section 5.3.2: a userinfo answer about another is nothing to go by.
    fn same_subject(&self, id_token: &Claims, userinfo: &Claims) -> Result<(), ProviderError> {
        let same = userinfo.text("sub").is_some() && userinfo.text("sub") == id_token.text("sub");
        same.then_some(())
            .ok_or_else(|| self.wire.unusable("userinfo is about somebody else"))
    }

    /// `None`: there is no such endpoint, or no token to ask it with.
    async fn userinfo(&self, tokens: &Tokens) -> Result<Option<Claims>, ProviderError> {
        let endpoint = self.endpoint(self.endpoints.userinfo.as_ref(), |metadata| {
            metadata.userinfo_endpoint().map(UserInfoUrl::url)
        });
        match (endpoint.await?, &tokens.access) {
            (Some(endpoint), Some(token)) => Ok(Some(self.wire.get(&endpoint, Some(token)).await?.0)),
            _ => Ok(None),
        }
    }

    async fn profile_from_api(&self, tokens: &Tokens) -> Result<Profile, ProviderError> {
        let user = self
            .userinfo(tokens)
            .await?
            .ok_or_else(|| self.wire.unusable("there is no access token"))?;
        let emails = match &self.endpoints.emails {
            None => None,
            Some(endpoint) => self.wire.get_if_granted(endpoint, tokens.access.as_ref()).await?,
        };
        let profile = self.dialect.profile_from_api(user, emails.as_ref());
        profile.map_err(|why| self.wire.unusable(why))
    }

    fn profile_of(&self, claims: Claims) -> Result<Profile, ProviderError> {
        let profile = claims::profile(&*self.dialect, claims, self.settings.trust_email);
        profile.map_err(|why| self.wire.unusable(why))
    }

    async fn token_endpoint(&self, now: Timestamp) -> Result<TokenEndpoint<'_>, ProviderError> {
        let url = self.endpoint(self.endpoints.token.as_ref(), |metadata| {
            metadata.token_endpoint().map(TokenUrl::url)
        });
        let client_secret = match self.dialect.made_secret(now) {
            Some(made) => Some(made.map_err(|why| self.wire.unusable(why))?),
            None => self.settings.client_secret.clone(),
        };
        let (client_secret, auth) = match self.settings.token_endpoint_auth_method {
            Some(TokenEndpointAuth::None) => (None, AuthType::RequestBody),
            Some(TokenEndpointAuth::ClientSecretPost) => (client_secret, AuthType::RequestBody),
            Some(TokenEndpointAuth::ClientSecretBasic) => (client_secret, AuthType::BasicAuth),
            None => (client_secret, self.supported_auth().await?),
        };
        Ok(TokenEndpoint {
            wire: &self.wire,
            url: url
                .await?
                .ok_or_else(|| self.wire.unusable("it has no token endpoint"))?,
            client_id: &self.settings.client_id,
            client_secret,
            auth,
            scope_separator: self.dialect.scope_separator(),
        })
    }

    /// The body before the header, unless only the header is supported, which is also what a document that does not
    /// say means (OpenID Connect Discovery 1.0, section 3).
    async fn supported_auth(&self) -> Result<AuthType, ProviderError> {
        let Some(metadata) = self.metadata().await? else {
            return Ok(AuthType::RequestBody);
        };
        let supported = metadata
            .token_endpoint_auth_methods_supported()
            .map(Vec::as_slice)
            .unwrap_or_default();
        Ok(if supported.contains(&CoreClientAuthMethod::ClientSecretPost) {
            AuthType::RequestBody
        } else {
            AuthType::BasicAuth
        })
    }

    fn scopes(&self) -> Vec<String> {
        let own = || self.dialect.scopes().iter().map(ToString::to_string).collect();
        self.settings.scopes.clone().unwrap_or_else(own)
    }

    async fn endpoint(
        &self,
        known: Option<&Url>,
        discovered: impl FnOnce(&Metadata) -> Option<&Url>,
    ) -> Result<Option<Url>, ProviderError> {
        match known {
            Some(known) => Ok(Some(known.clone())),
            None => Ok(self
                .metadata()
                .await?
                .and_then(|metadata| discovered(&metadata).cloned())),
        }
    }

    /// `None`: all that is needed is known without.
    async fn metadata(&self) -> Result<Option<Arc<Metadata>>, ProviderError> {
        match &self.discovery {
            Some(discovery) => discovery.get(&self.published).await.map(Some),
            None => Ok(None),
        }
    }
}

fn known_endpoints(settings: &OAuthProvider, dialect: &dyn Dialect) -> Result<ProviderEndpoints, StartError> {
    let own = dialect
        .endpoints()
        .map_err(|_| StartError::new(settings, "base_url or tenant makes no URL"))?;
    let configured = settings.endpoints.clone();
    // Whoever moves the profile moves the addresses that belong to it.
    let beside_userinfo = configured
        .userinfo
        .as_ref()
        .filter(|_| own.emails.is_some())
        .and_then(|userinfo| Url::parse(&format!("{}/emails", userinfo.as_str().trim_end_matches('/'))).ok());
    Ok(ProviderEndpoints {
        authorization: configured.authorization.or(own.authorization),
        token: configured.token.or(own.token),
        userinfo: configured.userinfo.or(own.userinfo),
        jwks: configured.jwks.or(own.jwks),
        emails: configured.emails.or(beside_userinfo).or(own.emails),
    })
}

/// A provider's settings that can't be used, such as a private key that is none.
#[derive(Debug, thiserror::Error)]
#[error("auth.oauth.{provider}: {why}")]
pub struct StartError {
    provider: String,
    why: String,
}

impl StartError {
    fn new(settings: &OAuthProvider, why: impl fmt::Display) -> Self {
        Self {
            provider: settings.name.clone(),
            why: why.to_string(),
        }
    }
}
