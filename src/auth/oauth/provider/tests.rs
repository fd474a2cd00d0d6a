//! Against a provider on a real socket.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    testing::{Answer, Peer, Signer},
    *,
};
use crate::{
    config::ProviderKind,
    identity::{AccountId, UserId},
};

const NOW: i64 = 1_795_000_000;
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn settings(peer: &Peer, kind: ProviderKind) -> OAuthProvider {
    let mut settings = testing::settings(kind);
    settings.issuer = Some(peer.origin.clone());
    settings
}

fn oidc(peer: &Peer) -> Provider {
    Provider::new(&settings(peer, ProviderKind::Oidc), true).unwrap()
}

/// What comes back from the browser.
struct Came {
    code: Secret<String>,
    verifier: Secret<String>,
    user: Option<&'static str>,
    asked_scopes: Vec<String>,
}

impl Came {
    fn new() -> Self {
        Self {
            code: Secret::new("the-code".to_owned()),
            verifier: Secret::new(VERIFIER.to_owned()),
            user: None,
            asked_scopes: Vec::new(),
        }
    }

    fn back(&self) -> Return<'_> {
        Return {
            code: &self.code,
            nonce: "the-nonce",
            pkce_verifier: &self.verifier,
            redirect_uri: "https://app.test/cb",
            asked_scopes: &self.asked_scopes,
            user: self.user,
            now: Timestamp::from_secs(NOW),
        }
    }
}

fn claims(peer: &Peer, more: &Value) -> Value {
    let mut claims = json!({
        "iss": peer.origin, "sub": "ada", "aud": "client", "iat": NOW, "exp": NOW + 3600, "nonce": "the-nonce",
    });
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    claims
}

fn person() -> Value {
    json!({"email": "Ada@Example.com", "email_verified": true, "name": "Ada", "picture": "https://img.test/a.png"})
}

fn gives(peer: &Peer, id_token: &str) {
    let body = json!({
        "access_token": "the-access-token", "token_type": "Bearer", "expires_in": 3600,
        "refresh_token": "the-refresh-token", "scope": "openid email", "id_token": id_token,
    });
    peer.answers("/token", Answer::json(&body));
}

async fn arrives(provider: &Provider, came: &Came) -> Result<Profile, ProviderError> {
    let back = came.back();
    let tokens = provider.exchange(&back).await?;
    provider.profile(&back, &tokens).await
}

#[tokio::test]
async fn somebody_arrives_from_an_openid_provider() {
    let key = Signer::rsa(Some("1"));
    let peer = Peer::openid(&[&key]).await;
    let provider = oidc(&peer);
    gives(&peer, &key.sign(&claims(&peer, &person())));

    let (came, now) = (Came::new(), Timestamp::from_secs(NOW));
    let tokens = provider.exchange(&came.back()).await.unwrap();
    assert_eq!(tokens.access.as_ref().unwrap().expose(), "the-access-token");
    assert_eq!(tokens.refresh.as_ref().unwrap().expose(), "the-refresh-token");
    assert_eq!(tokens.access_expires_at, Some(now.plus(Duration::from_hours(1))));
    assert_eq!(tokens.refresh_expires_at, None);
    assert_eq!(tokens.scopes, ["openid", "email"]);
    let shown = format!("{tokens:?} {provider:?}");
    assert!(
        !shown.contains("the-access-token") && !shown.contains("client-secret"),
        "{shown}"
    );

    let ada = provider.profile(&came.back(), &tokens).await.unwrap();
    assert_eq!((ada.issuer, ada.subject), (peer.origin.clone(), "ada".to_owned()));
    assert_eq!(
        (ada.email.unwrap().as_str(), ada.email_verified),
        ("ada@example.com", true)
    );
    assert_eq!(
        (ada.name.as_str(), ada.image.as_deref()),
        ("Ada", Some("https://img.test/a.png"))
    );

    let asked = peer.asked("/token");
    let said = |name: &str| asked[0].form[name].as_str();
    assert_eq!(said("grant_type"), "authorization_code");
    assert_eq!(said("code"), "the-code");
    assert_eq!(said("code_verifier"), VERIFIER);
    assert_eq!(said("redirect_uri"), "https://app.test/cb");
    assert_eq!((said("client_id"), said("client_secret")), ("client", "client-secret"));
    assert!(!asked[0].header.contains_key("authorization"));
    // The token said all there is to know.
    assert!(peer.asked("/userinfo").is_empty());
}

#[tokio::test]
async fn what_the_provider_publishes_is_fetched_once() {
    let key = Signer::rsa(Some("1"));
    let peer = Peer::openid(&[&key]).await;
    let provider = oidc(&peer);
    gives(&peer, &key.sign(&claims(&peer, &person())));
    let came = Came::new();
    let all = futures_util::future::join_all((0..20).map(|_| arrives(&provider, &came))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(peer.asked("/.well-known/openid-configuration").len(), 1);
    assert_eq!(peer.asked("/jwks").len(), 1);
}

#[tokio::test]
async fn keys_rotated_between_two_sign_ins_work() {
    let (old, new) = (Signer::rsa(Some("1")), Signer::ec(Some("2")));
    let peer = Peer::openid(&[&old]).await;
    let (provider, came) = (oidc(&peer), Came::new());
    gives(&peer, &old.sign(&claims(&peer, &person())));
    arrives(&provider, &came).await.unwrap();

    peer.publish(&[&new]);
    gives(&peer, &new.sign(&claims(&peer, &person())));
    arrives(&provider, &came).await.unwrap();
    assert_eq!(peer.asked("/jwks").len(), 2);

    // The withdrawn key is nobody's any more, and whoever tries again does not make us ask again.
    gives(&peer, &old.sign(&claims(&peer, &person())));
    for _ in 0..5 {
        let refused = arrives(&provider, &came).await.unwrap_err();
        assert!(matches!(refused, ProviderError::Unusable { .. }), "{refused}");
    }
    assert_eq!(peer.asked("/jwks").len(), 2);
}

#[tokio::test]
async fn keys_replaced_under_the_same_id_work() {
    let (old, new) = (Signer::ec(Some("1")), Signer::ec(Some("1")));
    let peer = Peer::openid(&[&old]).await;
    let (provider, came) = (oidc(&peer), Came::new());
    gives(&peer, &old.sign(&claims(&peer, &person())));
    arrives(&provider, &came).await.unwrap();
    peer.publish(&[&new]);
    gives(&peer, &new.sign(&claims(&peer, &person())));
    arrives(&provider, &came).await.unwrap();
}

#[tokio::test]
async fn a_document_of_another_issuer_is_refused() {
    let peer = Peer::openid(&[]).await;
    let mut settings = settings(&peer, ProviderKind::Oidc);
    settings.issuer = Some(format!("{}/", peer.origin));
    let provider = Provider::new(&settings, true).unwrap();
    let refused = provider.check_iss(None).await.unwrap_err().to_string();
    assert!(refused.contains("another issuer"), "{refused}");
}

#[tokio::test]
async fn an_endpoint_out_of_bounds_is_refused() {
    let peer = Peer::openid(&[]).await;
    let mut document = json!({
        "issuer": peer.origin, "authorization_endpoint": "https://idp.test/a", "token_endpoint": "ftp://idp.test/t",
        "jwks_uri": "https://idp.test/j", "response_types_supported": ["code"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
    });
    peer.answers("/.well-known/openid-configuration", Answer::json(&document));
    let refused = oidc(&peer).check_iss(None).await.unwrap_err().to_string();
    assert!(refused.contains("out of bounds"), "{refused}");
    document["token_endpoint"] = json!("https://idp.test/t");
    peer.answers("/.well-known/openid-configuration", Answer::json(&document));
    assert!(oidc(&peer).check_iss(None).await.unwrap());
}

#[tokio::test]
async fn with_all_endpoints_configured_nothing_is_discovered() {
    let key = Signer::ec(None);
    let peer = Peer::start().await;
    peer.publish(&[&key]);
    let mut settings = settings(&peer, ProviderKind::Oidc);
    let at = |path: &str| Url::parse(&format!("{}{path}", peer.origin)).ok();
    settings.endpoints = ProviderEndpoints {
        authorization: at("/a"),
        token: at("/token"),
        jwks: at("/jwks"),
        ..ProviderEndpoints::default()
    };
    let provider = Provider::new(&settings, true).unwrap();
    gives(&peer, &key.sign(&claims(&peer, &person())));
    arrives(&provider, &Came::new()).await.unwrap();
    assert!(provider.check_iss(None).await.unwrap());
    assert!(peer.asked("/.well-known/openid-configuration").is_empty());
}

#[tokio::test]
async fn an_answer_says_whom_it_is_from() {
    let peer = Peer::openid(&[]).await;
    let provider = oidc(&peer);
    assert!(provider.check_iss(Some(&peer.origin)).await.unwrap());
    assert!(!provider.check_iss(Some("https://evil.test")).await.unwrap());
    assert!(!provider.check_iss(None).await.unwrap(), "its document promises one");

    let github = Provider::new(&testing::settings(ProviderKind::GitHub), false).unwrap();
    assert!(github.check_iss(None).await.unwrap());
    assert!(github.check_iss(Some("https://github.com/login/oauth")).await.unwrap());
    assert!(!github.check_iss(Some(&peer.origin)).await.unwrap());
}

#[tokio::test]
async fn userinfo_completes_a_token_that_says_little() {
    let key = Signer::ec(None);
    let peer = Peer::openid(&[&key]).await;
    let (provider, came) = (oidc(&peer), Came::new());
    gives(&peer, &key.sign(&claims(&peer, &json!({}))));
    let mut told = person();
    told["sub"] = json!("ada");
    peer.answers("/userinfo", Answer::json(&told));
    let ada = arrives(&provider, &came).await.unwrap();
    assert_eq!(
        (ada.email.unwrap().as_str(), ada.email_verified, ada.name.as_str()),
        ("ada@example.com", true, "Ada")
    );
    assert_eq!(
        peer.asked("/userinfo")[0].header["authorization"],
        "Bearer the-access-token"
    );

    for sub in [json!("eve"), json!(null)] {
        told["sub"] = sub;
        peer.answers("/userinfo", Answer::json(&told));
        let refused = arrives(&provider, &came).await.unwrap_err().to_string();
        assert!(refused.contains("somebody else"), "{refused}");
    }

    // Without an address nobody gets in, so its failure is one; a picture may be missing.
    peer.answers("/userinfo", Answer::json(&json!({})).status(503));
    assert!(matches!(
        arrives(&provider, &came).await,
        Err(ProviderError::Unreachable { .. })
    ));
    gives(
        &peer,
        &key.sign(&claims(
            &peer,
            &json!({"email": "a@example.com", "email_verified": true}),
        )),
    );
    assert!(arrives(&provider, &came).await.unwrap().email_verified);
    // Nor may who is asked, and does not answer, leave it to `trust_email`.
    gives(&peer, &key.sign(&claims(&peer, &json!({"email": "a@example.com"}))));
    assert!(arrives(&provider, &came).await.is_err());
}

#[tokio::test]
async fn an_address_of_which_nothing_is_said_is_trusted_only_if_configured() {
    let key = Signer::ec(None);
    let peer = Peer::openid(&[&key]).await;
    for (said, trust, verified) in [
        (
            json!({"email": "a@example.com", "name": "A", "picture": "p"}),
            false,
            false,
        ),
        (
            json!({"email": "a@example.com", "name": "A", "picture": "p"}),
            true,
            true,
        ),
        (
            json!({"email": "a@example.com", "email_verified": false, "name": "A", "picture": "p"}),
            true,
            false,
        ),
        (
            json!({"email": "a@example.com", "email_verified": 1, "name": "A", "picture": "p"}),
            true,
            false,
        ),
        (
            json!({"email": "a@example.com", "email_verified": [true], "name": "A", "picture": "p"}),
            true,
            false,
        ),
        (
            json!({"email": "a@example.com", "email_verified": null, "name": "A", "picture": "p"}),
            true,
            false,
        ),
        (
            json!({"email": "a@example.com", "email_verified": "yes", "name": "A", "picture": "p"}),
            true,
            false,
        ),
        (
            json!({"email": "no address", "email_verified": true, "name": "A", "picture": "p"}),
            true,
            false,
        ),
    ] {
        let mut settings = settings(&peer, ProviderKind::Oidc);
        settings.trust_email = trust;
        let provider = Provider::new(&settings, true).unwrap();
        peer.answers("/userinfo", Answer::json(&json!({"sub": "ada"})));
        gives(&peer, &key.sign(&claims(&peer, &said)));
        assert_eq!(
            arrives(&provider, &Came::new()).await.unwrap().email_verified,
            verified,
            "{said} {trust}"
        );
    }
}

#[tokio::test]
async fn scopes_are_what_was_granted_or_else_asked_for() {
    let peer = Peer::openid(&[]).await;
    let (provider, mut came) = (oidc(&peer), Came::new());
    came.asked_scopes = provider.scopes_with(vec!["calendar".to_owned(), "email".to_owned()]);
    assert_eq!(came.asked_scopes, ["openid", "email", "profile", "calendar"]);
    let asked = ["openid", "email", "profile", "calendar"];
    for (scope, granted) in [
        (json!("openid  email"), &["openid", "email"][..]),
        (json!(["openid", "user:read:email"]), &["openid", "user:read:email"]),
        (json!(null), &asked),
        (json!(""), &asked),
        (json!([]), &asked),
    ] {
        let body = json!({"access_token": "t", "token_type": "bearer", "scope": scope});
        peer.answers("/token", Answer::json(&body));
        assert_eq!(
            provider.exchange(&came.back()).await.unwrap().scopes,
            granted,
            "{scope}"
        );
    }
    let body = json!({"access_token": "t", "token_type": "bearer"});
    peer.answers("/token", Answer::json(&body));
    assert_eq!(provider.exchange(&came.back()).await.unwrap().scopes, asked);
}

#[tokio::test]
async fn a_no_is_told_from_a_failure_and_says_nothing_secret() {
    let peer = Peer::openid(&[]).await;
    let (provider, came) = (oidc(&peer), Came::new());
    let no = json!({"error": "invalid_grant", "error_description": "the-code is spent"});
    let raw = |status, body: &str| Answer {
        status,
        header: vec![("content-type", "application/json")],
        body: body.as_bytes().to_vec(),
    };
    for (answer, expected) in [
        (Answer::json(&no).status(400), "acme refused: invalid_grant"),
        (
            Answer::json(&json!({"error": "bad_verification_code"})),
            "acme refused: bad_verification_code",
        ),
        (
            Answer::json(&json!({"error": "a\u{1b}[31m\n"})).status(400),
            "acme refused: its code is none",
        ),
        (Answer::json(&no).status(500), "acme can't be reached: HTTP 500"),
        (Answer::json(&no).status(429), "acme can't be reached: HTTP 429"),
        (
            raw(200, "{\"access_token\":"),
            "acme answered with what can't be used: the token endpoint's answer can't be read",
        ),
        (
            raw(200, ""),
            "acme answered with what can't be used: the token endpoint's answer is empty or no JSON",
        ),
        (
            raw(400, "<html>the-code</html>"),
            "acme answered with what can't be used: the token endpoint's answer can't be read",
        ),
        (
            Answer::json(&json!({"access_token": "t", "token_type": "mac"})),
            "acme answered with what can't be used: its tokens are no bearer tokens",
        ),
    ] {
        peer.answers("/token", answer);
        assert_eq!(provider.exchange(&came.back()).await.unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn a_provider_that_is_away_is_said_to_be() {
    let peer = Peer::start().await;
    let mut settings = settings(&peer, ProviderKind::Oidc);
    settings.issuer = Some("http://127.0.0.1:1".to_owned());
    let provider = Provider::new(&settings, true).unwrap();
    assert!(matches!(
        provider.check_iss(None).await,
        Err(ProviderError::Unreachable { .. })
    ));
}

#[tokio::test]
async fn the_client_shows_who_it_is_as_the_provider_supports() {
    let peer = Peer::openid(&[]).await;
    gives(&peer, "none");
    for (method, header, body) in [
        (None, false, true),
        (Some(TokenEndpointAuth::ClientSecretPost), false, true),
        (Some(TokenEndpointAuth::ClientSecretBasic), true, false),
        (Some(TokenEndpointAuth::None), false, false),
    ] {
        let mut settings = settings(&peer, ProviderKind::Oidc);
        settings.token_endpoint_auth_method = method;
        let provider = Provider::new(&settings, true).unwrap();
        provider.exchange(&Came::new().back()).await.unwrap();
        let asked = peer.asked("/token").pop().unwrap();
        assert_eq!(asked.header.contains_key("authorization"), header, "{method:?}");
        assert_eq!(asked.form.contains_key("client_secret"), body, "{method:?}");
        assert_eq!(asked.form.contains_key("client_id"), !header, "{method:?}");
    }
}

#[tokio::test]
async fn tokens_are_refreshed_and_microsoft_is_told_the_scope() {
    let peer = Peer::start().await;
    let refresh = Secret::new("the-refresh-token".to_owned());
    let body = json!({"access_token": "newer", "token_type": "bearer", "expires_in": 60});
    peer.answers("/token", Answer::json(&body));
    for (kind, granted, scope) in [
        (ProviderKind::Google, vec!["email"], None),
        (
            ProviderKind::Microsoft,
            vec![],
            Some("openid profile email User.Read offline_access"),
        ),
        (
            ProviderKind::Microsoft,
            vec!["openid", "Mail.Read"],
            Some("openid Mail.Read offline_access"),
        ),
    ] {
        let mut settings = settings(&peer, kind);
        settings.endpoints.token = Url::parse(&format!("{}/token", peer.origin)).ok();
        let provider = Provider::new(&settings, true).unwrap();
        let seen = Tokens {
            scopes: granted.into_iter().map(str::to_owned).collect(),
            ..nothing()
        };
        let account = account("", "ada");
        let tokens = provider.refresh(&refresh, &seen, &account, Timestamp::from_secs(NOW));
        let tokens = tokens.await.unwrap();
        assert_eq!(tokens.access.unwrap().expose(), "newer");
        assert!(tokens.refresh.is_none() && tokens.scopes.is_empty());
        let form = peer.asked("/token").pop().unwrap().form;
        assert_eq!(
            (form["grant_type"].as_str(), form["refresh_token"].as_str()),
            ("refresh_token", "the-refresh-token")
        );
        assert_eq!(form.get("scope").map(String::as_str), scope);
    }
}

fn nothing() -> Tokens {
    Tokens {
        access: None,
        refresh: None,
        id: None,
        access_expires_at: None,
        refresh_expires_at: None,
        scopes: Vec::new(),
    }
}

fn account(issuer: &str, subject: &str) -> Account {
    let at = Timestamp::from_secs(NOW);
    Account {
        id: AccountId(Uuid::nil()),
        user_id: UserId(Uuid::nil()),
        provider_id: "there".to_owned(),
        account_id: subject.to_owned(),
        issuer: issuer.to_owned(),
        scopes: Vec::new(),
        password_set_at: None,
        created_at: at,
        updated_at: at,
    }
}

#[test]
fn what_comes_of_a_refresh_is_about_the_account_or_nothing() {
    let claims = |value: Value| -> Claims { serde_json::from_value(value).unwrap() };
    let google = Provider::new(&testing::settings(ProviderKind::Google), true).unwrap();
    let own = account("https://accounts.google.com", "1001");
    for (said, is_own) in [
        (json!({"iss": "https://accounts.google.com", "sub": "1001"}), true),
        (json!({"iss": "accounts.google.com", "sub": "1001"}), true),
        (json!({"iss": "https://accounts.google.com", "sub": "1002"}), false),
        (json!({"iss": "https://elsewhere.example", "sub": "1001"}), false),
        (json!({"iss": "https://accounts.google.com"}), false),
        (json!({"sub": "1001"}), false),
    ] {
        assert_eq!(google.is_of(&claims(said.clone()), &own, &nothing()), is_own, "{said}");
    }
    let microsoft = Provider::new(&testing::settings(ProviderKind::Microsoft), true).unwrap();
    let tenant = |id: &str| format!("https://login.microsoftonline.com/{id}/v2.0");
    let (here, there) = (
        tenant("11111111-1111-4111-8111-111111111111"),
        tenant("22222222-2222-4222-8222-222222222222"),
    );
    let own = account(&here, "an-oid");
    for (said, is_own) in [
        (json!({"iss": here, "oid": "an-oid", "sub": "pairwise"}), true),
        (json!({"iss": here, "oid": "another", "sub": "pairwise"}), false),
        (json!({"iss": there, "oid": "an-oid", "sub": "pairwise"}), false),
    ] {
        assert_eq!(
            microsoft.is_of(&claims(said.clone()), &own, &nothing()),
            is_own,
            "{said}"
        );
    }
    // Brought from elsewhere: what is known is the id_token that came along, if one did.
    let brought = account("", "known-by-something-else");
    let payload = Base64UrlUnpadded::encode_string(json!({"iss": here, "sub": "pairwise"}).to_string().as_bytes());
    let with_token = Tokens {
        id: Some(Secret::new(format!("e30.{payload}.c2ln"))),
        ..nothing()
    };
    let (same, other) = (
        json!({"iss": here, "sub": "pairwise"}),
        json!({"iss": here, "sub": "of another"}),
    );
    assert!(microsoft.is_of(&claims(same), &brought, &with_token));
    assert!(!microsoft.is_of(&claims(other.clone()), &brought, &with_token));
    assert!(microsoft.is_of(&claims(other), &brought, &nothing()));
}

#[tokio::test]
async fn somebody_arrives_from_github() {
    let peer = Peer::start().await;
    let mut settings = testing::settings(ProviderKind::GitHub);
    settings.base_url = Url::parse(&peer.origin).ok();
    let provider = Provider::new(&settings, true).unwrap();
    let body = json!({
        "access_token": "gho_x", "token_type": "bearer", "scope": "read:user,user:email", "expires_in": 28800,
        "refresh_token": "ghr_x", "refresh_token_expires_in": 15_897_600,
    });
    peer.answers("/login/oauth/access_token", Answer::json(&body));
    peer.answers(
        "/api/v3/user",
        Answer::json(&json!({"id": 7, "login": "ada", "email": null, "avatar_url": "https://a.test/7"})),
    );
    let emails = json!([{"email": "Ada@example.com", "primary": true, "verified": true}]);
    peer.answers("/api/v3/user/emails", Answer::json(&emails));

    let came = Came::new();
    let tokens = provider.exchange(&came.back()).await.unwrap();
    assert_eq!(tokens.scopes, ["read:user", "user:email"]);
    assert!(tokens.refresh_expires_at.is_some());
    for ada in [
        provider.profile(&came.back(), &tokens).await,
        provider.account_info(&tokens).await,
    ] {
        let ada = ada.unwrap();
        assert_eq!(
            (ada.issuer.as_str(), ada.subject.as_str(), ada.name.as_str()),
            (peer.origin.as_str(), "7", "ada")
        );
        assert!(ada.email_verified);
    }
    let asked = peer.asked("/login/oauth/access_token");
    assert_eq!(
        (
            asked[0].header["accept"].to_str().unwrap(),
            asked[0].form["code_verifier"].as_str()
        ),
        ("application/json", VERIFIER)
    );
    assert_eq!(peer.asked("/api/v3/user")[0].header["authorization"], "Bearer gho_x");
    assert!(peer.asked("/api/v3/user")[0].header.contains_key("user-agent"));
    assert!(!provider.takes_id_tokens());

    // A token that does not reach as far as the addresses lets nobody's address count.
    peer.answers(
        "/api/v3/user/emails",
        Answer::json(&json!({"message": "Not Found"})).status(404),
    );
    assert!(provider.profile(&came.back(), &tokens).await.unwrap().email.is_none());
    let limited = |field| Answer {
        header: vec![field],
        ..Answer::json(&json!({})).status(403)
    };
    for answer in [
        Answer::json(&json!({})).status(502),
        Answer::json(&json!({})).status(429),
        limited(("x-ratelimit-remaining", "0")),
        limited(("retry-after", "60")),
    ] {
        peer.answers("/api/v3/user/emails", answer);
        let failed = provider.profile(&came.back(), &tokens).await;
        assert!(matches!(failed, Err(ProviderError::Unreachable { .. })), "{failed:?}");
    }
    peer.answers("/api/v3/user/emails", Answer::json(&json!({})).status(401));
    assert!(provider.profile(&came.back(), &tokens).await.is_err());
    peer.answers("/api/v3/user/emails", limited(("x-ratelimit-remaining", "12")));
    assert!(provider.profile(&came.back(), &tokens).await.unwrap().email.is_none());
}

#[tokio::test]
async fn whoever_moves_githubs_profile_moves_its_addresses() {
    let peer = Peer::start().await;
    let mut settings = testing::settings(ProviderKind::GitHub);
    settings.endpoints.userinfo = Url::parse(&format!("{}/me", peer.origin)).ok();
    let provider = Provider::new(&settings, true).unwrap();
    assert_eq!(
        provider.endpoints.emails.unwrap().as_str(),
        format!("{}/me/emails", peer.origin)
    );
}

#[tokio::test]
async fn apples_name_comes_from_the_browser_and_its_secret_is_made() {
    let key = Signer::rsa(Some("1"));
    let peer = Peer::start().await;
    peer.publish(&[&key]);
    let mut settings = settings(&peer, ProviderKind::Apple);
    settings.client_secret = None;
    let p8 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .unwrap()
        .serialize_pem();
    settings.apple_key = Some(crate::config::AppleKey {
        team_id: "TEAM".to_owned(),
        key_id: "KEY".to_owned(),
        private_key: Secret::new(p8),
    });
    let at = |path: &str| Url::parse(&format!("{}{path}", peer.origin)).ok();
    settings.endpoints.token = at("/token");
    settings.endpoints.jwks = at("/jwks");
    let provider = Provider::new(&settings, true).unwrap();
    gives(
        &peer,
        &key.sign(&claims(
            &peer,
            &json!({"email": "a@privaterelay.appleid.com", "email_verified": "true"}),
        )),
    );

    let mut came = Came::new();
    assert_eq!(arrives(&provider, &came).await.unwrap().name, "");
    came.user = Some(r#"{"name":{"firstName":"Ada","lastName":"Lovelace"},"email":"eve@example.com"}"#);
    let ada = arrives(&provider, &came).await.unwrap();
    assert_eq!((ada.name.as_str(), ada.email_verified), ("Ada Lovelace", true));
    assert_eq!(ada.email.unwrap().as_str(), "a@privaterelay.appleid.com");
    assert_eq!(peer.asked("/token")[0].form["client_secret"].split('.').count(), 3);
}

#[tokio::test]
async fn an_app_presents_an_id_token() {
    let key = Signer::rsa(Some("1"));
    let peer = Peer::openid(&[&key]).await;
    let mut settings = settings(&peer, ProviderKind::Oidc);
    settings.audiences = vec!["ios".to_owned()];
    let provider = Provider::new(&settings, true).unwrap();
    let token = Secret::new(key.sign(&claims(&peer, &json!({"aud": "ios", "email": "a@example.com"}))));
    let presented = Presented {
        id_token: &token,
        nonce: Some("the-nonce"),
        access_token: None,
        name: Some("Ada\n"),
        now: Timestamp::from_secs(NOW),
    };
    let ada = provider.presented(&presented).await.unwrap();
    assert_eq!(
        (ada.subject.as_str(), ada.name.as_str(), ada.email_verified),
        ("ada", "Ada", false)
    );
    assert!(
        provider
            .presented(&Presented {
                nonce: Some("another"),
                ..presented
            })
            .await
            .is_err()
    );
}

#[tokio::test]
async fn account_info_is_what_the_provider_says_now() {
    let peer = Peer::openid(&[]).await;
    let provider = oidc(&peer);
    let token = Signer::ec(None).sign(&claims(&peer, &person()));
    let tokens = |access: Option<&str>, id: Option<&str>| Tokens {
        access: access.map(|text| Secret::new(text.to_owned())),
        refresh: None,
        id: id.map(|text| Secret::new(text.to_owned())),
        access_expires_at: None,
        refresh_expires_at: None,
        scopes: Vec::new(),
    };
    peer.answers("/userinfo", Answer::json(&json!({"sub": "ada", "name": "Countess"})));
    let now = provider.account_info(&tokens(Some("t"), Some(&token))).await.unwrap();
    assert_eq!(
        (now.name.as_str(), now.email.unwrap().as_str(), now.email_verified),
        ("Countess", "ada@example.com", true)
    );
    let then = provider.account_info(&tokens(None, Some(&token))).await.unwrap();
    assert_eq!(then.name, "Ada");
    assert_eq!(
        provider.account_info(&tokens(Some("t"), None)).await.unwrap().subject,
        "ada"
    );
    assert!(provider.account_info(&tokens(None, None)).await.is_err());
    peer.answers("/userinfo", Answer::json(&json!({"sub": "eve"})));
    assert!(provider.account_info(&tokens(Some("t"), Some(&token))).await.is_err());
}

#[tokio::test]
async fn a_profile_of_a_megabyte_is_refused() {
    let key = Signer::ec(None);
    let peer = Peer::openid(&[&key]).await;
    gives(&peer, &key.sign(&claims(&peer, &json!({}))));
    peer.answers(
        "/userinfo",
        Answer::json(&json!({"sub": "ada", "name": "a".repeat(1_000_000)})),
    );
    assert!(arrives(&oidc(&peer), &Came::new()).await.is_err());
}

#[test]
fn settings_that_can_not_be_used_stop_the_start() {
    let start = |change: fn(&mut OAuthProvider), kind| {
        let mut settings = testing::settings(kind);
        change(&mut settings);
        Provider::new(&settings, false)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert!(start(|_| {}, ProviderKind::Google).is_ok());
    let no_issuer = start(|it| it.issuer = None, ProviderKind::Oidc).unwrap_err();
    assert!(no_issuer.starts_with("auth.oauth.acme: "), "{no_issuer}");
    assert!(
        start(
            |it| it.endpoints.token = Url::parse("http://idp.test/t").ok(),
            ProviderKind::Oidc
        )
        .is_err()
    );
    assert!(
        start(
            |it| it.endpoints.token = Url::parse("https://10.0.0.1/t").ok(),
            ProviderKind::Oidc
        )
        .is_err()
    );
}
