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

mod signature;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Write},
    iter,
    time::Duration,
};

use base64ct::{Base64, Encoding};
use http::{HeaderMap, HeaderValue, header};
use memchr::{memchr, memmem};

pub use self::state::Slot;
use self::{
    signature::{Spelling, decode_signature},
    state::StateCookies,
};
use crate::{
    config::{self, Origin, SameSite},
    secret::{KeyId, OneTimeToken, SameBrowser, SessionToken, SigningKeys, TokenHash, token_shaped},
};

/// Signatures checked in one request at most; a request with more cookies of the name has no session.
const MAX_CANDIDATES: usize = 8;

/// Companions looked at in one request. A browser gets five; those of sessions that ended elsewhere may be left beside.
const MAX_COMPANIONS: usize = 32;

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
    state: StateCookies,
    /// How the names of the cookies begin that keep several people's sessions in one browser.
    device: String,
    find_device: memmem::Finder<'static>,
    /// As they stand behind a value.
    attributes: String,
    /// The same of cookies that have to come along with whoever a mailed link or a provider leads here: a navigation from
    /// another site, at which a browser keeps `SameSite=Strict` back. So these are `Lax` where sessions are strict.
    arriving: String,
    /// With a `Domain`: the attributes of cookies that were set when there was none, which browsers keep beside those.
    host_only: Option<String>,
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
    /// Whose signature the cookie has, and the bearer, if it has one.
    signers: [Option<KeyId>; 2],
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

    /// Whether nothing but its shape says that a credential of this kind is ours.
    pub fn is_unproven(&self, kind: Kind) -> bool {
        kind == Kind::Bearer && self.authorization == Ownership::Unknown
    }

    /// Which key signed the credential of a kind; `None` for what needs no signature.
    pub const fn signer(&self, kind: Kind) -> Option<KeyId> {
        let [cookie, bearer] = self.signers;
        match kind {
            Kind::Cookie => cookie,
            Kind::Bearer => bearer,
        }
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
#[derive(Clone, Eq, PartialEq)]
pub enum Cut {
    /// There was nothing of ours in it.
    Unchanged,
    Rest(HeaderValue),
    /// There was nothing else in it.
    Nothing,
}

/// Cookies of applications are theirs to keep secret.
impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "Unchanged",
            Self::Rest(_) => "Rest(…)",
            Self::Nothing => "Nothing",
        })
    }
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
        let common = if secure {
            "; Path=/; HttpOnly; Secure"
        } else {
            "; Path=/; HttpOnly"
        };
        let (mut attributes, host_only) = match &rules.domain {
            Some(domain) => (format!("; Domain={domain}{common}"), Some(common.to_owned())),
            None => (common.to_owned(), None),
        };
        let device = cookie("session_token_multi-").name;
        let arriving = match rules.same_site {
            SameSite::Lax | SameSite::Strict => SameSite::Lax,
            SameSite::None => SameSite::None,
        };
        let arriving = format!("{attributes}{}", same_site(arriving));
        attributes.push_str(same_site(rules.same_site));
        let family = format!("{}.", rules.prefix);
        Self {
            keys: SigningKeys::new(auth.secret.iter().map(|secret| secret.expose().as_bytes())),
            session: cookie("session_token"),
            dont_remember: cookie("dont_remember"),
            session_data: cookie("session_data"),
            sign_up: cookie("sign_up"),
            state: StateCookies::new(cookie),
            find_device: memmem::Finder::new(device.as_bytes()).into_owned(),
            device,
            attributes,
            arriving,
            host_only,
            find_family: memmem::Finder::new(family.as_bytes()).into_owned(),
            family,
        }
    }

    /// The name of the cookie that carries a session.
    pub fn name(&self) -> &str {
        &self.session.name
    }

    /// What `headers` carry: nothing is allocated, and nothing hashed that was not verified or of the right shape.
    pub fn find(&self, headers: &HeaderMap) -> Found {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let bearer = lines.next().and_then(|line| self.bearer_in(line));
        let cookie = self.cookie(headers);
        let mut found = Found {
            bearer: bearer.map(|bearer| TokenHash::of(bearer.token)),
            authorization: owner(bearer),
            cookie: cookie.map(|(token, _)| TokenHash::of(token)),
            signers: [
                cookie.map(|(_, signer)| signer),
                bearer.and_then(|bearer| bearer.signer),
            ],
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

    /// The token of the session cookie alone, whatever else the request carries.
    pub fn session_token(&self, headers: &HeaderMap) -> Option<SessionToken> {
        self.token(headers, Kind::Cookie)
    }

    /// The token behind a credential that [`Self::find`] found in the same headers.
    pub fn token(&self, headers: &HeaderMap, kind: Kind) -> Option<SessionToken> {
        let token = match kind {
            Kind::Cookie => self.cookie(headers)?.0,
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
        self.set_cookie(&self.session.name, token.as_str(), max_age)
    }

    /// Marks the browser's session as one that is not remembered.
    pub fn set_dont_remember(&self) -> HeaderValue {
        self.set_cookie(&self.dont_remember.name, "true", None)
    }

    /// Takes all that belongs to a session back from the browser.
    pub fn clear(&self) -> impl Iterator<Item = HeaderValue> {
        let all = [&self.session, &self.session_data, &self.dont_remember];
        all.into_iter().flat_map(|cookie| self.clear_both(cookie))
    }

    /// With a `Domain` and without, where there may be either.
    fn clear_both(&self, cookie: &Cookie) -> impl Iterator<Item = HeaderValue> {
        let host_only = self
            .host_only
            .as_ref()
            .map(|attributes| clear_cookie(&cookie.name, attributes));
        iter::once(self.clear_cookie(&cookie.name)).chain(host_only)
    }

    /// Takes a session cookie back that was set before there was a `Domain`, if the browser may have one: beside the new one
    /// neither would count.
    pub fn clear_host_only(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let attributes = self.host_only.as_ref().filter(|_| self.brought(headers))?;
        Some(clear_cookie(&self.session.name, attributes))
    }

    /// The sessions of all that a request carries, also where several people's cookies came along and none counts.
    pub fn all_sessions(&self, headers: &HeaderMap) -> Vec<TokenHash> {
        let found = self.find(headers);
        let candidates = found.candidates().map(|credential| credential.hash);
        let values = self.session.values(headers);
        let verified = values.filter_map(|value| self.signed(value, Spelling::Cookie));
        let of_cookies = verified.filter(|plain| token_shaped(plain)).map(TokenHash::of);
        candidates.chain(of_cookies).collect()
    }

    pub fn clear_dont_remember(&self) -> impl Iterator<Item = HeaderValue> {
        self.clear_both(&self.dont_remember)
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
        self.set_cookie_with(&self.sign_up.name, mark.as_str(), Some(max_age), &self.arriving)
    }

    pub fn clear_sign_up_mark(&self) -> HeaderValue {
        clear_cookie(&self.sign_up.name, &self.arriving)
    }

    /// The tokens of the session cookie's companions: one for each person who is signed in in this browser, where there
    /// are several (contract, section 18). The name repeats the token in lower case, and must.
    pub fn device_tokens(&self, headers: &HeaderMap) -> Vec<SessionToken> {
        let lines = headers.get_all(header::COOKIE).iter();
        let crumbs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        let mut tokens: Vec<SessionToken> = Vec::new();
        let candidates = crumbs.filter_map(|crumb| {
            let rest = crumb.trim_ascii().strip_prefix(self.device.as_bytes())?;
            let equals = memchr(b'=', rest)?;
            Some((rest.get(..equals)?, rest.get(equals + 1..)?))
        });
        for (name, value) in candidates.take(MAX_COMPANIONS) {
            let Some(plain) = self.signed(value, Spelling::Cookie) else {
                continue;
            };
            let token = std::str::from_utf8(plain).ok().and_then(SessionToken::parse);
            if let Some(token) = token.filter(|token| token.as_str().to_ascii_lowercase().as_bytes() == name)
                && !tokens.iter().any(|known| known.is(token.as_str()))
            {
                tokens.push(token);
            }
        }
        tokens
    }

    /// Sets the companion that keeps a session in this browser while another is in use.
    pub fn set_device(&self, token: &SessionToken, max_age: Option<Duration>) -> HeaderValue {
        self.set_cookie(&self.device_name(token), token.as_str(), max_age)
    }

    pub fn clear_device(&self, token: &SessionToken) -> HeaderValue {
        self.clear_cookie(&self.device_name(token))
    }

    /// The cookies of a browser in which several people are signed in, so that one of them can be taken back though the
    /// request has left. Most browsers have one person: a look at their cookies is all that it costs.
    pub fn shared(&self, headers: &HeaderMap) -> Option<Shared> {
        let lines = || headers.get_all(header::COOKIE).iter();
        lines()
            .any(|line| self.find_device.find(line.as_bytes()).is_some())
            // What is kept must not keep the buffer that it came in.
            .then(|| {
                let copies = lines().filter_map(|line| HeaderValue::from_bytes(line.as_bytes()).ok());
                Shared(copies.map(|line| (header::COOKIE, line)).collect())
            })
    }

    /// Takes the companion back that keeps a session in this browser, if there is one.
    pub fn clear_companion(&self, browser: &Shared, session: &TokenHash) -> Option<HeaderValue> {
        let tokens = self.device_tokens(&browser.0);
        let token = tokens.iter().find(|token| token.hash() == *session)?;
        Some(self.clear_device(token))
    }

    fn device_name(&self, token: &SessionToken) -> String {
        format!("{}{}", self.device, token.as_str().to_ascii_lowercase())
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

    /// The token, and whose signature it has: of several of the same token, the last one's.
    fn cookie<'h>(&self, headers: &'h HeaderMap) -> Option<(&'h [u8], KeyId)> {
        let mut token = None;
        for (at, value) in self.session.values(headers).enumerate() {
            if at == MAX_CANDIDATES {
                return None;
            }
            let verified = self.signed_by(value, Spelling::Cookie);
            let Some((plain, signer)) = verified.filter(|(plain, _)| token_shaped(plain)) else {
                continue;
            };
            if token.is_some_and(|(other, _)| other != plain) {
                return None;
            }
            token = Some((plain, signer));
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
            return Some(Bearer {
                token: value,
                owner: Ownership::Unknown,
                signer: None,
            });
        }
        let (token, signer) = self
            .signed_by(value, Spelling::Bearer)
            .filter(|(token, _)| token_shaped(token))?;
        Some(Bearer {
            token,
            owner: Ownership::Ours,
            signer: Some(signer),
        })
    }

    /// Whether what a key signed is believed still.
    pub fn believes(&self, signer: KeyId) -> bool {
        self.keys.have(signer)
    }

    /// What `value` (`plain.signature`) says, if one of our keys signed it.
    fn signed<'v>(&self, value: &'v [u8], spelling: Spelling) -> Option<&'v [u8]> {
        self.signed_by(value, spelling).map(|(plain, _)| plain)
    }

    fn signed_by<'v>(&self, value: &'v [u8], spelling: Spelling) -> Option<(&'v [u8], KeyId)> {
        let dot = value.iter().rposition(|byte| *byte == b'.')?;
        let (plain, signature) = (value.get(..dot)?, value.get(dot + 1..)?);
        let signature = decode_signature(signature, spelling)?;
        Some((plain, self.keys.signer(plain, &signature)?))
    }

    fn signature(&self, plain: &str) -> String {
        Base64::encode_string(&self.keys.sign(plain.as_bytes()))
    }

    fn set_cookie(&self, name: &str, plain: &str, max_age: Option<Duration>) -> HeaderValue {
        self.set_cookie_with(name, plain, max_age, &self.attributes)
    }

    fn set_cookie_with(&self, name: &str, plain: &str, max_age: Option<Duration>, attributes: &str) -> HeaderValue {
        let mut text = format!("{name}={plain}.");
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
        text.push_str(attributes);
        sensitive(text)
    }

    fn clear_cookie(&self, name: &str) -> HeaderValue {
        clear_cookie(name, &self.attributes)
    }
}

fn clear_cookie(name: &str, attributes: &str) -> HeaderValue {
    sensitive(format!("{name}=; Max-Age=0{attributes}"))
}

/// The cookies of a browser that several people share.
pub struct Shared(HeaderMap);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(…)")
    }
}

#[derive(Clone, Copy)]
struct Bearer<'h> {
    token: &'h [u8],
    owner: Ownership,
    signer: Option<KeyId>,
}

fn owner(bearer: Option<Bearer<'_>>) -> Ownership {
    bearer.map_or(Ownership::Theirs, |bearer| bearer.owner)
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

const fn same_site(rule: SameSite) -> &'static str {
    match rule {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None => "; SameSite=None",
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
