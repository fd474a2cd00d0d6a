//! GitHub, and GitHub Enterprise Server at its own place: OAuth 2 with an API, no id_tokens.
//!
//! The address is the primary one of `/user/emails`, which says whether it is verified. Where that list can't be had it is
//! the public one of the profile, which proves nothing.

use serde_json::Value;
use url::Url;

use super::{
    Profile,
    claims::{self, Claims},
    dialect::Dialect,
};
use crate::{
    auth::email::EmailAddress,
    config::{OAuthProvider, ProviderEndpoints},
};

const WEB: &str = "https://github.com";
const API: &str = "https://api.github.com";

#[derive(Debug)]
pub(super) struct GitHub {
    /// Where people see it: `https://github.com`.
    web: String,
    api: String,
}

impl GitHub {
    pub(super) fn new(settings: &OAuthProvider) -> Self {
        let enterprise = settings
            .base_url
            .as_ref()
            .map(|url| url.as_str().trim_end_matches('/').to_owned());
        let web = enterprise.clone().unwrap_or_else(|| WEB.to_owned());
        Self {
            api: enterprise.map_or_else(|| API.to_owned(), |base| format!("{base}/api/v3")),
            web,
        }
    }
}

impl Dialect for GitHub {
    fn issuer(&self) -> &str {
        &self.web
    }

    /// In authorisation responses GitHub calls itself by the path of its endpoints.
    fn is_issuer(&self, iss: &str) -> bool {
        iss == self.web || iss.strip_prefix(&self.web) == Some("/login/oauth")
    }

    fn endpoints(&self) -> Result<ProviderEndpoints, url::ParseError> {
        let Self { web, api, .. } = self;
        Ok(ProviderEndpoints {
            authorization: Some(Url::parse(&format!("{web}/login/oauth/authorize"))?),
            token: Some(Url::parse(&format!("{web}/login/oauth/access_token"))?),
            userinfo: Some(Url::parse(&format!("{api}/user"))?),
            emails: Some(Url::parse(&format!("{api}/user/emails?per_page=100"))?),
            jwks: None,
        })
    }

    fn scopes(&self) -> &'static [&'static str] {
        &["read:user", "user:email"]
    }

    fn scope_separator(&self) -> char {
        ','
    }

    fn has_id_tokens(&self) -> bool {
        false
    }

    fn profile_from_api(&self, user: Claims, emails: Option<&Value>) -> Result<Profile, &'static str> {
        let id = user
            .0
            .get("id")
            .and_then(Value::as_u64)
            .ok_or("the profile has no id")?;
        let is = |entry: &Value, what: &str| entry.get(what).and_then(Value::as_bool).unwrap_or(false);
        let (email, email_verified) = match emails.and_then(Value::as_array) {
            Some(listed) => {
                let primary = listed.iter().find(|entry| is(entry, "primary"));
                let email = primary.and_then(|entry| EmailAddress::parse(entry.get("email")?.as_str()?));
                let is_verified = email.is_some() && primary.is_some_and(|entry| is(entry, "verified"));
                (email, is_verified)
            }
            None => (user.text("email").and_then(EmailAddress::parse), false),
        };

        let given = |what| user.text(what).map(claims::name).filter(|text| !text.is_empty());
        Ok(Profile {
            issuer: self.web.clone(),
            subject: id.to_string(),
            email_verified,
            email,
            name: given("name").or_else(|| given("login")).unwrap_or_default(),
            image: user.text("avatar_url").and_then(claims::image),
            raw: Value::Object(user.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{auth::oauth::provider::testing, config::ProviderKind};

    fn profile(user: Value, emails: Option<&Value>) -> Result<Profile, &'static str> {
        let github = GitHub::new(&testing::settings(ProviderKind::GitHub));
        github.profile_from_api(serde_json::from_value(user).unwrap(), emails)
    }

    #[test]
    fn an_address_counts_as_verified_only_where_the_list_says_so() {
        let entry = |email: &str, primary: bool, verified: bool| json!({"email": email, "primary": primary, "verified": verified});
        for (public, emails, email, verified) in [
            (
                json!(null),
                Some(json!([entry("b@x.test", false, true), entry("A@x.test", true, true)])),
                Some("a@x.test"),
                true,
            ),
            (
                json!("Pub@x.test"),
                Some(json!([
                    entry("a@x.test", true, false),
                    entry("pub@x.test", false, true)
                ])),
                Some("a@x.test"),
                false,
            ),
            (
                json!("pub@x.test"),
                Some(json!([entry("a@x.test", true, true)])),
                Some("a@x.test"),
                true,
            ),
            (
                json!("pub@x.test"),
                Some(json!([entry("pub@x.test", false, true)])),
                None,
                false,
            ),
            (
                json!(null),
                Some(json!([entry("a@x.test", true, false)])),
                Some("a@x.test"),
                false,
            ),
            (json!("pub@x.test"), None, Some("pub@x.test"), false),
            (json!(null), Some(json!({"message": "Not Found"})), None, false),
            (json!(null), None, None, false),
        ] {
            let got = profile(json!({"id": 7, "login": "ada", "email": public}), emails.as_ref()).unwrap();
            assert_eq!(
                (got.email.as_ref().map(EmailAddress::as_str), got.email_verified),
                (email, verified)
            );
        }
    }

    #[test]
    fn people_are_known_by_number_and_named_by_login_if_need_be() {
        let ada = profile(json!({"id": 583_231, "login": "ada", "name": null}), None).unwrap();
        assert_eq!(
            (ada.issuer.as_str(), ada.subject.as_str(), ada.name.as_str()),
            (WEB, "583231", "ada")
        );
        assert!(profile(json!({"id": "583231"}), None).is_err());
        assert!(profile(json!({"login": "ada"}), None).is_err());
    }

    #[test]
    fn an_enterprise_server_has_everything_at_its_own_place() {
        let mut settings = testing::settings(ProviderKind::GitHub);
        settings.base_url = Some(Url::parse("https://git.acme.test/").unwrap());
        let github = GitHub::new(&settings);
        let at = github.endpoints().unwrap();
        assert_eq!(
            at.token.unwrap().as_str(),
            "https://git.acme.test/login/oauth/access_token"
        );
        assert_eq!(
            at.emails.unwrap().as_str(),
            "https://git.acme.test/api/v3/user/emails?per_page=100"
        );
        assert_eq!(github.issuer(), "https://git.acme.test");
        assert!(
            github.is_issuer("https://git.acme.test/login/oauth")
                && !github.is_issuer("https://github.com/login/oauth")
        );
    }
}
