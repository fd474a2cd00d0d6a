//! Somebody comes back from a provider: whose account that is, whether it becomes one, and whether they are signed in.
//!
//! An account here is known by provider, issuer and subject; addresses change hands. An address decides but once, when
//! the subject is new here: it leads into a local account only if both sides have proven it, and not into that of
//! somebody who is another subject at the same provider: companies give the address of who left to who came.
//!
//! Strangers may be first with somebody's address, by a password sign-up or at a provider that does not prove it. Once
//! the owner has shown that the address is theirs, nothing of the stranger's gives access:
//!
//! | first, by a stranger | then, by the owner | outcome |
//! |---|---|---|
//! | password sign-up, unverified | signs in at a provider | refused (`account_not_linked`): nothing is captured |
//! | password sign-up, unverified | own sign-up's link, or a reset | the stranger's password and links are void, as before |
//! | unproven sign-in at a provider | opens the mail that this caused | refused: that link is good in the stranger's browser alone |
//! | unproven sign-in at a provider | asks for a link, opens it | refused, since it would prove the address for the stranger, unless in a session of that user |
//! | unproven sign-in at a provider | password sign-up, its link in the same browser | the owner's name and password; the account at the provider is dropped |
//! | unproven sign-in at a provider | resets the password | the same, by `reset_password.rs` |
//! | unproven sign-in at a provider | signs in at a provider that proves it | refused while unverified; after one of the two above, linked |
//! | link flow begun in a session | any of the above | the session has ended, and with it the flow |
//! | change of address begun | reset | void (`change_password::put`) |
//! | change to the address, whose link a mail scanner opened | signs in at a provider that proves it | refused: the address is in doubt (`change_email.rs`) |
//! | the same | resets the password | the owner's account; accounts at providers are dropped |
//! | callback under way | any of the above | decided under the user's lock, on the rows as they are then |
//! | any | deletion by whoever is in | accounts, sessions and flows go along |
//!
//! The owner's own unproven sign-in is safe the other way round: while it stands, a stranger's password sign-up counts
//! only in the stranger's browser (`verify_email.rs`), who does not read the mail.
//!
//! A linked account whose provider comes to prove the user's unverified address is the owner's, then. What else leads
//! into the account may be somebody's who never proved it. Where verification is required that goes: other accounts, the
//! password, sessions, links. Where it is not, people live with unverified addresses and a password they need; there,
//! the address only becomes verified if nothing else leads in.
//!
//! Left: whoever opens the link of a password sign-up that is not theirs, which a mail scanner does, makes that user the
//! address's. A later sign-in at a provider comes into it, and the stranger's password stays good until a reset.

mod decision;

use tracing::warn;

pub(super) use self::decision::Holder;
use self::decision::{Facts, Standing, Step, decide};
use super::{
    provider::{Profile, Provider, Tokens},
    vault,
};
use crate::{
    auth::{
        Auth, AuthError, FIRST_ROLE,
        account::ways_in::ADDRESS_PROVEN,
        complete::{Proof, Remember, Shown, SignedIn, complete_in},
        email::EmailAddress,
        http::Call,
        sessions,
        verify_email::{Link, browser_mark, mail_link},
    },
    config::ProviderSignUp,
    db::{
        self, DbError, Transaction,
        accounts::{
            self, Account,
            linked::{self, Subject},
        },
        audit,
        one_time_tokens::{self, SignUp},
        users::{self, User},
    },
    identity::{AccountId, SessionId, UserId},
    mail::{self, Message},
    secret::{OneTimeToken, SameBrowser},
};

/// What a provider has shown.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    pub(super) provider: &'a Provider,
    pub(super) profile: Profile,
    pub(super) tokens: Tokens,
}

/// Somebody signed in; the cookies are on their way.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) signed_in: SignedIn,
    /// The user was made just now.
    pub(super) is_new: bool,
}

/// Why somebody whom the provider knows does not get in, or gets no account linked.
#[derive(Debug)]
pub(super) enum Refusal {
    /// `account_not_linked`
    NotLinked,
    /// `signup_disabled`
    SignUpDisabled,
    /// `email_not_found`
    EmailNotFound,
    /// `email_not_verified`: a mail with a link is on its way.
    EmailNotVerified,
    /// `BANNED_USER`
    Banned,
    /// `email_does_not_match`
    EmailDoesNotMatch,
    /// `account_already_linked_to_different_user`
    LinkedToAnother,
    /// `unable_to_link_account`
    UnableToLink,
    /// Not a refusal but a failure of ours.
    Failed(AuthError),
}

impl Refusal {
    /// As clients and the audit log know it; `None` for a failure of ours.
    pub(super) const fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotLinked => "account_not_linked",
            Self::SignUpDisabled => "signup_disabled",
            Self::EmailNotFound => "email_not_found",
            Self::EmailNotVerified => "email_not_verified",
            Self::Banned => "BANNED_USER",
            Self::EmailDoesNotMatch => "email_does_not_match",
            Self::LinkedToAnother => "account_already_linked_to_different_user",
            Self::UnableToLink => "unable_to_link_account",
            Self::Failed(_) => return None,
        })
    }
}

impl<E: Into<AuthError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// So often somebody else may come first, with the same account or the same address, before we give up.
pub(super) const TRIES: usize = 3;

/// Whether somebody who is not known here may become a user. `is_requested`: the app asked with `requestSignUp`.
pub(super) fn may_sign_up(auth: &Auth, provider: &Provider, is_requested: bool) -> bool {
    auth.config.auth.sign_up
        && match provider.settings().sign_up {
            ProviderSignUp::Allowed => true,
            ProviderSignUp::OnRequest => is_requested,
            ProviderSignUp::Off => false,
        }
}

/// What a transaction came to.
pub(super) enum Tried<T> {
    Done(T),
    /// Somebody else was first: look again.
    Overtaken,
}

/// Signs in whoever the provider says it is. `callback_url`: where a verification mail's link leads.
pub(super) async fn sign_in(
    call: &mut Call<'_>,
    arrival: Arrival<'_>,
    may_sign_up: bool,
    callback_url: Option<&str>,
) -> Result<Entered, Refusal> {
    for _ in 0..TRIES {
        match try_sign_in(call, &arrival, may_sign_up, callback_url).await? {
            Tried::Done(entered) => return Ok(entered),
            Tried::Overtaken => {}
        }
    }
    arrival.warn_overtaken(call);
    Err(Refusal::UnableToLink)
}

async fn try_sign_in(
    call: &mut Call<'_>,
    arrival: &Arrival<'_>,
    may_sign_up: bool,
    callback_url: Option<&str>,
) -> Result<Tried<Entered>, Refusal> {
    let auth = call.auth;
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let subject = arrival.subject();
    let found = linked::find(&tx, subject.provider, subject.subject).await?;
    let holder = Holder::of(found.as_ref(), subject.issuer);
    let email = arrival.profile.email.as_ref();
    let local = match (holder, email) {
        (Holder::User(user), _) => users::lock(&tx, user).await?,
        (Holder::Nobody, Some(email)) => users::lock_by_email(&tx, email.as_str()).await?,
        (Holder::Nobody, None) | (Holder::OtherIssuer, _) => None,
    };
    // Now that the user is locked: an unlinking, a deletion or another callback may have come first.
    if linked::find(&tx, subject.provider, subject.subject).await? != found {
        return Ok(Tried::Overtaken);
    }
    let is_local_known_there = match &local {
        Some(user) if holder == Holder::Nobody => {
            let ways = accounts::of(&tx, user.id).await?;
            ways.iter().any(|way| way.provider_id == subject.provider)
        }
        _ => false,
    };
    let standing = match &local {
        None => None,
        Some(user) if !user.email_verified => Some(Standing::Unverified),
        Some(user) if users::is_in_doubt(&tx, user.id).await? => Some(Standing::InDoubt),
        Some(_) => Some(Standing::Verified),
    };
    let step = decide(Facts {
        holder,
        is_address_proven: email.map(|_| arrival.profile.email_verified),
        local: standing,
        is_local_known_there,
        links_by_email: auth.config.auth.account.link_by_email,
        may_sign_up,
    });
    let subject_of = local.as_ref().map(|user| user.id);
    let refusal = match (step, local) {
        (Step::Enter, Some(user)) if user.is_banned(call.now) => Refusal::Banned,
        (Step::LinkByAddress, Some(user)) if user.is_banned(call.now) => Refusal::Banned,
        (Step::Enter, Some(user)) => {
            let Some(known) = found else {
                return Ok(Tried::Overtaken);
            };
            return enter(call, tx, arrival, user, known.id, callback_url)
                .await
                .map(Tried::Done);
        }
        (Step::LinkByAddress, Some(user)) => {
            if !arrival.insert(call, &tx, user.id).await? {
                return Ok(Tried::Overtaken);
            }
            tell_linked(call, &tx, arrival, &user, None).await?;
            return finish(call, tx, arrival, user, IsNew::No, callback_url)
                .await
                .map(Tried::Done);
        }
        (Step::MakeUser, _) => {
            let Some(user) = email.map(|email| arrival.new_user(call, email)) else {
                return Err(Refusal::EmailNotFound);
            };
            if !users::insert(&tx, &user).await? {
                return Ok(Tried::Overtaken);
            }
            if !arrival.insert(call, &tx, user.id).await? {
                return Ok(Tried::Overtaken);
            }
            let entry = audit::Entry {
                reason: Some(subject.provider),
                ..audit::Entry::done(audit::Action::SignUp, user.id)
            };
            call.audit(&tx, &entry).await?;
            return finish(call, tx, arrival, user, IsNew::Yes, callback_url)
                .await
                .map(Tried::Done);
        }
        // The account's user is gone, and the account with them.
        (Step::Enter | Step::LinkByAddress, None) => return Ok(Tried::Overtaken),
        (Step::NotLinked, _) => Refusal::NotLinked,
        (Step::SignUpDisabled, _) => Refusal::SignUpDisabled,
        (Step::EmailNotFound, _) => Refusal::EmailNotFound,
        (Step::UnableToLink, _) => Refusal::UnableToLink,
    };
    note_refusal(call, &tx, &refusal, subject_of, email).await?;
    db::commit(tx).await?;
    Err(refusal)
}

/// Somebody whose account is known.
async fn enter(
    call: &mut Call<'_>,
    tx: Transaction<'_>,
    arrival: &Arrival<'_>,
    mut user: User,
    account: AccountId,
    callback_url: Option<&str>,
) -> Result<Entered, Refusal> {
    let sealed = vault::seal(&call.auth.sealing, account, &arrival.tokens);
    linked::renew(&tx, account, &arrival.profile.issuer, &sealed, call.now).await?;
    if arrival.proves(&user.email) {
        if user.email_verified {
            users::trust_address(&tx, user.id).await?;
        } else {
            take_over(call, &tx, arrival, &mut user, account).await?;
        }
    }
    finish(call, tx, arrival, user, IsNew::No, callback_url).await
}

/// The provider proves what nobody had proven: see the module's text.
async fn take_over(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    arrival: &Arrival<'_>,
    user: &mut User,
    account: AccountId,
) -> Result<(), DbError> {
    let is_required = call.auth.config.auth.email_verification.required;
    let mut others = accounts::of(tx, user.id).await?;
    others.retain(|way| way.id != account);
    if !is_required && !others.is_empty() {
        return Ok(());
    }
    users::set_verified(tx, user.id, call.now).await?;
    one_time_tokens::void(tx, user.id, one_time_tokens::MAILED, call.now).await?;
    one_time_tokens::drop_sign_ups(tx, user.id).await?;
    if !others.is_empty() {
        linked::drop_others(tx, user.id, account).await?;
        tell_dropped(call, tx, arrival, user, &others).await?;
    }
    let ended = db::sessions::revoke_all(tx, user.id, None, call.now).await?;
    // Heard by every gateway, this one included, through the triggers.
    sessions::note(call, tx, &ended, "verified").await?;
    let entry = audit::Entry::done(audit::Action::VerifyEmail, user.id);
    call.audit(tx, &entry).await?;
    user.email_verified = true;
    user.updated_at = call.now;
    Ok(())
}

/// Writes down which ways in are gone, and tells whoever came: they may miss a password that was theirs.
async fn tell_dropped(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    arrival: &Arrival<'_>,
    user: &User,
    dropped: &[Account],
) -> Result<(), DbError> {
    for way in dropped {
        let action = if way.is_password() {
            audit::Action::RemovePassword
        } else {
            audit::Action::UnlinkAccount
        };
        let entry = audit::Entry {
            reason: Some(ADDRESS_PROVEN),
            ..audit::Entry::done(action, user.id)
        };
        call.audit(tx, &entry).await?;
    }
    let message = Message::OtherWaysRemoved {
        name: &user.name,
        provider: arrival.provider.name(),
    };
    mail::enqueue(tx, &call.auth.sealing, &user.email, &message, call.now).await
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum IsNew {
    Yes,
    No,
}

/// A session for the user; or, where the address is still to be verified, a mail.
async fn finish(
    call: &mut Call<'_>,
    tx: Transaction<'_>,
    arrival: &Arrival<'_>,
    user: User,
    is_new: IsNew,
    callback_url: Option<&str>,
) -> Result<Entered, Refusal> {
    let auth = call.auth;
    let rules = &auth.config.auth.email_verification;
    if rules.required && !user.email_verified {
        let mark = if is_new == IsNew::Yes || rules.send_on_sign_in {
            Some(ask_owner(call, &tx, &user, is_new, callback_url).await?)
        } else {
            None
        };
        let refusal = Refusal::EmailNotVerified;
        note_refusal(call, &tx, &refusal, Some(user.id), None).await?;
        db::commit(tx).await?;
        auth.outbox.ring();
        if let Some(mark) = mark {
            call.set_cookie(auth.cookies.set_sign_up_mark(&mark, rules.expires_in));
        }
        return Err(refusal);
    }
    let proof = Proof {
        user: user.id,
        shown: Shown::Provider(arrival.provider.name()),
    };
    let completed = complete_in(call, &tx, proof, Remember::Yes).await?;
    db::commit(tx).await?;
    auth.outbox.ring();
    // What is cached may know an address that is verified now, or a session that has ended.
    auth.sessions.forget_user(user.id);
    Ok(Entered {
        signed_in: completed.tell(call),
        is_new: is_new == IsNew::Yes,
    })
}

/// Mails a link to the address. It counts in this browser alone: whoever reads the mail elsewhere need not be who came
/// from the provider.
async fn ask_owner(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    user: &User,
    is_new: IsNew,
    callback_url: Option<&str>,
) -> Result<OneTimeToken<SameBrowser>, DbError> {
    if is_new == IsNew::Yes {
        users::leave_unclaimed(tx, user.id).await?;
    }
    let mark = browser_mark(call);
    let sign_up = SignUp {
        name: user.name.clone(),
        password_hash: None,
    };
    let link = Link {
        user: user.id,
        email: &user.email,
        name: &user.name,
        browser: mark.hash(),
        sign_up: Some(&sign_up),
        callback_url,
    };
    mail_link(call, tx, &link).await?;
    Ok(mark)
}

impl Arrival<'_> {
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            provider: self.provider.name(),
            issuer: &self.profile.issuer,
            subject: &self.profile.subject,
        }
    }

    pub(super) fn has_address(&self, address: &str) -> bool {
        let email = self.profile.email.as_ref();
        email.is_some_and(|email| email.as_str() == address)
    }

    /// That is either a provider gone mad or a defect of ours.
    pub(super) fn warn_overtaken(&self, call: &Call<'_>) {
        warn!(
            provider = self.provider.name(),
            request_id = call.request_id,
            "somebody who came from a provider was overtaken {TRIES} times by changes of the same account or address"
        );
    }

    fn proves(&self, address: &str) -> bool {
        self.profile.email_verified && self.has_address(address)
    }

    /// Another way in for `user`; `false` if the account has come to somebody meanwhile.
    pub(super) async fn insert(&self, call: &Call<'_>, tx: &Transaction<'_>, user: UserId) -> Result<bool, DbError> {
        let id = AccountId(call.new_id());
        let sealed = vault::seal(&call.auth.sealing, id, &self.tokens);
        linked::insert(tx, id, user, self.subject(), &sealed, call.now).await
    }

    fn new_user(&self, call: &Call<'_>, email: &EmailAddress) -> User {
        User {
            id: UserId(call.new_id()),
            email: email.as_str().to_owned(),
            email_verified: self.profile.email_verified,
            name: self.profile.name.clone(),
            image: self.profile.image.clone(),
            roles: vec![FIRST_ROLE.to_owned()],
            banned: false,
            ban_reason: None,
            ban_expires: None,
            created_at: call.now,
            updated_at: call.now,
        }
    }
}

/// Writes down that an account was linked, and tells its user. An unverified address may be somebody else's: nobody is
/// told there.
pub(super) async fn tell_linked(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    arrival: &Arrival<'_>,
    user: &User,
    session: Option<SessionId>,
) -> Result<(), DbError> {
    let provider = arrival.provider.name();
    let entry = audit::Entry {
        reason: Some(provider),
        session,
        ..audit::Entry::done(audit::Action::LinkAccount, user.id)
    };
    call.audit(tx, &entry).await?;
    if user.email_verified {
        let message = Message::AccountLinked {
            name: &user.name,
            provider,
        };
        mail::enqueue(tx, &call.auth.sealing, &user.email, &message, call.now).await?;
    }
    Ok(())
}

/// Writes down who did not get in.
async fn note_refusal(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    refusal: &Refusal,
    user: Option<UserId>,
    email: Option<&EmailAddress>,
) -> Result<(), DbError> {
    let Some(code) = refusal.code() else {
        return Ok(());
    };
    let entry = audit::Entry {
        subject: user,
        email: email.filter(|_| user.is_none()).map(EmailAddress::as_str),
        ..audit::Entry::refused(audit::Action::SignIn, code)
    };
    call.audit(tx, &entry).await
}
