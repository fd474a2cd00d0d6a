//! Several people in one browser (contract, section 18): who is signed in here, switching between them, leaving.
//!
//! A browser has one session cookie. Once somebody signs in where another user is signed in, each of them also gets a
//! companion cookie, and the session cookie says who is acting. So a browser of one person carries no companion: there
//! it would repeat what the session cookie says, on every request. `auth.session.multi_session` has it from the first
//! sign-in on (`"always"`), as the original does, or not at all (`"off"`): then a sign-in makes the browser forget.

use http::HeaderValue;
use serde_json::{Value, json};

use super::{
    AuthError,
    complete::Remember,
    http::{Answer, Call, Current},
    openapi::{Description, Field, Group, TOKEN, Who, Work, Yes, always, list as list_of, named, object},
    sessions,
};
use crate::{
    config::MultiSession,
    db::{self, DbError, GenericClient, Transaction, audit, sessions as table, sessions::Revoked, users},
    identity::UserId,
    secret::SessionToken,
};

/// Companions in one browser; who comes after that gets none.
const MOST: usize = 5;

/// What a new session changes in the browser that it begins in.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) cookies: Vec<HeaderValue>,
    /// Earlier sessions of the same user here, which the new one replaces.
    pub(super) replaced: Vec<Revoked>,
}

crate::secret::unprinted!(Joined);

/// Makes room in the browser for a session of `user` that is about to begin with `token`.
pub(super) async fn join(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    user: UserId,
    token: &SessionToken,
    remember: Remember,
) -> Result<Joined, DbError> {
    let mut joined = Joined::default();
    let rule = call.auth.config.auth.session.multi_session;
    if rule == MultiSession::Off {
        return Ok(joined);
    }
    let cookies = &call.auth.cookies;
    let Device { here, gone } = of_device(call, tx).await?;
    joined
        .cookies
        .extend(gone.iter().map(|token| cookies.clear_device(token)));
    let (same, others): (Vec<_>, Vec<_>) = here.iter().partition(|here| here.current.user.id == user);
    let earlier = same.into_iter().filter(|here| here.is_companion);
    let earlier: Vec<_> = earlier.map(|here| &here.current.token).collect();
    joined
        .cookies
        .extend(earlier.iter().map(|token| cookies.clear_device(token)));
    let hashes: Vec<_> = earlier.iter().map(|token| token.hash()).collect();
    joined.replaced = table::revoke_tokens(tx, &hashes, Some(user), call.now).await?;
    if others.is_empty() && rule == MultiSession::WhenShared {
        return Ok(joined);
    }
    let room = MOST.saturating_sub(others.iter().filter(|here| here.is_companion).count());
    let without = others.into_iter().filter(|here| !here.is_companion);
    let without = without.map(|here| companion(call, &here.current.token, here.current.remember()));
    let own = companion(call, token, remember);
    joined.cookies.extend(without.chain([own]).take(room));
    Ok(joined)
}

fn companion(call: &Call<'_>, token: &SessionToken, remember: Remember) -> HeaderValue {
    let expires_in = call.auth.config.auth.session.expires_in;
    let max_age = (remember == Remember::Yes).then_some(expires_in);
    call.auth.cookies.set_device(token, max_age)
}

/// A live session whose cookie the browser sent.
struct Here {
    current: Current,
    /// Whether it is in a companion cookie, rather than in the session cookie alone.
    is_companion: bool,
}

/// What the cookies of a browser come to.
struct Device {
    /// The live sessions, the one of the session cookie first.
    here: Vec<Here>,
    /// Companions of sessions that ended elsewhere.
    gone: Vec<SessionToken>,
}

async fn of_device(call: &Call<'_>, client: &impl GenericClient) -> Result<Device, DbError> {
    let cookies = &call.auth.cookies;
    let companions = cookies.device_tokens(call.headers);
    let active = cookies.session_token(call.headers);
    let active = active.filter(|active| !companions.iter().any(|token| token.is(active.as_str())));
    let mut device = Device {
        here: Vec::new(),
        gone: Vec::new(),
    };
    // Prepared for it, a browser keeps nobody who has no companion: so it is with the original.
    let active = active.filter(|_| call.auth.config.auth.session.multi_session != MultiSession::Always);
    let tokens = active.map(|token| (token, false)).into_iter();
    for (token, is_companion) in tokens.chain(companions.into_iter().map(|token| (token, true))) {
        if let Some((session, user)) = table::find_with_user(client, &token.hash(), call.now).await? {
            let current = Current { session, user, token };
            device.here.push(Here { current, is_companion });
        } else if is_companion {
            device.gone.push(token);
        }
    }
    Ok(device)
}

/// GET /multi-session/list-device-sessions: `{session, user}` of each person who is signed in here.
pub(super) async fn list(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut listed: Vec<UserId> = Vec::new();
    let mut people = Vec::new();
    for here in available(call).await? {
        if !listed.contains(&here.current.user.id) {
            listed.push(here.current.user.id);
            people.push(sessions::whole(&here.current));
        }
    }
    Ok(Answer::json(Value::Array(people)))
}

/// POST /multi-session/set-active: somebody else who is signed in here goes on.
pub(super) async fn set_active(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let wanted = read_token(call)?;
    let here = available(call).await?;
    let here = here.into_iter().find(|here| here.current.token.is(&wanted));
    let current = here.ok_or(AuthError::InvalidSessionToken)?.current;
    let switched = current.did(audit::Action::SwitchUser);
    call.audit(&call.auth.db.client().await?, &switched).await?;
    activate(call, &current);
    Ok(Answer::json(sessions::whole(&current)))
}

/// POST /multi-session/revoke: ends a session of this browser. If it was the active one, another takes its place.
pub(super) async fn revoke(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let wanted = read_token(call)?;
    let active = call.demand_session().await?;
    let (meant, others): (Vec<_>, Vec<_>) = available(call)
        .await?
        .into_iter()
        .partition(|here| here.current.token.is(&wanted));
    let current = meant.into_iter().next().ok_or(AuthError::InvalidSessionToken)?.current;
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    // As whoever ends sessions.
    users::lock(&tx, current.user.id).await?;
    let revoked = table::revoke(&tx, current.session.id, current.user.id, call.now).await?;
    sessions::detach(&tx, revoked.as_slice()).await?;
    sessions::note(call, &tx, revoked.as_slice(), "device").await?;
    db::commit(tx).await?;
    // It has ended, be it that somebody else was first.
    call.auth.sessions.end(&current.token.hash());
    call.clear_device_cookie(&current.token);
    if current.session.id == active.session.id {
        match others.into_iter().next() {
            Some(next) => activate(call, &next.current),
            None => call.clear_session_cookies(),
        }
    }
    Ok(Answer::json(json!({ "status": true })))
}

fn read_token(call: &mut Call<'_>) -> Result<String, AuthError> {
    let mut check = call.body.check();
    let token = check.text("sessionToken");
    check.done()?;
    check_on(call)?;
    Ok(token)
}

fn check_on(call: &Call<'_>) -> Result<(), AuthError> {
    match call.auth.config.auth.session.multi_session {
        MultiSession::Off => Err(AuthError::SwitchedOff),
        MultiSession::WhenShared | MultiSession::Always => Ok(()),
    }
}

async fn available(call: &Call<'_>) -> Result<Vec<Here>, AuthError> {
    check_on(call)?;
    Ok(of_device(call, &call.auth.db.client().await?).await?.here)
}

fn activate(call: &mut Call<'_>, current: &Current) {
    let remember = current.remember();
    call.hand_out(&current.token, remember);
    call.mark_remembered(remember);
}

pub(super) fn describe_list() -> Description {
    Description::of(
        Group::People,
        "Who is signed in in this browser",
        "Each with the session that they have here, the active one first. Told by the cookies alone.",
    )
    .who(Who::WithOrWithoutSession)
    .work(Work::Database)
    .answers([Yes::json("The people.", list_of(named("SessionAndUser")))])
    .refuses([AuthError::SwitchedOff])
}

pub(super) fn describe_set_active() -> Description {
    Description::of(
        Group::People,
        "Go on as somebody else who is signed in in this browser",
        "",
    )
    .who(Who::WithOrWithoutSession)
    .work(Work::Database)
    .body([Field::text("sessionToken", TOKEN).required()])
    .answers([Yes::json("The session and its user, who is active now.", named("SessionAndUser")).hands_out_session()])
    .refuses([AuthError::InvalidSessionToken, AuthError::SwitchedOff])
}

pub(super) fn describe_revoke() -> Description {
    Description::of(
        Group::People,
        "End a session of this browser",
        "If it was the active one, somebody else who is signed in here becomes active.",
    )
    .who(Who::WithSession)
    .work(Work::Database)
    .body([Field::text("sessionToken", TOKEN).required()])
    .answers([Yes::json("It has ended.", object([("status", always(true).into())])).hands_out_session()])
    .refuses([AuthError::InvalidSessionToken, AuthError::SwitchedOff])
}
