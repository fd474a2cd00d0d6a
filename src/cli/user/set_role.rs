//! `vestibule user set-role`: which roles a user has. Sessions go on; upstreams and routes see the new roles from the
//! next request on.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{UserView, named};
use crate::{
    cli::{
        argument::{Role, Who, distinct},
        operator::{Operator, OperatorArgs, Stop, lock},
    },
    db::{self, audit, users},
};

#[derive(Args, Debug)]
pub(super) struct SetRoleArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Id or e-mail address
    user: Who,
    /// The roles that the user has from now on, in place of those before
    #[arg(
        value_name = "ROLE",
        required_unless_present_any = ["add", "remove", "none"],
        conflicts_with_all = ["add", "remove", "none"]
    )]
    roles: Vec<Role>,
    /// A role besides those that the user has
    #[arg(long, value_name = "ROLE")]
    add: Vec<Role>,
    /// A role that the user is to lose
    #[arg(long, value_name = "ROLE")]
    remove: Vec<Role>,
    /// Take all roles away
    #[arg(long, conflicts_with_all = ["add", "remove"])]
    none: bool,
}

impl SetRoleArgs {
    /// What becomes of `roles`.
    fn applied_to(&self, roles: &[String]) -> Vec<String> {
        if self.add.is_empty() && self.remove.is_empty() {
            return distinct(&self.roles);
        }
        let had: Vec<Role> = roles.iter().cloned().map(Role).collect();
        let kept = had.iter().filter(|role| !self.remove.contains(role));
        let added = self.add.iter().filter(|role| !self.remove.contains(role));
        distinct(kept.chain(added))
    }
}

pub(super) async fn run(operator: &Operator, args: &SetRoleArgs) -> Result<ExitCode, Stop> {
    let mut client = operator.client().await?;
    let tx = db::begin(&mut client).await?;
    let mut user = lock(&tx, &args.user).await?;
    let roles = args.applied_to(&user.roles);
    if roles != user.roles {
        users::set_roles(&tx, user.id, &roles, operator.now).await?;
        let change = format!("{} -> {}", listed(&user.roles), listed(&roles));
        let entry = audit::Entry {
            reason: Some(&change),
            ..audit::Entry::done(audit::Action::SetRole, user.id)
        };
        operator.audit(&tx, &entry).await?;
        user.roles = roles;
        user.updated_at = operator.now;
    }
    db::commit(tx).await?;
    operator.print(
        || json!({ "user": UserView::from(&user) }),
        || format!("{} has the roles: {}\n", named(&user), listed(&user.roles)),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn listed(roles: &[String]) -> String {
    if roles.is_empty() {
        "none".to_owned()
    } else {
        roles.join(",")
    }
}
