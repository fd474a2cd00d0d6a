//! How others see a user: name and picture.

use serde_json::json;

use crate::{
    auth::{
        AuthError,
        http::{Answer, Call},
        input::{Nullable, forbid_protected, is_truthy},
        openapi::{Description, Field, Group, Who, Work, Yes, always, object},
    },
    db::{self, audit, users, users::Picture},
};

/// POST /update-user: what is left out stays, and `image: null` takes the picture away.
pub(in crate::auth) async fn update(call: &mut Call<'_>) -> Result<Answer, AuthError> {
    let mut check = call.body.check();
    let name = check.optional_name("name");
    let image = check.nullable_picture("image");
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
    current.hold(&tx, call.now).await?;
    let picture = match &image {
        Nullable::Absent => Picture::Stays,
        Nullable::Null => Picture::None,
        Nullable::Text(image) => Picture::Is(image),
    };
    users::update_profile(&tx, user, name.as_deref(), picture, call.now).await?;
    call.audit(&tx, &current.did(audit::Action::UpdateUser)).await?;
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

pub(in crate::auth) fn describe_update() -> Description {
    Description::of(
        Group::Account,
        "Change name and picture",
        "What is left out stays; a picture that is null is taken away.",
    )
    .who(Who::WithSession)
    .work(Work::Database)
    .body([
        Field::text("name", "Ada King").shown(),
        Field::nullable_picture("image"),
    ])
    .answers([Yes::json("Changed.", object([("status", always(true).into())])).hands_out_session()])
    .refuses([
        AuthError::EmailCanNotBeUpdated,
        AuthError::FieldNotAllowed("role"),
        AuthError::NothingToUpdate,
    ])
}

pub(in crate::auth) fn describe_update_session() -> Description {
    Description::of(
        Group::Sessions,
        "Change fields of the session",
        "Sessions have no fields that could be set, so there is nothing that it could do.",
    )
    .who(Who::WithSession)
    .work(Work::Database)
    .refuses([
        AuthError::Validation("[body] Invalid input: expected object, received undefined".to_owned()),
        AuthError::NothingToUpdate,
    ])
}
