//! What counts as a credential, and what must not.

use proptest::prelude::*;

use super::*;
use crate::{config::SessionRules, secret::Secret};

const TOKEN: &str = "AETs6ZqEKVKHJggCSL37jH0YhiwcF5fW";
const OTHER: &str = "OCRNOCRNOCRNOCRNOCRNOCRNOCRNOCRN";

fn auth(secrets: &[&str], domain: Option<&str>, host_prefix: bool) -> config::Auth {
    config::Auth {
        base_path: "/api/auth".to_owned(),
        secret: secrets.iter().map(|secret| Secret::new((*secret).to_owned())).collect(),
        trusted_origins: Vec::new(),
        sign_up: true,
        sign_in_page: None,
        email_verification: config::EmailVerification {
            required: true,
            expires_in: Duration::from_mins(15),
            sign_in_after: config::SignInAfter::SameBrowser,
            send_on_sign_in: true,
        },
        account: config::Account {
            change_email: config::ChangeEmail::Both,
            delete_user: config::DeleteUser::Session,
            link_by_email: true,
            link_different_emails: false,
        },
        password: config::Password {
            reset_expires_in: Duration::from_hours(1),
            min_length: 8,
            max_length: 128,
            change_revokes_others: false,
            argon2: config::Argon2 {
                memory_kib: 8,
                iterations: 1,
                parallelism: 1,
            },
            max_concurrent: 1,
            queue: 1,
        },
        oauth: Vec::new(),
        session: SessionRules {
            expires_in: Duration::from_hours(168),
            refresh_after: Duration::from_hours(24),
            fresh_for: Duration::from_hours(24),
            max_per_user: 0,
            close_streams_on_revoke: true,
            multi_session: config::MultiSession::WhenShared,
            geo_database: None,
            cookie: config::Cookie {
                prefix: "vestibule".to_owned(),
                same_site: SameSite::Lax,
                domain: domain.map(str::to_owned),
                host_prefix,
            },
            cache: config::Cache {
                lookup_queue: 1,
                outage_grace: Duration::ZERO,
                ttl: Duration::from_secs(10),
                capacity: 100,
            },
            unknown_tokens: config::Budget {
                limit: 600,
                window: Duration::from_mins(1),
                window_from: config::WindowFrom::First,
            },
        },
        rate_limit: config::RateLimit {
            enabled: false,
            storage: config::RateStorage::Memory,
            account_failures: config::Budget {
                limit: 10,
                window: Duration::from_mins(15),
                window_from: config::WindowFrom::First,
            },
            mails: config::Budget {
                limit: 5,
                window: Duration::from_hours(1),
                window_from: config::WindowFrom::First,
            },
        },
    }
}

pub(super) fn cookies() -> SessionCookies {
    let origin = Origin::parse("https://app.example.com").unwrap();
    SessionCookies::new(&auth(&["a secret of at least 32 bytes, or so"], None, true), &origin)
}

fn lines(name: &'static str, values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// `name=value` as a browser sends it back.
fn pair(cookies: &SessionCookies, token: &str) -> String {
    let set = cookies.set(&SessionToken::parse(token).unwrap(), None);
    set.to_str().unwrap().split(';').next().unwrap().to_owned()
}

fn token(cookies: &SessionCookies, headers: &HeaderMap) -> Option<String> {
    let found: Vec<_> = cookies.find(headers).candidates().collect();
    let kind = found.first()?.kind;
    let token = cookies.token(headers, kind).unwrap();
    assert_eq!(token.hash(), found[0].hash);
    Some(token.as_str().to_owned())
}

#[test]
fn the_signature_is_the_contracts() {
    // HMAC-SHA256 as `openssl dgst -hmac` gives it, base64, percent-encoded.
    let origin = Origin::parse("http://localhost:8080").unwrap();
    let cookies = SessionCookies::new(&auth(&["better-auth-secret-123456789012345"], None, true), &origin);
    assert_eq!(
        pair(&cookies, TOKEN),
        "vestibule.session_token=AETs6ZqEKVKHJggCSL37jH0YhiwcF5fW.S%2BgHU2Ia9uDIAA%2BVZvPvTLIfZlBCohmPp0rb20Xwb%2Fk%3D"
    );
}

#[test]
fn names_and_attributes_follow_the_public_url() {
    let week = Some(Duration::from_hours(168));
    for (url, domain, host_prefix, start, end) in [
        (
            "https://a.example",
            None,
            true,
            "__Host-vestibule.",
            "; Max-Age=604800; Path=/; HttpOnly; Secure; SameSite=Lax",
        ),
        (
            "https://a.example",
            None,
            false,
            "__Secure-vestibule.",
            "; Max-Age=604800; Path=/; HttpOnly; Secure; SameSite=Lax",
        ),
        (
            "https://a.example",
            Some("a.example"),
            true,
            "__Secure-vestibule.",
            "; Max-Age=604800; Domain=a.example; Path=/; HttpOnly; Secure; SameSite=Lax",
        ),
        (
            "http://localhost:1",
            None,
            true,
            "vestibule.",
            "; Max-Age=604800; Path=/; HttpOnly; SameSite=Lax",
        ),
    ] {
        let cookies = SessionCookies::new(&auth(&["x"], domain, host_prefix), &Origin::parse(url).unwrap());
        let set = cookies.set(&SessionToken::parse(TOKEN).unwrap(), week);
        let text = set.to_str().unwrap();
        assert!(
            text.starts_with(&format!("{start}session_token={TOKEN}.")) && text.ends_with(end),
            "{text}"
        );
        let cleared: Vec<_> = cookies
            .clear()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        let end = end.replace("604800", "0");
        let names = ["session_token", "session_data", "dont_remember"];
        let expected = names.map(|name| {
            // Of the time before.
            let host_only = domain.map(|_| format!("{start}{name}=; Max-Age=0; Path=/; HttpOnly; Secure"));
            [Some(format!("{start}{name}={end}")), host_only]
        });
        let expected: Vec<_> = expected.into_iter().flatten().flatten().collect();
        assert_eq!(cleared, expected);
    }
}

#[test]
fn a_session_cookie_is_found_wherever_it_stands() {
    let cookies = cookies();
    let good = pair(&cookies, TOKEN);
    for values in [
        &[good.clone()][..],
        &[format!("theme=1; {good}")],
        &[format!("theme=1;{good};x=y")],
        &[format!("  {good}  ")],
        &["theme=1".to_owned(), good.clone()],
        &[good.clone(), good.clone()],
        &[format!("{good}; {good}")],
        &["x".repeat(7000) + "=1; " + &good],
        &[format!("a=\"; {good}")],
    ] {
        let headers = lines("cookie", &values.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(token(&cookies, &headers).as_deref(), Some(TOKEN), "{values:?}");
        assert!(cookies.brought(&headers));
    }
}

#[test]
fn nothing_that_merely_looks_like_it_signs_in() {
    let cookies = cookies();
    let good = pair(&cookies, TOKEN);
    let value = good.split_once('=').unwrap().1;
    let decoded = value.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    let name = "__Host-vestibule.session_token";
    for cookie in [
        format!("not{good}"),
        format!("{good}tail"),
        format!("x={good}"),
        format!("x= {good}"),
        format!("x {good}"),
        format!("{name} ={value}"),
        format!("{}={value}", name.to_ascii_lowercase()),
        format!("vestibule.session_token={value}"),
        format!("__Secure-vestibule.session_token={value}"),
        format!("{name}=\"{value}\""),
        format!("{name}={decoded}"),
        format!("{name}={}", value.replace("%3D", "%3d")),
        format!("{name}={}", value.trim_end_matches("%3D")),
        format!("{name}={TOKEN}"),
        format!("{name}={TOKEN}."),
        format!("{name}={}", value.replace(TOKEN, OTHER)),
        format!("{name}={}", value.replace('.', "%2E")),
        format!("{name}="),
        name.to_owned(),
        format!("{good}, x"),
    ] {
        let headers = lines("cookie", &[&cookie]);
        assert!(cookies.find(&headers).is_empty(), "{cookie}");
    }
    // Signed by us, but no token: the name is not signed, so the shape must be.
    let marker = cookies.set_dont_remember();
    let marker = marker
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .replace("dont_remember", "session_token");
    assert!(cookies.find(&lines("cookie", &[&marker])).is_empty());
}

#[test]
fn of_several_cookies_the_valid_ones_must_agree() {
    let cookies = cookies();
    let (good, other) = (pair(&cookies, TOKEN), pair(&cookies, OTHER));
    let bad = format!("__Host-vestibule.session_token={OTHER}.{}", "A".repeat(44));
    for (values, found) in [
        (&[&bad, &good][..], Some(TOKEN)),
        (&[&good, &bad], Some(TOKEN)),
        (&[&good, &other], None),
        (&[&other, &good], None),
        (&[&good, &other, &good], None),
    ] {
        let joined = values.iter().map(|value| value.as_str()).collect::<Vec<_>>();
        assert_eq!(token(&cookies, &lines("cookie", &joined)).as_deref(), found);
        assert_eq!(
            token(&cookies, &lines("cookie", &[&joined.join("; ")])).as_deref(),
            found
        );
    }
    let many = [bad.as_str(); MAX_CANDIDATES];
    let behind_many = lines("cookie", &[&many.join(";"), &good]);
    assert!(cookies.find(&behind_many).is_empty());
    // Whom a sign-out ends all the same.
    assert_eq!(cookies.all_sessions(&behind_many), [TokenHash::of(TOKEN.as_bytes())]);
}

#[test]
fn a_bearer_may_be_signed_or_bare() {
    let cookies = cookies();
    let encoded = pair(&cookies, TOKEN).split_once('=').unwrap().1.to_owned();
    let plain = cookies.bearer_value(&SessionToken::parse(TOKEN).unwrap());
    let plain = plain.to_str().unwrap();
    for (value, owner) in [
        (format!("Bearer {TOKEN}"), Ownership::Unknown),
        (format!("bearer   {TOKEN} "), Ownership::Unknown),
        (format!("BEARER {plain}"), Ownership::Ours),
        (format!("Bearer {encoded}"), Ownership::Ours),
        (format!("Bearer {}", encoded.to_ascii_lowercase()), Ownership::Theirs),
        (format!("Bearer {}", plain.replace(TOKEN, OTHER)), Ownership::Theirs),
        (format!("Basic {TOKEN}"), Ownership::Theirs),
        (format!("Bearer{TOKEN}"), Ownership::Theirs),
        ("Bearer short".to_owned(), Ownership::Theirs),
        ("Bearer a.b.c".to_owned(), Ownership::Theirs),
        ("Bearer".to_owned(), Ownership::Theirs),
        (String::new(), Ownership::Theirs),
    ] {
        let headers = lines("authorization", &[&value]);
        assert_eq!(cookies.find(&headers).authorization(), owner, "{value}");
        assert_eq!(
            token(&cookies, &headers).is_some(),
            owner != Ownership::Theirs,
            "{value}"
        );
    }
}

#[test]
fn several_authorizations_sign_nobody_in_and_leak_nothing() {
    let cookies = cookies();
    let bare = format!("Bearer {TOKEN}");
    let signed = cookies.bearer_value(&SessionToken::parse(TOKEN).unwrap());
    let signed = format!("Bearer {}", signed.to_str().unwrap());
    let many = ["Basic eDp5"; MAX_CANDIDATES + 2];
    for (values, owner) in [
        (&[bare.as_str(), &bare][..], Ownership::Ours),
        (&["Basic eDp5", &bare], Ownership::Ours),
        (&["Basic eDp5", &signed], Ownership::Ours),
        (&[&signed, "Basic eDp5"], Ownership::Ours),
        (&["Basic eDp5", "Basic eDp5"], Ownership::Theirs),
        (&many, Ownership::Ours),
    ] {
        let headers = lines("authorization", values);
        let found = cookies.find(&headers);
        assert!(
            found.is_empty() && cookies.token(&headers, Kind::Bearer).is_none(),
            "{values:?}"
        );
        assert_eq!(found.authorization(), owner, "{values:?}");
    }
}

#[test]
fn a_bearer_is_tried_before_the_cookie() {
    let cookies = cookies();
    let mut headers = lines("cookie", &[&pair(&cookies, TOKEN)]);
    headers.insert("authorization", format!("Bearer {OTHER}").parse().unwrap());
    let kinds: Vec<_> = cookies.find(&headers).candidates().collect();
    let hash = |token: &str| TokenHash::of(token.as_bytes());
    assert_eq!(
        kinds,
        [
            Credential {
                kind: Kind::Bearer,
                hash: hash(OTHER)
            },
            Credential {
                kind: Kind::Cookie,
                hash: hash(TOKEN)
            },
        ]
    );
}

#[test]
fn a_rotated_secret_still_verifies() {
    let origin = Origin::parse("https://a.example").unwrap();
    let old = SessionCookies::new(&auth(&["old"], None, true), &origin);
    let both = SessionCookies::new(&auth(&["new", "old"], None, true), &origin);
    let new = SessionCookies::new(&auth(&["new"], None, true), &origin);
    let headers = lines("cookie", &[&pair(&old, TOKEN)]);
    assert_eq!(token(&both, &headers).as_deref(), Some(TOKEN));
    assert_eq!(token(&new, &headers), None);
    assert_eq!(pair(&both, TOKEN), pair(&new, TOKEN));
}

#[test]
fn the_marker_counts_only_when_signed() {
    let cookies = cookies();
    let marker = cookies.set_dont_remember();
    let marker = marker.to_str().unwrap().split(';').next().unwrap();
    assert!(cookies.dont_remember(&lines("cookie", &["a=b", marker])));
    assert!(!cookies.dont_remember(&lines("cookie", &["__Host-vestibule.dont_remember=true"])));
    assert!(!cookies.dont_remember(&lines("cookie", &[&pair(&cookies, TOKEN)])));
    assert!(
        cookies
            .clear_dont_remember()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("__Host-vestibule.dont_remember=; Max-Age=0; ")
    );
}

#[test]
fn the_mark_of_a_sign_up_comes_back_only_under_its_own_name() {
    let cookies = cookies();
    let mark = OneTimeToken::generate();
    let set = cookies.set_sign_up_mark(&mark, Duration::from_mins(15));
    let set = set.to_str().unwrap();
    assert!(set.starts_with("__Host-vestibule.sign_up=") && set.contains("; Max-Age=900; "));
    let crumb = set.split(';').next().unwrap();
    let found = cookies.sign_up_mark(&lines("cookie", &["a=b", crumb]));
    assert_eq!(found.unwrap().hash(), mark.hash());
    // Signed by the same key, but for another use.
    let other = crumb.replace("sign_up", "session_token");
    assert!(cookies.sign_up_mark(&lines("cookie", &[&other])).is_none());
    let forged = format!("__Host-vestibule.sign_up={}.x", mark.as_str());
    assert!(cookies.sign_up_mark(&lines("cookie", &[&forged])).is_none());
}

#[test]
fn what_has_to_come_back_from_another_site_does_also_where_sessions_do_not() {
    let minute = Duration::from_mins(1);
    for (rule, sessions, arriving) in [
        (SameSite::Lax, "; SameSite=Lax", "; SameSite=Lax"),
        (SameSite::Strict, "; SameSite=Strict", "; SameSite=Lax"),
        (SameSite::None, "; SameSite=None", "; SameSite=None"),
    ] {
        let mut config = auth(&["x"], None, true);
        config.session.cookie.same_site = rule;
        let cookies = SessionCookies::new(&config, &Origin::parse("https://a.example").unwrap());
        let ends = |set: &HeaderValue, with| set.to_str().unwrap().ends_with(with);
        assert!(ends(
            &cookies.set(&SessionToken::parse(TOKEN).unwrap(), Some(minute)),
            sessions
        ));
        assert!(ends(
            &cookies.set_sign_up_mark(&OneTimeToken::generate(), minute),
            arriving
        ));
        assert!(ends(&cookies.clear_sign_up_mark(), arriving));
        let slot = Slot::drawn();
        assert!(ends(
            &cookies.set_oauth_browser(slot, &OneTimeToken::generate(), minute),
            arriving
        ));
        assert!(ends(&cookies.clear_oauth_browser(slot), arriving));
    }
}

#[test]
fn upstreams_see_none_of_our_cookies() {
    let cookies = cookies();
    let good = pair(&cookies, TOKEN);
    let rest = |text: &'static str| Cut::Rest(HeaderValue::from_static(text));
    for (line, cut) in [
        ("theme=1".to_owned(), Cut::Unchanged),
        ("theme=vestibule.session_token".to_owned(), Cut::Unchanged),
        (String::new(), Cut::Unchanged),
        (good.clone(), Cut::Nothing),
        (format!(" ; {good} ;; "), Cut::Nothing),
        (format!("theme=1; {good}"), rest("theme=1")),
        (format!("{good}; theme=1; a = b ;c"), rest("theme=1; a = b; c")),
        (format!("a=1;{good};b=\"2\";{good}"), rest("a=1; b=\"2\"")),
        (
            "a=1; vestibule.session_token=x; __Secure-vestibule.session_data=y; __host-vestibule.state =z".to_owned(),
            rest("a=1"),
        ),
        (
            "vestibule.two_factor=x; vestibule.trust_device".to_owned(),
            Cut::Nothing,
        ),
        (
            "vestibule.session_token_multi-abc=x; xvestibule.y=1".to_owned(),
            rest("xvestibule.y=1"),
        ),
    ] {
        assert_eq!(cookies.cut_out(&line.parse().unwrap()), cut, "{line}");
    }
}

#[test]
fn upstreams_can_not_set_our_cookies() {
    let cookies = cookies();
    for (set, ours) in [
        ("__Host-vestibule.session_token=x; Path=/", true),
        ("vestibule.session_token=x", true),
        (" __SECURE-vestibule.anything = x", true),
        ("=vestibule.session_token=x", true),
        (" = =__Host-vestibule.session_token=x", true),
        ("vestibule.session_token; Path=/", true),
        ("theme=vestibule.session_token", false),
        ("theme=1; Path=/vestibule.", false),
        ("vestibule=1", false),
        ("", false),
    ] {
        assert_eq!(cookies.is_ours(&set.parse().unwrap()), ours, "{set}");
    }
}

#[test]
fn nothing_prints_a_token() {
    let cookies = cookies();
    let token = SessionToken::parse(TOKEN).unwrap();
    let headers = lines("cookie", &[&pair(&cookies, TOKEN)]);
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        cookies.set(&token, None),
        cookies.bearer_value(&token),
        cookies.find(&headers),
        cookies
    );
    assert!(!shown.contains(TOKEN) && !shown.contains("a secret of"), "{shown}");
}

#[test]
fn our_cookies_together_stay_small() {
    let cookies = cookies();
    let token = SessionToken::parse(&"t".repeat(64)).unwrap();
    assert!(cookies.set(&token, None).len() + cookies.set_dont_remember().len() < 1024);
}

proptest! {
    #[test]
    fn no_cookie_line_panics_and_cutting_is_complete(line in "([a-z=; \"]|__Host-|__Secure-|vestibule\\.|session_token|=;){0,24}") {
        let cookies = cookies();
        let value: HeaderValue = line.parse().unwrap();
        prop_assert!(cookies.find(&lines("cookie", &[&line])).is_empty());
        match cookies.cut_out(&value) {
            Cut::Unchanged => {}
            Cut::Nothing => prop_assert!(line.split(';').all(|crumb| crumb.trim().is_empty() || crumb.contains("vestibule."))),
            Cut::Rest(rest) => {
                prop_assert_eq!(cookies.cut_out(&rest), Cut::Unchanged);
                for crumb in rest.to_str().unwrap().split("; ") {
                    prop_assert!(line.contains(crumb) && !cookies.is_our_name(name_of(crumb.as_bytes())));
                }
            }
        }
        cookies.is_ours(&value);
    }

    #[test]
    fn only_the_exact_bytes_verify(at in 0_usize..100, byte in 0x21_u8..0x7f) {
        let cookies = cookies();
        let good = pair(&cookies, TOKEN);
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        let found = !cookies.find(&lines("cookie", &[&changed])).is_empty();
        prop_assert_eq!(found, changed == good, "{}", changed);
    }

    #[test]
    fn no_bearer_panics(text in "[Bb]earer [A-Za-z0-9%+/=.]{0,80}") {
        let _ = cookies().find(&lines("authorization", &[&text]));
    }
}
