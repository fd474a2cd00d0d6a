//! `[auth]` and what is below it: sign-up, passwords, sessions and their cookies.

use std::time::Duration;

use super::{
    Facts, Origin, OriginPattern,
    found::Wrong,
    kind::{Kind, boolean, choice, list, one_or_more, parsed, secret},
    origin::origin_pattern,
    path_pattern::normal_literal,
    section::Section,
    units::nonzero_duration,
};
use crate::secret::Secret;

mod account;
mod oauth;
mod password;
mod rate_limit;
mod session;

pub use account::{Account, ChangeEmail, DeleteUser};
pub use oauth::{
    AppleKey, OAuthProvider, ProviderEndpoints, ProviderKind, ProviderSignUp, SET_BY_THE_FLOW, TokenEndpointAuth,
};
pub use password::{Argon2, Password};
pub use rate_limit::{Budget, RateLimit, RateStorage, WindowFrom};
pub use session::{Cache, Cookie, MultiSession, SameSite, SessionRules};

/// HMAC-SHA-256 keys shorter than its output are weaker than it.
const MIN_SECRET: usize = 32;

#[derive(Clone, Debug)]
pub struct Auth {
    /// Starts with `/`, ends without one.
    pub base_path: String,
    /// At least one; the first signs, all verify.
    pub secret: Vec<Secret<String>>,
    pub trusted_origins: Vec<OriginPattern>,
    pub sign_up: bool,
    /// `pages.sign_in`: where a browser is sent that has to sign in first; a path or a trusted URL.
    pub sign_in_page: Option<String>,
    pub email_verification: EmailVerification,
    pub account: Account,
    pub password: Password,
    pub session: SessionRules,
    pub rate_limit: RateLimit,
    pub oauth: Vec<OAuthProvider>,
}

#[derive(Clone, Debug)]
pub struct EmailVerification {
    pub required: bool,
    pub expires_in: Duration,
    pub sign_in_after: SignInAfter,
    pub send_on_sign_in: bool,
}

/// Whether a verification link also signs in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignInAfter {
    /// Only the browser that signed up: a mail scanner never gets a session.
    SameBrowser,
    Always,
    Never,
}

impl Auth {
    pub(super) fn read(s: &mut Section<'_>, facts: &mut Facts) -> Option<Self> {
        let public_url = facts.public_url.as_ref();
        let base_path = s
            .key("base_path", "Where the auth API is served.", base_path())
            .or("/api/auth");
        let secret = s
            .key(
                "secret",
                "Signs session cookies and seals providers' tokens. An array is for rotation: the first signs and seals, \
                 all verify and open. Make one with `openssl rand -base64 32`, and keep it out of this file.",
                one_or_more(signing_secret),
            )
            .required("{ env = \"VESTIBULE_SECRET\" }");
        let trusted_origins = s
            .key(
                "trusted_origins",
                "Origins beyond public_url that may call the auth API with cookies and that links may lead to: \
                 \"https://app.example.com\", \"https://*.example.com\", \"myapp://\".",
                list(origin_pattern()),
            )
            .or("[]");
        let sign_up = s
            .key(
                "sign_up",
                "Whether people may make accounts: with a password, and by signing in at a provider for the first time, \
                 whatever `sign_up` says there.",
                boolean(),
            )
            .or("true");
        let sign_in_page = s.section("pages", "Where browsers are sent.", |s| {
            let page = s
                .key(
                    "sign_in",
                    "The page of your app where people sign in. A browser that has to is sent there, with the way \
                         back in `return_to`. Absent: it gets a 401 page.",
                    sign_in_page(),
                )
                .optional("/sign-in");
            if let (Some(Some(page)), Some(public_url), Some(trusted)) = (&page, public_url, &trusted_origins) {
                report_foreign_page(s, page, public_url, trusted);
            }
            page
        });
        let email_verification = s.section(
            "email_verification",
            "People prove that their e-mail address is theirs.",
            EmailVerification::read,
        );
        let account = s.section("account", "What users may change about their account.", Account::read);
        let password = s.section("password", "Passwords, and what hashing them may cost.", Password::read);
        let session = s.section("session", "How long people stay signed in.", |s| {
            SessionRules::read(s, public_url)
        });
        let rate_limit = s.section(
            "rate_limit",
            "How often the auth API may be asked: per address and path as in the contract, per account, per mailbox.",
            RateLimit::read,
        );
        let oauth = s.named(
            "oauth",
            "A provider at which people may sign in; as many as you like. NAME, here google, is yours: it is in the redirect \
             URI to register there, which `vestibule check` prints, and what apps ask for. For google, github, apple and \
             microsoft of that name a client and its secret are enough; any other that speaks OpenID Connect needs its \
             issuer as well.",
            "google",
            |s, name| OAuthProvider::read(s, name, facts),
        );
        facts.base_path.clone_from(&base_path);
        facts.sign_in_page.clone_from(&sign_in_page);
        Some(Self {
            base_path: base_path?,
            secret: secret?,
            trusted_origins: trusted_origins?,
            sign_up: sign_up?,
            sign_in_page: sign_in_page?,
            email_verification: email_verification?,
            account: account?,
            password: password?,
            session: session?,
            rate_limit: rate_limit?,
            oauth: oauth.into_iter().collect::<Option<_>>()?,
        })
    }
}

impl EmailVerification {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let required = s
            .key("required", "Whether signing in needs a verified address.", boolean())
            .or("true");
        let expires_in = s
            .key("expires_in", "How long the link in the mail works.", nonzero_duration())
            .or("15m");
        let sign_in_after = s
            .key(
                "sign_in_after",
                "Whether the link also signs in. \"same-browser\": only the browser that signed up, so that a mail \
                 scanner that opens links never gets a session.",
                choice(&[
                    ("same-browser", SignInAfter::SameBrowser),
                    ("always", SignInAfter::Always),
                    ("never", SignInAfter::Never),
                ]),
            )
            .or("same-browser");
        let send_on_sign_in = s
            .key(
                "send_on_sign_in",
                "Whether a sign-in that is refused for want of verification sends a new link.",
                boolean(),
            )
            .or("true");
        Some(Self {
            required: required?,
            expires_in: expires_in?,
            sign_in_after: sign_in_after?,
            send_on_sign_in: send_on_sign_in?,
        })
    }
}

fn signing_secret() -> Kind<Secret<String>> {
    secret(
        "a random string of at least 32 bytes; `openssl rand -base64 32` makes one",
        |text| {
            if text.len() < MIN_SECRET {
                return Err(format!("too short: {} of {MIN_SECRET} bytes", text.len()).into());
            }
            Ok(())
        },
    )
}

fn base_path() -> Kind<String> {
    parsed("a path such as \"/api/auth\", without a final slash", |text| {
        let trimmed = text.trim_end_matches('/');
        if trimmed.is_empty() {
            return Err("the auth API needs a path of its own".into());
        }
        if trimmed != text {
            return Err(Wrong::but("a final slash", trimmed));
        }
        if text.contains(['*', '{', '}']) {
            return Err("patterns are for routes".into());
        }
        normal_literal(text)?;
        Ok(text.to_owned())
    })
}

fn sign_in_page() -> Kind<String> {
    parsed(
        "a path such as \"/sign-in\", or an http or https URL of a trusted origin",
        |text| {
            if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') || !text.is_ascii() {
                return Err("characters that must be escaped".into());
            }
            let path = text.starts_with('/') && !text.starts_with("//");
            if path || url::Url::parse(text).is_ok_and(|url| Origin::of(&url).is_some()) {
                return Ok(text.to_owned());
            }
            Err("neither a path nor a URL".into())
        },
    )
}

/// A page elsewhere must be on an origin that links may lead to.
fn report_foreign_page(s: &Section<'_>, page: &str, public_url: &Origin, trusted: &[OriginPattern]) {
    let Some(origin) = url::Url::parse(page).ok().and_then(|url| Origin::of(&url)) else {
        return;
    };
    if origin != *public_url && !trusted.contains(&OriginPattern::Exact(origin.clone())) {
        s.report(
            s.wrong("sign_in", "on an origin that is not trusted")
                .found(origin.as_str())
                .allowed("a path, or a URL whose origin is `server.public_url` or stands in `auth.trusted_origins`"),
        );
    }
}
