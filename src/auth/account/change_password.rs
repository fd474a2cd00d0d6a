//! Passwords of users who are signed in: changing, setting a first one, showing that one knows it.
//!
//! Whoever holds a session but not the password gets no further: wrong ones are counted like those of a sign-in.

use serde_json::{Value, json};

use crate::{
    auth::{
        AuthError,
        complete::{Proof, Shown, complete_in},
        http::{Answer, Call, Current},
        objects,
        openapi::{Description, Field, Group, Who, Work, Yes, always, named, nullable_text, object},
        password::{Unacceptable, Verdict},
        sessions,
        throttle::{attempt_in_session, may_hash},
    },
    clock::Timestamp,
    db::{self, DbError, Transaction, accounts, accounts::StoredPassword, audit, one_time_tokens, users},
    identity::UserId,
    secret::{Secret, SessionToken},
};

/// POST /change-password. With `revokeOtherSessions` a new session takes the place of all that there are.
pub(in crate::auth) async fn change(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let mut check = call.body.check();
    let new = check.password("newPassword");
    let old = check.password("currentPassword");
    let revoke_others = check.optional_bool("revokeOtherSessions").unwrap_or(false);
    check.done()?;
    let current = call.demand_session().await?;
    let acceptable = auth.passwords.check_new(new.expose());
    acceptable.map_err(AuthError::Password)?;
    let stored = prove(call, &current, old, audit::Action::ChangePassword).await?;
    let hash = auth.passwords.hash(new).await?;

    let user = current.user.id;
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    current.hold(&tx, call.now).await?;
    // Another change came first: what was shown is no longer the password.
    if accounts::password_set_at(&tx, user).await? != Some(stored.set_at) {
        return Err(AuthError::InvalidPassword);
    }
    let set_at = put(call, &tx, user, &hash).await?;
    call.audit(&tx, &current.did(audit::Action::ChangePassword)).await?;
    let except = (!revoke_others).then_some(current.session.id);
    let ends_others = revoke_others || auth.config.auth.password.change_revokes_others;
    let revoked = if ends_others {
        db::sessions::revoke_all(&tx, user, except, call.now).await?
    } else {
        Vec::new()
    };
    sessions::note(call, &tx, &revoked, "change-password").await?;
    let renewed = if revoke_others {
        let proof = Proof {
            user,
            shown: Shown::Password { set_at },
        };
        Some(complete_in(call, &tx, proof, current.remember()).await?)
    } else {
        None
    };
    db::commit(tx).await?;
    if ends_others {
        sessions::forget_all_of(call, user, &revoked);
    }
    let token = renewed.map(|renewed| renewed.tell(call).token);
    Ok(Answer::json(json!({
        "token": token.as_ref().map(SessionToken::as_str),
        "user": objects::user(&current.user),
    })))
}

/// POST /set-password: a first password for somebody who signs in by other means. An addition to the contract, where
/// only the server's own code can do it; so it demands what the contract demands of other additions, a fresh session.
pub(in crate::auth) async fn set(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let mut check = call.body.check();
    let new = check.password("newPassword");
    check.done()?;
    let current = call.demand_fresh_session().await?;
    let acceptable = auth.passwords.check_new(new.expose());
    acceptable.map_err(AuthError::Password)?;
    let user = current.user.id;
    if accounts::password(&auth.db.client().await?, user).await?.is_some() {
        return Err(AuthError::PasswordAlreadySet);
    }
    may_hash(call, user)?;
    let hash = auth.passwords.hash(new).await?;
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    current.hold(&tx, call.now).await?;
    if accounts::password(&tx, user).await?.is_some() {
        return Err(AuthError::PasswordAlreadySet);
    }
    put(call, &tx, user, &hash).await?;
    call.audit(&tx, &current.did(audit::Action::SetPassword)).await?;
    db::commit(tx).await?;
    Ok(Answer::json(json!({ "status": true })))
}

/// POST /verify-password: for pages that ask once more before something serious.
pub(in crate::auth) async fn verify(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let password = check.password("password");
    check.done()?;
    let current = call.demand_session().await?;
    match prove(call, &current, password, audit::Action::VerifyPassword).await {
        Ok(_) => Ok(Answer::json(json!({ "status": true }))),
        // To the caller it is one thing: that was not the password.
        Err(AuthError::NoPassword) => Err(AuthError::InvalidPassword),
        Err(error) => Err(error),
    }
}

/// The user's password, if it is the one that was given. A wrong one is on record under `action`.
pub(super) async fn prove(
    call: &Call<'_>,
    current: &Current,
    password: Secret<String>,
    action: audit::Action,
) -> Result<StoredPassword, AuthError> {
    let auth = call.auth;
    let user = current.user.id;
    let acceptable = auth.passwords.check_length(password.expose());
    acceptable.map_err(AuthError::Password)?;
    let stored = accounts::password(&auth.db.client().await?, user).await?;
    let stored = stored.ok_or(AuthError::NoPassword)?;
    let attempt = attempt_in_session(call, current, action).await?;
    if attempt.verify(call, password, Some(stored.hash.clone())).await? == Verdict::Wrong {
        let error = AuthError::InvalidPassword;
        let entry = current.tried(action, error.code().as_str());
        call.audit(&auth.db.client().await?, &entry).await?;
        return Err(error);
    }
    Ok(stored)
}

/// Puts a password in force, and takes the force of all that could take the account away from whoever chose it: links
/// that reset, change the address or delete, and the sign-ups of an address that is still to be verified. The user's row
/// must be locked. Returns since when it is the password.
pub(in crate::auth) async fn put(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    user: UserId,
    hash: &Secret<String>,
) -> Result<Timestamp, DbError> {
    let set_at = accounts::set_password(tx, call.new_id(), user, hash, call.now).await?;
    one_time_tokens::void(tx, user, one_time_tokens::TAKING, call.now).await?;
    one_time_tokens::drop_sign_ups(tx, user).await?;
    users::claim(tx, user).await?;
    Ok(set_at)
}

pub(in crate::auth) fn describe_change() -> Description {
    Description::of(
        Group::Password,
        "Change the password",
        "With `revokeOtherSessions` a new session takes the place of all that there are.",
    )
    .who(Who::WithSession)
    .work(Work::DatabaseAndHashing)
    .body([
        Field::password("currentPassword").required(),
        Field::new_password("newPassword").required(),
        Field::flag("revokeOtherSessions", false),
    ])
    .answers([Yes::json(
        "The password is another one. `token` is that of the new session, if there is one.",
        object([("token", nullable_text(Value::Null).into()), ("user", named("User"))]),
    )
    .hands_out_session()])
    .refuses([
        AuthError::Password(Unacceptable::TooShort),
        AuthError::Password(Unacceptable::TooLong),
        AuthError::InvalidPassword,
        AuthError::NoPassword,
    ])
}

pub(in crate::auth) fn describe_set() -> Description {
    Description::of(
        Group::Password,
        "Set a first password",
        "For a user who signs in by other means and has none.",
    )
    .who(Who::WithFreshSession)
    .work(Work::DatabaseAndHashing)
    .body([Field::new_password("newPassword").required()])
    .answers([Yes::json(
        "The user has a password.",
        object([("status", always(true).into())]),
    )])
    .refuses([
        AuthError::Password(Unacceptable::TooShort),
        AuthError::Password(Unacceptable::TooLong),
        AuthError::PasswordAlreadySet,
    ])
}

pub(in crate::auth) fn describe_verify() -> Description {
    Description::of(
        Group::Password,
        "Is this the user's password?",
        "For pages that ask once more before something serious.",
    )
    .who(Who::WithSession)
    .work(Work::DatabaseAndHashing)
    .body([Field::password("password").required()])
    .answers([Yes::json("It is.", object([("status", always(true).into())]))])
    .refuses([AuthError::Password(Unacceptable::TooLong), AuthError::InvalidPassword])
}
