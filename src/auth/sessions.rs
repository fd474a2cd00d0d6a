//! The caller's sessions: the current one, all of them, and ending them.
//!
//! A revocation is committed, then forgotten here, then answered: no request that begins after the answer passes.
//! Other gateways hear of it from the trigger. What was asked for is forgotten, and not only what was found alive: a
//! session that ended elsewhere a moment ago may be cached here still.

use serde_json::{Value, json};

use super::{
    AuthError,
    http::{Answer, Call, Current, Refresh},
    objects::{self, IsCurrent},
    openapi::{Description, Field, Group, Who, Work, Yes, always, list as list_of, named, object, or_null},
};
use crate::{
    db::{self, DbError, audit, one_time_tokens, sessions as table, sessions::Revoked},
    identity::{SessionId, UserId},
    secret::SessionToken,
};

/// GET /get-session: `null` without a session, since the client takes a 401 for being signed out elsewhere.
pub(super) async fn get(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let refresh = if call.query.is_set("disableRefresh") {
        Refresh::Leave
    } else {
        Refresh::Slide
    };
    let current = call.session(refresh).await?;
    Ok(Answer::json(current.as_ref().map_or(Value::Null, whole)))
}

/// `{session, user}`
pub(super) fn whole(current: &Current) -> Value {
    json!({
        "session": objects::session(&current.session, current.token.as_str()),
        "user": objects::user(&current.user),
    })
}

/// GET /list-sessions: the live ones of the caller. Tokens of others are known to nobody here: their ids stand in.
pub(super) async fn list(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let current = call.demand_fresh_session().await?;
    let client = call.auth.db.client().await?;
    let sessions = table::live_of(&client, current.user.id, call.now).await?;
    let sessions = sessions.iter().map(|session| {
        if session.id == current.session.id {
            objects::listed(session, current.token.as_str(), IsCurrent::Yes)
        } else {
            objects::listed(session, &session.id.to_string(), IsCurrent::No)
        }
    });
    Ok(Answer::json(sessions.collect()))
}

/// POST /revoke-session: by token, or by the handle from `list`. Somebody else's is left alone, without a word.
pub(super) async fn revoke(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let token = check.text("token");
    check.done()?;
    let current = call.demand_session().await?;
    let user = current.user.id;
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    // As in `revoke_all`.
    current.hold(&tx, call.now).await?;
    let (handle, token) = (token.parse::<SessionId>().ok(), SessionToken::parse(&token));
    let hash = token.map(|token| token.hash()).filter(|_| handle.is_none());
    let revoked = match (handle, hash) {
        (Some(handle), _) => table::revoke(&tx, handle, user, call.now).await?,
        (None, Some(hash)) => table::revoke_token(&tx, &hash, Some(user), call.now).await?,
        (None, None) => None,
    };
    note(call, &tx, revoked.as_slice(), "one").await?;
    db::commit(tx).await?;
    match (revoked, handle, hash) {
        (Some(_), _, _) => forget(call, revoked.as_slice()),
        // Over, or somebody else's, whose streams are looked after before they end.
        (None, None, Some(hash)) => call.auth.sessions.forget(&hash),
        // Which token it had is not known any more.
        (None, Some(_), _) => call.auth.sessions.forget_user(user),
        (None, None, None) => {}
    }
    Ok(done())
}

/// Whether ending a user's sessions includes the one that asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Own {
    Too,
    Stays,
}

/// POST /revoke-sessions and /revoke-other-sessions
pub(super) async fn revoke_all(call: &mut Call<'_>, own: Own) -> Result<Answer, AuthError> {
    let current = call.demand_session().await?;
    let (except, kind) = match own {
        Own::Too => (None, "all"),
        Own::Stays => (Some(current.session.id), "others"),
    };
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    // Who acts in one of them does so, too, and has done it or will find it ended.
    current.hold(&tx, call.now).await?;
    let revoked = table::revoke_all(&tx, current.user.id, except, call.now).await?;
    note(call, &tx, &revoked, kind).await?;
    db::commit(tx).await?;
    forget_all_of(call, current.user.id, &revoked);
    Ok(done())
}

/// POST /sign-out: whoever holds a token may end its session, be the user banned or gone; and it is no mistake to have
/// none. Where several people are signed in in one browser, all of them leave (section 18).
pub(super) async fn sign_out(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let cookies = &call.auth.cookies;
    let companions = cookies.device_tokens(call.headers);
    // All that the request carries: a cookie that is cleared while its session lives on would look like an end. Several of one
    // name are nobody's otherwise, and end all the same.
    let mut hashes = cookies.all_sessions(call.headers);
    hashes.extend(companions.iter().map(SessionToken::hash));
    if !hashes.is_empty() {
        let mut client = call.auth.db.client().await?;
        let tx = db::begin(&mut client).await?;
        table::lock_owners(&tx, &hashes).await?;
        let revoked = table::revoke_tokens(&tx, &hashes, None, call.now).await?;
        // Whoever asked for a change of address and leaves may still open its links.
        detach(&tx, &revoked).await?;
        for ended in &revoked {
            let entry = audit::Entry {
                session: Some(ended.id),
                ..audit::Entry::done(audit::Action::SignOut, ended.user_id)
            };
            call.audit(&tx, &entry).await?;
        }
        db::commit(tx).await?;
        // None of them is alive any more, whoever ended it.
        for hash in &hashes {
            call.auth.sessions.end(hash);
        }
    }
    call.clear_session_cookies();
    for companion in &companions {
        call.set_cookie(cookies.clear_device(companion));
    }
    Ok(Answer::json(json!({ "success": true })))
}

/// Leaves what was begun in sessions that their own user ends. The user must be locked.
pub(super) async fn detach(tx: &db::Transaction<'_>, revoked: &[Revoked]) -> Result<(), DbError> {
    if revoked.is_empty() {
        return Ok(());
    }
    let users: Vec<_> = revoked.iter().map(|ended| ended.user_id).collect();
    let ids: Vec<_> = revoked.iter().map(|ended| ended.id).collect();
    one_time_tokens::detach(tx, &users, &ids).await
}

/// Writes the ends of sessions into the audit log, with why they ended.
pub(super) async fn note(
    call: &Call<'_>,
    tx: &db::Transaction<'_>,
    revoked: &[Revoked],
    kind: &str,
) -> Result<(), DbError> {
    let ends: Vec<_> = revoked
        .iter()
        .map(|ended| audit::End {
            id: call.new_id(),
            user: ended.user_id,
            session: ended.id,
        })
        .collect();
    audit::insert_ends(tx, &ends, kind, call.origin(), call.now).await
}

/// For after the commit that ended them: no request that begins later passes here.
pub(super) fn forget(call: &Call<'_>, revoked: &[Revoked]) {
    for ended in revoked {
        call.auth.sessions.end(&ended.token_hash);
    }
}

/// As [`forget`], where a user's sessions were to end whichever there are: others have ended before, maybe unheard. Whichever
/// goes on is looked up again.
pub(super) fn forget_all_of(call: &Call<'_>, user: UserId, revoked: &[Revoked]) {
    forget(call, revoked);
    call.auth.sessions.forget_user(user);
}

fn done() -> Answer {
    Answer::json(json!({ "status": true }))
}

pub(super) fn describe_get() -> Description {
    Description::of(
        Group::Sessions,
        "The session and its user",
        "Without a session the answer is `null`, with status 200.",
    )
    .who(Who::WithOrWithoutSession)
    .work(Work::Database)
    .query([
        Field::anything("disableRefresh")
            .says("Set, by any value but the empty one, this use does not extend the session."),
        Field::anything("disableCookieCache").says("Changes nothing: sessions are always read from the database here."),
    ])
    .answers([Yes::json(
        "The session and its user, or null.",
        or_null(named("SessionAndUser")),
    )])
}

pub(super) fn describe_post() -> Description {
    Description::of(
        Group::Sessions,
        "Not in use",
        "Clients call it only where a server defers refreshing sessions, which this one does not.",
    )
    .refuses([AuthError::DeferredRefreshOff])
}

pub(super) fn describe_list() -> Description {
    Description::of(
        Group::Sessions,
        "The user's sessions",
        "Those that are alive. `token` is the session's own for the current one; for each other it is a handle, with \
         which `revoke-session` ends that session and nothing else can be done.",
    )
    .who(Who::WithFreshSession)
    .work(Work::Database)
    .answers([Yes::json("The sessions.", list_of(named("ListedSession")))])
}

pub(super) fn describe_revoke() -> Description {
    Description::of(
        Group::Sessions,
        "End one of the user's sessions",
        "By its token, or by the handle that `list-sessions` gives. The answer is the same whether there was such a \
         session; somebody else's is left alone.",
    )
    .who(Who::WithSession)
    .work(Work::Database)
    .body([Field::text("token", "0199f3a2-7c41-7d0a-9b1e-6f1f0c2d3e4f").required()])
    .answers([done_shape("No request that begins from now on passes with it.")])
}

pub(super) fn describe_revoke_all(own: Own) -> Description {
    let summary = match own {
        Own::Too => "End all sessions of the user, this one too",
        Own::Stays => "End all other sessions of the user",
    };
    Description::of(Group::Sessions, summary, "")
        .who(Who::WithSession)
        .work(Work::Database)
        .answers([done_shape("No request that begins from now on passes with them.")])
}

pub(super) fn describe_sign_out() -> Description {
    Description::of(
        Group::SigningIn,
        "Sign out",
        "Ends the session, and those of other people in this browser. Without a session it has nothing to do, and says \
         the same.",
    )
    .who(Who::WithOrWithoutSession)
    .work(Work::Database)
    .answers([Yes::json("Signed out.", object([("success", always(true).into())]))
        .header("Set-Cookie", "Takes the cookies back.")])
}

/// As [`done`] writes it.
fn done_shape(says: &'static str) -> Yes {
    Yes::json(says, object([("status", always(true).into())]))
}
