//! `vestibule user ban` and `unban`. A ban ends every session: they would be live again once it is over.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{UserView, named};
use crate::{
    cli::{
        argument::Who,
        operator::{Operator, OperatorArgs, Stop, lock},
        output::time,
    },
    clock::Timestamp,
    config::parse_duration,
    db::{self, audit, sessions, users},
};

#[derive(Args, Debug)]
pub(super) struct BanArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Id or e-mail address
    user: Who,
    /// Why; other administrators see it, the user does not
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// For how long, such as 7d; for good unless this or --until says otherwise
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, conflicts_with = "until")]
    duration: Option<Duration>,
    /// Until when, such as 2026-12-24T00:00:00Z
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

#[derive(Args, Debug)]
pub(super) struct UnbanArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Id or e-mail address
    user: Who,
}

pub(super) async fn ban(operator: &Operator, args: &BanArgs) -> Result<ExitCode, Stop> {
    let now = operator.now;
    let until = args.until.or_else(|| args.duration.map(|duration| now.plus(duration)));
    if until.is_some_and(|until| until <= now) {
        return Err(Stop::Usage("a ban that is over at once bans nobody".to_owned()));
    }
    let mut client = operator.client().await?;
    let tx = db::begin(&mut client).await?;
    let mut user = lock(&tx, &args.user).await?;
    users::ban(&tx, user.id, args.reason.as_deref(), until, now).await?;
    let entry = audit::Entry {
        reason: args.reason.as_deref(),
        ..audit::Entry::done(audit::Action::Ban, user.id)
    };
    operator.audit(&tx, &entry).await?;
    let ended = sessions::revoke_all(&tx, user.id, None, now).await?;
    for session in &ended {
        let entry = audit::Entry {
            reason: Some("banned"),
            session: Some(session.id),
            ..audit::Entry::done(audit::Action::RevokeSession, user.id)
        };
        operator.audit(&tx, &entry).await?;
    }
    db::commit(tx).await?;
    user.banned = true;
    user.ban_reason.clone_from(&args.reason);
    user.ban_expires = until;
    user.updated_at = now;
    operator.print(
        || json!({ "user": UserView::from(&user), "sessionsEnded": ended.len() }),
        || {
            let until = until.map_or_else(|| "for good".to_owned(), |until| format!("until {} UTC", time(until)));
            format!("{} is banned {until}; sessions ended: {}\n", named(&user), ended.len())
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn unban(operator: &Operator, args: &UnbanArgs) -> Result<ExitCode, Stop> {
    let mut client = operator.client().await?;
    let tx = db::begin(&mut client).await?;
    let mut user = lock(&tx, &args.user).await?;
    let was_banned = user.banned;
    if was_banned {
        users::unban(&tx, user.id, operator.now).await?;
        operator
            .audit(&tx, &audit::Entry::done(audit::Action::Unban, user.id))
            .await?;
        user.banned = false;
        user.ban_reason = None;
        user.ban_expires = None;
        user.updated_at = operator.now;
    }
    db::commit(tx).await?;
    operator.print(
        || json!({ "user": UserView::from(&user) }),
        || {
            let what = if was_banned {
                "is no longer banned"
            } else {
                "was not banned"
            };
            format!("{} {what}\n", named(&user))
        },
    )?;
    Ok(ExitCode::SUCCESS)
}
