//! Who the caller is, for applications that ask: additions to the contract.

use serde_json::json;

use super::{
    AuthError,
    http::{Answer, Call},
    sessions,
};

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
    for credential in sessions.cookies().find(call.headers).candidates() {
        if let Some(session) = sessions.authenticate(&credential.hash, call.now).await? {
            return Ok(Answer::json(json!({
                "userId": session.identity.id.to_string(),
                "sessionId": session.id.to_string(),
                "expiresAt": session.expires_at.rfc3339(),
            })));
        }
    }
    Err(AuthError::Unauthorized)
}
