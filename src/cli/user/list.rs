//! `vestibule user list`: users page by page, the newest first.

use std::process::ExitCode;

use clap::Args;

use super::{UserView, state};
use crate::{
    cli::{
        argument::{Role, limit},
        operator::{Operator, OperatorArgs, Stop},
        output::{Table, Width, minute},
        page::{Page, tell_of_more},
    },
    db::users::{self, Filter, User},
    identity::UserId,
};

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Only those whose address or name has this in it, in whatever case
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only those who have this role
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// Only those whose ban is in force
    #[arg(long)]
    banned: bool,
    /// Only those whose address is not verified
    #[arg(long)]
    unverified: bool,
    /// How many at most
    #[arg(long, value_name = "N", default_value = "50", value_parser = limit)]
    limit: usize,
    /// Go on after this user, the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<UserId>,
}

const COLUMNS: &[(&str, Width)] = &[
    ("id", Width::Whole),
    ("e-mail", Width::Wraps),
    ("name", Width::Wraps),
    ("roles", Width::Wraps),
    ("state", Width::Wraps),
    ("created (UTC)", Width::Whole),
];

pub(super) async fn run(operator: &Operator, args: &ListArgs) -> Result<ExitCode, Stop> {
    let filter = Filter {
        text: args.search.as_deref(),
        role: args.role.as_ref().map(|role| role.0.as_str()),
        banned: args.banned,
        unverified: args.unverified,
        after: args.after,
    };
    let client = operator.client().await?;
    let found = users::list(&client, &filter, args.limit + 1, operator.now).await?;
    let page = Page::of(found, args.limit);
    operator.print(
        || page.items.iter().map(UserView::from).collect::<Vec<_>>(),
        || table(operator, &page.items),
    )?;
    tell_of_more(page.next(|user| user.id));
    Ok(ExitCode::SUCCESS)
}

fn table(operator: &Operator, users: &[User]) -> String {
    if users.is_empty() {
        return "no such users\n".to_owned();
    }
    let mut table = Table::new(COLUMNS);
    for user in users {
        table.row([
            user.id.to_string(),
            user.email.clone(),
            user.name.clone(),
            user.roles.join(", "),
            state(user, operator.now),
            minute(user.created_at),
        ]);
    }
    table.render()
}
