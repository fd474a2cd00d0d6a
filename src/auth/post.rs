//! Mails that somebody can have sent by asking.
//!
//! Beyond what a recipient may get they are left out in silence. The answer must not change, or it would tell whether
//! the address has a user; but the audit log is told. Not among them are notices of what has happened: whoever did it
//! could use up the share beforehand, and nobody would hear of it.

use super::{
    http::Call,
    throttle::{count_left_out, is_mailbox_spent, may_mail},
};
use crate::{
    db::{DbError, Transaction, audit},
    identity::UserId,
    mail::{self, Message},
    problem::Code,
};

/// Writes to an address of `user`, as part of `tx`, unless it has had its share of mails.
pub(super) async fn post(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    user: UserId,
    to: &str,
    message: &Message<'_>,
) -> Result<(), DbError> {
    if may_write(call, tx, user, to).await? {
        mail::enqueue(tx, &call.auth.sealing, to, message, call.now).await?;
    }
    Ok(())
}

/// Whether one more mail may be written to an address of `user`; it counts as written.
///
/// For those to whom it matters before they write: a new link voids the last, so it must not be made unless it is sent.
/// See [`may_mail`] for when to ask.
pub(super) async fn may_write(call: &Call<'_>, tx: &Transaction<'_>, user: UserId, to: &str) -> Result<bool, DbError> {
    if may_mail(call, tx, to).await? {
        return Ok(true);
    }
    leave_out(call, tx, user).await?;
    Ok(false)
}

/// Whether it is known already that no mail may be written to an address of `user`; it is noted, then.
///
/// Asked before the user is locked. Whoever asks for mails to one address at a great rate would have these requests wait
/// for each other, and not those to an address without a user: the time would tell.
pub(super) async fn is_left_out(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    user: UserId,
    to: &str,
) -> Result<bool, DbError> {
    let is_spent = is_mailbox_spent(call, tx, to).await?;
    if is_spent {
        leave_out(call, tx, user).await?;
    }
    Ok(is_spent)
}

async fn leave_out(call: &Call<'_>, tx: &Transaction<'_>, user: UserId) -> Result<(), DbError> {
    count_left_out(call);
    let entry = audit::Entry {
        subject: Some(user),
        ..audit::Entry::refused(audit::Action::SendMail, Code::TooManyRequests.as_str())
    };
    call.audit(tx, &entry).await
}
