//! Providers: what each kind needs, and what would let strangers in.

use base64ct::{Base64, Encoding as _};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};

use super::*;

fn provider(name: &str, keys: &str) -> String {
    plus(&format!("[auth.oauth.{name}]\nclient_id = 'id'\n{keys}\n"))
}

fn google(keys: &str) -> String {
    provider("google", &format!("client_secret = 'hunter2'\n{keys}"))
}

fn oidc(keys: &str) -> String {
    provider("acme", &format!("issuer = 'https://id.acme.example'\n{keys}"))
}

fn apple_key(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
    KeyPair::generate_for(algorithm).unwrap().serialize_pem()
}

fn apple(keys: &str) -> String {
    let pem = apple_key(&PKCS_ECDSA_P256_SHA256);
    provider(
        "apple",
        &format!("team_id = 'ABCDE12345'\nkey_id = 'FGHIJ67890'\nprivate_key = '''\n{pem}'''\n{keys}"),
    )
}

fn only(text: &str) -> OAuthProvider {
    let mut providers = loaded(text).auth.oauth;
    assert_eq!(providers.len(), 1, "{text}");
    providers.remove(0)
}

/// The one error of a configuration: its key, without what all of these tests have in common, and all that is told.
fn blamed(text: &str) -> (String, String) {
    let errors = refused(text);
    assert_eq!(errors.iter().count(), 1, "{text}\n{errors}");
    let key = errors.iter().next().unwrap().key.clone();
    let told = errors.to_string();
    assert!(!told.contains("hunter2"), "{told}");
    (key.strip_prefix("auth.oauth.").unwrap_or(&key).to_owned(), told)
}

#[test]
fn a_client_and_its_secret_are_enough_where_the_name_says_the_kind() {
    for (name, kind) in [
        ("google", ProviderKind::Google),
        ("github", ProviderKind::GitHub),
        ("microsoft", ProviderKind::Microsoft),
    ] {
        let it = only(&provider(name, "client_secret = { env = 'GOOGLE_CLIENT_SECRET' }"));
        assert_eq!((it.name.as_str(), it.kind, it.client_id.as_str()), (name, kind, "id"));
        assert_eq!(it.client_secret.unwrap().expose(), CLIENT_SECRET);
    }
    let it = only(&apple(""));
    assert_eq!((it.kind, it.client_secret.is_none()), (ProviderKind::Apple, true));
    let key = it.apple_key.unwrap();
    assert_eq!(
        (key.team_id.as_str(), key.key_id.as_str()),
        ("ABCDE12345", "FGHIJ67890")
    );
    assert!(key.private_key.expose().starts_with("-----BEGIN PRIVATE KEY-----"));

    let it = only(&oidc(""));
    assert_eq!((it.name.as_str(), it.kind), ("acme", ProviderKind::Oidc));
    assert_eq!(it.issuer.as_deref(), Some("https://id.acme.example"));
    assert!(it.client_secret.is_none(), "a public client");
}

#[test]
fn what_is_not_said_is_safe() {
    let it = only(&google(""));
    assert_eq!((it.sign_up, it.trust_email), (ProviderSignUp::Allowed, false));
    assert_eq!((it.allow_insecure, it.allow_private), (false, false));
    assert_eq!(
        (it.clock_skew, it.timeout),
        (Duration::from_mins(1), Duration::from_secs(10))
    );
    assert_eq!(it.tenant, "common");
    assert!(it.scopes.is_none() && it.audiences.is_empty() && it.authorization_params.is_empty());
    assert!(it.issuer.is_none() && it.hosted_domain.is_none() && it.ca.is_none());
    assert!(it.token_endpoint_auth_method.is_none());
}

#[test]
fn every_key_is_read() {
    let it = only(&oidc(
        "kind = 'oidc'
         client_secret = 'hunter2'
         authorization_endpoint = 'https://id.acme.example/authorize?p=policy'
         token_endpoint = 'https://id.acme.example/token'
         userinfo_endpoint = 'https://id.acme.example/me'
         jwks_uri = 'https://id.acme.example/keys'
         scopes = ['openid', 'https://acme.example/scope']
         audiences = ['app.acme.example']
         authorization_params = { prompt = 'consent', hint = { env = 'GOOGLE_CLIENT_SECRET' } }
         token_endpoint_auth_method = 'client_secret_basic'
         sign_up = 'on-request'
         trust_email = true
         clock_skew = '3m'
         timeout = '1m'
         allow_insecure = true
         allow_private = true",
    ));
    let endpoints = &it.endpoints;
    assert_eq!(
        endpoints.authorization.as_ref().unwrap().as_str(),
        "https://id.acme.example/authorize?p=policy"
    );
    assert_eq!(endpoints.token.as_ref().unwrap().path(), "/token");
    assert_eq!(endpoints.userinfo.as_ref().unwrap().path(), "/me");
    assert_eq!(endpoints.jwks.as_ref().unwrap().path(), "/keys");
    assert!(endpoints.emails.is_none());
    assert_eq!(it.scopes.unwrap(), ["openid", "https://acme.example/scope"]);
    assert_eq!(it.audiences, ["app.acme.example"]);
    let params: Vec<_> = it
        .authorization_params
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(params, [("prompt", "consent"), ("hint", CLIENT_SECRET)]);
    assert_eq!(
        it.token_endpoint_auth_method,
        Some(TokenEndpointAuth::ClientSecretBasic)
    );
    assert_eq!((it.sign_up, it.trust_email), (ProviderSignUp::OnRequest, true));
    assert_eq!((it.allow_insecure, it.allow_private), (true, true));
}

#[test]
fn an_issuer_stays_as_it_is_written() {
    for issuer in [
        "https://id.example",
        "https://id.example/",
        "https://ID.example:443/A/../b/",
    ] {
        let it = only(&provider("acme", &format!("issuer = '{issuer}'")));
        assert_eq!(it.issuer.as_deref(), Some(issuer));
    }
}

/// One wrong value each: which key is blamed, and what is told.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_would_let_strangers_in_or_never_work_is_refused() {
    for (text, key, says) in [
        // Names.
        (
            provider("Google", "client_secret = 'hunter2'\nkind = 'google'"),
            "Google",
            "not a name",
        ),
        (
            provider("'my provider'", "issuer = 'https://a.example'"),
            "my provider",
            "not a name",
        ),
        (provider("-x", "issuer = 'https://a.example'"), "-x", "not a name"),
        (
            provider("credential", "issuer = 'https://a.example'"),
            "credential",
            "the password",
        ),
        (
            provider("oauth2", "issuer = 'https://a.example'"),
            "oauth2",
            "part of the paths",
        ),
        // Whose keys they are.
        (
            google("base_url = 'https://github.example'"),
            "google.base_url",
            "only with kind github",
        ),
        (google("tenant = 'common'"), "google.tenant", "only with kind microsoft"),
        (google("key_id = 'FGHIJ67890'"), "google.key_id", "only with kind apple"),
        (
            apple("userinfo_endpoint = 'https://a.example/me'"),
            "apple.userinfo_endpoint",
            "kind \"apple\"",
        ),
        (
            oidc("hosted_domain = 'acme.example'"),
            "acme.hosted_domain",
            "only with kind google",
        ),
        (
            provider("github", "client_secret = 'hunter2'\naudiences = ['app']"),
            "github.audiences",
            "google, apple, microsoft, oidc",
        ),
        (
            provider("github", "client_secret = 'hunter2'\nissuer = 'https://github.example'"),
            "github.issuer",
            "means nothing",
        ),
        // What each kind needs.
        (
            plus("[auth.oauth.acme]\nissuer = 'https://a.example'\n"),
            "acme.client_id",
            "missing",
        ),
        (provider("acme", ""), "acme.issuer", "missing"),
        (
            provider("google", "kind = 'gogle'"),
            "google.kind",
            "did you mean `google`?",
        ),
        (provider("google", ""), "google.client_secret", "demands one"),
        (provider("github", ""), "github.client_secret", "demands one"),
        (
            provider("work", "kind = 'microsoft'"),
            "work.client_secret",
            "demands one",
        ),
        (
            provider("apple", "team_id = 'ABCDE12345'\nclient_secret = 'hunter2'"),
            "apple.client_secret",
            "stands beside the key",
        ),
        // How it is proven.
        (
            oidc("token_endpoint_auth_method = 'client_secret_post'"),
            "acme.token_endpoint_auth_method",
            "no `client_secret` to show",
        ),
        (
            oidc("client_secret = 'hunter2'\ntoken_endpoint_auth_method = 'none'"),
            "acme.token_endpoint_auth_method",
            "never be shown",
        ),
        (
            apple("token_endpoint_auth_method = 'none'"),
            "apple.token_endpoint_auth_method",
            "never be shown",
        ),
        (
            provider("google", "client_secret = ''"),
            "google.client_secret",
            "an empty value",
        ),
        (
            provider("google", "client_secret = ' hunter2'"),
            "google.client_secret",
            "white space",
        ),
        (
            provider("google", "client_secret = ['hunter2']"),
            "google.client_secret",
            "wrong type",
        ),
        // Where it is.
        (
            provider("acme", "issuer = 'http://id.acme.example'"),
            "acme.issuer",
            "allow_insecure",
        ),
        (
            oidc("token_endpoint = 'http://a.example/t'"),
            "acme.token_endpoint",
            "allow_insecure",
        ),
        (
            oidc("authorization_endpoint = 'http://a.example/t'"),
            "acme.authorization_endpoint",
            "allow_insecure",
        ),
        (
            provider("acme", "issuer = 'https://10.0.0.1'"),
            "acme.issuer",
            "allow_private",
        ),
        (
            oidc("jwks_uri = 'https://[::1]/keys'"),
            "acme.jwks_uri",
            "allow_private",
        ),
        (
            oidc("jwks_uri = 'https://[::ffff:127.0.0.1]/keys'"),
            "acme.jwks_uri",
            "allow_private",
        ),
        (
            oidc("jwks_uri = 'https://169.254.169.254/keys'"),
            "acme.jwks_uri",
            "allow_private",
        ),
        (
            oidc("jwks_uri = 'https://2130706433/keys'"),
            "acme.jwks_uri",
            "allow_private",
        ),
        (
            oidc("userinfo_endpoint = 'https://localhost/me'"),
            "acme.userinfo_endpoint",
            "allow_private",
        ),
        (
            provider(
                "github",
                "client_secret = 'hunter2'\nbase_url = 'http://github.example'",
            ),
            "github.base_url",
            "allow_insecure",
        ),
        (
            provider(
                "github",
                "client_secret = 'hunter2'\nbase_url = 'https://github.example/api/v3'",
            ),
            "github.base_url",
            "did you mean `https://github.example`?",
        ),
        // What its URLs may be.
        (
            provider("acme", "issuer = 'id.acme.example'"),
            "acme.issuer",
            "`https://id.acme.example`?",
        ),
        (
            provider("acme", "issuer = 'https://a.example?x'"),
            "acme.issuer",
            "no query",
        ),
        (
            provider("acme", "issuer = 'https://a.example#x'"),
            "acme.issuer",
            "no fragment",
        ),
        (
            provider("acme", "issuer = 'https://a.example '"),
            "acme.issuer",
            "white space",
        ),
        (
            provider("acme", "issuer = 'https://a.example/.well-known/openid-configuration'"),
            "acme.issuer",
            "did you mean `https://a.example`?",
        ),
        (
            oidc("token_endpoint = 'https://a.example/t#x'"),
            "acme.token_endpoint",
            "no fragment",
        ),
        (
            oidc("token_endpoint = 'https://me@a.example/t'"),
            "acme.token_endpoint",
            "no user",
        ),
        (
            oidc("token_endpoint = 'ftp://a.example/t'"),
            "acme.token_endpoint",
            "neither https nor http",
        ),
        // Who comes from there.
        (
            provider("microsoft", "client_secret = 'hunter2'\ntrust_email = true"),
            "microsoft.trust_email",
            "anybody can make a directory",
        ),
        (
            provider(
                "microsoft",
                "client_secret = 'hunter2'\ntenant = 'organizations'\ntrust_email = true",
            ),
            "microsoft.trust_email",
            "of your own directory",
        ),
        (
            provider(
                "microsoft",
                "client_secret = 'hunter2'\ntenant = '9188040d-6c67-4c5b-b112-36a304b66dad'\ntrust_email = true",
            ),
            "microsoft.trust_email",
            "anybody",
        ),
        (
            provider("github", "client_secret = 'hunter2'\ntrust_email = true"),
            "github.trust_email",
            "means nothing",
        ),
        (
            provider("microsoft", "client_secret = 'hunter2'\ntenant = 'comon'"),
            "microsoft.tenant",
            "did you mean `common`?",
        ),
        (
            provider("microsoft", "client_secret = 'hunter2'\ntenant = 'contoso.example'"),
            "microsoft.tenant",
            "by its id",
        ),
        (
            provider("microsoft", "client_secret = 'hunter2'\ntenant = 'x'"),
            "microsoft.tenant",
            "neither",
        ),
        (
            google("hosted_domain = 'ada@acme.example'"),
            "google.hosted_domain",
            "`acme.example`?",
        ),
        // What is asked for.
        (google("scopes = ['email']"), "google.scopes", "without \"openid\""),
        (
            google("scopes = ['openid email']"),
            "google.scopes[0]",
            "several in one",
        ),
        (google("scopes = 'openid'"), "google.scopes", "wrong type"),
        (google("scope = ['openid']"), "google.scope", "did you mean `scopes`?"),
        (
            google("authorization_params = 'x'"),
            "google.authorization_params",
            "wrong type",
        ),
        (
            google("authorization_params = { prompt = true }"),
            "google.authorization_params.prompt",
            "wrong type",
        ),
        (google("audiences = ['']"), "google.audiences[0]", "empty"),
        (google("sign_up = true"), "google.sign_up", "wrong type"),
        (google("sign_up = 'no'"), "google.sign_up", "on-request"),
        // How long.
        (google("clock_skew = '4m'"), "google.clock_skew", "set the clocks"),
        (google("timeout = '0s'"), "google.timeout", "zero"),
        (google("timeout = '2m'"), "google.timeout", "longer than people wait"),
        (google("ca = '/dev/null'"), "google.ca", "BEGIN CERTIFICATE"),
        (google("ca = '/nowhere/ca.pem'"), "google.ca", "can't be read"),
    ] {
        let (blamed, told) = blamed(&text);
        assert_eq!(blamed, key, "{told}");
        assert!(told.contains(says), "no {says:?} in:\n{told}");
    }
}

#[test]
fn what_the_flow_says_by_itself_is_not_said_twice() {
    for name in [
        "state",
        "client_id",
        "redirect_uri",
        "response_type",
        "response_mode",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "scope",
        "request",
        "request_uri",
    ] {
        let (key, _) = blamed(&google(&format!("authorization_params = {{ {name} = 'x' }}")));
        assert_eq!(key, format!("google.authorization_params.{name}"));
    }
}

#[test]
fn apples_key_is_whole_or_not_there() {
    let pem = apple_key(&PKCS_ECDSA_P256_SHA256);
    let errors = refused(&provider("apple", &format!("private_key = '''{pem}'''")));
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        ["auth.oauth.apple.team_id", "auth.oauth.apple.key_id"],
        "{errors}"
    );
    let errors = refused(&provider("apple", ""));
    assert_eq!(errors.iter().count(), 3, "{errors}");

    let it = only(&provider("apple", "client_secret = 'hunter2.hunter2.hunter2'"));
    assert!(it.apple_key.is_none() && it.client_secret.is_some());
}

/// Apple's files repeat the curve within the key (RFC 5915, section 3), which others leave out; and some leave the public
/// key out.
#[test]
fn a_private_key_is_taken_in_each_shape_that_files_have() {
    const CURVE: [u8; 12] = [0xa0, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let whole = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
    // 36 bytes before the scalar, among them the lengths of all, of the key's octets and of the key.
    let (head, rest) = whole.split_at(36);
    let (scalar, public) = rest.split_at(32);
    let resized = |by: i8, parts: &[&[u8]]| {
        let mut der = [&[head, scalar], parts].concat().concat();
        for at in [2, 28, 30] {
            der[at] = der[at].checked_add_signed(by).unwrap();
        }
        // DER writes a length below 128 as it is.
        if der[2] < 0x80 {
            der.remove(1);
        }
        der
    };
    for der in [whole.clone(), resized(12, &[&CURVE, public]), resized(-70, &[])] {
        let body = Base64::encode_string(&der);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let lines = lines.join("\n");
        only(&provider(
            "apple",
            &format!(
                "team_id = 'ABCDE12345'\nkey_id = 'FGHIJ67890'\nprivate_key = \"\"\"\n-----BEGIN PRIVATE KEY-----\n{lines}\n\
                 -----END PRIVATE KEY-----\"\"\""
            ),
        ));
    }
}

#[test]
fn a_private_key_that_could_not_sign_is_refused_unseen() {
    let good = apple_key(&PKCS_ECDSA_P256_SHA256);
    let with = |key: &str| {
        let keys = "team_id = 'ABCDE12345'\nkey_id = 'FGHIJ67890'";
        provider("apple", &format!("{keys}\nprivate_key = '''{key}'''"))
    };
    let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    let start: String = body.chars().take(20).collect();
    for (key, says) in [
        (apple_key(&PKCS_ECDSA_P384_SHA384), "not a key for ES256"),
        (
            good.replace("BEGIN PRIVATE", "BEGIN EC PRIVATE"),
            "openssl pkcs8 -topk8 -nocrypt",
        ),
        (good.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE"), "no password"),
        (good.trim().replace('\n', "\\n"), "have to be line breaks"),
        (body.clone(), "not a private key in PEM"),
        (
            good.replace("-----END PRIVATE KEY-----", ""),
            "not a private key in PEM",
        ),
        (String::new(), "an empty value"),
        (
            "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----".to_owned(),
            "not a key",
        ),
    ] {
        let (key, told) = blamed(&with(&key));
        assert_eq!(key, "apple.private_key", "{told}");
        assert!(told.contains(says), "no {says:?} in:\n{told}");
        assert!(!told.contains(&start), "{told}");
    }
}

#[test]
fn a_provider_whose_ca_file_has_changed_is_another_provider() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let text = google("ca = 'ca.pem'");
    let load = || parse_with(&text, &file, &environment, &Overrides::new());
    let provider_with = |pem: &str| {
        fs::write(folder.path().join("ca.pem"), pem).unwrap();
        let config = load().unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.read_from.files, [folder.path().join("ca.pem")], "it is watched");
        config.auth.oauth[0].clone()
    };
    let certificate = || {
        let made = rcgen::generate_simple_self_signed(["id.acme.example".to_owned()]);
        made.unwrap().cert.pem()
    };
    let (one, other) = (certificate(), certificate());
    let before = provider_with(&one);
    assert!(before == provider_with(&one));
    assert!(before != provider_with(&other), "a reload takes it over");

    let garbled = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    fs::write(folder.path().join("ca.pem"), garbled).unwrap();
    let told = load().unwrap_err().to_string();
    assert!(
        told.contains("google.ca") && told.contains("can't be an authority's"),
        "{told}"
    );
}

#[test]
fn files_are_found_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["id.acme.example".to_owned()]).unwrap();
    fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
    fs::write(
        folder.path().join("AuthKey_FGHIJ67890.p8"),
        apple_key(&PKCS_ECDSA_P256_SHA256),
    )
    .unwrap();
    let text = provider(
        "apple",
        "team_id = 'ABCDE12345'
         key_id = 'FGHIJ67890'
         private_key = { file = 'AuthKey_FGHIJ67890.p8' }
         ca = 'ca.pem'",
    );
    let file = folder.path().join("gateway.toml");
    let config = parse_with(&text, &file, &environment, &Overrides::new()).unwrap_or_else(|errors| panic!("{errors}"));
    let it = &config.auth.oauth[0];
    assert_eq!(it.ca.as_deref(), Some(&[made.cert.der().clone()][..]));
    assert!(it.apple_key.is_some());
}

#[test]
fn what_is_fine_is_taken() {
    for text in [
        oidc("allow_private = true\njwks_uri = 'https://10.0.0.1/keys'"),
        oidc("allow_insecure = true\ntoken_endpoint = 'http://id.acme.example/token'"),
        // Browsers are where the gateway may not be.
        oidc("authorization_endpoint = 'https://10.0.0.1/authorize'"),
        oidc("token_endpoint_auth_method = 'none'"),
        oidc("client_secret = 'hunter2'\ntoken_endpoint_auth_method = 'client_secret_basic'"),
        google("hosted_domain = '*'"),
        google("issuer = 'https://accounts.example'\nkind = 'google'"),
        google("clock_skew = '0s'"),
        provider(
            "github",
            "client_secret = 'hunter2'\nbase_url = 'https://github.example'\nscopes = []",
        ),
        apple("scopes = ['email']"),
        provider(
            "microsoft",
            "client_secret = 'hunter2'\ntenant = '8eaef023-2b34-4da1-9baa-8bc8c9d6a490'\ntrust_email = true",
        ),
        provider("google", "kind = 'oidc'\nissuer = 'https://id.acme.example'"),
        // Two registrations at one provider.
        oidc("") + "[auth.oauth.acme-2]\nclient_id = 'id'\nissuer = 'https://id.acme.example'\n",
    ] {
        loaded(&text);
    }
}

#[test]
fn on_this_machine_providers_may_be_here_without_tls() {
    let keys = "issuer = 'http://127.0.0.1:9000'\njwks_uri = 'http://localhost:9000/keys'";
    let here = provider("acme", keys).replace("https://app.example.com", "http://localhost:8080");
    only(&here);
    let errors = refused(&provider("acme", keys));
    assert_eq!(errors.iter().count(), 4, "each URL has two faults: {errors}");
    // A public_url that is wrong must not bring complaints of its own.
    let broken = provider("acme", keys).replace("https://app.example.com", "app.example.com");
    assert_eq!(refused(&broken).iter().count(), 1);
}

#[test]
fn ten_mistakes_in_a_provider_are_ten_errors() {
    let text = plus(
        "[auth.oauth.Acme]
client_secret = ''
issuer = 'http://id.acme.example'
tenant = 'common'
token_endpoint = '/token'
scopes = ['email']
authorization_params = { state = 'x', promt = 7 }
trust_email = 'yes'
timeout = 10
allow_privat = true
",
    );
    let errors = refused(&text);
    let mut keys: Vec<_> = errors
        .iter()
        .map(|error| error.key.replace("auth.oauth.Acme", ""))
        .collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "",
            ".allow_privat",
            ".authorization_params.promt",
            ".authorization_params.state",
            ".client_id",
            ".client_secret",
            ".issuer",
            ".scopes",
            ".tenant",
            ".timeout",
            ".token_endpoint",
            ".trust_email",
        ],
        "{errors}"
    );
}

#[test]
fn a_provider_can_come_from_the_environment_alone() {
    let config = with_environment(
        MINIMAL,
        &[
            ("VESTIBULE__AUTH__OAUTH__GOOGLE__CLIENT_ID", "1234"),
            ("VESTIBULE__AUTH__OAUTH__GOOGLE__CLIENT_SECRET", "5678"),
            (
                "VESTIBULE__AUTH__OAUTH__GOOGLE__AUTHORIZATION_PARAMS__PROMPT",
                "consent",
            ),
        ],
    )
    .unwrap_or_else(|errors| panic!("{errors}"));
    let it = &config.auth.oauth[0];
    assert_eq!((it.client_id.as_str(), it.kind), ("1234", ProviderKind::Google));
    assert_eq!(it.client_secret.as_ref().unwrap().expose(), "5678");
    assert_eq!(it.authorization_params, [("prompt".to_owned(), "consent".to_owned())]);
}

#[test]
fn no_secret_of_a_provider_prints() {
    let config = loaded(&google(""));
    assert!(!format!("{config:?}").contains("hunter2"));
    let printed = format!("{:?}", loaded(&apple("")));
    assert!(printed.contains("private_key: [secret]"), "{printed}");
    assert!(!printed.contains("BEGIN"), "{printed}");
}
