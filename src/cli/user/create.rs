//! `vestibule user create`: somebody who did not sign up by themselves.

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::{
    UserView, named,
    reset_password::{LinkArgs, Sent},
};
use crate::{
    auth::{
        FIRST_ROLE,
        email::EmailAddress,
        password::{Passwords, Unacceptable},
    },
    cli::{
        argument::{Role, distinct},
        operator::{Operator, OperatorArgs, Stop, has_terminal},
    },
    config,
    db::{
        self, accounts, audit,
        users::{self, User},
    },
    identity::UserId,
    secret::Secret,
};

/// No password is longer, whatever is configured; standard input may be anything.
const MAX_INPUT: u64 = 64 * 1024;

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// The user's e-mail address
    #[arg(value_parser = address)]
    email: EmailAddress,
    /// The user's name
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// A role, instead of the one that everybody has who signs up; may be said more than once
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// The address is the user's: it need not be verified
    #[arg(long)]
    verified: bool,
    /// Read the password from standard input, to its end; without this it is asked for
    #[arg(long)]
    password_stdin: bool,
    /// No password yet: the user gets a link to choose one
    #[arg(long, conflicts_with = "password_stdin")]
    no_password: bool,
    #[command(flatten)]
    link: LinkArgs,
}

fn address(text: &str) -> Result<EmailAddress, &'static str> {
    EmailAddress::parse(text).ok_or("not an e-mail address such as ada@example.com")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    user: UserView<'a>,
    /// Whether a link to choose a password is on its way.
    mailed: bool,
    reset_link: Option<&'a str>,
}

crate::secret::unprinted!(Created<'a>);

pub(super) async fn run(operator: &Operator, args: &CreateArgs) -> Result<ExitCode, Stop> {
    args.link.check(operator)?;
    let hash = if args.no_password {
        None
    } else {
        Some(hashed(&operator.config.auth.password, args).await?)
    };
    let roles = if args.roles.is_empty() {
        vec![FIRST_ROLE.to_owned()]
    } else {
        distinct(&args.roles)
    };
    let user = User {
        id: UserId(Uuid::now_v7()),
        email: args.email.as_str().to_owned(),
        email_verified: args.verified,
        name: args.name.clone(),
        image: None,
        roles,
        banned: false,
        ban_reason: None,
        ban_expires: None,
        created_at: operator.now,
        updated_at: operator.now,
    };
    let mut client = operator.client().await?;
    let tx = db::begin(&mut client).await?;
    if !users::insert(&tx, &user).await? {
        let email = &user.email;
        return Err(anyhow!("{email} has a user already: `vestibule user show {email}` shows who it is").into());
    }
    operator
        .audit(&tx, &audit::Entry::done(audit::Action::CreateUser, user.id))
        .await?;
    let sent = if let Some(hash) = hash {
        accounts::set_password(&tx, Uuid::now_v7(), user.id, &hash, operator.now).await?;
        None
    } else {
        Some(args.link.send(operator, &tx, &user).await?)
    };
    db::commit(tx).await?;
    operator.print(
        || Created {
            user: UserView::from(&user),
            mailed: matches!(sent, Some(Sent::Mailed)),
            reset_link: sent.as_ref().and_then(Sent::link),
        },
        || {
            let next = match &sent {
                Some(sent) => sent.sentence(operator, &user),
                None => String::new(),
            };
            format!(
                "{} is made, with the roles: {}\n{next}",
                named(&user),
                user.roles.join(",")
            )
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// A password that the configuration accepts, hashed as it says.
async fn hashed(rules: &config::Password, args: &CreateArgs) -> Result<Secret<String>, Stop> {
    let password = if args.password_stdin { piped() } else { asked() }?;
    // One password needs one thread, and one block of memory.
    let one_at_a_time = config::Password {
        max_concurrent: 1,
        ..rules.clone()
    };
    let passwords = Passwords::start(&one_at_a_time).context("can't hash passwords")?;
    passwords.check_new(password.expose()).map_err(|unacceptable| {
        Stop::Usage(match unacceptable {
            Unacceptable::TooShort => format!("the password is too short: at least {} characters", rules.min_length),
            Unacceptable::TooLong => format!("the password is too long: at most {} characters", rules.max_length),
        })
    })?;
    let hash = passwords.hash(password).await;
    Ok(hash.context("could not hash the password")?)
}

/// From standard input, without the line's end that `echo` adds.
fn piped() -> Result<Secret<String>, Stop> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes);
    read.context("could not read the password from standard input")?;
    let mut text = String::from_utf8(bytes).map_err(|_| Stop::Usage("the password is no UTF-8 text".to_owned()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Secret::new(text))
}

/// On the terminal, which does not show it, and twice, since nobody sees it.
fn asked() -> Result<Secret<String>, Stop> {
    if !has_terminal() {
        return Err(Stop::Usage(
            "there is no terminal to ask for the password on: say --password-stdin or --no-password".to_owned(),
        ));
    }
    let password = dialoguer::Password::new()
        .with_prompt("Password")
        .with_confirmation("Again", "These were two different passwords.")
        .report(false)
        .interact();
    let password = password.context("can't ask for a password on this terminal: say --password-stdin")?;
    Ok(Secret::new(password))
}
