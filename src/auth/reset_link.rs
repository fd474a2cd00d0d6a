//! The link by which whoever reads a user's mail chooses a new password.
//!
//! People ask for it at the gateway, operators at the command line; both issue it here. It works once and for
//! `auth.password.reset_expires_in`. A user has one at a time: a newer link voids the older ones. It never names another
//! host than `public_url`'s, whatever `Host` a request had.

use super::http::component;
use crate::{
    clock::Timestamp,
    config::Config,
    db::{
        DbError, Transaction,
        one_time_tokens::{self, Issue},
        users::User,
    },
    mail::{self, Message},
    secret::{OneTimeToken, ResetPassword, Secret, sealed::SealingKeys},
};

/// Issues a link in `tx` for somebody to hand over. It leads on to `redirect_to`, which has been judged, with the token added
/// to it: the page there asks for the new password. The link is good with the commit, and voids those before it. Whoever
/// uses it has not shown that they read the user's mail.
pub async fn print(
    tx: &Transaction<'_>,
    config: &Config,
    user: &User,
    redirect_to: Option<&str>,
    now: Timestamp,
) -> Result<Secret<String>, DbError> {
    issue(tx, config, user, redirect_to, true, now).await
}

async fn issue(
    tx: &Transaction<'_>,
    config: &Config,
    user: &User,
    redirect_to: Option<&str>,
    is_printed: bool,
    now: Timestamp,
) -> Result<Secret<String>, DbError> {
    let token = OneTimeToken::<ResetPassword>::generate();
    let issue = Issue {
        user: user.id,
        email: &user.email,
        browser: None,
        sign_up: None,
        new_email: None,
        session: None,
        is_printed,
        expires_at: now.plus(config.auth.password.reset_expires_in),
    };
    one_time_tokens::insert(tx, &token, &issue, now).await?;
    one_time_tokens::consume_others(tx, user.id, &token, now).await?;
    Ok(Secret::new(format!(
        "{}{}/reset-password/{}?callbackURL={}",
        config.server.public_url,
        config.auth.base_path,
        token.as_str(),
        component(redirect_to.unwrap_or_default())
    )))
}

/// As [`print()`], but writes the mail that carries the link, also in `tx`. Ring the outbox's bell after the commit.
pub async fn mail(
    tx: &Transaction<'_>,
    config: &Config,
    user: &User,
    redirect_to: Option<&str>,
    now: Timestamp,
) -> Result<(), DbError> {
    let link = issue(tx, config, user, redirect_to, false, now).await?;
    let message = Message::ResetPassword {
        name: &user.name,
        link: link.expose(),
        expires_in: config.auth.password.reset_expires_in,
    };
    let keys = SealingKeys::new(config.auth.secret.iter().map(|secret| secret.expose().as_bytes()));
    mail::enqueue(tx, &keys, &user.email, &message, now).await
}
