//! Who the caller is, for applications that ask: additions to the contract.

use serde_json::json;

use super::{
    AuthError,
    http::{Answer, Call},
    openapi::{Description, Group, Who, Work, Yes, date, named, object, text},
    sessions,
};
use crate::config;

/// GET /me: `{session, user}` as get-session gives it, but 401 without a session.
pub(super) async fn me(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let current = call.demand_session().await?;
    Ok(Answer::json(sessions::whole(&current)))
}

/// GET or POST /verify-token: whether the credential *of this request* is that of a live session.
///
/// That is `Authorization: Bearer <token>`, with or without the signature, else the session cookie; never anything in
/// the query or the body, where tokens end up in logs. Looked up as the data path does, from the cache, so that asking
/// often costs little; a check is no use of the session and extends nothing.
pub(super) async fn verify_token(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let sessions = &call.auth.sessions;
    // Backends ask for their own clients, all from one address: from networks of one's own, tokens that are nobody's are
    // not counted against it.
    let is_stranger = config::is_public(call.ip_address);
    let found = call.auth.cookies.find(call.headers);
    for credential in found.candidates() {
        let session = if is_stranger && found.is_unproven(credential.kind) {
            let asked = sessions.authenticate_unproven(&credential.hash, call.ip_address, call.now);
            asked.await?
        } else {
            sessions.authenticate(&credential.hash, call.now).await?
        };
        if let Some(session) = session {
            return Ok(Answer::json(json!({
                "userId": session.identity.id.to_string(),
                "sessionId": session.id.to_string(),
                "expiresAt": session.expires_at.rfc3339(),
            })));
        }
    }
    Err(AuthError::Unauthorized)
}

pub(super) fn describe_me() -> Description {
    Description::of(
        Group::Applications,
        "Who is signed in",
        "As `get-session`, but 401 without a session.",
    )
    .who(Who::WithSession)
    .work(Work::Database)
    .answers([Yes::json("The session and its user.", named("SessionAndUser"))])
}

pub(super) fn describe_verify_token() -> Description {
    Description::of(
        Group::Applications,
        "Is this request's credential that of a live session?",
        "For services that get requests on other ways than through the gateway. The credential is the one that the \
         request carries in `Authorization: Bearer`, or else in its cookie; never one in the query or the body. Asking \
         often costs little, and extends nothing.",
    )
    .who(Who::WithSession)
    .work(Work::LookUp)
    .answers([Yes::json(
        "It is.",
        object([
            ("userId", text("0199f3a2-7c41-7d0a-9b1e-6f1f0c2d3e4f").into()),
            ("sessionId", text("0199f3a2-9e10-7f3c-8a52-1d2c3b4a5968").into()),
            ("expiresAt", date().into()),
        ]),
    )])
}
