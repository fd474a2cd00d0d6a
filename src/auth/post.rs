//! Mails that somebody can have sent by asking: all of the auth API's go through here.
//!
//! Beyond what a recipient may get they are left out in silence. The answer must not change, or it would tell whether
//! the address has a user; so callers are not told either, but the audit log is.

use deadpool_postgres::Transaction;

use super::http::Call;
use crate::{
    db::{DbError, audit},
    identity::UserId,
    mail::{self, Message},
    problem::Code,
};

/// Leave to write one mail to a user.
#[derive(Debug)]
#[must_use = "it has been counted"]
pub(super) struct Stamp<'a> {
    to: &'a str,
}

/// Leave to write to an address of `user`; none if it has had its share of mails.
///
/// For those to whom it makes a difference before they write: a new link that voids the last must not be made unless it
/// is sent. See [`super::throttle::Throttle::may_mail`] for when to ask.
pub(super) async fn stamp<'a>(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    user: UserId,
    to: &'a str,
) -> Result<Option<Stamp<'a>>, DbError> {
    if call.auth.throttle.may_mail(tx, to, call.now).await? {
        return Ok(Some(Stamp { to }));
    }
    let entry = audit::Entry {
        subject: Some(user),
        ..audit::Entry::refused(audit::Action::SendMail, Code::TooManyRequests.as_str())
    };
    call.audit(tx, &entry).await?;
    Ok(None)
}

impl Stamp<'_> {
    /// Puts the mail into the outbox, as part of `tx`. Ring the outbox's bell after the commit.
    pub(super) async fn post(
        self,
        call: &Call<'_>,
        tx: &Transaction<'_>,
        message: &Message<'_>,
    ) -> Result<(), DbError> {
        mail::enqueue(tx, self.to, message, call.now).await
    }
}

/// Writes to an address of `user`, unless it has had its share of mails.
pub(super) async fn post(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    user: UserId,
    to: &str,
    message: &Message<'_>,
) -> Result<(), DbError> {
    match stamp(call, tx, user, to).await? {
        Some(stamp) => stamp.post(call, tx, message).await,
        None => Ok(()),
    }
}
