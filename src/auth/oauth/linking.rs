//! An account at a provider becomes another way in for a user who is signed in and asks for it.
//!
//! The user need not have their address verified, but the session in which they asked must still live: whoever was signed
//! out meanwhile gets nothing linked. The provider has to prove an address; whether it must be the user's own is for the
//! configuration to say.

use super::{
    arrival::{Arrival, Holder, Refusal, TRIES, Tried, tell_linked},
    vault,
};
use crate::{
    auth::http::Call,
    db::{self, accounts::linked, audit, users},
    identity::{SessionId, UserId},
};

/// Links the account to the user who asked, if the session in which they asked is still theirs.
pub(super) async fn link(
    call: &mut Call<'_>,
    arrival: Arrival<'_>,
    to: UserId,
    session: SessionId,
) -> Result<(), Refusal> {
    for _ in 0..TRIES {
        match try_link(call, &arrival, to, session).await? {
            Tried::Done(()) => return Ok(()),
            Tried::Overtaken => {}
        }
    }
    arrival.warn_overtaken(call);
    Err(Refusal::UnableToLink)
}

async fn try_link(
    call: &Call<'_>,
    arrival: &Arrival<'_>,
    to: UserId,
    session: SessionId,
) -> Result<Tried<()>, Refusal> {
    let auth = call.auth;
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let user = users::lock(&tx, to).await?;
    let subject = arrival.subject();
    let is_live = db::sessions::is_live(&tx, session, to, call.now).await?;
    let refusal = match user {
        Some(user) if is_live && !user.is_banned(call.now) => {
            let found = linked::find(&tx, subject.provider, subject.subject).await?;
            let wish = Wish {
                user: to,
                holder: Holder::of(found.as_ref(), subject.issuer),
                is_address_proven: arrival.profile.email_verified && arrival.profile.email.is_some(),
                is_same_address: arrival.has_address(&user.email),
                links_different_emails: auth.config.auth.account.link_different_emails,
            };
            match (decide_link(wish), found) {
                (LinkStep::Renew, Some(known)) => {
                    let sealed = vault::seal(&auth.sealing, known.id, &arrival.tokens);
                    linked::renew(&tx, known.id, subject.issuer, &sealed, call.now).await?;
                    db::commit(tx).await?;
                    return Ok(Tried::Done(()));
                }
                (LinkStep::Link, _) => {
                    if !arrival.insert(call, &tx, to).await? {
                        return Ok(Tried::Overtaken);
                    }
                    tell_linked(call, &tx, arrival, &user, Some(session)).await?;
                    db::commit(tx).await?;
                    auth.outbox.ring();
                    return Ok(Tried::Done(()));
                }
                (LinkStep::LinkedToAnother, _) => Refusal::LinkedToAnother,
                (LinkStep::EmailDoesNotMatch, _) => Refusal::EmailDoesNotMatch,
                (LinkStep::UnableToLink, _) | (LinkStep::Renew, None) => Refusal::UnableToLink,
            }
        }
        Some(_) | None => Refusal::UnableToLink,
    };
    if let Some(code) = refusal.code() {
        let entry = audit::Entry {
            session: Some(session),
            ..audit::Entry::refused_to(to, audit::Action::LinkAccount, code)
        };
        call.audit(&tx, &entry).await?;
    }
    db::commit(tx).await?;
    Err(refusal)
}

/// All that decides whether an account is linked to a user who asks for it.
#[derive(Clone, Copy, Debug)]
struct Wish {
    user: UserId,
    holder: Holder,
    is_address_proven: bool,
    is_same_address: bool,
    links_different_emails: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LinkStep {
    /// It is linked to this user already.
    Renew,
    Link,
    LinkedToAnother,
    EmailDoesNotMatch,
    UnableToLink,
}

fn decide_link(wish: Wish) -> LinkStep {
    match wish.holder {
        Holder::User(user) if user == wish.user => LinkStep::Renew,
        Holder::User(_) => LinkStep::LinkedToAnother,
        Holder::OtherIssuer => LinkStep::UnableToLink,
        Holder::Nobody if !wish.is_address_proven => LinkStep::UnableToLink,
        Holder::Nobody if wish.is_same_address || wish.links_different_emails => LinkStep::Link,
        Holder::Nobody => LinkStep::EmailDoesNotMatch,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ADA: UserId = UserId(Uuid::from_u128(1));
    const EVE: UserId = UserId(Uuid::from_u128(2));

    #[test]
    fn an_account_is_linked_with_a_proven_address_of_the_users() {
        use LinkStep::{EmailDoesNotMatch, Link, LinkedToAnother, Renew, UnableToLink};
        for (holder, proven, same, different, step) in [
            (Holder::Nobody, true, true, false, Link),
            (Holder::Nobody, true, false, true, Link),
            (Holder::Nobody, true, false, false, EmailDoesNotMatch),
            (Holder::Nobody, false, true, true, UnableToLink),
            (Holder::User(ADA), false, false, false, Renew),
            (Holder::User(EVE), true, true, true, LinkedToAnother),
            (Holder::OtherIssuer, true, true, true, UnableToLink),
        ] {
            let wish = Wish {
                user: ADA,
                holder,
                is_address_proven: proven,
                is_same_address: same,
                links_different_emails: different,
            };
            assert_eq!(decide_link(wish), step, "{wish:?}");
        }
    }
}
