//! Verification of an address by a mailed link, and sending such links.
//!
//! The first visit verifies. Machines visit too: mail scanners open every link. So by default the link signs in only
//! the browser that asked for it, known by a cookie (the *mark*) whose hash is stored with the token; and it does so
//! once, whoever has opened it before. A second visit changes nothing and is told that all is well.
//!
//! Strangers may sign up with somebody's address, and their mails look like the owner's own. So where several sign-ups
//! compete for an address, a link is good only in the browser that made the sign-up it belongs to: whoever reads the mail
//! must not put a stranger's password in force by a click. A sign-up competes while it is on record, which is longer than
//! its link is good, and the one that made the account until the address is verified: the owner may have been it, and be
//! glad of any mail that still comes. Nor may they hand their address to a stranger's
//! account at a provider. Reading the mail does not tell them from the stranger: anybody can have a link mailed, and open
//! it where they asked for it. So while an unverified user has such an account, whoever opens a link shows something of
//! the user's own with it: a session, or that the link was mailed when they signed in, or signed up, in this very browser
//! (`oauth/arrival.rs` has the whole table).

use serde_json::json;

use super::{
    Auth, AuthError,
    account::{change_email, ways_in},
    complete::{Proof, Remember, Shown, complete_in},
    evenness::Stopwatch,
    http::{Answer, Call, Refresh, component},
    objects,
    openapi::{Description, Field, Group, TOKEN, Who, Work, Yes, always, named, object, or_null},
    post::{is_left_out, post},
    sessions,
};
use crate::{
    config::SignInAfter,
    db::{
        self, DbError, Transaction,
        accounts::{self, linked},
        audit,
        one_time_tokens::{self, Issue, Issued, SignUp},
        users::{self, User},
    },
    identity::UserId,
    mail::Message,
    policy::redirect::append_query,
    secret::{
        ApproveEmailChange, ConfirmEmailChange, OneTimeToken, Purpose, SameBrowser, Secret, TokenHash, VerifyEmail,
    },
};

/// Where a link without a target of its own leads: the front page.
const DEFAULT_TARGET: &str = "/";

/// A link to be mailed.
pub(super) struct Link<'a> {
    pub(super) user: UserId,
    pub(super) email: &'a str,
    pub(super) name: &'a str,
    pub(super) browser: TokenHash,
    /// The sign-up that was made in this browser; `None` where somebody asked who made none there.
    pub(super) sign_up: Option<&'a SignUp>,
    pub(super) callback_url: Option<&'a str>,
}

/// The mark of the browser that asks for a link: the one that it has, or a new one. To be set as a cookie.
///
/// Whatever the link may do beyond verifying: the mark also tells whose sign-up is whose.
pub(super) fn browser_mark(call: &Call<'_>) -> OneTimeToken<SameBrowser> {
    let mark = call.auth.cookies.sign_up_mark(call.headers);
    mark.unwrap_or_else(OneTimeToken::generate)
}

/// Issues a token and writes the mail that carries it, both in `tx`.
pub(super) async fn mail_link(call: &Call<'_>, tx: &Transaction<'_>, link: &Link<'_>) -> Result<(), DbError> {
    let auth = call.auth;
    let expires_in = auth.config.auth.email_verification.expires_in;
    let token = OneTimeToken::<VerifyEmail>::generate();
    let issue = Issue {
        user: link.user,
        email: link.email,
        browser: Some(link.browser),
        sign_up: link.sign_up,
        new_email: None,
        session: None,
        is_printed: false,
        expires_at: call.now.plus(expires_in),
    };
    one_time_tokens::insert(tx, &token, &issue, call.now).await?;
    let url = link_url(auth, token.as_str(), link.callback_url);
    let message = Message::VerifyEmail {
        name: link.name,
        link: &url,
        expires_in,
    };
    post(call, tx, link.user, link.email, &message).await
}

/// The link that opens a token of any of the purposes that [`open`] knows.
pub(super) fn link_url(auth: &Auth, token: &str, callback_url: Option<&str>) -> String {
    let target = component(callback_url.unwrap_or(DEFAULT_TARGET));
    format!("{}/verify-email?token={token}&callbackURL={target}", auth.base_url)
}

/// POST /send-verification-email
pub(super) async fn send(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let email = check.address("email");
    let callback_url = check.optional_target("callbackURL");
    check.done()?;
    let auth = call.auth;
    let mut stopwatch = auth.evenness.start();
    if let Some(current) = call.session(Refresh::Slide).await? {
        if current.user.email != email.as_str() {
            return Err(AuthError::EmailMismatch);
        }
        if current.user.email_verified {
            return Err(AuthError::AlreadyVerified);
        }
        resend(call, &mut stopwatch, email.as_str(), callback_url.as_deref()).await?;
    } else {
        let sent = resend(call, &mut stopwatch, email.as_str(), callback_url.as_deref()).await;
        stopwatch.even_out().await;
        sent?;
    }
    auth.outbox.ring();
    Ok(Answer::json(json!({ "status": true })))
}

/// Mails a link to an address that has an unverified user, and to no other.
async fn resend(
    call: &mut Call<'_>,
    stopwatch: &mut Stopwatch<'_>,
    email: &str,
    callback_url: Option<&str>,
) -> Result<(), AuthError> {
    let auth = call.auth;
    let mark = browser_mark(call);
    let browser = mark.hash();
    let mut client = auth.db.client().await?;
    let tx = stopwatch.begin(&mut client).await?;
    let is_meant = |user: &User| user.email == email && !user.email_verified;
    let unverified = users::by_email(&tx, email).await?.filter(is_meant);
    let entry = if let Some(user) = &unverified {
        if !is_left_out(call, &tx, user.id, email).await?
            && let Some(user) = users::lock(&tx, user.id).await?.filter(is_meant)
        {
            // Who signed up in this browser gets the link for that sign-up, not for one of somebody else.
            let sign_up = one_time_tokens::sign_up_of::<VerifyEmail>(&tx, user.id, &browser).await?;
            let link = Link {
                user: user.id,
                email,
                name: sign_up.as_ref().map_or(&user.name, |sign_up| &sign_up.name),
                browser,
                sign_up: sign_up.as_ref(),
                callback_url,
            };
            mail_link(call, &tx, &link).await?;
        }
        audit::Entry {
            // Anybody may ask for it.
            actor: None,
            ..audit::Entry::done(audit::Action::SendVerificationMail, user.id)
        }
    } else {
        audit::Entry {
            email: Some(email),
            ..audit::Entry::refused(audit::Action::SendVerificationMail, "NO_UNVERIFIED_USER")
        }
    };
    call.audit(&tx, &entry).await?;
    db::commit(tx).await?;
    let life = auth.config.auth.email_verification.expires_in;
    call.set_cookie(auth.cookies.set_sign_up_mark(&mark, life));
    Ok(())
}

/// What a link has done, or had done before.
#[derive(Debug)]
pub(super) enum Opened {
    Verified,
    /// The old address agreed to a change.
    Approved,
    /// The address is another one now.
    Changed(Box<User>),
}

/// GET /verify-email, where the links of sign-ups and of changes of address lead.
pub(super) async fn open(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let mut check = call.query.check();
    let token = check.text("token");
    let callback_url = check.optional_target("callbackURL");
    check.done()?;
    let mut subject = None;
    let opened = dispatch(call, &token, callback_url.as_deref(), &mut subject).await;
    if let Err(error) = &opened
        && let Some(action) = refused_action(error)
    {
        let entry = audit::Entry {
            subject,
            ..audit::Entry::refused(action, error.code().as_str())
        };
        call.audit(&auth.db.client().await?, &entry).await?;
    }
    match (opened, callback_url) {
        (Ok(_), Some(target)) => Ok(Answer::redirect(target)),
        (Ok(Opened::Verified), None) => Ok(Answer::json(json!({ "status": true, "user": null }))),
        (Ok(Opened::Approved), None) => Ok(Answer::json(json!({ "status": true }))),
        (Ok(Opened::Changed(user)), None) => Ok(Answer::json(json!({ "status": true, "user": objects::user(&user) }))),
        (Err(error), Some(target)) if refused_action(&error).is_some() => {
            Ok(Answer::redirect(append_query(&target, "error", error.code().as_str())))
        }
        (Err(error), _) => Err(error),
    }
}

/// Does what the link is for. `subject` becomes the user whose link it is.
async fn dispatch(
    call: &mut Call<'_>,
    token: &str,
    callback_url: Option<&str>,
    subject: &mut Option<UserId>,
) -> Result<Opened, AuthError> {
    let verify = OneTimeToken::<VerifyEmail>::parse(token).ok_or(AuthError::InvalidToken)?;
    let purpose = one_time_tokens::purpose_of(&call.auth.db.client().await?, &verify.hash()).await?;
    match purpose.as_deref() {
        Some(VerifyEmail::NAME) => {
            visit(call, &verify, subject).await?;
            Ok(Opened::Verified)
        }
        Some(ApproveEmailChange::NAME) => {
            let token = OneTimeToken::parse(token).ok_or(AuthError::InvalidToken)?;
            change_email::approve(call, &token, callback_url, subject).await
        }
        Some(ConfirmEmailChange::NAME) => {
            let token = OneTimeToken::parse(token).ok_or(AuthError::InvalidToken)?;
            change_email::confirm(call, &token, subject).await
        }
        _ => Err(AuthError::InvalidToken),
    }
}

/// What it is that was refused to whoever opened a link, if it was that and not a failure of ours.
const fn refused_action(error: &AuthError) -> Option<audit::Action> {
    match error {
        AuthError::InvalidToken | AuthError::TokenExpired | AuthError::UserNotFound | AuthError::InvalidUser => {
            Some(audit::Action::VerifyEmail)
        }
        // The link did what it could.
        AuthError::Banned => Some(audit::Action::SignIn),
        _ => None,
    }
}

/// Verifies the address if that is still to be done, and signs in whom the link may sign in.
async fn visit(
    call: &mut Call<'_>,
    token: &OneTimeToken<VerifyEmail>,
    subject: &mut Option<UserId>,
) -> Result<(), AuthError> {
    let auth = call.auth;
    let visitor = call.session(Refresh::Slide).await?.map(|current| current.user.id);
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let issued = one_time_tokens::find(&tx, token)
        .await?
        .ok_or(AuthError::InvalidToken)?;
    *subject = issued.user;
    if issued.expires_at <= call.now {
        return Err(AuthError::TokenExpired);
    }
    let user = issued.user.ok_or(AuthError::UserNotFound)?;
    // From here on one visit at a time.
    let user = users::lock(&tx, user).await?.ok_or(AuthError::UserNotFound)?;
    if user.email != issued.email {
        // It was mailed to an address that is no longer the user's.
        return Err(AuthError::InvalidToken);
    }
    let is_first = !user.email_verified;
    if is_first {
        let opening = Opening {
            user: &user,
            issued: &issued,
            is_asking_browser: issued.browser.is_some() && issued.browser == mark_hash(call),
            is_own_session: visitor == Some(user.id),
        };
        put_in_force(call, &tx, &opening, token).await?;
    }
    let signs_in = match auth.config.auth.email_verification.sign_in_after {
        SignInAfter::Never => false,
        SignInAfter::Always => is_first,
        SignInAfter::SameBrowser => issued.browser.is_some() && issued.browser == mark_hash(call),
    };
    let signs_in = signs_in && one_time_tokens::consume(&tx, token, call.now).await?;
    let completed = if signs_in {
        let proof = Proof {
            user: user.id,
            shown: Shown::MailedLink,
        };
        match complete_in(call, &tx, proof, Remember::Yes).await {
            Ok(completed) => Ok(Some(completed)),
            // The address is verified all the same.
            Err(AuthError::Banned) => Err(AuthError::Banned),
            Err(error) => return Err(error),
        }
    } else {
        Ok(None)
    };
    db::commit(tx).await?;
    if is_first {
        auth.sessions.forget_user(user.id);
    }
    if signs_in {
        call.set_cookie(auth.cookies.clear_sign_up_mark());
    }
    if let Some(completed) = completed? {
        completed.tell(call);
    }
    Ok(())
}

/// A link that is opened, and what else whoever opens it shows.
struct Opening<'a> {
    user: &'a User,
    issued: &'a Issued,
    /// It is opened where it was asked for.
    is_asking_browser: bool,
    /// It is opened where the user is signed in.
    is_own_session: bool,
}

/// What becomes of a user's accounts at providers when the address is verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Linked {
    Stay,
    /// Whoever opened the link knows the password, and need not be who came by a provider.
    Go,
}

impl Opening<'_> {
    /// The sign-up that decides about the user, or about a user in use the sign-in at which the link was mailed.
    const fn sign_up(&self) -> Option<&SignUp> {
        self.issued.sign_up.as_ref()
    }

    /// Of a user whom a sign-up is to decide about. `None`: somebody else's could be the one that the reader of this mail
    /// means.
    async fn of_unclaimed(&self, tx: &Transaction<'_>) -> Result<Option<Linked>, DbError> {
        let linked = match self.sign_up() {
            Some(sign_up) if sign_up.password_hash.is_some() => Linked::Go,
            _ => Linked::Stay,
        };
        let user = self.user.id;
        let own = self.sign_up().and(self.issued.browser.as_ref());
        // Who came first is known as long as the account is, whatever has become of their links.
        let first = accounts::password(tx, user).await?.map(|stored| stored.hash);
        let hash = match self.sign_up() {
            Some(_) if self.is_asking_browser => return Ok(Some(linked)),
            // Somebody came by a provider, whatever has become of their own link.
            _ if !self.is_own_session && linked::exists(tx, user).await? => return Ok(None),
            Some(sign_up) => {
                let asked = sign_up.password_hash.as_ref();
                if !is_own_first(tx, user, first.as_ref(), asked, own).await? {
                    return Ok(None);
                }
                asked
            }
            // Asked for in a browser that made no sign-up, the link stands for the account as it is.
            None => first.as_ref(),
        };
        let has_rivals = one_time_tokens::has_rivals::<VerifyEmail>(tx, user, hash, own).await?;
        Ok((!has_rivals).then_some(linked))
    }

    /// Of a user who is in use no sign-up decides; but who reads the mail need not be who came by the provider.
    async fn of_claimed(&self, tx: &Transaction<'_>) -> Result<Option<Linked>, DbError> {
        if self.is_own_session || !linked::exists(tx, self.user.id).await? {
            return Ok(Some(Linked::Stay));
        }
        let signed_in_here = self.sign_up().filter(|_| self.is_asking_browser);
        Ok(signed_in_here.map(|with| match with.password_hash {
            Some(_) => Linked::Go,
            None => Linked::Stay,
        }))
    }
}

/// Whether the sign-up that made the account is the one that asked for `asked`, or one of the same browser.
async fn is_own_first(
    tx: &Transaction<'_>,
    user: UserId,
    first: Option<&Secret<String>>,
    asked: Option<&Secret<String>>,
    own: Option<&TokenHash>,
) -> Result<bool, DbError> {
    if first.map(Secret::expose) == asked.map(Secret::expose) {
        return Ok(true);
    }
    match first.zip(own) {
        Some((first, own)) => one_time_tokens::has_sign_up::<VerifyEmail>(tx, user, first, own).await,
        None => Ok(false),
    }
}

/// The address is the user's. If sign-ups made the user, name and password are those of the one whose link was opened.
async fn put_in_force(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    opening: &Opening<'_>,
    token: &OneTimeToken<VerifyEmail>,
) -> Result<(), AuthError> {
    let user = opening.user.id;
    // Asked under the lock: whoever chose a password meanwhile has claimed the account.
    let is_unclaimed = users::is_unclaimed(tx, user).await?;
    let linked = if is_unclaimed {
        opening.of_unclaimed(tx).await?
    } else {
        opening.of_claimed(tx).await?
    };
    let linked = linked.ok_or(AuthError::InvalidToken)?;
    users::set_verified(tx, user, call.now).await?;
    let sign_up = opening.sign_up().filter(|_| is_unclaimed);
    if let Some(sign_up) = sign_up {
        users::set_name(tx, user, &sign_up.name, call.now).await?;
        if let Some(hash) = &sign_up.password_hash {
            accounts::set_password(tx, call.new_id(), user, hash, call.now).await?;
        }
    }
    if linked == Linked::Go {
        ways_in::drop_linked(call, tx, user).await?;
    }
    if sign_up.is_some() || linked == Linked::Go {
        // Whoever used the account so far, unverified, may have been somebody else.
        let ended = db::sessions::revoke_all(tx, user, None, call.now).await?;
        sessions::note(call, tx, &ended, "verified").await?;
    }
    // The links of other sign-ups can no longer sign anybody in.
    one_time_tokens::consume_others(tx, user, token, call.now).await?;
    call.audit(tx, &audit::Entry::done(audit::Action::VerifyEmail, user))
        .await?;
    Ok(())
}

/// The mark of the browser that asks, as it is stored.
pub(super) fn mark_hash(call: &Call<'_>) -> Option<TokenHash> {
    let mark = call.auth.cookies.sign_up_mark(call.headers)?;
    Some(mark.hash())
}

pub(super) fn describe_send() -> Description {
    Description::of(
        Group::Verification,
        "Send the verification mail again",
        "The answer does not tell whether the address has a user who is still to be verified. Whoever is signed in may \
         ask for their own address alone.",
    )
    .who(Who::WithOrWithoutSession)
    .work(Work::Database)
    .body([
        Field::address("email").required(),
        Field::target("callbackURL").says("Where the mailed link leads in the end."),
    ])
    .answers([Yes::json(
        "A mail is on its way, if there is somebody to be verified.",
        object([("status", always(true).into())]),
    )
    .header(
        "Set-Cookie",
        "Marks the browser that asked: in it the link also signs in.",
    )])
    .refuses([AuthError::EmailMismatch, AuthError::AlreadyVerified])
}

pub(super) fn describe_open() -> Description {
    Description::of(
        Group::Verification,
        "Open a link of a verification mail",
        "Where the mailed links of sign-ups and of changes of address lead. A second visit finds all done and says so. \
         With `callbackURL` a refusal is a redirect too, with its code in `error`.",
    )
    .who(Who::WithOrWithoutSession)
    .work(Work::Database)
    .query([
        Field::text("token", TOKEN).required(),
        Field::target("callbackURL").says("Where to go then."),
    ])
    .answers([
        Yes::json(
            "Done, or done before. `user` is null for a sign-up, absent where the old address agreed to a change, and \
             the user once the address has changed.",
            object([("status", always(true).into())]).property("user", or_null(named("User"))),
        )
        .hands_out_session(),
        Yes::redirect("To `callbackURL`, with `error` in its query if the link was refused.").hands_out_session(),
    ])
    .refuses([
        AuthError::InvalidToken,
        AuthError::TokenExpired,
        AuthError::UserNotFound,
        AuthError::InvalidUser,
        AuthError::Banned,
    ])
}
