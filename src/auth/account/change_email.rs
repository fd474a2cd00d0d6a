//! Another address for a user.
//!
//! Nothing changes before somebody has shown that they read the new address. Where the old one is verified and the
//! configuration wants both, it approves first: whoever has got hold of a session alone can't take the account along.
//! The old address is told of the change, unless nobody has shown that it is the user's: to somebody else's, anybody could
//! have one mail after the other sent so. An address that somebody else has is answered like one that is
//! free, in as much time.
//!
//! The links lead to `verify-email`, as those of a sign-up do. A second visit finds everything done and says so.
//!
//! Both links are good only while the session lives in which the change was asked for, or once the user has signed out of it in
//! that browser and all other sessions were not ended together since. Who finds a stranger's session and ends it, ends what the
//! stranger began; who ends all others does so although the stranger has left.
//!
//! The last link counts whoever opens it, and mail scanners open every link. So the new address may be of somebody who
//! knows nothing of this user: unless the link is opened where it was asked for, or in a session of the user, the address
//! is in doubt, and no account at a provider is linked by it (`oauth/arrival.rs`). Opening the link there later will do.

use serde_json::json;

use crate::{
    auth::{
        AuthError,
        complete::{Proof, Remember, Shown, complete_in},
        http::{Answer, Call, Refresh},
        openapi::{Description, Field, Group, Who, Work, Yes, always, object},
        post::may_write,
        verify_email::{self, Opened, browser_mark, link_url},
    },
    config::{ChangeEmail, SignInAfter},
    db::{
        self, DbError, Transaction, audit,
        one_time_tokens::{self, Issue, Issued},
        users::{self, Reader, User},
    },
    identity::{SessionId, UserId},
    mail::{self, Message},
    secret::{ApproveEmailChange, ConfirmEmailChange, OneTimeToken, Purpose, TokenHash},
};

/// POST /change-email
pub(in crate::auth) async fn request(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let mut check = call.body.check();
    let new_email = check.address("newEmail");
    let callback_url = check.optional_target("callbackURL");
    check.done()?;
    let current = call.demand_session().await?;
    let way = auth.config.auth.account.change_email;
    if way == ChangeEmail::Off {
        return Err(AuthError::ChangeEmailDisabled);
    }
    if current.user.email == new_email.as_str() {
        return Err(AuthError::SameEmail);
    }
    let mark = browser_mark(call);
    let mut stopwatch = auth.evenness.start();
    let mut client = auth.db.client().await?;
    let tx = stopwatch.begin(&mut client).await?;
    let user = current.hold(&tx, call.now).await?;
    // One change at a time: the newest is meant, also one that can't be. Else whether the older link is still good would
    // tell if the address has a user.
    one_time_tokens::void(&tx, user.id, one_time_tokens::CHANGING, call.now).await?;
    if users::by_email(&tx, new_email.as_str()).await?.is_some() {
        let taken = audit::Entry {
            email: Some(new_email.as_str()),
            ..current.tried(audit::Action::RequestEmailChange, "ADDRESS_TAKEN")
        };
        call.audit(&tx, &taken).await?;
    } else {
        let change = Change {
            user: &user,
            new_email: new_email.as_str(),
            browser: mark.hash(),
            session: Some(current.session.id),
            callback_url: callback_url.as_deref(),
        };
        if way == ChangeEmail::Both && user.email_verified {
            if may_write(call, &tx, user.id, &user.email).await? {
                change.ask_old(call, &tx).await?;
            }
        } else if may_write(call, &tx, user.id, new_email.as_str()).await? {
            change.ask_new(call, &tx).await?;
        }
        call.audit(&tx, &current.did(audit::Action::RequestEmailChange)).await?;
    }
    db::commit(tx).await?;
    // Nobody waits for a connection while this one only waits.
    drop(client);
    auth.outbox.ring();
    let life = auth.config.auth.email_verification.expires_in;
    call.set_cookie(auth.cookies.set_sign_up_mark(&mark, life));
    stopwatch.even_out().await;
    Ok(Answer::json(json!({ "status": true })))
}

/// A change that is under way.
struct Change<'a> {
    user: &'a User,
    new_email: &'a str,
    browser: TokenHash,
    /// In which it was asked for.
    session: Option<SessionId>,
    callback_url: Option<&'a str>,
}

impl Change<'_> {
    async fn ask_old(&self, call: &Call<'_>, tx: &Transaction<'_>) -> Result<(), DbError> {
        let link = self.link::<ApproveEmailChange>(call, tx).await?;
        let message = Message::ApproveEmailChange {
            name: &self.user.name,
            new_email: self.new_email,
            link: &link,
            expires_in: call.auth.config.auth.email_verification.expires_in,
        };
        mail::enqueue(tx, &call.auth.sealing, &self.user.email, &message, call.now).await
    }

    async fn ask_new(&self, call: &Call<'_>, tx: &Transaction<'_>) -> Result<(), DbError> {
        let link = self.link::<ConfirmEmailChange>(call, tx).await?;
        let message = Message::ConfirmEmailChange {
            name: &self.user.name,
            link: &link,
            expires_in: call.auth.config.auth.email_verification.expires_in,
        };
        mail::enqueue(tx, &call.auth.sealing, self.new_email, &message, call.now).await
    }

    async fn link<P: Purpose>(&self, call: &Call<'_>, tx: &Transaction<'_>) -> Result<String, DbError> {
        let token = OneTimeToken::<P>::generate();
        let issue = Issue {
            user: self.user.id,
            // While this is the user's address the link is good, whichever address it is mailed to.
            email: &self.user.email,
            browser: Some(self.browser),
            sign_up: None,
            new_email: Some(self.new_email),
            session: self.session,
            is_printed: false,
            expires_at: call.now.plus(call.auth.config.auth.email_verification.expires_in),
        };
        one_time_tokens::insert(tx, &token, &issue, call.now).await?;
        Ok(link_url(call.auth, token.as_str(), self.callback_url))
    }
}

/// The old address agrees: the new one is asked.
pub(in crate::auth) async fn approve(
    call: &mut Call<'_>,
    token: &OneTimeToken<ApproveEmailChange>,
    callback_url: Option<&str>,
    subject: &mut Option<UserId>,
) -> Result<Opened, AuthError> {
    let visitor = call.session(Refresh::Slide).await?.map(|current| current.user.id);
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let (user, issued, new_email) = claim(call, &tx, token, visitor, subject).await?;
    if user.email == issued.email && !issued.is_consumed {
        demand_asker(call, &tx, &user, &issued).await?;
        // While the new address has had its share of mails, the link stays good for another try.
        let asks =
            may_write(call, &tx, user.id, &new_email).await? && one_time_tokens::consume(&tx, token, call.now).await?;
        if !asks {
            db::commit(tx).await?;
            return Ok(Opened::Approved);
        }
        let change = Change {
            user: &user,
            new_email: &new_email,
            browser: issued.browser.ok_or(AuthError::InvalidToken)?,
            session: issued.session,
            callback_url,
        };
        change.ask_new(call, &tx).await?;
        call.audit(&tx, &audit::Entry::done(audit::Action::ApproveEmailChange, user.id))
            .await?;
        db::commit(tx).await?;
        call.auth.outbox.ring();
    } else if user.email != issued.email && user.email != new_email {
        return Err(AuthError::InvalidToken);
    }
    Ok(Opened::Approved)
}

/// The new address answers: it is the user's from now on.
pub(in crate::auth) async fn confirm(
    call: &mut Call<'_>,
    token: &OneTimeToken<ConfirmEmailChange>,
    subject: &mut Option<UserId>,
) -> Result<Opened, AuthError> {
    let auth = call.auth;
    let current = call.session(Refresh::Slide).await?;
    let visitor = current.as_ref().map(|current| current.user.id);
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let (mut user, issued, new_email) = claim(call, &tx, token, visitor, subject).await?;
    let is_asking_browser = issued.browser.is_some() && issued.browser == verify_email::mark_hash(call);
    let reader = if visitor.is_some() || is_asking_browser {
        Reader::Holder
    } else {
        Reader::Unknown
    };
    if user.email == new_email && user.email_verified {
        if reader == Reader::Holder && users::trust_address(&tx, user.id).await? {
            db::commit(tx).await?;
        }
        return Ok(Opened::Changed(Box::new(user)));
    }
    demand_asker(call, &tx, &user, &issued).await?;
    let is_good = user.email == issued.email && one_time_tokens::consume(&tx, token, call.now).await?;
    // Somebody else may have taken the address meanwhile.
    if !is_good || users::by_email(&tx, &new_email).await?.is_some() {
        return Err(AuthError::InvalidToken);
    }
    match users::change_email(&tx, user.id, &new_email, reader, call.now).await {
        Err(DbError::Conflict { constraint }) if constraint == users::EMAIL_KEY => return Err(AuthError::InvalidToken),
        done => done?,
    }
    // What was mailed to the old address is void.
    one_time_tokens::void(&tx, user.id, one_time_tokens::MAILED, call.now).await?;
    if user.email_verified {
        let message = Message::EmailChanged {
            name: &user.name,
            new_email: &new_email,
        };
        mail::enqueue(&tx, &call.auth.sealing, &user.email, &message, call.now).await?;
    }
    call.audit(&tx, &audit::Entry::done(audit::Action::ChangeEmail, user.id))
        .await?;
    user.email = new_email;
    user.email_verified = true;
    user.updated_at = call.now;
    let signs_in = current.is_none()
        && match auth.config.auth.email_verification.sign_in_after {
            SignInAfter::Never => false,
            SignInAfter::Always => true,
            SignInAfter::SameBrowser => is_asking_browser,
        };
    let completed = if signs_in {
        let proof = Proof {
            user: user.id,
            shown: Shown::MailedLink,
        };
        Some(complete_in(call, &tx, proof, Remember::Yes).await?)
    } else {
        None
    };
    db::commit(tx).await?;
    auth.outbox.ring();
    auth.sessions.forget_user(user.id);
    if let Some(completed) = completed {
        completed.tell(call);
    } else if let Some(current) = current {
        call.hand_out(&current.token, current.remember());
    }
    Ok(Opened::Changed(Box::new(user)))
}

/// The user of a link and what it says, if it is one of theirs and has not expired. The user is locked.
async fn claim<P: Purpose>(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    token: &OneTimeToken<P>,
    visitor: Option<UserId>,
    subject: &mut Option<UserId>,
) -> Result<(User, Issued, String), AuthError> {
    let issued = one_time_tokens::find(tx, token).await?.ok_or(AuthError::InvalidToken)?;
    *subject = issued.user;
    if issued.expires_at <= call.now {
        return Err(AuthError::TokenExpired);
    }
    let user = issued.user.ok_or(AuthError::UserNotFound)?;
    if visitor.is_some_and(|visitor| visitor != user) {
        return Err(AuthError::InvalidUser);
    }
    let user = users::lock(tx, user).await?.ok_or(AuthError::UserNotFound)?;
    // Its session may have ended since, by a sign-out that the link outlives.
    let mut issued = one_time_tokens::find(tx, token).await?.ok_or(AuthError::InvalidToken)?;
    let new_email = issued.new_email.take().ok_or(AuthError::InvalidToken)?;
    Ok((user, issued, new_email))
}

/// Whether whoever asked may still do so: nothing of a change is left where the session was ended in which it was asked for, or
/// the user was banned. The user is locked.
async fn demand_asker(call: &Call<'_>, tx: &Transaction<'_>, user: &User, issued: &Issued) -> Result<(), AuthError> {
    if user.is_banned(call.now) {
        return Err(AuthError::InvalidToken);
    }
    match issued.session {
        Some(session) if !db::sessions::is_live(tx, session, user.id, call.now).await? => Err(AuthError::InvalidToken),
        // A gateway of the release before does not note it.
        Some(_) | None => Ok(()),
    }
}

pub(in crate::auth) fn describe() -> Description {
    Description::of(
        Group::Account,
        "Ask for another address",
        "Nothing changes before a mailed link is opened: first, where the configuration wants it and the old address is \
         verified, one to the old address, then one to the new. An address that somebody else has gets the same answer.",
    )
    .who(Who::WithSession)
    .work(Work::Database)
    .body([
        Field::address("newEmail").required(),
        Field::target("callbackURL").says("Where the mailed links lead in the end."),
    ])
    .answers([Yes::json(
        "A mail is on its way, if the address is free.",
        object([("status", always(true).into())]),
    )
    .header("Set-Cookie", "Marks the browser that asked: in it the link also signs in.")])
    .refuses([AuthError::ChangeEmailDisabled, AuthError::SameEmail])
}
