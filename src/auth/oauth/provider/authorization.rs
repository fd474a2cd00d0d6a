//! Where a browser is sent to sign in (RFC 6749, section 4.1.1; RFC 7636; OpenID Connect Core 1.0, section 3.1.2.1).

use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, ResponseType, Scope,
    basic::BasicClient,
};
use url::Url;

use super::{Ask, dialect::Dialect};
use crate::config::{OAuthProvider, SET_BY_THE_FLOW};

pub(super) fn url(
    endpoint: Url,
    settings: &OAuthProvider,
    dialect: &dyn Dialect,
    ask: &Ask<'_>,
) -> Result<Url, &'static str> {
    // RFC 7636, section 4.1; `oauth2` panics at others.
    if !(43..=128).contains(&ask.pkce_verifier.expose().len()) {
        return Err("the PKCE verifier has a wrong length");
    }
    let endpoint = without_reserved(endpoint);
    let verifier = PkceCodeVerifier::new(ask.pkce_verifier.expose().clone());
    let redirect = RedirectUrl::new(ask.redirect_uri.to_owned()).map_err(|_| "the redirect URI is no URL")?;
    let client = BasicClient::new(ClientId::new(settings.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(endpoint))
        .set_redirect_uri(redirect);
    let mut request = client
        .authorize_url(|| CsrfToken::new(ask.state.to_owned()))
        .set_response_type(&ResponseType::new(dialect.response_type().to_owned()))
        .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
        .add_scopes(ask.scopes.iter().cloned().map(Scope::new));
    if dialect.has_id_tokens() {
        request = request.add_extra_param("nonce", ask.nonce.to_owned());
    }
    for (name, value) in params(settings, dialect, ask) {
        request = request.add_extra_param(name, value);
    }
    Ok(request.url().0)
}

/// An endpoint may have a query of its own (RFC 6749, section 3.1), which does not decide what is the flow's either: of a
/// parameter that is there twice, a provider might take the first.
fn without_reserved(mut endpoint: Url) -> Url {
    let is_reserved = |name: &str| SET_BY_THE_FLOW.contains(&name);
    if endpoint.query_pairs().any(|(name, _)| is_reserved(&name)) {
        let kept: Vec<_> = endpoint
            .query_pairs()
            .into_owned()
            .filter(|(name, _)| !is_reserved(name))
            .collect();
        endpoint.query_pairs_mut().clear().extend_pairs(kept);
    }
    endpoint
}

/// The provider's own, the configured ones, and the caller's: of one name the last counts.
fn params(settings: &OAuthProvider, dialect: &dyn Dialect, ask: &Ask<'_>) -> Vec<(String, String)> {
    let own = dialect
        .authorization_params()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let hint = ask.login_hint.map(|hint| ("login_hint".to_owned(), hint.to_owned()));
    let others = settings.authorization_params.iter().chain(ask.params).cloned();
    let others = others.filter(|(name, _)| !SET_BY_THE_FLOW.contains(&name.as_str()));
    let mut params: Vec<(String, String)> = Vec::new();
    for (name, value) in own.chain(hint).chain(others) {
        match params.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => params.push((name, value)),
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        auth::oauth::provider::{dialect, testing},
        config::ProviderKind,
        secret::Secret,
    };

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn pairs(settings: &OAuthProvider, params: &[(String, String)]) -> BTreeMap<String, String> {
        let dialect = dialect::of(settings).unwrap();
        let scopes: Vec<String> = dialect.scopes().iter().map(ToString::to_string).collect();
        let ask = Ask {
            state: "the-state",
            nonce: "the-nonce",
            pkce_verifier: &Secret::new(VERIFIER.to_owned()),
            redirect_uri: "https://app.test/api/auth/callback/x",
            scopes: &scopes,
            login_hint: Some("ada@example.com"),
            params,
        };
        let endpoint = Url::parse("https://idp.test/authorize?code_challenge_method=plain&keep=1&state=evil").unwrap();
        let url = url(endpoint, settings, &*dialect, &ask).unwrap();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let map: BTreeMap<_, _> = pairs.iter().cloned().collect();
        assert_eq!(map.len(), pairs.len(), "a parameter twice: {url}");
        map
    }

    #[test]
    fn every_kind_says_what_its_provider_needs() {
        for (kind, scope, response_type, nonce) in [
            (ProviderKind::Google, "email profile openid", "code", true),
            (ProviderKind::GitHub, "read:user user:email", "code", false),
            (ProviderKind::Apple, "email name", "code id_token", true),
            (
                ProviderKind::Microsoft,
                "openid profile email User.Read offline_access",
                "code",
                true,
            ),
            (ProviderKind::Oidc, "openid email profile", "code", true),
        ] {
            let said = pairs(&testing::settings(kind), &[]);
            let is = |name: &str, value: &str| assert_eq!(said.get(name).map(String::as_str), Some(value), "{kind:?}");
            is("scope", scope);
            is("response_type", response_type);
            is("state", "the-state");
            is("client_id", "client");
            is("redirect_uri", "https://app.test/api/auth/callback/x");
            is("code_challenge_method", "S256");
            // RFC 7636, appendix B.
            is("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
            is("login_hint", "ada@example.com");
            is("keep", "1");
            assert_eq!(said.contains_key("nonce"), nonce, "{kind:?}");
            assert_eq!(
                said.contains_key("include_granted_scopes"),
                kind == ProviderKind::Google
            );
            assert_eq!(
                said.get("response_mode").is_some_and(|mode| mode == "form_post"),
                kind == ProviderKind::Apple
            );
        }
    }

    #[test]
    fn nobody_replaces_what_the_flow_says() {
        let mut settings = testing::settings(ProviderKind::Google);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        settings.authorization_params = vec![
            pair("access_type", "offline"),
            pair("prompt", "consent"),
            pair("state", "evil"),
        ];
        let mut params: Vec<_> = SET_BY_THE_FLOW.iter().map(|name| pair(name, "evil")).collect();
        params.push(pair("prompt", "none"));
        let said = pairs(&settings, &params);
        assert!(!said.values().any(|value| value == "evil"), "{said:?}");
        assert_eq!(
            (said["access_type"].as_str(), said["prompt"].as_str()),
            ("offline", "none")
        );
    }
}
