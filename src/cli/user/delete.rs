//! `vestibule user delete`: a user, with accounts and sessions. What the audit log says of them stays, under an id that
//! leads to nobody.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{UserView, named};
use crate::{
    cli::{
        argument::Who,
        operator::{Operator, OperatorArgs, Stop, confirm, find, lock},
    },
    db::{self, audit, sessions, users},
};

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Id or e-mail address
    user: Who,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(operator: &Operator, args: &DeleteArgs) -> Result<ExitCode, Stop> {
    let mut client = operator.client().await?;
    let user = find(&client, &args.user).await?;
    if !args.yes {
        confirm(&format!("Delete {} with everything that is theirs?", named(&user)))?;
    }
    let tx = db::begin(&mut client).await?;
    // Who answers to the address now may be somebody else than was asked about.
    let user = lock(&tx, &Who::Id(user.id)).await?;
    operator
        .audit(&tx, &audit::Entry::done(audit::Action::DeleteUser, user.id))
        .await?;
    // First, in the order in which everybody locks sessions: a deletion takes them in any order, and could wait crosswise
    // for a gateway that writes when they were last seen.
    sessions::revoke_all(&tx, user.id, None, operator.now).await?;
    users::delete(&tx, user.id).await?;
    db::commit(tx).await?;
    operator.print(
        || json!({ "user": UserView::from(&user) }),
        || format!("{} is deleted\n", named(&user)),
    )?;
    Ok(ExitCode::SUCCESS)
}
