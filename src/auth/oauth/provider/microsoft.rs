//! Microsoft Entra: one provider, an issuer for each tenant.
//!
//! A token's `tid` names its tenant, and its issuer must be that tenant's. People are known by `oid`. The `email` claim
//! is whatever a tenant's administrator entered, so it proves nothing unless Microsoft says that it does (`xms_edov`,
//! `verified_primary_email`), or the one tenant that gets in is trusted (`trust_email`).

use serde_json::Value;
use url::Url;

use super::{claims::Claims, dialect::Dialect};
use crate::{
    auth::email::EmailAddress,
    config::{OAuthProvider, ProviderEndpoints},
};

const AUTHORITY: &str = "https://login.microsoftonline.com";
/// Where a tenant's id stands in an issuer that is many.
const TENANT: &str = "{tenantid}";
const OFFLINE: &str = "offline_access";
/// The tenant of personal accounts.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

#[derive(Debug)]
pub(super) struct Microsoft {
    issuer: String,
    tenant: String,
    admits: Admits,
    trust_email: bool,
}

/// Which tenants' accounts get in.
#[derive(Debug, Eq, PartialEq)]
enum Admits {
    Any,
    Organizations,
    Consumers,
    /// By its id.
    Tenant(String),
}

impl Microsoft {
    pub(super) fn new(settings: &OAuthProvider) -> Self {
        let issuer = settings
            .issuer
            .clone()
            .unwrap_or_else(|| format!("{AUTHORITY}/{TENANT}/v2.0"));
        let admits = match settings.tenant.as_str() {
            "common" => Admits::Any,
            "organizations" => Admits::Organizations,
            "consumers" => Admits::Consumers,
            id => Admits::Tenant(id.to_owned()),
        };
        Self {
            issuer,
            tenant: settings.tenant.clone(),
            admits,
            trust_email: settings.trust_email,
        }
    }

    fn issuer_of_tenant(&self, tenant: &str) -> String {
        self.issuer.replace(TENANT, tenant)
    }
}

impl Dialect for Microsoft {
    fn issuer(&self) -> &str {
        &self.issuer
    }

    fn is_issuer(&self, iss: &str) -> bool {
        match self.issuer.split_once(TENANT) {
            None => iss == self.issuer,
            Some((before, after)) => {
                let tenant = iss.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                tenant.is_some_and(|tenant| uuid::Uuid::try_parse(tenant).is_ok())
            }
        }
    }

    fn endpoints(&self) -> Result<ProviderEndpoints, url::ParseError> {
        let Self { tenant, .. } = self;
        Ok(ProviderEndpoints {
            authorization: Some(Url::parse(&format!("{AUTHORITY}/{tenant}/oauth2/v2.0/authorize"))?),
            token: Some(Url::parse(&format!("{AUTHORITY}/{tenant}/oauth2/v2.0/token"))?),
            jwks: Some(Url::parse(&format!("{AUTHORITY}/{tenant}/discovery/v2.0/keys"))?),
            ..ProviderEndpoints::default()
        })
    }

    fn scopes(&self) -> &'static [&'static str] {
        &["openid", "profile", "email", "User.Read", "offline_access"]
    }

    /// Microsoft wants to be told, and says of all that it granted but not of `offline_access`, without which there is no
    /// further refresh token.
    fn scopes_to_refresh(&self, granted: &[String], configured: Vec<String>) -> Vec<String> {
        if granted.is_empty() {
            return configured;
        }
        let offline = configured
            .into_iter()
            .filter(|scope| scope == OFFLINE && !granted.contains(scope));
        granted.iter().cloned().chain(offline).collect()
    }

    fn check_claims(&self, claims: &Claims) -> Result<(), &'static str> {
        let tenant = claims.text("tid").unwrap_or_default();
        if self.issuer.contains(TENANT) && claims.text("iss") != Some(&self.issuer_of_tenant(tenant)) {
            return Err("its issuer is another tenant's");
        }
        let admitted = match &self.admits {
            Admits::Any => true,
            Admits::Organizations => !tenant.is_empty() && !tenant.eq_ignore_ascii_case(CONSUMERS),
            Admits::Consumers => tenant.eq_ignore_ascii_case(CONSUMERS),
            Admits::Tenant(id) => tenant.eq_ignore_ascii_case(id),
        };
        admitted
            .then_some(())
            .ok_or("the account is of a tenant that is not admitted")
    }

    fn issuer_of(&self, claims: &Claims) -> String {
        claims.text("iss").unwrap_or(&self.issuer).to_owned()
    }

    fn subject<'c>(&self, claims: &'c Claims) -> Option<&'c str> {
        claims.text("oid")
    }

    fn proves_email(&self, claims: &Claims) -> Option<bool> {
        let email = claims.text("email").and_then(EmailAddress::parse);
        let listed = claims.0.get("verified_primary_email").and_then(Value::as_array);
        let is_listed = listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|listed| EmailAddress::parse(listed) == email);
        // Microsoft writes this one as a number, too.
        let is_owned = claims.says("xms_edov") == Some(true)
            || claims.0.get("xms_edov").is_some_and(|said| said == 1 || said == "1");
        let one_tenant = matches!(self.admits, Admits::Tenant(_));
        Some(is_owned || is_listed || (self.trust_email && one_tenant))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{auth::oauth::provider::testing, config::ProviderKind};

    const ACME: &str = "11111111-2222-3333-4444-555555555555";
    const OTHER: &str = "99999999-2222-3333-4444-555555555555";

    fn at(tenant: &str) -> Microsoft {
        let mut settings = testing::settings(ProviderKind::Microsoft);
        tenant.clone_into(&mut settings.tenant);
        settings.trust_email = true;
        Microsoft::new(&settings)
    }

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_token_gets_in_only_from_an_admitted_tenant_and_by_its_own_issuer() {
        for (tenant, tid, iss, allowed) in [
            ("common", ACME, ACME, true),
            ("common", CONSUMERS, CONSUMERS, true),
            ("common", ACME, OTHER, false),
            ("organizations", ACME, ACME, true),
            ("organizations", CONSUMERS, CONSUMERS, false),
            ("consumers", CONSUMERS, CONSUMERS, true),
            ("consumers", ACME, ACME, false),
            (ACME, ACME, ACME, true),
            (ACME, OTHER, OTHER, false),
            (ACME, ACME, OTHER, false),
            (ACME, "", ACME, false),
        ] {
            let iss = format!("{AUTHORITY}/{iss}/v2.0");
            let microsoft = at(tenant);
            assert!(microsoft.is_issuer(&iss));
            let got = microsoft.check_claims(&claims(json!({"tid": tid, "iss": iss})));
            assert_eq!(got.is_ok(), allowed, "{tenant} {tid} {iss}");
        }
        for foreign in [
            "https://login.microsoftonline.com/evil/v2.0",
            "https://evil.test/v2.0",
            AUTHORITY,
        ] {
            assert!(!at("common").is_issuer(foreign), "{foreign}");
        }
    }

    #[test]
    fn an_address_that_any_tenant_may_enter_proves_nothing() {
        for (tenant, said, proven) in [
            ("common", json!({"email": "a@x.test"}), false),
            ("common", json!({"email": "a@x.test", "email_verified": true}), false),
            ("common", json!({"email": "a@x.test", "xms_edov": true}), true),
            ("common", json!({"email": "a@x.test", "xms_edov": "1"}), true),
            ("common", json!({"email": "a@x.test", "xms_edov": 1}), true),
            ("common", json!({"email": "a@x.test", "xms_edov": 0}), false),
            ("common", json!({"email": "a@x.test", "xms_edov": false}), false),
            (
                "common",
                json!({"email": "a@x.test", "verified_primary_email": ["A@x.test"]}),
                true,
            ),
            (
                "common",
                json!({"email": "a@x.test", "verified_primary_email": ["b@x.test"]}),
                false,
            ),
            (ACME, json!({"email": "a@x.test"}), true),
        ] {
            assert_eq!(
                at(tenant).proves_email(&claims(said.clone())),
                Some(proven),
                "{tenant} {said}"
            );
        }
    }
}
