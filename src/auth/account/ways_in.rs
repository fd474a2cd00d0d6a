//! The ways in which a user may sign in: listing them, and taking one away.

use serde_json::json;

use crate::{
    auth::{
        AuthError,
        http::{Answer, Call},
        objects,
        openapi::{Description, Field, Group, Who, Work, Yes, always, list as list_of, named, object},
    },
    db::{self, accounts, accounts::Account, audit, users},
};

/// GET /list-accounts
pub(in crate::auth) async fn list(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let current = call.demand_session().await?;
    let accounts = accounts::of(&call.auth.db.client().await?, current.user.id).await?;
    Ok(Answer::json(accounts.iter().map(objects::account).collect()))
}

/// POST /unlink-account: by the row's id, or as older clients name it, by provider (section 24). The last one stays.
pub(in crate::auth) async fn unlink(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let provider = check.optional_text("providerId");
    let account_id = match provider {
        Some(_) => check.optional_text("accountId"),
        None => Some(check.text("accountId")),
    };
    check.done()?;
    let is_meant = |account: &Account| match &provider {
        Some(provider) => {
            account.provider_id == *provider && account_id.as_ref().is_none_or(|id| account.account_id == *id)
        }
        None => account_id.as_ref().is_some_and(|id| account.id.to_string() == *id),
    };
    let current = call.demand_fresh_session().await?;
    let user = current.user.id;
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    // Else two at once could each leave the other's.
    users::lock(&tx, user).await?.ok_or(AuthError::Unauthorized)?;
    let accounts = accounts::of(&tx, user).await?;
    if accounts.len() <= 1 {
        return Err(AuthError::LastAccount);
    }
    let account = accounts.iter().find(|account| is_meant(account));
    let account = account.ok_or(AuthError::AccountNotFound)?;
    accounts::delete(&tx, account.id).await?;
    let entry = audit::Entry {
        reason: Some(&account.provider_id),
        ..current.did(audit::Action::UnlinkAccount)
    };
    call.audit(&tx, &entry).await?;
    db::commit(tx).await?;
    Ok(Answer::json(json!({ "status": true })))
}

pub(in crate::auth) fn describe_list() -> Description {
    Description::of(Group::Account, "The ways in which the user may sign in", "")
        .who(Who::WithSession)
        .work(Work::Database)
        .answers([Yes::json("The ways.", list_of(named("Account")))])
}

pub(in crate::auth) fn describe_unlink() -> Description {
    Description::of(
        Group::Account,
        "Take away a way to sign in",
        "Not the last one. It is named by the `id` that `list-accounts` gives, or as older clients do, by provider.",
    )
    .who(Who::WithFreshSession)
    .work(Work::Database)
    .body([
        Field::text("accountId", "0199f3a2-7c41-7d0a-9b1e-6f1f0c2d3e4f")
            .shown()
            .says("The `id` of the account; with `providerId` the provider's own id, and then it may be left out."),
        Field::text("providerId", "google"),
    ])
    .answers([Yes::json("Taken away.", object([("status", always(true).into())]))])
    .refuses([AuthError::LastAccount, AuthError::AccountNotFound])
}
