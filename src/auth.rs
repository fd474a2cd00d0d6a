//! The auth API: every route on one page, the one way to a session, and what each error tells the client.
//!
//! It is wire-compatible with the better-auth contract; section numbers in comments are that contract's. A request is
//! judged in the contract's order: rate limit, route, body, origin and redirect targets, fields, session; then its
//! behaviour runs, which is a file of its own below `auth/`.
//!
//! Whoever calls [`Auth::answer`] runs it to its end, detached from the connection: a client that goes away must not
//! leave a change half done (between a commit and forgetting the session it revoked, say).

mod account;
mod complete;
mod cors;
pub mod email;
mod error;
mod error_page;
mod evenness;
mod http;
mod input;
mod jwks;
mod loggable;
mod multi_session;
mod oauth;
mod objects;
pub mod openapi;
pub mod password;
mod post;
pub mod reset_link;
mod reset_password;
mod sessions;
mod sign_in;
mod sign_up;
pub mod sweeper;
mod throttle;
mod verify_email;
mod who;

use std::sync::Arc;

use ::http::{Method, Request, Response};
use bytes::Bytes;
use http_body::Body;
use tracing::{error, warn};

pub use self::{
    error::AuthError,
    loggable::{damaged, holds_link, loggable},
    oauth::{StartError as ProviderStartError, reseal, vault},
    sign_up::FIRST_ROLE,
};
use self::{
    evenness::Evenness,
    http::{Answer, Call, empty},
    input::Accepts,
    oauth::{Family, Providers},
    openapi::Documents,
    password::Passwords,
    throttle::Throttle,
};
use crate::{
    chain::Chain,
    clock::Clock,
    config::Config,
    db::Db,
    mail::OutboxBell,
    policy::{self, client::ClientFacts, csrf::WithoutCookie, origin::TrustedOrigins},
    problem::{Code, Form, Problem},
    secret::sealed::SealingKeys,
    session::{Sessions, credential::SessionCookies},
};

/// One endpoint of the API.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// Below `auth.base_path`. A last segment `:name` stands for any one segment.
    pub path: &'static str,
    endpoint: Endpoint,
    accepts: Accepts,
    /// What needs no cookie to do harm has its origin judged without one, too (section 4).
    without_cookie: WithoutCookie,
    /// Where a mailed link leads: it may name a redirect target in its query.
    is_link: bool,
    /// Where other sites send browsers with a form. It does no more than to send them on, so it may come from anywhere.
    is_relay: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Endpoint {
    SignUp,
    SignIn,
    SignOut,
    GetSession,
    PostSession,
    ListSessions,
    RevokeSession,
    RevokeSessions,
    RevokeOtherSessions,
    UpdateSession,
    SendVerificationEmail,
    VerifyEmail,
    RequestPasswordReset,
    ResetPasswordLink,
    ResetPassword,
    ChangePassword,
    SetPassword,
    VerifyPassword,
    ChangeEmail,
    UpdateUser,
    DeleteUser,
    DeleteUserLink,
    ListAccounts,
    UnlinkAccount,
    ListDeviceSessions,
    SetActiveSession,
    RevokeDeviceSession,
    SignInSocial,
    SignInOAuth2,
    LinkSocial,
    LinkOAuth2,
    Callback,
    CallbackRelay,
    OAuth2CallbackRelay,
    GetAccessToken,
    RefreshToken,
    AccountInfo,
    AccountInfoOfBody,
    Me,
    VerifyToken,
    Jwks,
    ErrorPage,
    Ok,
    OpenApi,
    Reference,
}

/// The API. Anything else, another method included, is a 404 with an empty body (section 1).
pub static ROUTES: &[Route] = &[
    login("/sign-up/email", Endpoint::SignUp),
    login("/signup", Endpoint::SignUp),
    login("/sign-in/email", Endpoint::SignIn),
    login("/signin", Endpoint::SignIn),
    touching("/sign-out", Endpoint::SignOut),
    get("/get-session", Endpoint::GetSession),
    post("/get-session", Endpoint::PostSession),
    get("/list-sessions", Endpoint::ListSessions),
    post("/revoke-session", Endpoint::RevokeSession),
    post("/revoke-sessions", Endpoint::RevokeSessions),
    post("/revoke-other-sessions", Endpoint::RevokeOtherSessions),
    post("/update-session", Endpoint::UpdateSession),
    touching("/send-verification-email", Endpoint::SendVerificationEmail),
    link("/verify-email", Endpoint::VerifyEmail),
    post("/request-password-reset", Endpoint::RequestPasswordReset),
    // As clients up to 1.3 call it (section 24).
    post("/forget-password", Endpoint::RequestPasswordReset),
    link("/reset-password/:token", Endpoint::ResetPasswordLink),
    post("/reset-password", Endpoint::ResetPassword),
    post("/change-password", Endpoint::ChangePassword),
    post("/set-password", Endpoint::SetPassword),
    post("/verify-password", Endpoint::VerifyPassword),
    post("/change-email", Endpoint::ChangeEmail),
    post("/update-user", Endpoint::UpdateUser),
    post("/delete-user", Endpoint::DeleteUser),
    link("/delete-user/callback", Endpoint::DeleteUserLink),
    get("/list-accounts", Endpoint::ListAccounts),
    post("/unlink-account", Endpoint::UnlinkAccount),
    get("/multi-session/list-device-sessions", Endpoint::ListDeviceSessions),
    post("/multi-session/set-active", Endpoint::SetActiveSession),
    post("/multi-session/revoke", Endpoint::RevokeDeviceSession),
    touching("/sign-in/social", Endpoint::SignInSocial),
    post("/link-social", Endpoint::LinkSocial),
    get("/callback/:provider", Endpoint::Callback),
    relay("/callback/:provider", Endpoint::CallbackRelay),
    // As the plugin for providers of all kinds had them in clients up to 1.6.
    touching("/sign-in/oauth2", Endpoint::SignInOAuth2),
    post("/oauth2/link", Endpoint::LinkOAuth2),
    get("/oauth2/callback/:provider", Endpoint::Callback),
    relay("/oauth2/callback/:provider", Endpoint::OAuth2CallbackRelay),
    post("/get-access-token", Endpoint::GetAccessToken),
    post("/refresh-token", Endpoint::RefreshToken),
    get("/account-info", Endpoint::AccountInfo),
    // As clients up to 1.3 ask.
    post("/account-info", Endpoint::AccountInfoOfBody),
    get("/me", Endpoint::Me),
    get("/verify-token", Endpoint::VerifyToken),
    post("/verify-token", Endpoint::VerifyToken),
    get("/jwks", Endpoint::Jwks),
    get("/error", Endpoint::ErrorPage),
    get("/ok", Endpoint::Ok),
    get("/openapi.json", Endpoint::OpenApi),
    get("/reference", Endpoint::Reference),
];

impl Route {
    /// The route of a request, and what stands for its `:name`, if it has one.
    fn find<'p>(method: &Method, path: &'p str) -> Option<(&'static Self, Option<&'p str>)> {
        ROUTES.iter().filter(|route| route.method == *method).find_map(|route| {
            let Some((before, _)) = route.path.split_once(':') else {
                return (route.path == path).then_some((route, None));
            };
            let segment = path.strip_prefix(before)?;
            (!segment.is_empty() && !segment.contains('/')).then_some((route, Some(segment)))
        })
    }
}

const fn get(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::GET,
        path,
        endpoint,
        accepts: Accepts::Json,
        without_cookie: WithoutCookie::Nothing,
        is_link: false,
        is_relay: false,
    }
}

/// Where a mailed link leads.
const fn link(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::GET,
        path,
        endpoint,
        accepts: Accepts::Json,
        without_cookie: WithoutCookie::Nothing,
        is_link: true,
        is_relay: false,
    }
}

const fn post(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::POST,
        path,
        endpoint,
        accepts: Accepts::Json,
        without_cookie: WithoutCookie::Nothing,
        is_link: false,
        is_relay: false,
    }
}

/// Sets cookies, or takes them back, whether or not some came: by which a page of somebody else's could have a browser signed out,
/// or signed in as whom it likes. (Where JSON is read, no such page sends it without a preflight; that is not all there is.)
const fn touching(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::POST,
        path,
        endpoint,
        accepts: Accepts::Json,
        without_cookie: WithoutCookie::TouchesCookies,
        is_link: false,
        is_relay: false,
    }
}

/// Signs somebody in, and is what a form may be sent to.
const fn login(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::POST,
        path,
        endpoint,
        accepts: Accepts::JsonAndForm,
        without_cookie: WithoutCookie::SignsIn,
        is_link: false,
        is_relay: false,
    }
}

/// Where other sites send browsers with a form.
const fn relay(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::POST,
        path,
        endpoint,
        accepts: Accepts::JsonAndForm,
        without_cookie: WithoutCookie::Nothing,
        is_link: false,
        is_relay: true,
    }
}

/// What [`Auth`] is made of.
#[derive(Debug)]
pub struct AuthParts {
    pub db: Db,
    pub sessions: Arc<Sessions>,
    pub clock: Clock,
    pub config: Arc<Config>,
    pub outbox: OutboxBell,
}

/// Why the API can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Passwords(#[from] password::StartError),
    #[error(transparent)]
    Provider(#[from] ProviderStartError),
}

/// What the behaviours share.
#[derive(Debug)]
pub struct Auth {
    db: Db,
    sessions: Arc<Sessions>,
    clock: Clock,
    config: Arc<Config>,
    outbox: OutboxBell,
    cookies: SessionCookies,
    passwords: Passwords,
    throttle: Throttle,
    providers: Providers,
    /// For what has to be read again: providers' tokens, flows under way.
    sealing: SealingKeys,
    origins: TrustedOrigins,
    /// What links in mails begin with: `public_url` and the base path, whatever `Host` a request named.
    base_url: String,
    documents: Documents,
    evenness: Arc<Evenness>,
}

impl Auth {
    /// Starts the threads that hash passwords.
    pub fn new(parts: AuthParts) -> Result<Self, StartError> {
        let AuthParts {
            db,
            sessions,
            clock,
            config,
            outbox,
        } = parts;
        let public_url = &config.server.public_url;
        Ok(Self {
            cookies: SessionCookies::new(&config.auth, public_url),
            passwords: Passwords::start(&config.auth.password)?,
            throttle: Throttle::new(&config.auth),
            providers: Providers::new(&config.auth.oauth, public_url.is_loopback())?,
            sealing: SealingKeys::new(config.auth.secret.iter().map(|secret| secret.expose().as_bytes())),
            origins: TrustedOrigins::of(&config),
            base_url: format!("{public_url}{}", config.auth.base_path),
            documents: Documents::default(),
            evenness: Arc::new(Evenness::new()),
            db,
            sessions,
            clock,
            config,
            outbox,
        })
    }

    /// The API by another configuration. What counts, hashes or has learnt something goes on where its settings are the
    /// same; requests that have begun finish by the old one.
    pub fn next(&self, config: Arc<Config>) -> Result<Self, StartError> {
        let (old, new) = (&self.config, &config);
        let public_url = &new.server.public_url;
        let is_local = public_url.is_loopback();
        let same_place = is_local == old.server.public_url.is_loopback();
        Ok(Self {
            cookies: SessionCookies::new(&new.auth, public_url),
            passwords: self.passwords.next(&old.auth.password, &new.auth.password)?,
            throttle: self.throttle.next(&new.auth),
            providers: self.providers.next(&new.auth.oauth, is_local, |provider| {
                same_place && old.auth.oauth.contains(provider)
            })?,
            sealing: SealingKeys::new(new.auth.secret.iter().map(|secret| secret.expose().as_bytes())),
            origins: TrustedOrigins::of(new),
            base_url: format!("{public_url}{}", new.auth.base_path),
            documents: Documents::default(),
            evenness: Arc::clone(&self.evenness),
            db: self.db.clone(),
            sessions: Arc::clone(&self.sessions),
            clock: self.clock.clone(),
            outbox: self.outbox.clone(),
            config,
        })
    }

    pub fn hashes_refused(&self) -> u64 {
        self.passwords.refused()
    }

    /// Password hashes that wait for a thread, for metrics.
    pub fn hashes_waiting(&self) -> u64 {
        self.passwords.waiting()
    }

    /// Requests that were refused by each rule of the rate limits, for metrics.
    pub fn rate_limited(&self) -> Vec<(&'static str, u64)> {
        self.throttle.refusals()
    }

    /// Answers a request whose path is normal and below the base path, which has been taken off.
    pub async fn answer<B>(&self, request: Request<B>, client: &ClientFacts, request_id: &str) -> Response<Bytes>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(asked) = policy::cors::preflight(request.method(), request.headers()) {
            return cors::preflight(&asked, request.uri().path(), &self.origins, request_id);
        }
        let origin = policy::cors::origin_of(request.headers()).cloned();
        let mut response = self.respond(request, client, request_id).await;
        cors::admit(origin.as_ref(), &self.origins, response.headers_mut());
        response
    }

    async fn respond<B>(&self, request: Request<B>, client: &ClientFacts, request_id: &str) -> Response<Bytes>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let found = Route::find(&head.method, head.uri.path());
        let admitted = self
            .throttle
            .admit(self, &head, client, found.map(|(route, _)| route.path));
        if let Err(refusal) = admitted.await {
            if let Some((route, _)) = found {
                report(&refusal, route.path, request_id);
            }
            let mut response = Problem::from(refusal).into_response(Form::Json, request_id);
            http::protect(response.headers_mut());
            return response;
        }
        let Some((route, segment)) = found else {
            return empty();
        };
        let mut call = Call::new(self, &head, (route, segment), client, request_id);
        let answered = match call.read(route, body).await {
            Ok(()) => match call.judge(route) {
                Ok(()) => self.dispatch(route.endpoint, &mut call).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let handed_out = call.into_handed_out();
        let mut response = match answered {
            Ok(answer) => answer.into_response(),
            Err(refusal) => {
                report(&refusal, route.path, request_id);
                Problem::from(refusal).into_response(Form::Json, request_id)
            }
        };
        let headers = response.headers_mut();
        http::protect(headers);
        if route.endpoint == Endpoint::Jwks {
            jwks::publish(headers);
        }
        handed_out.put_into(headers);
        response
    }

    async fn dispatch(&self, endpoint: Endpoint, call: &mut Call<'_>) -> Result<Answer, AuthError> {
        match endpoint {
            Endpoint::SignUp => sign_up::sign_up(call).await,
            Endpoint::SignIn => sign_in::sign_in(call).await,
            Endpoint::SignOut => sessions::sign_out(call).await,
            Endpoint::GetSession => sessions::get(call).await,
            Endpoint::PostSession => Err(AuthError::DeferredRefreshOff),
            Endpoint::ListSessions => sessions::list(call).await,
            Endpoint::RevokeSession => sessions::revoke(call).await,
            Endpoint::RevokeSessions => sessions::revoke_all(call, sessions::Own::Too).await,
            Endpoint::RevokeOtherSessions => sessions::revoke_all(call, sessions::Own::Stays).await,
            Endpoint::UpdateSession => account::profile::update_session(call).await,
            Endpoint::SendVerificationEmail => verify_email::send(call).await,
            Endpoint::VerifyEmail => verify_email::open(call).await,
            Endpoint::RequestPasswordReset => reset_password::request(call).await,
            Endpoint::ResetPasswordLink => reset_password::follow(call).await,
            Endpoint::ResetPassword => reset_password::reset(call).await,
            Endpoint::ChangePassword => account::change_password::change(call).await,
            Endpoint::SetPassword => account::change_password::set(call).await,
            Endpoint::VerifyPassword => account::change_password::verify(call).await,
            Endpoint::ChangeEmail => account::change_email::request(call).await,
            Endpoint::UpdateUser => account::profile::update(call).await,
            Endpoint::DeleteUser => account::delete_user::delete(call).await,
            Endpoint::DeleteUserLink => account::delete_user::follow(call).await,
            Endpoint::ListAccounts => account::ways_in::list(call).await,
            Endpoint::UnlinkAccount => account::ways_in::unlink(call).await,
            Endpoint::ListDeviceSessions => multi_session::list(call).await,
            Endpoint::SetActiveSession => multi_session::set_active(call).await,
            Endpoint::RevokeDeviceSession => multi_session::revoke(call).await,
            Endpoint::SignInSocial => oauth::start::sign_in(call, Family::Social).await,
            Endpoint::SignInOAuth2 => oauth::start::sign_in(call, Family::Generic).await,
            Endpoint::LinkSocial => oauth::start::link(call, Family::Social).await,
            Endpoint::LinkOAuth2 => oauth::start::link(call, Family::Generic).await,
            Endpoint::Callback => Ok(oauth::callback::follow(call).await),
            Endpoint::CallbackRelay => oauth::callback::relay(call, Family::Social),
            Endpoint::OAuth2CallbackRelay => oauth::callback::relay(call, Family::Generic),
            Endpoint::GetAccessToken => oauth::tokens::get_access_token(call).await,
            Endpoint::RefreshToken => oauth::tokens::refresh(call).await,
            Endpoint::AccountInfo => oauth::tokens::account_info(call).await,
            Endpoint::AccountInfoOfBody => oauth::tokens::account_info_of_body(call).await,
            Endpoint::Me => who::me(call).await,
            Endpoint::VerifyToken => who::verify_token(call).await,
            Endpoint::Jwks => Ok(jwks::get(call)),
            Endpoint::ErrorPage => Ok(error_page::show(call)),
            Endpoint::Ok => Ok(Answer::json(serde_json::json!({ "ok": true }))),
            Endpoint::OpenApi => Ok(self.documents.json(&self.config)),
            Endpoint::Reference => Ok(self.documents.page(&self.config)),
        }
    }
}

/// Causes that lie with us, in full, under the id that the client was given. Other refusals are in the access log.
fn report(refusal: &AuthError, path: &str, request_id: &str) {
    match refusal.code() {
        Code::Internal => error!(
            error = %Chain(refusal),
            request_id, path, "a request to the auth API failed"
        ),
        Code::Unavailable | Code::Busy | Code::ProviderUnavailable => warn!(
            error = %Chain(refusal),
            request_id, path, "a request to the auth API was put off"
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_listed_twice_and_each_begins_with_a_slash() {
        for (at, route) in ROUTES.iter().enumerate() {
            assert!(route.path.starts_with('/') && !route.path.ends_with('/'));
            let same = |other: &&Route| other.method == route.method && other.path == route.path;
            assert_eq!(ROUTES.iter().position(|other| same(&other)), Some(at));
        }
    }

    #[test]
    fn a_named_segment_is_exactly_one() {
        let find = |path| Route::find(&Method::GET, path).map(|(route, segment)| (route.endpoint, segment));
        assert_eq!(
            find("/reset-password/abc"),
            Some((Endpoint::ResetPasswordLink, Some("abc")))
        );
        assert_eq!(find("/delete-user/callback"), Some((Endpoint::DeleteUserLink, None)));
        assert_eq!(find("/callback/google"), Some((Endpoint::Callback, Some("google"))));
        for other in [
            "/reset-password/",
            "/reset-password",
            "/reset-password/a/b",
            "/reset-password/a/",
        ] {
            assert_eq!(find(other), None, "{other}");
        }
    }
}
