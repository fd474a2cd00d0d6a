//! `vestibule audit`: what happened, the newest first.
//!
//! With `--json` it is one document, an array, as everywhere; `--after` goes on where it ended.

use std::{net::IpAddr, process::ExitCode, str::FromStr};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::{
    argument::{When, Who, limit},
    operator::{self, Operator, OperatorArgs, Stop},
    output::{Table, Width, glance, or_nothing, time},
    page::{Page, tell_of_more},
};
use crate::{
    db::{
        audit::{self, Action, Filter, Recorded},
        users,
    },
    identity::SessionId,
};

#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// What concerns this user, or was done by them; id or e-mail address, also of somebody who is gone
    #[arg(long)]
    user: Option<Who>,
    /// Only this kind of event; may be said more than once
    #[arg(long = "action", value_name = "ACTION", value_parser = action)]
    actions: Vec<Action>,
    /// Only what was done, or what was refused
    #[arg(long)]
    outcome: Option<Outcome>,
    /// Only what happened then or later: 24h ago, or since 2026-11-21T07:15:08Z
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Only what happened before
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Only from this address or network
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    ip: Option<IpNet>,
    /// Only what this session did, or what was done to it
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// How many at most
    #[arg(long, value_name = "N", default_value = "100", value_parser = limit)]
    limit: usize,
    /// Go on after this event, the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Outcome {
    Done,
    Refused,
}

fn action(text: &str) -> Result<Action, String> {
    let known = Action::ALL.iter().find(|action| action.as_str() == text);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        format!("one of {}", names.join(", "))
    })
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let network = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
    // Postgres takes no network with bits beyond its prefix.
    let network = network.map(|network| network.trunc());
    network.map_err(|_| "an address such as 192.0.2.7, or a network such as 192.0.2.0/24")
}

/// An event for scripts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView<'a> {
    id: String,
    at: String,
    action: &'a str,
    outcome: &'a str,
    reason: Option<&'a str>,
    actor_id: Option<String>,
    subject_id: Option<String>,
    subject_email: Option<&'a str>,
    email: Option<&'a str>,
    session_id: Option<String>,
    ip_address: Option<String>,
    user_agent: &'a str,
    request_id: &'a str,
}

impl<'a> From<&'a Recorded> for EventView<'a> {
    fn from(event: &'a Recorded) -> Self {
        Self {
            id: event.id.to_string(),
            at: event.at.rfc3339(),
            action: &event.action,
            outcome: &event.outcome,
            reason: event.reason.as_deref(),
            actor_id: event.actor.map(|id| id.to_string()),
            subject_id: event.subject.map(|id| id.to_string()),
            subject_email: event.subject_email.as_deref(),
            email: event.email.as_deref(),
            session_id: event.session.map(|id| id.to_string()),
            ip_address: event.ip_address.map(|address| address.to_string()),
            user_agent: &event.user_agent,
            request_id: &event.request_id,
        }
    }
}

const COLUMNS: &[(&str, Width)] = &[
    ("at (UTC)", Width::Whole),
    ("action", Width::Wraps),
    ("outcome", Width::Wraps),
    ("reason", Width::Wraps),
    ("whom", Width::Wraps),
    ("from", Width::Wraps),
    ("user agent", Width::Wraps),
];

pub(super) fn table(events: &[Recorded]) -> String {
    if events.is_empty() {
        return "nothing\n".to_owned();
    }
    let mut table = Table::new(COLUMNS);
    for event in events {
        let address = event.subject_email.as_ref().or(event.email.as_ref()).cloned();
        let whom = address.or_else(|| event.subject.map(|id| id.to_string()));
        table.row([
            time(event.at),
            event.action.clone(),
            event.outcome.clone(),
            or_nothing(event.reason.clone()),
            or_nothing(whom),
            or_nothing(event.ip_address),
            glance(&event.user_agent),
        ]);
    }
    table.render()
}

pub fn run(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    operator::run(&args.operator, async |op| read(op, args).await)
}

async fn read(operator: &Operator, args: &AuditArgs) -> Result<ExitCode, Stop> {
    let client = operator.client().await?;
    let actions: Vec<&str> = args.actions.iter().map(|action| action.as_str()).collect();
    let mut filter = Filter {
        actions: (!actions.is_empty()).then_some(actions),
        outcome: args.outcome.map(|outcome| match outcome {
            Outcome::Done => audit::Outcome::Done,
            Outcome::Refused => audit::Outcome::Refused,
        }),
        since: args.since.map(|when| when.before(operator.now)),
        until: args.until.map(|when| when.before(operator.now)),
        network: args.ip,
        session: args.session,
        after: args.after,
        ..Filter::default()
    };
    match &args.user {
        // The log outlives users: an id that leads to nobody may still be in it.
        Some(Who::Id(id)) => filter.user = Some(*id),
        Some(Who::Email(email)) => {
            filter.user = users::by_email(&client, email).await?.map(|user| user.id);
            filter.email = Some(email.clone());
        }
        None => {}
    }
    let page = Page::of(audit::list(&client, &filter, args.limit + 1).await?, args.limit);
    operator.print(
        || page.items.iter().map(EventView::from).collect::<Vec<_>>(),
        || table(&page.items),
    )?;
    tell_of_more(page.next(|event| event.id));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_read() {
        for (text, read) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), read);
        }
        for text in ["", "example.com", "192.0.2.0/33"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
