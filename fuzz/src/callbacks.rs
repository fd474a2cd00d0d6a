//! Property: wherever the gateway may send a browser, the browser ends at an origin that is trusted, in the oracle's
//! reading of how browsers read (`oracle::redirect`); and an ordinary path may be sent to. The input is the target.

use std::sync::OnceLock;

use oracle::redirect::{self, Lands};
use vestibule::{
    config::{Origin, OriginPattern},
    policy::{origin::TrustedOrigins, redirect::append_query},
};

const PUBLIC: &str = "https://app.example.com";

pub fn holds(input: &[u8]) {
    static TRUSTED: OnceLock<TrustedOrigins> = OnceLock::new();
    let trusted = TRUSTED.get_or_init(|| {
        let origin = |text: &str| Origin::parse(text).expect("an origin");
        let patterns = [
            OriginPattern::Exact(origin("https://admin.example.com:8443")),
            OriginPattern::Wildcard("https://*.example.org".to_owned()),
            OriginPattern::Scheme("myapp://".to_owned()),
        ];
        TrustedOrigins::new(&origin(PUBLIC), &patterns)
    });
    let Ok(target) = std::str::from_utf8(input) else {
        return;
    };
    let allowed = trusted.allows_redirect(target);
    if !allowed {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte);
        let ordinary = target.starts_with('/') && !target.starts_with("//") && target.bytes().all(is_plain);
        assert!(!ordinary, "{target:?} may not be sent to");
        return;
    }
    // And with what is added to it on the way.
    for target in [target.to_owned(), append_query(target, "error", "a b&c")] {
        let lands = redirect::lands(&target, PUBLIC);
        let fine = match &lands {
            Lands::Origin(origin) => {
                let below = origin
                    .strip_prefix("https://")
                    .and_then(|host| host.strip_suffix(".example.org"));
                origin == PUBLIC
                    || origin == "https://admin.example.com:8443"
                    || below.is_some_and(|label| !label.contains([':', '/', '@']))
            }
            Lands::App(scheme) => scheme == "myapp",
            Lands::Nowhere => false,
            // It was one of ours to the URL library, which has those tables.
            Lands::Unclear => !target.is_ascii() || target.contains('%'),
        };
        assert!(fine, "{target:?} leads to {lands:?}");
    }
}
