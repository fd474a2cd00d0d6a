//! Google: OpenID Connect at known places, accounts of a Workspace domain alone if asked for.

use url::Url;

use super::{claims::Claims, dialect::Dialect};
use crate::config::{OAuthProvider, ProviderEndpoints};

const ISSUER: &str = "https://accounts.google.com";
/// How Google spells it as well.
const BARE_ISSUER: &str = "accounts.google.com";

#[derive(Debug)]
pub(super) struct Google {
    issuer: String,
    hosted_domain: Option<String>,
}

impl Google {
    pub(super) fn new(settings: &OAuthProvider) -> Self {
        Self {
            issuer: settings.issuer.clone().unwrap_or_else(|| ISSUER.to_owned()),
            hosted_domain: settings.hosted_domain.clone(),
        }
    }
}

impl Dialect for Google {
    fn issuer(&self) -> &str {
        &self.issuer
    }

    fn is_issuer(&self, iss: &str) -> bool {
        iss == self.issuer || (self.issuer == ISSUER && iss == BARE_ISSUER)
    }

    fn endpoints(&self) -> Result<ProviderEndpoints, url::ParseError> {
        Ok(ProviderEndpoints {
            authorization: Some(Url::parse("https://accounts.google.com/o/oauth2/v2/auth")?),
            token: Some(Url::parse("https://oauth2.googleapis.com/token")?),
            jwks: Some(Url::parse("https://www.googleapis.com/oauth2/v3/certs")?),
            ..ProviderEndpoints::default()
        })
    }

    fn scopes(&self) -> &'static [&'static str] {
        &["email", "profile", "openid"]
    }

    fn authorization_params(&self) -> Vec<(&'static str, String)> {
        let mut params = vec![("include_granted_scopes", "true".to_owned())];
        params.extend(self.hosted_domain.clone().map(|domain| ("hd", domain)));
        params
    }

    /// The parameter only chooses what Google shows first; the claim is what counts.
    fn check_claims(&self, claims: &Claims) -> Result<(), &'static str> {
        let allowed = match (self.hosted_domain.as_deref(), claims.text("hd")) {
            (None, _) => true,
            (Some(_), None | Some("")) => false,
            (Some(wanted), Some(domain)) => wanted == "*" || domain.eq_ignore_ascii_case(wanted),
        };
        allowed.then_some(()).ok_or("the account is not of the hosted domain")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{auth::oauth::provider::testing, config::ProviderKind};

    #[test]
    fn only_accounts_of_the_hosted_domain_get_in() {
        let none = json!({});
        let acme = json!({"hd": "acme.test"});
        let other = json!({"hd": "other.test"});
        for (wanted, claims, allowed) in [
            (None, &none, true),
            (Some("acme.test"), &none, false),
            (Some("acme.test"), &acme, true),
            (Some("acme.test"), &other, false),
            (Some("*"), &other, true),
            (Some("*"), &none, false),
        ] {
            let mut settings = testing::settings(ProviderKind::Google);
            settings.hosted_domain = wanted.map(ToOwned::to_owned);
            let claims = serde_json::from_value(claims.clone()).unwrap();
            assert_eq!(
                Google::new(&settings).check_claims(&claims).is_ok(),
                allowed,
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn both_spellings_of_the_issuer_are_one() {
        let google = Google::new(&testing::settings(ProviderKind::Google));
        assert!(google.is_issuer(ISSUER) && google.is_issuer(BARE_ISSUER) && !google.is_issuer("https://evil.test"));
        let claims = serde_json::from_value(json!({"iss": BARE_ISSUER})).unwrap();
        assert_eq!(google.issuer_of(&claims), ISSUER);
    }
}
