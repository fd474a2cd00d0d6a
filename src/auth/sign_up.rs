//! Sign-up: an address, a name and a password become a user.
//!
//! With verification required (the default) nobody learns here whether an address has a user: a taken one gets the
//! same answer, in as much time. What differs is the mail, which only the address's owner can read. Without it the
//! new user is signed in, and a taken address is told.
//!
//! Nothing of an existing user changes because a stranger names their address. Until an address is verified several
//! people may sign up with it; whose name and password count is decided by the link that is opened, and by the browser
//! in which it is opened: each link carries those of its own sign-up. That is so for users whom sign-ups made, and ends
//! when one of them is claimed. An unverified user who came otherwise, or has chosen a password otherwise, is as safe
//! from strangers as a verified one.

use serde_json::{Value, json};

use super::{
    AuthError,
    complete::{Proof, Remember, Shown, SignedIn, complete_in},
    email::EmailAddress,
    evenness::Stopwatch,
    http::{Answer, Call},
    input::forbid_protected,
    objects,
    openapi::{Description, Field, Group, Work, Yes, named, nullable_text, object},
    password::{Unacceptable, Verdict},
    post::post,
    verify_email::{Link, browser_mark, mail_link},
};
use crate::{
    config::Config,
    db::{self, DbError, Transaction, accounts, audit, one_time_tokens::SignUp, users, users::User},
    identity::UserId,
    mail::Message,
    problem::Code,
    secret::Secret,
};

/// What everybody is who signs up: the contract's default, which shows as `"role": "user"` and reaches upstreams as a
/// role like any other. It is stored rather than assumed, so that what the client sees, what an upstream is told and
/// what a route may demand are one list, and taking it away from somebody means something.
pub const FIRST_ROLE: &str = "user";

struct Input {
    name: String,
    email: EmailAddress,
    password: Secret<String>,
    image: Option<String>,
    callback_url: Option<String>,
    remember: Remember,
}

pub(super) async fn sign_up(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let auth = call.auth;
    let input = read(call)?;
    if !auth.config.auth.sign_up {
        return Err(AuthError::SignUpDisabled);
    }
    let acceptable = auth.passwords.check_new(input.password.expose());
    acceptable.map_err(AuthError::Password)?;
    forbid_protected(&call.body)?;
    // Before anybody looks whether the address has a user: the time this takes is the same for all.
    let mut password_hash = auth.passwords.hash(input.password.clone()).await?;
    let user = User {
        id: UserId(call.new_id()),
        email: input.email.as_str().to_owned(),
        email_verified: false,
        name: input.name,
        image: input.image,
        roles: vec![FIRST_ROLE.to_owned()],
        banned: false,
        ban_reason: None,
        ban_expires: None,
        created_at: call.now,
        updated_at: call.now,
    };
    if auth.config.auth.email_verification.required {
        if let Some(earlier) = own_earlier(call, &input.email, input.password).await? {
            password_hash = earlier;
        }
        let mut stopwatch = auth.evenness.start();
        let registered = register(
            call,
            &mut stopwatch,
            &user,
            password_hash,
            input.callback_url.as_deref(),
        )
        .await;
        stopwatch.even_out().await;
        registered?;
        // Also of a user who was not made: in every field like one who was.
        return Ok(Answer::json(json!({ "token": null, "user": objects::user(&user) })));
    }
    let signed_in = open(call, &user, &password_hash, input.remember).await?;
    Ok(Answer::json(json!({
        "token": signed_in.token.as_str(),
        "user": objects::user(&signed_in.user),
    })))
}

/// The hash of the sign-up that made the user of this address, if it still decides about them and had this password:
/// whoever signs up twice is one person, and their links don't compete.
///
/// The same work is done for every address. So nothing is compared with a hash that takes longer, nor with the password of
/// anybody who is more than a sign-up: these are tests that nobody counts.
async fn own_earlier(
    call: &Call<'_>,
    email: &EmailAddress,
    password: Secret<String>,
) -> Result<Option<Secret<String>>, AuthError> {
    let auth = call.auth;
    let hash = accounts::unclaimed_password_of(&auth.db.client().await?, email.as_str()).await?;
    let hash = hash.filter(|hash| auth.passwords.makes(hash));
    let verdict = auth.passwords.verify(password, hash.clone()).await?;
    Ok(hash.filter(|_| verdict != Verdict::Wrong))
}

fn read(call: &mut Call<'_>) -> Result<Input, AuthError> {
    let mut check = call.body.check();
    let input = Input {
        name: check.name("name"),
        email: check.address("email"),
        password: check.new_password("password"),
        image: check.optional_picture("image"),
        callback_url: check.optional_target("callbackURL"),
        remember: check.optional_bool("rememberMe").into(),
    };
    check.done()?;
    Ok(input)
}

/// Stores a user to be verified, and writes to the address; or writes something else to it, if it has a user. One
/// transaction either way, with a mail and a line in the audit log.
async fn register(
    call: &mut Call<'_>,
    stopwatch: &mut Stopwatch<'_>,
    user: &User,
    password_hash: Secret<String>,
    callback_url: Option<&str>,
) -> Result<(), AuthError> {
    let auth = call.auth;
    let mark = browser_mark(call);
    let mut client = auth.db.client().await?;
    let tx = stopwatch.begin(&mut client).await?;
    let sign_up = SignUp {
        name: user.name.clone(),
        password_hash: Some(password_hash.clone()),
    };
    let mut link = Link {
        user: user.id,
        email: &user.email,
        name: &user.name,
        browser: mark.hash(),
        sign_up: Some(&sign_up),
        callback_url,
    };
    if users::insert(&tx, user).await? {
        users::leave_unclaimed(&tx, user.id).await?;
        accounts::set_password(&tx, call.new_id(), user.id, &password_hash, call.now).await?;
        mail_link(call, &tx, &link).await?;
        call.audit(&tx, &audit::Entry::done(audit::Action::SignUp, user.id))
            .await?;
    } else if let Some(known) = users::by_email(&tx, &user.email).await? {
        // Who is claimed stays it, and nothing of theirs changes: nobody has to wait for them.
        let held = if is_unclaimed(&tx, &known).await? {
            users::lock(&tx, known.id).await?
        } else {
            None
        };
        let unclaimed = match &held {
            Some(held) => held.email == user.email && is_unclaimed(&tx, held).await?,
            None => false,
        };
        if unclaimed {
            link.user = known.id;
            mail_link(call, &tx, &link).await?;
        } else {
            let sign_in_link = sign_in_link(&auth.config);
            let message = Message::AlreadyRegistered {
                name: &known.name,
                sign_in_link: &sign_in_link,
            };
            post(call, &tx, known.id, &known.email, &message).await?;
        }
        let taken = audit::Entry {
            subject: Some(known.id),
            ..audit::Entry::refused(audit::Action::SignUp, Code::UserAlreadyExists.as_str())
        };
        call.audit(&tx, &taken).await?;
    }
    // Else the user was deleted this very moment. The answer tells nothing, and trying again will do.
    db::commit(tx).await?;
    auth.outbox.ring();
    let life = auth.config.auth.email_verification.expires_in;
    call.set_cookie(auth.cookies.set_sign_up_mark(&mark, life));
    Ok(())
}

async fn is_unclaimed(tx: &Transaction<'_>, user: &User) -> Result<bool, DbError> {
    Ok(!user.email_verified && users::is_unclaimed(tx, user.id).await?)
}

/// The page where people sign in, as far as the configuration names one; else the front page.
fn sign_in_link(config: &Config) -> String {
    let public_url = &config.server.public_url;
    match config.auth.sign_in_page.as_deref() {
        Some(path) if path.starts_with('/') => format!("{public_url}{path}"),
        Some(url) => url.to_owned(),
        None => public_url.to_string(),
    }
}

/// Stores a user who need not be verified, together with the first session: whoever is told of a failure can sign up
/// again.
async fn open(
    call: &mut Call<'_>,
    user: &User,
    password_hash: &Secret<String>,
    remember: Remember,
) -> Result<SignedIn, AuthError> {
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    if !users::insert(&tx, user).await? {
        let taken = audit::Entry {
            email: Some(&user.email),
            ..audit::Entry::refused(audit::Action::SignUp, Code::UserAlreadyExists.as_str())
        };
        call.audit(&tx, &taken).await?;
        db::commit(tx).await?;
        return Err(AuthError::UserExists);
    }
    let set_at = accounts::set_password(&tx, call.new_id(), user.id, password_hash, call.now).await?;
    call.audit(&tx, &audit::Entry::done(audit::Action::SignUp, user.id))
        .await?;
    let proof = Proof {
        user: user.id,
        shown: Shown::Password { set_at },
    };
    let completed = complete_in(call, &tx, proof, remember).await?;
    db::commit(tx).await?;
    Ok(completed.tell(call))
}

pub(super) fn describe() -> Description {
    Description::of(
        Group::SigningIn,
        "Sign up with an address, a name and a password",
        "Where addresses have to be verified (the default), nobody is signed in yet: `token` is null, and a mail with a \
         link is on its way. An address that has a user already gets the same answer, and another mail.",
    )
    .work(Work::DatabaseAndHashing)
    .body([
        Field::text("name", "Ada Lovelace").required().says("May be empty."),
        Field::address("email").required(),
        Field::new_password("password").required(),
        Field::picture("image").says("Where a picture of the user is."),
        Field::target("callbackURL").says("Where the mailed link leads in the end."),
        Field::flag("rememberMe", true).says("Whether the session outlives the browser, where one begins."),
    ])
    .answers([Yes::json(
        "The user, and the token of the session if one began.",
        object([("token", nullable_text(Value::Null).into()), ("user", named("User"))]),
    )
    .hands_out_session()])
    .refuses([
        AuthError::FieldNotAllowed("role"),
        AuthError::SignUpDisabled,
        AuthError::Password(Unacceptable::TooShort),
        AuthError::Password(Unacceptable::TooLong),
        AuthError::UserExists,
    ])
}
