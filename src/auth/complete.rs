//! From a proof to a session: the only way there is.
//!
//! Whatever shows who somebody is ends in a [`Proof`]; [`complete_in`] decides whether that is enough, under a lock on the
//! user, so that a ban, a deletion or another password can't slip in between. It works in the transaction of what comes
//! before, so that a first session begins with what it rests on or not at all; [`complete`] is for those who bring none.

use std::time::Duration;

use http::HeaderValue;
use serde_json::json;

use super::{
    AuthError,
    http::{Answer, Call},
    multi_session::{self, Joined},
    sessions, throttle,
};
use crate::{
    clock::Timestamp,
    db::{
        self, Transaction, audit,
        sessions::{Revoked, StoredSession},
        users::{self, User},
    },
    identity::{AuthMethod, SessionId, UserId},
    secret::SessionToken,
    session::device,
};

/// The life of a session that is not to be remembered (section 6), unless every session's is shorter.
const NOT_REMEMBERED: Duration = Duration::from_hours(24);

/// "This user showed this, now": what every way to sign in comes to.
#[derive(Debug)]
pub(super) struct Proof<'a> {
    pub(super) user: UserId,
    pub(super) shown: Shown<'a>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shown<'a> {
    /// The password that was chosen then. Should another have been chosen since, it proves nothing.
    Password { set_at: Timestamp },
    /// A link that was mailed to the user's address.
    MailedLink,
    /// An account at the provider of this name. It is the user's: who proves it has looked under the lock, in the
    /// transaction in which the session begins.
    Provider(&'a str),
}

impl Shown<'_> {
    const fn method(self) -> AuthMethod {
        match self {
            Self::Password { .. } => AuthMethod::Password,
            Self::MailedLink => AuthMethod::Email,
            Self::Provider(_) => AuthMethod::Provider,
        }
    }

    /// What the audit log says of the sign-in: the method, or at which provider it was.
    const fn reason(&self) -> &str {
        match self {
            Self::Password { .. } | Self::MailedLink => self.method().as_str(),
            Self::Provider(name) => name,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Remember {
    Yes,
    /// One day, never extended, and gone with the browser.
    No,
}

impl From<Option<bool>> for Remember {
    /// `rememberMe` as it was sent; left out, it means yes.
    fn from(remember_me: Option<bool>) -> Self {
        if remember_me == Some(false) {
            Self::No
        } else {
            Self::Yes
        }
    }
}

/// Somebody signed in; the cookies are on their way.
#[derive(Debug)]
pub(super) struct SignedIn {
    pub(super) token: SessionToken,
    pub(super) user: User,
}

/// A session that begins with the commit: nothing may be told of it before.
#[must_use = "after the commit, `tell` hands out the session"]
pub(super) struct Completed {
    signed_in: SignedIn,
    remember: Remember,
    revoked: Vec<Revoked>,
    device_cookies: Vec<HeaderValue>,
    ban_is_over: bool,
}

crate::secret::unprinted!(Completed);

impl Completed {
    /// For after the commit: ends are heard here, and the cookies set.
    pub(super) fn tell(self, call: &mut Call<'_>) -> SignedIn {
        let sessions = &call.auth.sessions;
        for ended in &self.revoked {
            sessions.end(&ended.token_hash);
        }
        if self.ban_is_over {
            sessions.forget_user(self.signed_in.user.id);
        }
        call.hand_out(&self.signed_in.token, self.remember);
        call.mark_remembered(self.remember);
        for cookie in self.device_cookies {
            call.set_cookie(cookie);
        }
        self.signed_in
    }
}

/// Makes a session in a transaction of its own.
pub(super) async fn complete(call: &mut Call<'_>, proof: Proof<'_>, remember: Remember) -> Result<SignedIn, AuthError> {
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let completed = complete_in(call, &tx, proof, remember).await?;
    db::commit(tx).await?;
    Ok(completed.tell(call))
}

/// Makes a session: always a new one, whatever the request brought. Earlier ones stay, as far as `max_per_user` lets.
/// A refusal changes nothing in `tx`.
pub(super) async fn complete_in(
    call: &Call<'_>,
    tx: &Transaction<'_>,
    proof: Proof<'_>,
    remember: Remember,
) -> Result<Completed, AuthError> {
    let auth = call.auth;
    let rules = &auth.config.auth.session;
    let now = call.now;
    let Some(mut user) = users::lock(tx, proof.user).await? else {
        return Err(AuthError::UserNotFound);
    };
    if let Shown::Password { set_at } = proof.shown
        && db::accounts::password_set_at(tx, user.id).await? != Some(set_at)
    {
        return Err(AuthError::InvalidCredentials);
    }
    if user.is_banned(now) {
        return Err(AuthError::Banned);
    }
    if auth.config.auth.email_verification.required && !user.email_verified {
        return Err(AuthError::NotVerified);
    }
    if !user.email_verified {
        // From now on the account is somebody's, and no sign-up changes it.
        users::claim(tx, user.id).await?;
    }
    // The end of a ban takes its traces along at the next sign-in (section 16).
    let ban_is_over = user.banned;
    if ban_is_over {
        users::lift_ban(tx, user.id, now).await?;
        user.banned = false;
        user.ban_reason = None;
        user.ban_expires = None;
        user.updated_at = now;
    }
    let token = SessionToken::generate();
    let Joined {
        cookies: device_cookies,
        replaced: mut revoked,
    } = multi_session::join(call, tx, user.id, &token, remember).await?;
    sessions::note(call, tx, &revoked, "replaced").await?;
    let mut own = revoked.clone();
    if let Some(others) = rules.max_per_user.checked_sub(1) {
        let oldest = db::sessions::revoke_oldest(tx, user.id, others, now).await?;
        sessions::note(call, tx, &oldest, "max_per_user").await?;
        // Of them, this browser's own is as good as replaced.
        let here = auth.cookies.all_sessions(call.headers);
        own.extend(oldest.iter().filter(|ended| here.contains(&ended.token_hash)));
        revoked.extend(oldest);
    }
    sessions::detach(tx, &own).await?;
    let life = match remember {
        Remember::Yes => rules.expires_in,
        Remember::No => NOT_REMEMBERED.min(rules.expires_in),
    };
    let method = proof.shown.method().as_str();
    let session = StoredSession {
        id: SessionId(call.new_id()),
        token_hash: token.hash(),
        user_id: user.id,
        created_at: now,
        updated_at: now,
        expires_at: now.plus(life),
        remembered: remember == Remember::Yes,
        methods: vec![method.to_owned()],
        ip_address: Some(call.ip_address),
        user_agent: call.user_agent.clone(),
        device: device::of(&call.user_agent),
        place: auth.sessions.places().of(call.ip_address),
        last_seen_at: Some(now),
    };
    db::sessions::insert(tx, &session).await?;
    throttle::know_address(call, tx, user.id).await?;
    let signed_in = audit::Entry {
        reason: Some(proof.shown.reason()),
        session: Some(session.id),
        ..audit::Entry::done(audit::Action::SignIn, user.id)
    };
    call.audit(tx, &signed_in).await?;
    Ok(Completed {
        signed_in: SignedIn { token, user },
        remember,
        revoked,
        device_cookies,
        ban_is_over,
    })
}

/// `{redirect, token, user, url?}`: how sign-in answers (section 7).
pub(super) fn answer(signed_in: &SignedIn, callback_url: Option<String>) -> Answer {
    let user = super::objects::user(&signed_in.user);
    let token = signed_in.token.as_str();
    match callback_url {
        Some(url) => {
            Answer::json(json!({ "redirect": true, "token": token, "url": url, "user": user })).with_location(url)
        }
        None => Answer::json(json!({ "redirect": false, "token": token, "user": user })),
    }
}
