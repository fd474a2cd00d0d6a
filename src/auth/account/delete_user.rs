//! The end of an account, by its user.
//!
//! Whoever holds a session must show more: the password, that they signed in lately, or that they read the mail of the
//! address. The mailed link works only in a session of the user, so a scanner that opens it deletes nothing.

use std::time::Duration;

use serde_json::json;

use super::change_password::prove;
use crate::{
    auth::{
        AuthError,
        http::{Answer, Call, Current, Refresh, component},
        openapi::{Description, Field, Group, TOKEN, Who, Work, Yes, always, object, word},
        password::Unacceptable,
        post::may_write,
    },
    config::DeleteUser,
    db::{
        self, audit,
        one_time_tokens::{self, Issue},
        users,
    },
    mail::{self, Message},
    secret::{DeleteAccount, OneTimeToken, Purpose, Secret},
};

/// The contract's (section 10).
const LINK_WORKS_FOR: Duration = Duration::from_hours(24);

/// As the contract words them.
const DELETED: &str = "User deleted";
const MAILED: &str = "Verification email sent";

/// POST /delete-user
pub(in crate::auth) async fn delete(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let password = check.optional_text("password").filter(|password| !password.is_empty());
    let token = check.optional_text("token").filter(|token| !token.is_empty());
    let callback_url = check.optional_target("callbackURL");
    check.done()?;
    let current = call.demand_session().await?;
    let way = call.auth.config.auth.account.delete_user;
    if way == DeleteUser::Off {
        return Err(AuthError::SwitchedOff);
    }
    let knows_password = password.is_some();
    if let Some(password) = password {
        prove(call, &current, Secret::new(password), audit::Action::DeleteUser).await?;
    }
    if let Some(token) = token {
        remove(call, &current, Some(&token)).await?;
        return Ok(deleted());
    }
    if way == DeleteUser::Mail {
        mail_link(call, &current, callback_url.as_deref()).await?;
        return Ok(Answer::json(json!({ "success": true, "message": MAILED })));
    }
    if !knows_password && !call.is_fresh(&current.session) {
        return Err(AuthError::SessionExpired);
    }
    remove(call, &current, None).await?;
    Ok(deleted())
}

/// GET /delete-user/callback, as the mailed link leads there.
pub(in crate::auth) async fn follow(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.query.check();
    let token = check.text("token");
    let callback_url = check.optional_target("callbackURL");
    check.done()?;
    if call.auth.config.auth.account.delete_user == DeleteUser::Off {
        return Err(AuthError::DeletionOff);
    }
    let current = call.session(Refresh::Slide).await?.ok_or(AuthError::NoUserToDelete)?;
    remove(call, &current, Some(&token)).await?;
    Ok(callback_url.map_or_else(deleted, Answer::redirect))
}

fn deleted() -> Answer {
    Answer::json(json!({ "success": true, "message": DELETED }))
}

async fn mail_link(call: &Call<'_>, current: &Current, callback_url: Option<&str>) -> Result<(), AuthError> {
    let auth = call.auth;
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let user = current.hold(&tx, call.now).await?;
    if !may_write(call, &tx, user.id, &user.email).await? {
        // The last link, which was sent, stays good.
        return Ok(db::commit(tx).await?);
    }
    one_time_tokens::void(&tx, user.id, &[DeleteAccount::NAME], call.now).await?;
    let token = OneTimeToken::<DeleteAccount>::generate();
    let issue = Issue {
        user: user.id,
        email: &user.email,
        browser: None,
        sign_up: None,
        new_email: None,
        session: None,
        is_printed: false,
        expires_at: call.now.plus(LINK_WORKS_FOR),
    };
    one_time_tokens::insert(&tx, &token, &issue, call.now).await?;
    let link = format!(
        "{}/delete-user/callback?token={}&callbackURL={}",
        auth.base_url,
        token.as_str(),
        component(callback_url.unwrap_or("/"))
    );
    let message = Message::DeleteAccount {
        name: &user.name,
        link: &link,
        expires_in: LINK_WORKS_FOR,
    };
    mail::enqueue(&tx, &call.auth.sealing, &user.email, &message, call.now).await?;
    call.audit(&tx, &current.did(audit::Action::RequestDeletion)).await?;
    db::commit(tx).await?;
    auth.outbox.ring();
    Ok(())
}

/// Deletes the user with all that is theirs; if a link is to prove it, only if `token` is that of one.
async fn remove(call: &mut Call<'_>, current: &Current, token: Option<&str>) -> Result<(), AuthError> {
    let auth = call.auth;
    let user = current.user.id;
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    current.hold(&tx, call.now).await?;
    if let Some(token) = token {
        let token = OneTimeToken::<DeleteAccount>::parse(token).ok_or(AuthError::DeletionLinkVoid)?;
        let issued = one_time_tokens::find(&tx, &token).await?;
        let is_theirs = issued.is_some_and(|issued| issued.user == Some(user) && call.now < issued.expires_at);
        if !is_theirs || !one_time_tokens::consume(&tx, &token, call.now).await? {
            let error = AuthError::DeletionLinkVoid;
            let entry = current.tried(audit::Action::DeleteUser, error.code().as_str());
            call.audit(&tx, &entry).await?;
            db::commit(tx).await?;
            return Err(error);
        }
    }
    let entry = audit::Entry {
        email: Some(&current.user.email),
        ..current.did(audit::Action::DeleteUser)
    };
    call.audit(&tx, &entry).await?;
    // First, and in the order of their ids: the cascade would lock them in any order, crosswise with who else does.
    db::sessions::revoke_all(&tx, user, None, call.now).await?;
    users::delete(&tx, user).await?;
    db::commit(tx).await?;
    auth.sessions.end_user(user);
    call.clear_session_cookies();
    call.clear_device_cookie(&current.token);
    Ok(())
}

pub(in crate::auth) fn describe_delete() -> Description {
    Description::of(
        Group::Account,
        "Delete the user",
        "With all that is theirs. It takes the password, a session that is fresh, or the token of a mail; where the \
         configuration wants a mail, that is sent first.",
    )
    .who(Who::WithSession)
    .work(Work::DatabaseAndHashing)
    .body([
        Field::password("password").shown(),
        Field::text("token", TOKEN).says("Of the mail."),
        Field::target("callbackURL").says("Where the mailed link leads in the end."),
    ])
    .answers([Yes::json(
        "Deleted; or a mail is on its way.",
        object([
            ("success", always(true).into()),
            ("message", word([DELETED, MAILED]).into()),
        ]),
    )
    .header("Set-Cookie", "Takes the cookies of a deleted user back.")])
    .refuses([
        AuthError::Password(Unacceptable::TooLong),
        AuthError::InvalidPassword,
        AuthError::NoPassword,
        AuthError::SessionExpired,
        AuthError::DeletionLinkVoid,
        AuthError::SwitchedOff,
    ])
}

pub(in crate::auth) fn describe_follow() -> Description {
    Description::of(
        Group::Account,
        "Open the link of a deletion mail",
        "Deletes the user, in a session of theirs.",
    )
    .who(Who::WithOrWithoutSession)
    .work(Work::Database)
    .query([
        Field::text("token", TOKEN).required(),
        Field::target("callbackURL").says("Where to go then."),
    ])
    .answers([
        Yes::json(
            "Deleted.",
            object([("success", always(true).into()), ("message", word([DELETED]).into())]),
        ),
        Yes::redirect("Deleted; on to `callbackURL`."),
    ])
    .refuses([
        AuthError::NoUserToDelete,
        AuthError::DeletionLinkVoid,
        AuthError::DeletionOff,
    ])
}
