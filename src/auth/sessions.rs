//! The caller's sessions: the current one, all of them, and ending them.
//!
//! A revocation is committed, then forgotten here, then answered: no request that begins after the answer passes.
//! Other gateways hear of it from the trigger.

use serde_json::{Value, json};

use super::{
    AuthError,
    http::{Answer, Call, Current, Refresh},
    objects::{self, IsCurrent},
};
use crate::{
    db::{self, DbError, audit, sessions as table, sessions::Revoked},
    identity::SessionId,
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
    let mut revoked = None;
    if let Ok(handle) = token.parse::<SessionId>() {
        revoked = table::revoke(&tx, handle, user, call.now).await?;
    } else if let Some(token) = SessionToken::parse(&token) {
        revoked = table::revoke_token(&tx, &token.hash(), Some(user), call.now).await?;
    }
    note(call, &tx, revoked.as_slice(), "one").await?;
    db::commit(tx).await?;
    forget(call, revoked.as_slice());
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
    let revoked = table::revoke_all(&tx, current.user.id, except, call.now).await?;
    note(call, &tx, &revoked, kind).await?;
    db::commit(tx).await?;
    forget(call, &revoked);
    Ok(done())
}

/// POST /sign-out: whoever holds a token may end its session, be the user banned or gone; and it is no mistake to have
/// none. Where several people are signed in in one browser, all of them leave (section 18).
pub(super) async fn sign_out(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let cookies = call.auth.sessions.cookies();
    let carried = cookies.find(call.headers);
    let companions = cookies.device_tokens(call.headers);
    if !carried.is_empty() || !companions.is_empty() {
        let mut client = call.auth.db.client().await?;
        let tx = db::begin(&mut client).await?;
        let mut revoked = Vec::new();
        // All that the request carries: a cookie that is cleared while its session lives on would look like an end.
        let hashes = carried.candidates().map(|credential| credential.hash);
        for hash in hashes.chain(companions.iter().map(SessionToken::hash)) {
            revoked.extend(table::revoke_token(&tx, &hash, None, call.now).await?);
        }
        for ended in &revoked {
            let entry = audit::Entry {
                session: Some(ended.id),
                ..audit::Entry::done(audit::Action::SignOut, ended.user_id)
            };
            call.audit(&tx, &entry).await?;
        }
        db::commit(tx).await?;
        forget(call, &revoked);
    }
    call.clear_session_cookies();
    for companion in &companions {
        call.set_cookie(cookies.clear_device(companion));
    }
    Ok(Answer::json(json!({ "success": true })))
}

/// Writes the ends of sessions into the audit log, with why they ended.
pub(super) async fn note(
    call: &Call<'_>,
    tx: &deadpool_postgres::Transaction<'_>,
    revoked: &[Revoked],
    kind: &str,
) -> Result<(), DbError> {
    for ended in revoked {
        let entry = audit::Entry {
            reason: Some(kind),
            session: Some(ended.id),
            ..audit::Entry::done(audit::Action::RevokeSession, ended.user_id)
        };
        call.audit(tx, &entry).await?;
    }
    Ok(())
}

/// For after the commit that ended them: no request that begins later passes here.
pub(super) fn forget(call: &Call<'_>, revoked: &[Revoked]) {
    for ended in revoked {
        call.auth.sessions.forget(&ended.token_hash);
    }
}

fn done() -> Answer {
    Answer::json(json!({ "status": true }))
}
