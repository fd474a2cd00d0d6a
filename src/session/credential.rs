//! What a request carries to show its session, and the cookies that put it there.
//!
//! The session cookie holds `token.signature`, percent-encoded exactly as JavaScript's `encodeURIComponent` writes it.
//! Any other spelling is not ours; one whose signature none of our keys made is as if absent. Verifying comes before
//! hashing, so neither the cache nor Postgres ever hears of made-up cookies.
//!
//! *Two cookies of the name*: those that don't verify are ignored; if two that verify hold different tokens, none
//! counts. *Cookie and bearer together*: the bearer is asked first, since a program put it there on purpose; if it is
//! nobody's, the cookie is, for the header may be meant for the upstream. Which one authenticated decides whether the
//! request is exempt from the origin check.
//!
//! Every cookie whose name begins with our prefix is ours: it is cut out of what upstreams see, and they can't set it.

use std::{fmt::Write, time::Duration};

use base64ct::{Base64, Encoding};
use http::{HeaderMap, HeaderValue, header};
use memchr::{memchr, memmem};

use crate::{
    config::{self, Origin, SameSite},
    secret::{OneTimeToken, SameBrowser, SessionToken, SigningKeys, TokenHash, token_shaped},
};

/// Signatures checked in one request at most; a request with more cookies of the name has no session.
const MAX_CANDIDATES: usize = 8;

/// Base64 of a SHA-256, with its padding.
const SIGNATURE_LEN: usize = 44;

/// Our cookies, by name and attributes.
#[derive(Clone, Debug)]
pub struct SessionCookies {
    keys: SigningKeys,
    /// `vestibule.`: how the bare names of all our cookies begin.
    family: String,
    session: Cookie,
    dont_remember: Cookie,
    session_data: Cookie,
    sign_up: Cookie,
    /// As they stand behind a value.
    attributes: String,
    find_family: memmem::Finder<'static>,
}

#[derive(Clone, Debug)]
struct Cookie {
    name: String,
    find: memmem::Finder<'static>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Cookie,
    Bearer,
}

/// One token that a request carried: of the right shape, and signed if a cookie; whether it is anybody's is not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Credential {
    pub kind: Kind,
    pub hash: TokenHash,
}

/// All that a request carried.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Found {
    bearer: Option<TokenHash>,
    authorization: Ownership,
    cookie: Option<TokenHash>,
}

impl Found {
    /// In the order in which they are to be tried.
    pub fn candidates(&self) -> impl Iterator<Item = Credential> + use<> {
        let of = |kind| move |hash| Credential { kind, hash };
        let bearer = self.bearer.map(of(Kind::Bearer));
        bearer.into_iter().chain(self.cookie.map(of(Kind::Cookie)))
    }

    pub const fn is_empty(&self) -> bool {
        self.bearer.is_none() && self.cookie.is_none()
    }

    /// Whether `Authorization` holds a token of ours, as far as can be told without looking it up.
    pub const fn authorization(&self) -> Ownership {
        self.authorization
    }
}

/// Whose token an `Authorization` header carries; of several lines, the one that is most ours.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ownership {
    /// The upstream's business.
    #[default]
    Theirs,
    /// Of our shape, unsigned: ours if it authenticates.
    Unknown,
    /// Signed by us: it must not leave.
    Ours,
}

/// What is left of a `Cookie` header for an upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cut {
    /// There was nothing of ours in it.
    Unchanged,
    Rest(HeaderValue),
    /// There was nothing else in it.
    Nothing,
}

impl SessionCookies {
    pub fn new(auth: &config::Auth, public_url: &Origin) -> Self {
        let rules = &auth.session.cookie;
        let secure = public_url.is_https();
        let prefix = match (secure, rules.host_prefix && rules.domain.is_none()) {
            (false, _) => "",
            (true, true) => "__Host-",
            (true, false) => "__Secure-",
        };
        let cookie = |name: &str| {
            let name = format!("{prefix}{}.{name}", rules.prefix);
            let find = memmem::Finder::new(format!("{name}=").as_bytes()).into_owned();
            Cookie { name, find }
        };
        let mut attributes = String::new();
        if let Some(domain) = &rules.domain {
            let _ = write!(attributes, "; Domain={domain}");
        }
        attributes.push_str("; Path=/; HttpOnly");
        if secure {
            attributes.push_str("; Secure");
        }
        attributes.push_str(match rules.same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        });
        let family = format!("{}.", rules.prefix);
        Self {
            keys: SigningKeys::new(auth.secret.iter().map(|secret| secret.expose().as_bytes())),
            session: cookie("session_token"),
            dont_remember: cookie("dont_remember"),
            session_data: cookie("session_data"),
            sign_up: cookie("sign_up"),
            attributes,
            find_family: memmem::Finder::new(family.as_bytes()).into_owned(),
            family,
        }
    }

    /// What `headers` carry: nothing is allocated, and nothing hashed that was not verified or of the right shape.
    pub fn find(&self, headers: &HeaderMap) -> Found {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let bearer = lines.next().and_then(|line| self.bearer_in(line));
        let mut found = Found {
            bearer: bearer.map(|bearer| TokenHash::of(bearer.token)),
            authorization: owner(bearer),
            cookie: self.cookie(headers).map(TokenHash::of),
        };
        for (at, line) in lines.enumerate() {
            // Of several lines none is a credential, yet what any of them gives away must not leave.
            let owner = if at < MAX_CANDIDATES {
                owner(self.bearer_in(line))
            } else {
                Ownership::Ours
            };
            // None of them is looked up, so what only a look-up could clear counts as ours.
            let most = found.authorization.max(owner);
            found.authorization = if most == Ownership::Theirs {
                most
            } else {
                Ownership::Ours
            };
            found.bearer = None;
        }
        found
    }

    /// The token behind a credential that [`Self::find`] found in the same headers.
    pub fn token(&self, headers: &HeaderMap, kind: Kind) -> Option<SessionToken> {
        let token = match kind {
            Kind::Cookie => self.cookie(headers)?,
            Kind::Bearer => self.bearer(headers)?.token,
        };
        SessionToken::parse(std::str::from_utf8(token).ok()?)
    }

    /// Whether the request brought a cookie of the session cookie's name, good or not.
    pub fn brought(&self, headers: &HeaderMap) -> bool {
        self.session.values(headers).next().is_some()
    }

    /// Whether the browser says that its session is not to be remembered.
    pub fn dont_remember(&self, headers: &HeaderMap) -> bool {
        self.dont_remember
            .values(headers)
            .take(MAX_CANDIDATES)
            .any(|value| self.signed(value, Spelling::Cookie) == Some(b"true"))
    }

    /// Sets the session cookie; without a `max_age` it goes with the browser.
    pub fn set(&self, token: &SessionToken, max_age: Option<Duration>) -> HeaderValue {
        self.set_cookie(&self.session, token.as_str(), max_age)
    }

    /// Marks the browser's session as one that is not remembered.
    pub fn set_dont_remember(&self) -> HeaderValue {
        self.set_cookie(&self.dont_remember, "true", None)
    }

    /// Takes all that belongs to a session back from the browser.
    pub fn clear(&self) -> [HeaderValue; 3] {
        [&self.session, &self.session_data, &self.dont_remember].map(|cookie| self.clear_cookie(cookie))
    }

    pub fn clear_dont_remember(&self) -> HeaderValue {
        self.clear_cookie(&self.dont_remember)
    }

    /// The mark of a browser that signed up.
    pub fn sign_up_mark(&self, headers: &HeaderMap) -> Option<OneTimeToken<SameBrowser>> {
        self.sign_up
            .values(headers)
            .take(MAX_CANDIDATES)
            .filter_map(|value| self.signed(value, Spelling::Cookie))
            .find_map(|plain| OneTimeToken::parse(std::str::from_utf8(plain).ok()?))
    }

    pub fn set_sign_up_mark(&self, mark: &OneTimeToken<SameBrowser>, max_age: Duration) -> HeaderValue {
        self.set_cookie(&self.sign_up, mark.as_str(), Some(max_age))
    }

    pub fn clear_sign_up_mark(&self) -> HeaderValue {
        self.clear_cookie(&self.sign_up)
    }

    /// `token.signature` as it is handed to bearer clients, not percent-encoded.
    pub fn bearer_value(&self, token: &SessionToken) -> HeaderValue {
        sensitive(format!("{}.{}", token.as_str(), self.signature(token.as_str())))
    }

    /// A `Cookie` line without the cookies of our names.
    pub fn cut_out(&self, line: &HeaderValue) -> Cut {
        let bytes = line.as_bytes();
        if self.find_family.find(bytes).is_none() {
            return Cut::Unchanged;
        }
        let mut rest = Vec::with_capacity(bytes.len());
        let mut found = false;
        for crumb in bytes.split(|byte| *byte == b';') {
            let crumb = crumb.trim_ascii();
            if self.is_our_name(name_of(crumb)) {
                found = true;
            } else if !crumb.is_empty() {
                if !rest.is_empty() {
                    rest.extend_from_slice(b"; ");
                }
                rest.extend_from_slice(crumb);
            }
        }
        match (found, rest.is_empty()) {
            (false, _) => Cut::Unchanged,
            (true, true) => Cut::Nothing,
            // A part of a header value is one as well.
            (true, false) => HeaderValue::from_maybe_shared(bytes::Bytes::from(rest)).map_or(Cut::Nothing, Cut::Rest),
        }
    }

    /// Whether a `Set-Cookie` of an upstream sets a cookie of ours.
    pub fn is_ours(&self, set_cookie: &HeaderValue) -> bool {
        let bytes = set_cookie.as_bytes();
        if self.find_family.find(bytes).is_none() {
            return false;
        }
        let crumb = bytes.split(|byte| *byte == b';').next().unwrap_or(bytes);
        // A nameless cookie `=name=value` comes back from browsers as `name=value`.
        let crumb = crumb.trim_ascii();
        let named = crumb
            .iter()
            .position(|byte| *byte != b'=' && !byte.is_ascii_whitespace());
        self.is_our_name(name_of(named.and_then(|at| crumb.get(at..)).unwrap_or_default()))
    }

    fn is_our_name(&self, name: &[u8]) -> bool {
        let bare = [&b"__host-"[..], b"__secure-"]
            .into_iter()
            .find_map(|prefix| {
                let (head, rest) = name.split_at_checked(prefix.len())?;
                head.eq_ignore_ascii_case(prefix).then_some(rest)
            })
            .unwrap_or(name);
        bare.starts_with(self.family.as_bytes())
    }

    fn cookie<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        let mut token = None;
        for (at, value) in self.session.values(headers).enumerate() {
            if at == MAX_CANDIDATES {
                return None;
            }
            let Some(plain) = self.signed(value, Spelling::Cookie).filter(|plain| token_shaped(plain)) else {
                continue;
            };
            if token.is_some_and(|other| other != plain) {
                return None;
            }
            token = Some(plain);
        }
        token
    }

    /// A token that is signed by us or of our shape, if there is one `Authorization` and no more.
    fn bearer<'h>(&self, headers: &'h HeaderMap) -> Option<Bearer<'h>> {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let (line, None) = (lines.next()?, lines.next()) else {
            return None;
        };
        self.bearer_in(line)
    }

    fn bearer_in<'h>(&self, line: &'h HeaderValue) -> Option<Bearer<'h>> {
        let (scheme, rest) = line.as_bytes().split_at_checked(b"bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let value = rest.trim_ascii();
        if token_shaped(value) {
            let owner = Ownership::Unknown;
            return Some(Bearer { token: value, owner });
        }
        let token = self
            .signed(value, Spelling::Bearer)
            .filter(|token| token_shaped(token))?;
        let owner = Ownership::Ours;
        Some(Bearer { token, owner })
    }

    /// What `value` (`plain.signature`) says, if one of our keys signed it.
    fn signed<'v>(&self, value: &'v [u8], spelling: Spelling) -> Option<&'v [u8]> {
        let dot = value.iter().rposition(|byte| *byte == b'.')?;
        let (plain, signature) = (value.get(..dot)?, value.get(dot + 1..)?);
        let signature = decode_signature(signature, spelling)?;
        self.keys.verify(plain, &signature).then_some(plain)
    }

    fn signature(&self, plain: &str) -> String {
        Base64::encode_string(&self.keys.sign(plain.as_bytes()))
    }

    fn set_cookie(&self, cookie: &Cookie, plain: &str, max_age: Option<Duration>) -> HeaderValue {
        let mut text = format!("{}={plain}.", cookie.name);
        for byte in self.signature(plain).bytes() {
            match byte {
                b'+' => text.push_str("%2B"),
                b'/' => text.push_str("%2F"),
                b'=' => text.push_str("%3D"),
                _ => text.push(char::from(byte)),
            }
        }
        if let Some(max_age) = max_age {
            let _ = write!(text, "; Max-Age={}", max_age.as_secs());
        }
        text.push_str(&self.attributes);
        sensitive(text)
    }

    fn clear_cookie(&self, cookie: &Cookie) -> HeaderValue {
        sensitive(format!("{}=; Max-Age=0{}", cookie.name, self.attributes))
    }
}

#[derive(Clone, Copy)]
struct Bearer<'h> {
    token: &'h [u8],
    owner: Ownership,
}

fn owner(bearer: Option<Bearer<'_>>) -> Ownership {
    bearer.map_or(Ownership::Theirs, |bearer| bearer.owner)
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Spelling {
    /// As `encodeURIComponent` writes it, and no other way.
    Cookie,
    /// Encoded or not.
    Bearer,
}

fn decode_signature(text: &[u8], spelling: Spelling) -> Option<[u8; 32]> {
    let mut base64 = [0; SIGNATURE_LEN];
    let mut places = base64.iter_mut();
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        let byte = match (*byte, spelling) {
            (b'%', _) => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                match (digits, spelling) {
                    (b"2B", _) | (b"2b", Spelling::Bearer) => b'+',
                    (b"2F", _) | (b"2f", Spelling::Bearer) => b'/',
                    (b"3D", _) | (b"3d", Spelling::Bearer) => b'=',
                    _ => return None,
                }
            }
            (b'+' | b'/' | b'=', Spelling::Cookie) => return None,
            (byte, _) => byte,
        };
        *places.next()? = byte;
    }
    if places.next().is_some() {
        return None;
    }
    base64_digest(&base64)
}

/// The 32 bytes behind 44 characters of standard base64, in its one canonical form.
///
/// A signature that a client shows is no secret of ours, so unlike `base64ct` this need not take constant time; it is
/// three times as fast, and runs on every request.
fn base64_digest(text: &[u8; SIGNATURE_LEN]) -> Option<[u8; 32]> {
    let (groups, []) = text.as_chunks::<4>() else {
        return None;
    };
    let (last, groups) = groups.split_last()?;
    let mut digest = [0; 32];
    let (places, end) = digest.as_chunks_mut::<3>();
    for ([a, b, c, d], place) in groups.iter().zip(places) {
        let bits = sextet(*a)? << 18 | sextet(*b)? << 12 | sextet(*c)? << 6 | sextet(*d)?;
        let [_, bytes @ ..] = bits.to_be_bytes();
        *place = bytes;
    }
    let [a, b, c, b'='] = *last else { return None };
    let bits = sextet(a)? << 12 | sextet(b)? << 6 | sextet(c)?;
    if bits & 0b11 != 0 {
        return None;
    }
    let [_, _, high, low] = (bits >> 2).to_be_bytes();
    end.copy_from_slice(&[high, low]);
    Some(digest)
}

const fn sextet(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value as u32)
}

impl Cookie {
    /// The values of all cookies of exactly this name, over all lines.
    fn values<'h>(&self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h [u8]> {
        headers.get_all(header::COOKIE).iter().flat_map(move |line| {
            let line = line.as_bytes();
            self.find.find_iter(line).filter_map(move |at| {
                let (before, value) = line.split_at_checked(at)?;
                let boundary = before.trim_ascii_end().last().is_none_or(|byte| *byte == b';');
                let value = boundary.then(|| value.get(self.name.len() + 1..))??;
                let end = memchr(b';', value).unwrap_or(value.len());
                Some(value.get(..end)?.trim_ascii())
            })
        })
    }
}

/// What stands before the first `=`, or all if there is none.
fn name_of(crumb: &[u8]) -> &[u8] {
    let end = memchr(b'=', crumb).unwrap_or(crumb.len());
    crumb.get(..end).unwrap_or(crumb).trim_ascii_end()
}

/// A header value that no log prints.
fn sensitive(text: String) -> HeaderValue {
    // Names and attributes come from a checked configuration, values from our own alphabet.
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
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
            password: config::Password {
                min_length: 8,
                max_length: 128,
                argon2: config::Argon2 {
                    memory_kib: 8,
                    iterations: 1,
                    parallelism: 1,
                },
                max_concurrent: 1,
                queue: 1,
            },
            session: SessionRules {
                expires_in: Duration::from_hours(168),
                refresh_after: Duration::from_hours(24),
                fresh_for: Duration::from_hours(24),
                max_per_user: 0,
                cookie: config::Cookie {
                    prefix: "vestibule".to_owned(),
                    same_site: SameSite::Lax,
                    domain: domain.map(str::to_owned),
                    host_prefix,
                },
                cache: config::Cache {
                    ttl: Duration::from_secs(10),
                    capacity: 100,
                },
            },
        }
    }

    fn cookies() -> SessionCookies {
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
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect();
            let end = end.replace("604800", "0");
            assert_eq!(
                cleared,
                ["session_token", "session_data", "dont_remember"].map(|name| format!("{start}{name}={end}"))
            );
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
        assert!(cookies.find(&lines("cookie", &[&many.join(";"), &good])).is_empty());
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
                "a=1; vestibule.session_token=x; __Secure-vestibule.session_data=y; __host-vestibule.state =z"
                    .to_owned(),
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
        fn our_base64_reads_as_the_library_does(digest in any::<[u8; 32]>(), at in 0_usize..SIGNATURE_LEN, byte in 0x20_u8..0x7f) {
            let mut text: [u8; SIGNATURE_LEN] = Base64::encode_string(&digest).into_bytes().try_into().unwrap();
            prop_assert_eq!(base64_digest(&text), Some(digest));
            text[at] = byte;
            let mut place = [0; 33];
            let library: Option<[u8; 32]> = Base64::decode(text, &mut place).ok().and_then(|bytes| bytes.try_into().ok());
            prop_assert_eq!(base64_digest(&text), library);
        }

        #[test]
        fn no_bearer_panics(text in "[Bb]earer [A-Za-z0-9%+/=.]{0,80}") {
            let _ = cookies().find(&lines("authorization", &[&text]));
        }
    }
}
