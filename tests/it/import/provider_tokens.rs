//! Providers' tokens come along, sealed: those that lay open there, and those that better-auth encrypted with a secret that
//! the gateway has.

use serde_json::json;
use vestibule::secret::sealed::SealingKeys;

use super::{Move, Source, counts, named};

/// Of the tests' configuration.
const SECRET: &[u8] = b"a secret that only the tests use, and only here";

/// Made of `ya29.encrypted-access`, `1//encrypted-refresh` by better-auth 1.7.7 with that secret, the second as one of
/// several; and of another token with a secret that nobody has.
const ENCRYPTED: [&str; 3] = [
    "47914ad0b89d34cb068479700dac17bee266af3c582a8b8af0ab9d662eb37b1954152284f53523fff00694b6f85ea8f97b1c0003d712dcf9fc513\
     88cac",
    "$ba$2$ff74073cf25611ebacdd41da896212995c4525da26e8f719a6630870aa46a2d89423899c13fa62f2b1883e3cab127050efa7c8339536200\
     6f2e451c8",
    "567b0bf62e87214dc8811bdb9f977c7da7b0dcfe9b286db374912bab22b22ac2c450f9c271e4fe0094582da60e08dc1efb01c5f0773f",
];

/// Adds an account at a provider to a user, with access, refresh and id token.
async fn link(source: &Source, user: i64, provider: &str, tokens: [&str; 3]) {
    let [access, refresh, id] = tokens;
    source
        .run(&format!(
            r#"
            INSERT INTO account (id, "accountId", "providerId", "userId", "accessToken", "refreshToken", "idToken",
                "accessTokenExpiresAt", "refreshTokenExpiresAt", scope, "createdAt", "updatedAt")
            VALUES ('{provider}-{user}', 'sub-{user}', '{provider}', 'user-{user}', nullif('{access}', ''),
                nullif('{refresh}', ''), nullif('{id}', ''), '2026-11-20T09:00:00Z', '2027-05-20T08:00:00Z',
                'openid,email', '2026-11-20T08:00:00Z', '2026-11-20T08:00:00Z')
            "#
        ))
        .await;
}

/// The tokens of a user at a provider, as the gateway reads them.
async fn tokens(moving: &Move, user: i64, provider: &str) -> [Option<String>; 3] {
    let sql = "SELECT a.id::text, access_token, refresh_token, id_token FROM accounts AS a
        JOIN users AS u ON u.id = a.user_id WHERE u.imported_id = $1 AND a.provider_id = $2";
    let client = moving.target.client().await;
    let user = format!("user-{user}");
    let row = client.query_one(sql, &[&user, &provider]).await.unwrap();
    let id: String = row.get(0);
    let keys = SealingKeys::new([SECRET]);
    let open = |at: usize, column: &str| {
        let sealed: Option<Vec<u8>> = row.get(at);
        let context = format!("accounts.{column} {id}");
        sealed.map(|sealed| {
            let opened = keys.open(&sealed, context.as_bytes()).unwrap();
            String::from_utf8(opened.to_vec()).unwrap()
        })
    };
    [open(1, "access_token"), open(2, "refresh_token"), open(3, "id_token")]
}

fn are(tokens: [&str; 3]) -> [Option<String>; 3] {
    tokens.map(|token| (!token.is_empty()).then(|| token.to_owned()))
}

#[tokio::test]
async fn tokens_come_over_sealed() {
    let source = Source::of_users(3).await;
    link(
        &source,
        1,
        "google",
        ["ya29.access", "1//refresh", "head.body.signature"],
    )
    .await;
    link(&source, 2, "github", ["gho_16C7e42F292c6912E7", "", ""]).await;
    link(&source, 3, "acme", ["16c7e42f292c6912e7710c838347ae178b4a", "", ""]).await;
    let moving = Move::new(source).await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "accounts"), [6, 6, 0, 0, 0]);
    assert_eq!(report["notImported"]["accountsWithProviderTokens"], 0);
    assert_eq!(report["notes"], json!([]));

    let google = ["ya29.access", "1//refresh", "head.body.signature"];
    assert_eq!(tokens(&moving, 1, "google").await, are(google));
    assert_eq!(
        tokens(&moving, 2, "github").await,
        are(["gho_16C7e42F292c6912E7", "", ""])
    );
    let hex = "16c7e42f292c6912e7710c838347ae178b4a";
    assert_eq!(
        tokens(&moving, 3, "acme").await,
        are([hex, "", ""]),
        "too short to be encrypted"
    );
    let rest = "SELECT string_agg(concat_ws(' ', provider_id, issuer, access_token_expires_at AT TIME ZONE 'UTC',
            refresh_token_expires_at AT TIME ZONE 'UTC', scopes), ', ' ORDER BY provider_id DESC)
        FROM accounts WHERE provider_id IN ('google', 'github')";
    assert_eq!(
        moving.text(rest).await,
        "google https://accounts.google.com 2026-11-20 09:00:00 2027-05-20 08:00:00 {openid,email}, \
         github https://github.com 2026-11-20 09:00:00 {openid,email}"
    );
    let open = "SELECT count(*) FROM accounts WHERE position('access' in access_token::text) > 0
        OR position('ya29' in encode(access_token, 'escape')) > 0 OR position('gho_' in encode(access_token, 'escape')) > 0";
    assert_eq!(moving.target.count(open).await, 0, "nothing lies open");
}

#[tokio::test]
async fn what_better_auth_encrypted_comes_over_if_a_secret_opens_it() {
    let source = Source::of_users(2).await;
    let [access, refresh, unreadable] = ENCRYPTED;
    link(&source, 1, "google", [access, refresh, "head.body.signature"]).await;
    link(&source, 2, "google", [unreadable, "1//refresh", ""]).await;
    source
        .run(&format!(
            "UPDATE account SET \"idToken\" = repeat('x', {}) WHERE id = 'google-2'",
            32 * 1024 + 1
        ))
        .await;
    let moving = Move::new(source).await;
    let foretold = moving.import(&["--dry-run"]).await;
    let report = moving.import(&[]).await;
    assert_eq!(foretold["notes"], report["notes"]);
    assert_eq!(named(&report, "provider-token-left"), ["google-2"]);
    assert_eq!(report["notImported"]["accountsWithProviderTokens"], 1);
    assert_eq!(counts(&report, "accounts"), [4, 4, 0, 0, 0]);
    let opened = ["ya29.encrypted-access", "1//encrypted-refresh", "head.body.signature"];
    assert_eq!(tokens(&moving, 1, "google").await, are(opened));
    assert_eq!(tokens(&moving, 2, "google").await, are(["", "1//refresh", ""]));
    let ends =
        "SELECT access_token_expires_at::text FROM accounts WHERE access_token IS NULL AND provider_id = 'google'";
    assert_eq!(moving.text(ends).await, "", "nor when it would have ended");
}

#[tokio::test]
async fn the_newer_tokens_win() {
    let source = Source::of_users(2).await;
    link(&source, 1, "google", ["first", "", ""]).await;
    link(&source, 2, "google", ["first", "", ""]).await;
    let moving = Move::new(source).await;
    moving.import(&[]).await;
    let before = moving.everything().await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "accounts"), [4, 0, 0, 4, 0]);
    assert_eq!(moving.everything().await, before, "nothing is written twice");

    // Both get others there, and one signs in here after that.
    moving
        .source
        .run(
            "UPDATE account SET \"accessToken\" = 'second', scope = 'openid', \"updatedAt\" = '2026-11-21'
             WHERE \"providerId\" = 'google'",
        )
        .await;
    moving
        .target
        .run(
            "UPDATE accounts SET updated_at = '2026-11-22'
             WHERE provider_id = 'google' AND user_id = (SELECT id FROM users WHERE imported_id = 'user-2')",
        )
        .await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "accounts"), [4, 0, 1, 3, 0]);
    assert_eq!(tokens(&moving, 1, "google").await, are(["second", "", ""]));
    assert_eq!(tokens(&moving, 2, "google").await, are(["first", "", ""]));
    let scopes = "SELECT string_agg(scopes::text, ' ' ORDER BY scopes) FROM accounts WHERE provider_id = 'google'";
    assert_eq!(moving.text(scopes).await, "{openid} {openid,email}");
}

/// As an earlier release brought them.
#[tokio::test]
async fn who_came_before_tokens_did_gets_them() {
    let source = Source::of_users(1).await;
    link(&source, 1, "google", ["access", "", ""]).await;
    let moving = Move::new(source).await;
    moving.import(&[]).await;
    moving
        .target
        .run("UPDATE accounts SET access_token = NULL, issuer = '', scopes = '{}' WHERE provider_id = 'google'")
        .await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "accounts"), [2, 0, 1, 1, 0]);
    assert_eq!(tokens(&moving, 1, "google").await, are(["access", "", ""]));
    let rest = "SELECT concat(issuer, ' ', scopes) FROM accounts WHERE provider_id = 'google'";
    assert_eq!(moving.text(rest).await, "https://accounts.google.com {openid,email}");
}

/// Tokens are sealed for the row that they came with.
#[tokio::test]
async fn an_account_that_was_linked_here_keeps_its_own() {
    let source = Source::of_users(1).await;
    link(&source, 1, "google", ["there", "", ""]).await;
    let moving = Move::new(source).await;
    moving.import(&[]).await;
    moving
        .target
        .run(
            "UPDATE accounts SET id = gen_random_uuid(), access_token = 'here', updated_at = '2026-11-01'
             WHERE provider_id = 'google'",
        )
        .await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "accounts"), [2, 0, 0, 2, 0]);
    let kept = "SELECT count(*) FROM accounts WHERE access_token = 'here'";
    assert_eq!(moving.target.count(kept).await, 1);
}
