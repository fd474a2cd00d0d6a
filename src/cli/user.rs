//! `vestibule user …`: who there is, what they may do, and whether they may at all. A file for each thing that is done.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{operator, output};
use crate::{clock::Timestamp, db::users::User};

mod ban;
mod create;
mod delete;
mod list;
mod reset_password;
mod set_role;
mod show;

#[derive(Args, Debug)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user
    Create(create::CreateArgs),
    /// List users, the newest first
    List(list::ListArgs),
    /// Show all that is known of a user: ways to sign in, sessions, what happened lately
    Show(show::ShowArgs),
    /// Give a user other roles
    SetRole(set_role::SetRoleArgs),
    /// Ban a user and end all their sessions
    Ban(ban::BanArgs),
    /// Lift a ban
    Unban(ban::UnbanArgs),
    /// Delete a user, with everything that is theirs
    Delete(delete::DeleteArgs),
    /// Send a user a link to choose a new password
    ResetPassword(reset_password::ResetPasswordArgs),
}

pub fn run(args: &UserArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        UserCommand::Create(args) => operator::run(&args.operator, async |op| create::run(op, args).await),
        UserCommand::List(args) => operator::run(&args.operator, async |op| list::run(op, args).await),
        UserCommand::Show(args) => operator::run(&args.operator, async |op| show::run(op, args).await),
        UserCommand::SetRole(args) => operator::run(&args.operator, async |op| set_role::run(op, args).await),
        UserCommand::Ban(args) => operator::run(&args.operator, async |op| ban::ban(op, args).await),
        UserCommand::Unban(args) => operator::run(&args.operator, async |op| ban::unban(op, args).await),
        UserCommand::Delete(args) => operator::run(&args.operator, async |op| delete::run(op, args).await),
        UserCommand::ResetPassword(args) => {
            operator::run(&args.operator, async |op| reset_password::run(op, args).await)
        }
    }
}

/// A user for scripts: as the wire contract writes one, but with its roles one by one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UserView<'a> {
    id: String,
    email: &'a str,
    email_verified: bool,
    name: &'a str,
    image: Option<&'a str>,
    roles: &'a [String],
    banned: bool,
    ban_reason: Option<&'a str>,
    ban_expires: Option<String>,
    created_at: String,
    updated_at: String,
}

impl<'a> From<&'a User> for UserView<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            id: user.id.to_string(),
            email: &user.email,
            email_verified: user.email_verified,
            name: &user.name,
            image: user.image.as_deref(),
            roles: &user.roles,
            banned: user.banned,
            ban_reason: user.ban_reason.as_deref(),
            ban_expires: user.ban_expires.map(Timestamp::rfc3339),
            created_at: user.created_at.rfc3339(),
            updated_at: user.updated_at.rfc3339(),
        }
    }
}

/// A user in a sentence.
fn named(user: &User) -> String {
    format!("{} ({})", output::plain(&user.email), user.id)
}

/// What there is to know before anything else; empty where all is in order.
fn state(user: &User, now: Timestamp) -> String {
    let mut state = Vec::new();
    if user.is_banned(now) {
        state.push(match user.ban_expires {
            Some(end) => format!("banned until {}", output::time(end)),
            None => "banned".to_owned(),
        });
    }
    if !user.email_verified {
        state.push("unverified".to_owned());
    }
    state.join(", ")
}
