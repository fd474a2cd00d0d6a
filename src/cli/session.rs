//! `vestibule session …`: who is signed in, and ending that. A session is named by its id, which is public; its token
//! is nowhere to be seen.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{
    argument::{Who, limit},
    operator::{self, Operator, OperatorArgs, Stop, confirm, find},
    output::{Table, Width, glance, minute, or_nothing},
    page::{Page, tell_of_more},
};
use crate::{
    clock::Timestamp,
    db::{
        self, audit,
        sessions::{self, Listed},
        users,
    },
    identity::{Place, SessionId},
};

#[derive(Args, Debug)]
pub struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// List live sessions, the newest first
    List(ListArgs),
    /// End sessions
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Whose; id or e-mail address
    #[arg(required_unless_present = "all")]
    user: Option<Who>,
    /// Everybody's
    #[arg(long, conflicts_with = "user")]
    all: bool,
    /// How many at most
    #[arg(long, value_name = "N", default_value = "50", value_parser = limit)]
    limit: usize,
    /// Go on after this session, the last of the page before
    #[arg(long, value_name = "ID", requires = "all")]
    after: Option<SessionId>,
}

#[derive(Args, Debug)]
struct RevokeArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Ids of sessions
    #[arg(value_name = "ID", required_unless_present = "user", conflicts_with = "user")]
    ids: Vec<SessionId>,
    /// All sessions of this user; id or e-mail address
    #[arg(long)]
    user: Option<Who>,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: &SessionArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        SessionCommand::List(args) => operator::run(&args.operator, async |op| list(op, args).await),
        SessionCommand::Revoke(args) => operator::run(&args.operator, async |op| revoke(op, args).await),
    }
}

/// A session for scripts: as the wire contract writes one, without a token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionView<'a> {
    id: String,
    user_id: String,
    email: &'a str,
    created_at: String,
    updated_at: String,
    expires_at: String,
    last_seen_at: Option<String>,
    remembered: bool,
    methods: &'a [String],
    ip_address: Option<String>,
    user_agent: &'a str,
    device: DeviceView<'a>,
    location: Option<LocationView<'a>>,
}

/// These two as `list-sessions` has them.
#[derive(Debug, Serialize)]
struct DeviceView<'a> {
    browser: Option<&'a str>,
    os: Option<&'a str>,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct LocationView<'a> {
    country: Option<&'a str>,
    city: Option<&'a str>,
}

impl<'a> From<&'a Listed> for SessionView<'a> {
    fn from(session: &'a Listed) -> Self {
        Self {
            id: session.id.to_string(),
            user_id: session.user_id.to_string(),
            email: &session.email,
            created_at: session.created_at.rfc3339(),
            updated_at: session.updated_at.rfc3339(),
            expires_at: session.expires_at.rfc3339(),
            last_seen_at: session.last_seen_at.map(Timestamp::rfc3339),
            remembered: session.remembered,
            methods: &session.methods,
            ip_address: session.ip_address.map(|address| address.to_string()),
            user_agent: &session.user_agent,
            device: DeviceView {
                browser: session.device.browser.as_deref(),
                os: session.device.os.as_deref(),
                kind: session.device.kind.as_str(),
            },
            location: (session.place != Place::default()).then_some(LocationView {
                country: session.place.country.as_deref(),
                city: session.place.city.as_deref(),
            }),
        }
    }
}

const COLUMNS: &[(&str, Width)] = &[
    ("id", Width::Whole),
    ("e-mail", Width::Wraps),
    ("signed in (UTC)", Width::Whole),
    ("last seen (UTC)", Width::Whole),
    ("from", Width::Wraps),
    ("device", Width::Wraps),
];

pub(super) fn table(sessions: &[Listed]) -> String {
    if sessions.is_empty() {
        return "none\n".to_owned();
    }
    let mut table = Table::new(COLUMNS);
    for session in sessions {
        table.row([
            session.id.to_string(),
            session.email.clone(),
            minute(session.created_at),
            or_nothing(session.last_seen_at.map(minute)),
            from(session),
            device(session),
        ]);
    }
    table.render()
}

/// `Firefox on Linux`; what the client says of itself where that names neither.
fn device(session: &Listed) -> String {
    match (&session.device.browser, &session.device.os) {
        (Some(browser), Some(os)) => format!("{browser} on {os}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => glance(&session.user_agent),
    }
}

/// `203.0.113.7 (Linköping, SE)`
fn from(session: &Listed) -> String {
    let address = or_nothing(session.ip_address);
    let place: Vec<&str> = [&session.place.city, &session.place.country]
        .into_iter()
        .filter_map(|part| part.as_deref())
        .collect();
    if place.is_empty() {
        return address;
    }
    format!("{address} ({})", place.join(", "))
}

async fn list(operator: &Operator, args: &ListArgs) -> Result<ExitCode, Stop> {
    let client = operator.client().await?;
    let (now, asked) = (operator.now, args.limit + 1);
    let found = match &args.user {
        Some(who) => {
            let user = find(&client, who).await?;
            sessions::list_of(&client, user.id, asked, now).await?
        }
        None => sessions::list_all(&client, args.after, asked, now).await?,
    };
    let page = Page::of(found, args.limit);
    operator.print(
        || page.items.iter().map(SessionView::from).collect::<Vec<_>>(),
        || table(&page.items),
    )?;
    if args.all {
        tell_of_more(page.next(|session| session.id));
    } else if !page.is_last {
        eprintln!("vestibule: there is more: --limit N shows more at once");
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(operator: &Operator, args: &RevokeArgs) -> Result<ExitCode, Stop> {
    let now = operator.now;
    let mut client = operator.client().await?;
    let user = match &args.user {
        Some(who) => Some(find(&client, who).await?),
        None => None,
    };
    if !args.yes {
        confirm(&match &user {
            Some(user) => format!("End all sessions of {}?", user.email),
            None => format!("End {} session(s)?", args.ids.len()),
        })?;
    }
    let tx = db::begin(&mut client).await?;
    // Who acts in one of them locks the user, too, and has done so or will find it ended.
    match &user {
        Some(user) => drop(users::lock(&tx, user.id).await?),
        None => sessions::lock_owners_of(&tx, &args.ids).await?,
    }
    let ended = match &user {
        Some(user) => sessions::revoke_all(&tx, user.id, None, now).await?,
        None => sessions::revoke_any(&tx, &args.ids, now).await?,
    };
    for session in &ended {
        let entry = audit::Entry {
            reason: Some("operator"),
            session: Some(session.id),
            ..audit::Entry::done(audit::Action::RevokeSession, session.user_id)
        };
        operator.audit(&tx, &entry).await?;
    }
    db::commit(tx).await?;
    let ids: Vec<String> = ended.iter().map(|session| session.id.to_string()).collect();
    let asked_for = args.ids.iter().map(ToString::to_string);
    let not_live: Vec<String> = asked_for.filter(|id| !ids.contains(id)).collect();
    operator.print(
        || json!({ "revoked": ids, "notLive": not_live }),
        || format!("sessions ended: {}\n", ids.len()),
    )?;
    if not_live.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let not_live = not_live.join(", ");
    Err(anyhow!("no live session has the id {not_live}: `vestibule session list` shows which there are").into())
}
