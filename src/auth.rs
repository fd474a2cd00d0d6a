//! The auth API: every route on one page, the one way to a session, and what each error tells the client.
//!
//! It is wire-compatible with the better-auth contract; section numbers in comments are that contract's. A request is
//! judged in the contract's order: route, body, origin and redirect targets, fields, session; then its behaviour runs,
//! which is a file of its own below `auth/`.
//!
//! Whoever calls [`Auth::answer`] runs it to its end, detached from the connection: a client that goes away must not
//! leave a change half done (between a commit and forgetting the session it revoked, say).

mod complete;
pub mod email;
mod error;
mod http;
mod input;
mod objects;
pub mod password;
mod sessions;
mod sign_in;
mod sign_up;
pub mod sweeper;
mod verify_email;
mod who;

use std::sync::Arc;

use ::http::{Method, Request, Response, header};
use bytes::Bytes;
use http_body::Body;
use tracing::{error, warn};

pub use self::{error::AuthError, sign_up::FIRST_ROLE};
use self::{
    http::{Answer, Call, empty},
    input::Accepts,
    password::Passwords,
};
use crate::{
    chain::Chain,
    clock::Clock,
    config::Config,
    db::Db,
    mail::OutboxBell,
    policy::{client::ClientFacts, origin::TrustedOrigins},
    problem::{Code, Form, Problem},
    session::Sessions,
};

/// One endpoint of the API.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// Below `auth.base_path`.
    pub path: &'static str,
    endpoint: Endpoint,
    accepts: Accepts,
    /// Signing somebody in needs no cookie to do harm, so origins are judged more strictly (section 4).
    is_login: bool,
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
    SendVerificationEmail,
    VerifyEmail,
    Me,
    VerifyToken,
    Ok,
}

/// The API. Anything else, another method included, is a 404 with an empty body (section 1).
pub static ROUTES: [Route; 15] = [
    login("/sign-up/email", Endpoint::SignUp),
    login("/sign-in/email", Endpoint::SignIn),
    post("/sign-out", Endpoint::SignOut),
    get("/get-session", Endpoint::GetSession),
    post("/get-session", Endpoint::PostSession),
    get("/list-sessions", Endpoint::ListSessions),
    post("/revoke-session", Endpoint::RevokeSession),
    post("/revoke-sessions", Endpoint::RevokeSessions),
    post("/revoke-other-sessions", Endpoint::RevokeOtherSessions),
    post("/send-verification-email", Endpoint::SendVerificationEmail),
    get("/verify-email", Endpoint::VerifyEmail),
    get("/me", Endpoint::Me),
    get("/verify-token", Endpoint::VerifyToken),
    post("/verify-token", Endpoint::VerifyToken),
    get("/ok", Endpoint::Ok),
];

const fn get(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::GET,
        path,
        endpoint,
        accepts: Accepts::Json,
        is_login: false,
    }
}

const fn post(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::POST,
        path,
        endpoint,
        accepts: Accepts::Json,
        is_login: false,
    }
}

/// Signs somebody in, and is what a form may be sent to.
const fn login(path: &'static str, endpoint: Endpoint) -> Route {
    Route {
        method: Method::POST,
        path,
        endpoint,
        accepts: Accepts::JsonAndForm,
        is_login: true,
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

/// What the behaviours share.
#[derive(Debug)]
pub struct Auth {
    db: Db,
    sessions: Arc<Sessions>,
    clock: Clock,
    config: Arc<Config>,
    outbox: OutboxBell,
    passwords: Passwords,
    origins: TrustedOrigins,
    /// What links in mails begin with: `public_url` and the base path, whatever `Host` a request named.
    base_url: String,
}

impl Auth {
    /// Starts the threads that hash passwords.
    pub fn new(parts: AuthParts) -> Result<Self, password::StartError> {
        let AuthParts {
            db,
            sessions,
            clock,
            config,
            outbox,
        } = parts;
        let public_url = &config.server.public_url;
        Ok(Self {
            passwords: Passwords::start(&config.auth.password)?,
            origins: TrustedOrigins::new(public_url, &config.auth.trusted_origins),
            base_url: format!("{public_url}{}", config.auth.base_path),
            db,
            sessions,
            clock,
            config,
            outbox,
        })
    }

    /// Password hashes that wait for a thread, for metrics.
    pub fn hashes_waiting(&self) -> u64 {
        self.passwords.waiting()
    }

    /// Answers a request whose path is normal and below the base path, which has been taken off.
    pub async fn answer<B>(&self, request: Request<B>, client: &ClientFacts, request_id: &str) -> Response<Bytes>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let route = ROUTES
            .iter()
            .find(|route| route.method == head.method && route.path == head.uri.path());
        let Some(route) = route else {
            return empty();
        };
        let mut call = Call::new(self, &head, client, request_id);
        let answered = match call.read(route, body).await {
            Ok(()) => match call.judge(route) {
                Ok(()) => self.dispatch(route.endpoint, &mut call).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let cookies = call.into_cookies();
        let mut response = match answered {
            Ok(answer) => answer.into_response(),
            Err(refusal) => {
                report(&refusal, route, request_id);
                Problem::from(refusal).into_response(Form::Json, request_id)
            }
        };
        let headers = response.headers_mut();
        http::protect(headers);
        for cookie in cookies {
            headers.append(header::SET_COOKIE, cookie);
        }
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
            Endpoint::SendVerificationEmail => verify_email::send(call).await,
            Endpoint::VerifyEmail => verify_email::verify(call).await,
            Endpoint::Me => who::me(call).await,
            Endpoint::VerifyToken => who::verify_token(call).await,
            Endpoint::Ok => Ok(Answer::json(serde_json::json!({ "ok": true }))),
        }
    }
}

/// Causes that lie with us, in full, under the id that the client was given. Other refusals are in the access log.
fn report(refusal: &AuthError, route: &Route, request_id: &str) {
    let path = route.path;
    match refusal.code() {
        Code::Internal => error!(
            error = %Chain(refusal),
            request_id, path, "a request to the auth API failed"
        ),
        Code::Unavailable | Code::Busy => warn!(
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
}
