//! The ways in which a user may sign in: listing them, and taking one away.
//!
//! One that works must stay: a password, or an account at a provider that is configured now, with the issuer of then.

use serde_json::json;

use crate::{
    auth::{
        AuthError,
        http::{Answer, Call},
        objects,
        openapi::{Description, Field, Group, Who, Work, Yes, always, list as list_of, named, object},
    },
    db::{
        self, DbError, Transaction,
        accounts::{self, Account, linked},
        audit,
    },
    identity::UserId,
    mail::{self, Message},
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
    let owner = current.hold(&tx, call.now).await?;
    let accounts = accounts::of(&tx, user).await?;
    if accounts.len() <= 1 {
        return Err(AuthError::LastAccount);
    }
    let account = accounts.iter().find(|account| is_meant(account));
    let account = account.ok_or(AuthError::AccountNotFound)?;
    let leads_in = |account: &Account| call.auth.providers.of(account).is_some();
    if !leaves_a_way(&accounts, account, leads_in) {
        return Err(AuthError::LastAccount);
    }
    accounts::delete(&tx, account.id).await?;
    let entry = audit::Entry {
        reason: Some(&account.provider_id),
        ..current.did(audit::Action::UnlinkAccount)
    };
    call.audit(&tx, &entry).await?;
    // Nobody is told of somebody else's account.
    if owner.email_verified {
        let message = Message::AccountUnlinked {
            name: &owner.name,
            provider: &account.provider_id,
        };
        mail::enqueue(&tx, &call.auth.sealing, &owner.email, &message, call.now).await?;
    }
    db::commit(tx).await?;
    call.auth.outbox.ring();
    Ok(Answer::json(json!({ "status": true })))
}

/// Whether the user can still sign in without this one.
fn leaves_a_way(accounts: &[Account], without: &Account, leads_in: impl Fn(&Account) -> bool) -> bool {
    accounts
        .iter()
        .filter(|account| account.id != without.id)
        .any(|account| account.password_set_at.is_some() || leads_in(account))
}

/// Takes a user's accounts at providers away: somebody else has shown that the address is theirs. The user's row must be
/// locked.
pub(in crate::auth) async fn drop_linked(call: &Call<'_>, tx: &Transaction<'_>, user: UserId) -> Result<(), DbError> {
    if linked::drop_all(tx, user).await? > 0 {
        let entry = audit::Entry {
            reason: Some(ADDRESS_PROVEN),
            ..audit::Entry::done(audit::Action::UnlinkAccount, user)
        };
        call.audit(tx, &entry).await?;
    }
    Ok(())
}

/// Why ways to sign in are gone whose maker never proved the address.
pub(in crate::auth) const ADDRESS_PROVEN: &str = "ADDRESS_PROVEN_OTHERWISE";

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
        "Not the last one that works: a password, or an account at a provider that is configured. It is named by the `id` that `list-accounts` gives, or as older clients do, by provider.",
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{clock::Timestamp, identity::AccountId};

    fn account(id: u128, provider: &str) -> Account {
        let at = Timestamp::from_secs(1);
        Account {
            id: AccountId(Uuid::from_u128(id)),
            user_id: UserId(Uuid::nil()),
            provider_id: provider.to_owned(),
            account_id: "1".to_owned(),
            issuer: String::new(),
            scopes: Vec::new(),
            password_set_at: (provider == "credential").then_some(at),
            created_at: at,
            updated_at: at,
        }
    }

    #[test]
    fn the_last_way_that_works_stays() {
        let leads_in = |account: &Account| ["google", "github"].contains(&account.provider_id.as_str());
        for (others, leaves) in [
            (&["credential"][..], true),
            (&["google"], true),
            (&["gone"], false),
            (&["gone", "github"], true),
            (&[], false),
        ] {
            let mut accounts = vec![account(0, "google")];
            accounts.extend((1..).zip(others).map(|(id, provider)| account(id, provider)));
            let got = leaves_a_way(&accounts, &accounts[0], leads_in);
            assert_eq!(got, leaves, "{others:?}");
        }
        let mut without_password = account(1, "credential");
        without_password.password_set_at = None;
        let accounts = [account(0, "google"), without_password];
        assert!(!leaves_a_way(&accounts, &accounts[0], leads_in));
    }
}
