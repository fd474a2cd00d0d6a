//! `vestibule user show`: all that is known of a user.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{UserView, state};
use crate::{
    cli::{
        argument::Who,
        audit::{self as audit_command, EventView},
        operator::{Operator, OperatorArgs, Stop, find},
        output::{Table, Width, facts, minute, or_nothing, time},
        page::Page,
        session::{self as session_command, SessionView},
    },
    clock::Timestamp,
    db::{
        accounts::{self, Account},
        audit::{self, Filter},
        sessions,
        users::User,
    },
};

/// What is shown of sessions and events; the commands for them show the rest.
const SESSIONS: usize = 20;
const EVENTS: usize = 10;

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Id or e-mail address
    user: Who,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    user: UserView<'a>,
    accounts: Vec<AccountView<'a>>,
    sessions: Vec<SessionView<'a>>,
    audit: Vec<EventView<'a>>,
}

/// As the wire contract writes one, and since when there is a password.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountView<'a> {
    id: String,
    provider_id: &'a str,
    account_id: &'a str,
    password_set_at: Option<String>,
    created_at: String,
    updated_at: String,
}

impl<'a> From<&'a Account> for AccountView<'a> {
    fn from(account: &'a Account) -> Self {
        Self {
            id: account.id.to_string(),
            provider_id: &account.provider_id,
            account_id: &account.account_id,
            password_set_at: account.password_set_at.map(Timestamp::rfc3339),
            created_at: account.created_at.rfc3339(),
            updated_at: account.updated_at.rfc3339(),
        }
    }
}

const ACCOUNT_COLUMNS: &[(&str, Width)] = &[
    ("provider", Width::Whole),
    ("account", Width::Wraps),
    ("password set (UTC)", Width::Whole),
    ("created (UTC)", Width::Whole),
];

pub(super) async fn run(operator: &Operator, args: &ShowArgs) -> Result<ExitCode, Stop> {
    let client = operator.client().await?;
    let user = find(&client, &args.user).await?;
    let accounts = accounts::of(&client, user.id).await?;
    let sessions = sessions::list_of(&client, user.id, SESSIONS + 1, operator.now).await?;
    let sessions = Page::of(sessions, SESSIONS);
    let about = Filter {
        user: Some(user.id),
        email: Some(user.email.clone()),
        ..Filter::default()
    };
    let events = Page::of(audit::list(&client, &about, EVENTS + 1).await?, EVENTS);
    operator.print(
        || Shown {
            user: UserView::from(&user),
            accounts: accounts.iter().map(AccountView::from).collect(),
            sessions: sessions.items.iter().map(SessionView::from).collect(),
            audit: events.items.iter().map(EventView::from).collect(),
        },
        || {
            let id = user.id;
            let more_sessions = format!("vestibule session list {id}");
            let more_events = format!("vestibule audit --user {id}");
            [
                profile(&user, operator.now),
                section("ways to sign in", &account_table(&accounts), None),
                section(
                    "live sessions",
                    &session_command::table(&sessions.items),
                    (!sessions.is_last).then_some(&more_sessions),
                ),
                section(
                    "what happened",
                    &audit_command::table(&events.items),
                    (!events.is_last).then_some(&more_events),
                ),
            ]
            .join("\n")
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

fn profile(user: &User, now: Timestamp) -> String {
    let mut known = vec![
        ("id", user.id.to_string()),
        ("e-mail", user.email.clone()),
        ("name", user.name.clone()),
        ("roles", user.roles.join(", ")),
        (
            "state",
            Some(state(user, now))
                .filter(|state| !state.is_empty())
                .unwrap_or_else(|| "active".to_owned()),
        ),
    ];
    if user.is_banned(now) {
        known.push(("ban reason", user.ban_reason.clone().unwrap_or_default()));
    }
    known.push(("created", format!("{} UTC", time(user.created_at))));
    known.push(("updated", format!("{} UTC", time(user.updated_at))));
    facts(&known)
}

/// A table below its title; in place of what isn't shown, the command that shows it.
fn section(title: &str, table: &str, more: Option<&String>) -> String {
    let more = more.map(|command| format!("… more: {command}\n"));
    format!("{title}\n{table}{}", more.unwrap_or_default())
}

fn account_table(accounts: &[Account]) -> String {
    if accounts.is_empty() {
        return "none: `vestibule user reset-password` sends a link to choose a password\n".to_owned();
    }
    let mut table = Table::new(ACCOUNT_COLUMNS);
    for account in accounts {
        table.row([
            account.provider_id.clone(),
            account.account_id.clone(),
            or_nothing(account.password_set_at.map(minute)),
            minute(account.created_at),
        ]);
    }
    table.render()
}
