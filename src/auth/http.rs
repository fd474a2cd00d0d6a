//! One request to the auth API as its behaviours see it, and how their answers are written.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Auth, AuthError, Route, complete::Remember, error::Target, input::Fields};
use crate::{
    clock::Timestamp,
    db::{
        self, DbError, Transaction, audit,
        sessions::StoredSession,
        users::{self, User},
    },
    identity,
    policy::{client::ClientFacts, origin::SameOrigin},
    problem::PAGE_POLICY,
    secret::{SessionToken, wipe_bytes},
    session::credential::{Credential, Kind},
};

/// A body of the auth API is a handful of short fields.
const MAX_BODY: usize = 64 * 1024;

/// Bytes of a `User-Agent` that are kept: those of browsers have some 150.
const MAX_USER_AGENT: usize = 512;

/// A request in progress.
pub(super) struct Call<'a> {
    pub(super) auth: &'a Auth,
    pub(super) headers: &'a HeaderMap,
    pub(super) request_id: &'a str,
    /// Read once: the whole request happens at one time.
    pub(super) now: Timestamp,
    /// The route's, as logs name it.
    pub(super) path: &'static str,
    /// What stands for the `:name` in it.
    pub(super) segment: &'a str,
    pub(super) query: Fields,
    pub(super) body: Fields,
    pub(super) ip_address: IpAddr,
    pub(super) user_agent: String,
    /// What the word of a page of the host that is asked is worth.
    same_origin: SameOrigin,
    method: &'a Method,
    handed_out: HandedOut,
}

/// What the answer hands out besides its body, whether it says yes or no.
#[derive(Default)]
pub(super) struct HandedOut {
    cookies: Vec<HeaderValue>,
    /// The session token for clients that keep no cookies (section 12).
    bearer: Option<HeaderValue>,
}

crate::secret::unprinted!(HandedOut);

const SET_AUTH_TOKEN: HeaderName = HeaderName::from_static("set-auth-token");

impl HandedOut {
    pub(super) fn put_into(self, headers: &mut HeaderMap) {
        for cookie in self.cookies {
            headers.append(header::SET_COOKIE, cookie);
        }
        if let Some(token) = self.bearer {
            headers.insert(SET_AUTH_TOKEN, token);
            headers.append(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("set-auth-token"),
            );
        }
    }
}

/// Who asks.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) session: StoredSession,
    pub(super) user: User,
    pub(super) token: SessionToken,
}

impl Current {
    pub(super) const fn remember(&self) -> Remember {
        if self.session.remembered {
            Remember::Yes
        } else {
            Remember::No
        }
    }

    /// Locks the user, who is as they are now, if the session still lives: since it was found, somebody may have ended it.
    ///
    /// Whoever ends all sessions of a user, or bans them, locks the user as well. So what is done in `tx` was done before that was
    /// acknowledged, or isn't done at all: nobody who was signed out leaves anything behind by which they come back.
    pub(super) async fn hold(&self, tx: &Transaction<'_>, now: Timestamp) -> Result<User, AuthError> {
        let user = users::lock(tx, self.user.id).await?;
        let user = user
            .filter(|user| !user.is_banned(now))
            .ok_or(AuthError::Unauthorized)?;
        if !db::sessions::is_live(tx, self.session.id, user.id, now).await? {
            return Err(AuthError::Unauthorized);
        }
        Ok(user)
    }

    /// For the audit log: the user did this to themselves, in this session.
    pub(super) const fn did(&self, action: audit::Action) -> audit::Entry<'static> {
        audit::Entry {
            session: Some(self.session.id),
            ..audit::Entry::done(action, self.user.id)
        }
    }

    /// They tried to, and were refused.
    pub(super) fn tried<'a>(&self, action: audit::Action, reason: &'a str) -> audit::Entry<'a> {
        audit::Entry {
            session: Some(self.session.id),
            ..audit::Entry::refused_to(self.user.id, action, reason)
        }
    }
}

/// Whether this use may slide a session's expiry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refresh {
    Slide,
    Leave,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        auth: &'a Auth,
        head: &'a request::Parts,
        (route, segment): (&'static Route, Option<&'a str>),
        client: &ClientFacts,
        request_id: &'a str,
    ) -> Self {
        let user_agent = head.headers.get(header::USER_AGENT);
        Self {
            now: auth.clock.now(),
            path: route.path,
            segment: segment.unwrap_or_default(),
            query: Fields::of_query(head.uri.query()),
            body: Fields::no_body(),
            ip_address: client.addr,
            same_origin: auth.origins.same_origin_at(client.host.name()),
            user_agent: user_agent.map(clipped).unwrap_or_default(),
            method: &head.method,
            headers: &head.headers,
            handed_out: HandedOut::default(),
            auth,
            request_id,
        }
    }

    /// Reads the body, if the endpoint has one.
    pub(super) async fn read<B>(&mut self, route: &Route, body: B) -> Result<(), AuthError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if route.method != Method::POST {
            return Ok(());
        }
        // What says beforehand that it is too large is not waited for.
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(AuthError::BodyTooLarge);
        }
        // So short a body has come, as a whole, in the time that others have for each part.
        let reading = Limited::new(body, MAX_BODY).collect();
        let body = match timeout(self.auth.config.server.body_timeout, reading).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(AuthError::BodyTooLarge),
            Ok(Err(_)) => return Err(AuthError::BadBody),
            Err(_) => return Err(AuthError::BodyTimeout),
        };
        let fields = Fields::of_body(self.headers, &body, route.accepts);
        wipe_bytes(body);
        self.body = fields?;
        Ok(())
    }

    /// Origin and redirect targets (section 4), before anything is validated.
    pub(super) fn judge(&self, route: &Route) -> Result<(), AuthError> {
        if route.is_relay {
            return Ok(());
        }
        let origins = &self.auth.origins;
        origins.auth_api_check(self.method, self.headers, route.without_cookie, self.same_origin)?;
        for (target, fields) in self.targets(route) {
            match fields.get(target.field()) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text.is_empty() || origins.allows_redirect(text) => {}
                Some(Value::String(_)) => return Err(AuthError::ForeignTarget(target)),
                // In a query that is a name which repeats: for whoever validates.
                Some(_) if self.method == Method::GET => {}
                Some(_) => return Err(AuthError::TargetNotText(target)),
            }
        }
        Ok(())
    }

    /// The redirect targets that a request may name, and where: everywhere in one that posts, else where links lead.
    fn targets(&self, route: &Route) -> Vec<(Target, &Fields)> {
        if self.method == Method::POST {
            let both = |target| [(target, &self.body), (target, &self.query)];
            return Target::ALL.into_iter().flat_map(both).collect();
        }
        // Without its token a link is no link, and that is what there is to say.
        let is_link =
            route.is_link && (!self.segment.is_empty() || self.query.get("token").is_some_and(Value::is_string));
        if is_link {
            vec![(Target::Callback, &self.query)]
        } else {
            Vec::new()
        }
    }

    pub(super) fn set_cookie(&mut self, cookie: HeaderValue) {
        self.handed_out.cookies.push(cookie);
    }

    /// Hands the client a session's token: as a cookie, and as a header for those that keep none.
    pub(super) fn hand_out(&mut self, token: &SessionToken, remember: Remember) {
        let cookies = &self.auth.cookies;
        let max_age = match remember {
            Remember::Yes => Some(self.auth.config.auth.session.expires_in),
            Remember::No => None,
        };
        // Before the new one: to clients that tell cookies of a host and of a domain of the same name not apart (RFC 6265, section
        // 5.3, step 11) it is one cookie, and the last word counts.
        if let Some(host_only) = cookies.clear_host_only(self.headers) {
            self.set_cookie(host_only);
        }
        self.set_cookie(cookies.set(token, max_age));
        self.handed_out.bearer = Some(cookies.bearer_value(token));
    }

    /// Leaves or takes away the mark of a session that is not remembered. Left by an earlier session, it would keep one
    /// that is from being extended.
    pub(super) fn mark_remembered(&mut self, remember: Remember) {
        let cookies = &self.auth.cookies;
        match remember {
            Remember::Yes if cookies.dont_remember(self.headers) => {
                self.handed_out.cookies.extend(cookies.clear_dont_remember());
            }
            Remember::Yes => {}
            Remember::No => self.set_cookie(cookies.set_dont_remember()),
        }
    }

    /// Takes the companion cookie of a session that ended back, if the browser has one.
    pub(super) fn clear_device_cookie(&mut self, token: &SessionToken) {
        let cookies = &self.auth.cookies;
        let companions = cookies.device_tokens(self.headers);
        if companions.iter().any(|other| other.is(token.as_str())) {
            self.set_cookie(cookies.clear_device(token));
        }
    }

    pub(super) fn into_handed_out(self) -> HandedOut {
        self.handed_out
    }

    /// The session behind the request, if there is one: read from Postgres, so that it is whole and true.
    ///
    /// Sets the cookie again when the expiry slides, and takes the cookies of a dead session back (section 6).
    pub(super) async fn session(&mut self, refresh: Refresh) -> Result<Option<Current>, AuthError> {
        let found = self.auth.cookies.find(self.headers);
        if found.is_empty() {
            return Ok(None);
        }
        let client = self.auth.db.client().await?;
        let mut dead_cookie = false;
        for credential in found.candidates() {
            let (sessions, hash) = (&self.auth.sessions, &credential.hash);
            let unproven = found.is_unproven(credential.kind);
            if unproven {
                sessions.may_be_anybodys(hash, self.ip_address, self.now)?;
            }
            let live = db::sessions::find_with_user(&client, hash, self.now).await?;
            if unproven {
                sessions.turned_out(hash, live.is_some(), self.ip_address, self.now);
            }
            let token = self.auth.cookies.token(self.headers, credential.kind);
            let Some(((mut session, user), token)) = live.zip(token) else {
                dead_cookie |= credential.kind == Kind::Cookie;
                continue;
            };
            if refresh == Refresh::Slide && !self.query.is_set("disableRefresh") {
                self.slide(&client, credential, &mut session, &token).await?;
            }
            return Ok(Some(Current { session, user, token }));
        }
        if dead_cookie {
            self.clear_session_cookies();
        }
        Ok(None)
    }

    pub(super) async fn demand_session(&mut self) -> Result<Current, AuthError> {
        self.session(Refresh::Slide).await?.ok_or(AuthError::Unauthorized)
    }

    /// A session whose user signed in lately.
    pub(super) async fn demand_fresh_session(&mut self) -> Result<Current, AuthError> {
        let current = self.demand_session().await?;
        if self.is_fresh(&current.session) {
            Ok(current)
        } else {
            Err(AuthError::NotFresh)
        }
    }

    pub(super) fn is_fresh(&self, session: &StoredSession) -> bool {
        let fresh_for = self.auth.config.auth.session.fresh_for;
        fresh_for.is_zero() || self.now.since(session.created_at) < fresh_for
    }

    pub(super) fn clear_session_cookies(&mut self) {
        self.handed_out.cookies.extend(self.auth.cookies.clear());
    }

    /// Extends a session that was used late enough in its life.
    async fn slide(
        &mut self,
        client: &db::Client,
        credential: Credential,
        session: &mut StoredSession,
        token: &SessionToken,
    ) -> Result<(), DbError> {
        let cookies = &self.auth.cookies;
        let rules = &self.auth.config.auth.session;
        let due_at = session.expires_at.minus(rules.expires_in).plus(rules.refresh_after);
        let last_moments = rules.last_moments();
        let is_due = due_at <= self.now && self.now.plus(last_moments) < session.expires_at;
        if !session.remembered || !is_due || cookies.dont_remember(self.headers) {
            return Ok(());
        }
        let expires_at = self.now.plus(rules.expires_in);
        db::sessions::extend(client, &credential.hash, expires_at, last_moments, self.now).await?;
        // What is cached knows the old expiry.
        self.auth.sessions.forget(&credential.hash);
        session.expires_at = expires_at;
        session.updated_at = self.now;
        self.hand_out(token, Remember::Yes);
        Ok(())
    }

    /// A new id, in order of time.
    pub(super) fn new_id(&self) -> Uuid {
        identity::new_id(self.now)
    }

    /// Notes an event, in the transaction of the change that it records if `client` is one.
    pub(super) async fn audit(&self, client: &impl db::GenericClient, entry: &audit::Entry<'_>) -> Result<(), DbError> {
        audit::insert(client, self.new_id(), entry, self.origin(), self.now).await
    }

    /// Where this request comes from, for the audit log.
    pub(super) fn origin(&self) -> audit::Origin<'_> {
        audit::Origin {
            ip_address: Some(self.ip_address),
            user_agent: &self.user_agent,
            request_id: self.request_id,
        }
    }
}

fn clipped(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(bytes.get(..MAX_USER_AGENT).unwrap_or(bytes)).into_owned()
}

/// An answer that says yes.
pub(super) struct Answer {
    status: StatusCode,
    body: Content,
    location: Option<String>,
}

crate::secret::unprinted!(Answer);

enum Content {
    Nothing,
    Json(Value),
    /// A page that needs nothing but itself.
    Html(String),
    /// Made once, and always the same.
    Ready(Bytes, &'static str),
}

crate::secret::unprinted!(Content);

impl Answer {
    pub(super) const fn json(body: Value) -> Self {
        Self {
            status: StatusCode::OK,
            body: Content::Json(body),
            location: None,
        }
    }

    pub(super) const fn html(page: String) -> Self {
        Self {
            status: StatusCode::OK,
            body: Content::Html(page),
            location: None,
        }
    }

    pub(super) const fn ready(body: Bytes, content_type: &'static str) -> Self {
        Self {
            status: StatusCode::OK,
            body: Content::Ready(body, content_type),
            location: None,
        }
    }

    /// To a target that has been judged.
    pub(super) const fn redirect(target: String) -> Self {
        Self {
            status: StatusCode::FOUND,
            body: Content::Nothing,
            location: Some(target),
        }
    }

    /// Names a place to go to, without sending the browser there.
    pub(super) fn with_location(mut self, target: String) -> Self {
        self.location = Some(target);
        self
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let (body, content_type) = match self.body {
            Content::Nothing => (Bytes::new(), None),
            Content::Json(value) => (value.to_string().into(), Some("application/json")),
            Content::Html(page) => (page.into(), Some("text/html; charset=utf-8")),
            Content::Ready(body, content_type) => (body, Some(content_type)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
        }
        if let Some(target) = self.location {
            // What a header can't hold is encoded; the rest is echoed as it came.
            let target = utf8_percent_encode(&target, UNFIT).to_string();
            if let Ok(target) = HeaderValue::try_from(target) {
                headers.insert(header::LOCATION, target);
            }
        }
        response
    }
}

/// What the contract answers to what is not in it.
pub(super) fn empty() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NOT_FOUND;
    protect(response.headers_mut());
    response
}

/// Answers here are one person's, for now: not to be kept, guessed at, or named to other sites by their URL.
pub(super) fn protect(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// What a URL in a header can't hold as it is.
const UNFIT: &AsciiSet = &CONTROLS.add(b' ');

/// As JavaScript's `encodeURIComponent` leaves it.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// `text` as the value of a query parameter.
pub(super) fn component(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, COMPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_written_whole() {
        let answer = Answer::json(Value::Null)
            .with_location("/wé?x=1".to_owned())
            .into_response();
        assert_eq!(
            (answer.status(), answer.body().as_ref()),
            (StatusCode::OK, &b"null"[..])
        );
        assert_eq!(answer.headers()["location"], "/w%C3%A9?x=1");
        assert_eq!(answer.headers()["content-type"], "application/json");
        let redirect = Answer::redirect("/w".to_owned()).into_response();
        assert_eq!(redirect.status(), StatusCode::FOUND);
        assert!(redirect.body().is_empty() && !redirect.headers().contains_key("content-type"));
    }

    #[test]
    fn targets_are_encoded_as_javascript_does() {
        assert_eq!(component("/w?a=1&b=ü").to_string(), "%2Fw%3Fa%3D1%26b%3D%C3%BC");
    }

    #[test]
    fn a_long_user_agent_is_clipped_and_an_odd_one_read() {
        assert_eq!(clipped(&HeaderValue::from_str(&"a".repeat(5000)).unwrap()).len(), 512);
        assert_eq!(clipped(&HeaderValue::from_bytes(b"x\xff").unwrap()), "x\u{fffd}");
    }
}
