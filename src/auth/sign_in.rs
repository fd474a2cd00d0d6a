//! Sign-in with address and password.
//!
//! Whether an address has a user, or the user a password, can't be told from the answer or its time. Only the right
//! password learns that the address is not verified, or the user banned. Every failure is in the audit log, and of
//! failures each account has but a few.

use http::StatusCode;

use super::{
    AuthError,
    complete::{self, Proof, Remember, Shown, complete},
    email::EmailAddress,
    http::{Answer, Call},
    openapi::{Description, Field, Group, TOKEN, Work, Yes, flag, named, object, text},
    password::{Unacceptable, Verdict},
    throttle::attempt,
    verify_email::{Link, browser_mark, mail_link},
};
use crate::{
    chain::Chain,
    db::{
        self, accounts, audit,
        one_time_tokens::SignUp,
        users::{self, User},
    },
    secret::Secret,
};

pub(super) async fn sign_in(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let mut check = call.body.check();
    let email = check.text("email");
    let password = check.password("password");
    let callback_url = check.optional_target("callbackURL");
    let remember = Remember::from(check.optional_bool("rememberMe"));
    check.done()?;
    let email = EmailAddress::parse(&email).ok_or(AuthError::InvalidEmail)?;
    let acceptable = auth.passwords.check_length(password.expose());
    acceptable.map_err(AuthError::Password)?;

    let attempt = attempt(call, email.as_str(), audit::Action::SignIn).await?;
    let known = accounts::password_of(&auth.db.client().await?, email.as_str()).await?;
    let (user, stored) = known.map_or((None, None), |(user, stored)| (Some(user), stored));
    let hash = stored.as_ref().map(|stored| stored.hash.clone());
    // Without a hash the same work is done for nobody.
    let verdict = attempt.verify(call, password.clone(), hash).await?;
    let (Some(user), Some(stored)) = (user.as_ref(), stored) else {
        return refused(call, AuthError::InvalidCredentials, user.as_ref(), &email).await;
    };
    if verdict == Verdict::Wrong {
        return refused(call, AuthError::InvalidCredentials, Some(user), &email).await;
    }
    let proof = Proof {
        user: user.id,
        shown: Shown::Password { set_at: stored.set_at },
    };
    let signed_in = match complete(call, proof, remember).await {
        Ok(signed_in) => signed_in,
        Err(AuthError::NotVerified) => return not_verified(call, user, stored.hash, callback_url.as_deref()).await,
        Err(error @ (AuthError::InvalidCredentials | AuthError::Banned)) => {
            return refused(call, error, Some(user), &email).await;
        }
        Err(AuthError::UserNotFound) => return refused(call, AuthError::InvalidCredentials, None, &email).await,
        Err(error) => return Err(error),
    };
    if verdict == Verdict::RightButOutdated {
        rehash(call, user, password, &stored.hash).await;
    }
    Ok(complete::answer(&signed_in, callback_url))
}

async fn refused(
    call: &Call<'_>,
    error: AuthError,
    user: Option<&User>,
    email: &EmailAddress,
) -> Result<Answer, AuthError> {
    let entry = audit::Entry {
        subject: user.map(|user| user.id),
        email: user.is_none().then_some(email.as_str()),
        ..audit::Entry::refused(audit::Action::SignIn, error.code().as_str())
    };
    call.audit(&call.auth.db.client().await?, &entry).await?;
    Err(error)
}

/// The right password, but nobody has shown that the address is theirs: a new link helps those who lost the first.
async fn not_verified(
    call: &mut Call<'_>,
    user: &User,
    password_hash: Secret<String>,
    callback_url: Option<&str>,
) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let rules = &auth.config.auth.email_verification;
    let mark = rules.send_on_sign_in.then(|| browser_mark(call));
    let mut client = auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    // Held, so that a deletion waits, or came before.
    if let Some(mark) = &mark
        && users::lock(&tx, user.id).await?.is_some()
    {
        // Who shows the password of a sign-up is who made it.
        let sign_up = SignUp {
            name: user.name.clone(),
            password_hash: Some(password_hash),
        };
        let link = Link {
            user: user.id,
            email: &user.email,
            name: &user.name,
            browser: mark.hash(),
            sign_up: Some(&sign_up),
            callback_url,
        };
        mail_link(call, &tx, &link).await?;
    }
    let entry = audit::Entry {
        subject: Some(user.id),
        ..audit::Entry::refused(audit::Action::SignIn, AuthError::NotVerified.code().as_str())
    };
    call.audit(&tx, &entry).await?;
    db::commit(tx).await?;
    auth.outbox.ring();
    if let Some(mark) = mark {
        call.set_cookie(auth.cookies.set_sign_up_mark(&mark, rules.expires_in));
    }
    Err(AuthError::NotVerified)
}

/// Hashes the password with the parameters of today. Should that fail, the old hash is as good as it was: the next
/// sign-in tries again.
async fn rehash(call: &Call<'_>, user: &User, password: Secret<String>, old: &Secret<String>) {
    let auth = call.auth;
    let hashed_anew = async {
        let new = auth.passwords.hash(password).await?;
        let client = auth.db.client().await?;
        accounts::rehash(&client, user.id, old, &new, call.now).await?;
        Ok::<_, AuthError>(())
    };
    if let Err(error) = hashed_anew.await {
        tracing::warn!(
            error = %Chain(&error),
            request_id = call.request_id,
            "could not replace an outdated password hash"
        );
    }
}

pub(super) fn describe() -> Description {
    Description::of(
        Group::SigningIn,
        "Sign in with an address and a password",
        "Begins a session. With `callbackURL` the answer says where to go, for the client to go there.",
    )
    .work(Work::DatabaseAndHashing)
    .body([
        Field::address("email").required(),
        Field::password("password").required(),
        Field::target("callbackURL").says("Echoed as `url`."),
        Field::flag("rememberMe", true)
            .says("Whether the session outlives the browser; if not, it ends after a day and is never extended."),
    ])
    .answers([Yes::json(
        "A session has begun.",
        object([
            ("redirect", flag(false).into()),
            ("token", text(TOKEN).into()),
            ("user", named("User")),
        ])
        .property("url", text("/welcome").description(Some("Only with `callbackURL`."))),
    )
    .hands_out_session()
    .header("Location", "As `url`. The status is 200 all the same.")])
    .refuses([
        AuthError::InvalidEmail,
        AuthError::Password(Unacceptable::TooLong),
        AuthError::InvalidCredentials,
        AuthError::NotVerified,
        AuthError::Banned,
    ])
    .refusal_sets_cookie(
        StatusCode::FORBIDDEN,
        "With `EMAIL_NOT_VERIFIED`, where another mail is sent: marks the browser, in which its link also signs in.",
    )
}
