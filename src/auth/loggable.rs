//! What a log may say of paths: links that are mailed have secrets in them, and one that was damaged on its way is good once
//! it is mended.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::ROUTES;

/// What a log may say of a path below the base path: where a secret may stand in it, the pattern of its route. Of what is
/// no path of the API it says no more than what looks like one: it may be a link that was damaged on its way, and is good
/// once it is mended.
pub fn loggable(path: &str) -> Cow<'_, str> {
    let secret = ROUTES.iter().find(|route| {
        let before = route.path.strip_suffix(":token");
        before.is_some_and(|before| path.len() > before.len() && path.starts_with(before))
    });
    if let Some(secret) = secret {
        return secret.path.into();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let mut seen = path.len();
    let mut at = 0;
    for segment in path.split('/') {
        let odd = segment.bytes().position(|byte| !plain(byte));
        let odd = odd.or_else(|| (segment.len() > LONGEST_NAME).then_some(0));
        if let Some(odd) = odd {
            seen = at + odd;
            break;
        }
        at += segment.len() + 1;
    }
    match path.get(..seen) {
        Some(seen) if seen.len() < path.len() => format!("{seen}:hidden").into(),
        Some(_) | None => path.into(),
    }
}

/// No segment of the API's paths is longer, and every token is.
const LONGEST_NAME: usize = 31;

/// The pattern of the route whose secret may stand in a path that can't be read, wherever in it and however it is escaped.
pub fn damaged(path: &str) -> Option<&'static str> {
    let text = unescaped(path);
    ROUTES.iter().map(|route| route.path).find(|path| {
        let before = path.strip_suffix(":token");
        before.is_some_and(|before| text.contains(before))
    })
}

/// Whether a link of the API with a secret in it may stand in the path of something else, however it is escaped.
pub fn holds_link(path: &str, base_path: &str) -> bool {
    let text = unescaped(path);
    let link = text.find(base_path).and_then(|at| text.get(at + base_path.len()..));
    link.is_some_and(|link| link.contains("token=") || damaged(link).is_some())
}

fn unescaped(path: &str) -> String {
    let mut text = path.to_ascii_lowercase();
    for _ in 0..3 {
        text = percent_decode_str(&text).decode_utf8_lossy().to_ascii_lowercase();
    }
    text.replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_shows_no_secret_of_a_path() {
        for path in [
            "/reset-password/S3CRET",
            "/reset-password/S3CRET/",
            "/reset-password/a/S3CRET",
        ] {
            assert_eq!(loggable(path), "/reset-password/:token");
        }
        assert_eq!(loggable("/reset-password"), "/reset-password");
        assert_eq!(loggable("/get-session"), "/get-session");
        assert_eq!(loggable("/callback/google"), "/callback/google");
        for route in ROUTES.iter().filter(|route| !route.path.contains(':')) {
            assert_eq!(loggable(route.path), route.path);
        }
        let token = "x".repeat(LONGEST_NAME + 1);
        for (path, logged) in [
            ("/reset-password%2FS3CRET", "/reset-password:hidden"),
            ("/reset-password;x/S3CRET", "/reset-password:hidden"),
            ("/verify-email%3Ftoken=S3CRET", "/verify-email:hidden"),
            ("/verify-email&token=S3CRET", "/verify-email:hidden"),
            (&format!("/verify-email/{token}"), "/verify-email/:hidden"),
        ] {
            assert_eq!(loggable(path), logged);
        }
    }

    #[test]
    fn a_link_within_another_path_is_known() {
        for path in [
            "/x/https:%2F%2Fapp%2Fapi%2Fauth%2Freset-password%2FS3CRET",
            "/api%252Fauth/reset-password%5CS3CRET",
            "/x/api/auth/verify-email%3Ftoken%3DS3CRET",
        ] {
            assert!(holds_link(path, "/api/auth"), "{path}");
        }
        for path in ["/v1/api/auth/sign-in/email", "/reset-password/x", "/token=x"] {
            assert!(!holds_link(path, "/api/auth"), "{path}");
        }
    }
}
