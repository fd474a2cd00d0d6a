//! How others see a user: name and picture.

use serde_json::json;

use crate::{
    auth::{
        AuthError,
        http::{Answer, Call},
        input::{Nullable, forbid_protected, is_truthy},
    },
    db::{self, audit, users, users::Picture},
};

/// POST /update-user: what is left out stays, and `image: null` takes the picture away.
pub(in crate::auth) async fn update(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let name = check.optional_text("name");
    let image = check.nullable_text("image");
    check.done()?;
    let current = call.demand_session().await?;
    if call.body.get("email").is_some_and(is_truthy) {
        return Err(AuthError::EmailCanNotBeUpdated);
    }
    forbid_protected(&call.body)?;
    if name.is_none() && image == Nullable::Absent {
        return Err(AuthError::NothingToUpdate);
    }
    let user = current.user.id;
    let mut client = call.auth.db.client().await?;
    let tx = db::begin(&mut client).await?;
    let picture = match &image {
        Nullable::Absent => Picture::Stays,
        Nullable::Null => Picture::None,
        Nullable::Text(image) => Picture::Is(image),
    };
    users::update_profile(&tx, user, name.as_deref(), picture, call.now).await?;
    call.audit(&tx, &audit::Entry::done(audit::Action::UpdateUser, user))
        .await?;
    db::commit(tx).await?;
    call.auth.sessions.forget_user(user);
    call.hand_out(&current.token, current.remember());
    Ok(Answer::json(json!({ "status": true })))
}

/// POST /update-session: sessions have no fields of their own to set.
pub(in crate::auth) async fn update_session(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    call.body.check().done()?;
    call.demand_session().await?;
    Err(AuthError::NothingToUpdate)
}
