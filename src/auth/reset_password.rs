//! A new password for somebody who has forgotten theirs: ask for a link, follow it, choose.
//!
//! Whether an address has a user can't be told from the answer or its time; only who reads its mail learns it. Following
//! the link uses nothing up, since mail scanners follow links too: only choosing a password does, once. It ends every
//! session of the user, for whoever knew the old password may have one; and where the address was never verified, or is
//! in doubt, takes the user's accounts at providers away, for whoever linked them need not be its owner.

use serde_json::json;
use url::Url;

use super::{
    AuthError,
    account::{change_password, ways_in},
    evenness::Stopwatch,
    http::{Answer, Call},
    openapi::{Description, Field, Group, TOKEN, Work, Yes, always, object, text},
    password::Unacceptable,
    post::{is_left_out, may_write},
    reset_link, sessions,
    throttle::may_hash,
};
use crate::{
    db::{
        self, audit,
        one_time_tokens::{self, Issued},
        users,
    },
    identity::UserId,
    policy::redirect::append_query,
    secret::{OneTimeToken, ResetPassword},
};

/// POST /request-password-reset
pub(super) async fn request(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let email = check.address("email");
    let redirect_to = check.optional_target("redirectTo");
    check.done()?;
    let mut stopwatch = call.auth.evenness.start();
    let sent = mail_link(call, &mut stopwatch, email.as_str(), redirect_to.as_deref()).await;
    stopwatch.even_out().await;
    sent?;
    call.auth.outbox.ring();
    Ok(Answer::json(json!({
        "status": true,
        "message": "If this email exists in our system, check your email for the reset link",
    })))
}

/// Mails a link to an address that has a user, and to no other.
async fn mail_link(
    call: &Call<'_>,
    stopwatch: &mut Stopwatch<'_>,
    email: &str,
    redirect_to: Option<&str>,
) -> Result<(), AuthError> {
    let auth = call.auth;
    let mut client = auth.db.client().await?;
    let tx = stopwatch.begin(&mut client).await?;
    let user = users::by_email(&tx, email).await?;
    let entry = if let Some(user) = &user {
        // Where none is sent the last link, which was, stays good. Locked, so that of two requests at once the later one
        // voids the link of the other.
        if !is_left_out(call, &tx, user.id, email).await?
            && let Some(user) = users::lock(&tx, user.id).await?.filter(|user| user.email == email)
            && may_write(call, &tx, user.id, email).await?
        {
            reset_link::mail(&tx, &auth.config, &user, redirect_to, call.now).await?;
        }
        audit::Entry {
            // Anybody may ask for it.
            actor: None,
            ..audit::Entry::done(audit::Action::RequestPasswordReset, user.id)
        }
    } else {
        audit::Entry {
            email: Some(email),
            ..audit::Entry::refused(audit::Action::RequestPasswordReset, "NO_USER")
        }
    };
    call.audit(&tx, &entry).await?;
    db::commit(tx).await?;
    Ok(())
}

/// GET /reset-password/:token, as the mailed link leads there: on to the page where the password is chosen.
pub(super) async fn follow(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.query.check();
    let target = check.target("callbackURL");
    check.done()?;
    let is_good = match OneTimeToken::<ResetPassword>::parse(call.segment) {
        Some(token) => good_for(call, &token).await?.is_some(),
        None => false,
    };
    Ok(Answer::redirect(if is_good {
        leading_to(call, &target, "token", call.segment)
    } else {
        let page = format!("{}/error", call.auth.base_url);
        let target = if target.is_empty() { &page } else { &target };
        leading_to(call, target, "error", AuthError::ResetLinkVoid.code().as_str())
    }))
}

/// A target that has been judged, as a URL with a parameter of this value and none of the other kind; without a target,
/// the front page.
fn leading_to(call: &Call<'_>, target: &str, name: &str, value: &str) -> String {
    let base = Url::parse(call.auth.origins.public().as_str());
    let Ok(mut url) = base.and_then(|base| base.join(target)) else {
        return append_query(target, name, value);
    };
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(other, _)| other != name)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(others)
        .append_pair(name, value);
    url.into()
}

/// POST /reset-password
pub(super) async fn reset(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let mut check = call.body.check();
    let password = check.password("newPassword");
    let token = check.optional_text("token").filter(|token| !token.is_empty());
    check.done()?;
    let mut query = call.query.check();
    let in_query = query.optional_text("token").filter(|token| !token.is_empty());
    query.done()?;
    let token = token.or(in_query).ok_or(AuthError::ResetLinkVoid)?;
    let acceptable = auth.passwords.check_new(password.expose());
    acceptable.map_err(AuthError::Password)?;
    let Some(token) = OneTimeToken::<ResetPassword>::parse(&token) else {
        return refused(call, AuthError::ResetLinkVoid).await;
    };
    // Made-up tokens are not worth a hash.
    let Some(issued) = good_for(call, &token).await? else {
        return refused(call, AuthError::ResetLinkVoid).await;
    };
    let Some(user) = issued.user else {
        return refused(call, AuthError::ResetUserNotFound).await;
    };
    may_hash(call, user)?;
    let hash = auth.passwords.hash(password).await?;

    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let owner = users::lock(&tx, user).await?;
    let is_gone = owner.is_none();
    let owner = owner.filter(|owner| owner.email == issued.email);
    let is_first = owner.is_some() && one_time_tokens::consume(&tx, &token, call.now).await?;
    let Some(owner) = owner.filter(|_| is_first) else {
        let error = if is_gone {
            AuthError::ResetUserNotFound
        } else {
            AuthError::ResetLinkVoid
        };
        call.audit(&tx, &refusal(&error, Some(user))).await?;
        db::commit(tx).await?;
        return Err(error);
    };
    change_password::put(call, &tx, user, &hash).await?;
    let shows_reader = !issued.is_printed && users::trust_address(&tx, user).await?;
    if shows_reader || !owner.email_verified {
        // Whoever came by a provider has not shown that they read this mail.
        ways_in::drop_linked(call, &tx, user).await?;
    }
    call.audit(&tx, &audit::Entry::done(audit::Action::ResetPassword, user))
        .await?;
    let revoked = db::sessions::revoke_all(&tx, user, None, call.now).await?;
    sessions::note(call, &tx, &revoked, "reset-password").await?;
    db::commit(tx).await?;
    sessions::forget_all_of(call, user, &revoked);
    Ok(Answer::json(json!({ "status": true })))
}

/// What is on record of a token, if it can still be used.
async fn good_for(call: &Call<'_>, token: &OneTimeToken<ResetPassword>) -> Result<Option<Issued>, AuthError> {
    let issued = one_time_tokens::find(&call.auth.db.client().await?, token).await?;
    Ok(issued.filter(|issued| !issued.is_consumed && call.now < issued.expires_at))
}

async fn refused(call: &Call<'_>, error: AuthError) -> Result<Answer, AuthError> {
    call.audit(&call.auth.db.client().await?, &refusal(&error, None))
        .await?;
    Err(error)
}

const fn refusal(error: &AuthError, subject: Option<UserId>) -> audit::Entry<'static> {
    audit::Entry {
        subject,
        ..audit::Entry::refused(audit::Action::ResetPassword, error.code().as_str())
    }
}

pub(super) fn describe_request() -> Description {
    Description::of(
        Group::Password,
        "Ask for a mail that lets one choose a new password",
        "The answer does not tell whether the address has a user.",
    )
    .work(Work::Database)
    .body([
        Field::address("email").required(),
        Field::target("redirectTo").says("The page where the password is chosen: the mailed link leads there."),
    ])
    .answers([Yes::json(
        "A mail is on its way, if the address has a user.",
        object([
            ("status", always(true).into()),
            (
                "message",
                text("If this email exists in our system, check your email for the reset link").into(),
            ),
        ]),
    )])
}

pub(super) fn describe_follow() -> Description {
    Description::of(
        Group::Password,
        "Open the link of a reset mail",
        "Leads on to the page where the password is chosen, and uses nothing up.",
    )
    .work(Work::Database)
    .segment("The token of the mail.")
    .query([Field::target("callbackURL")
        .required()
        .says("That page. Empty: a page of the gateway that shows the error.")])
    .answers([Yes::redirect(
        "To that page, as a URL, with `token` in its query; with `error=INVALID_TOKEN` if the link is void.",
    )])
}

pub(super) fn describe_reset() -> Description {
    Description::of(
        Group::Password,
        "Choose a new password",
        "With the token of a reset mail, which works once. It ends all sessions of the user.",
    )
    .work(Work::DatabaseAndHashing)
    .query([Field::text("token", TOKEN)
        .unchecked()
        .says("Instead of `token` in the body.")])
    .body([
        Field::new_password("newPassword").required(),
        Field::text("token", TOKEN).shown(),
    ])
    .answers([Yes::json(
        "The password is another one, and no session is left.",
        object([("status", always(true).into())]),
    )])
    .refuses([
        AuthError::ResetLinkVoid,
        AuthError::ResetUserNotFound,
        AuthError::Password(Unacceptable::TooShort),
        AuthError::Password(Unacceptable::TooLong),
    ])
}
