//! get-access-token, refresh-token and account-info: a provider's tokens, for the user whose they are.

use crate::auth::{
    AuthError,
    http::{Answer, Call},
    openapi::{Description, Group},
};

pub(in crate::auth) async fn get_access_token(_call: &mut Call<'_>) -> Result<Answer, AuthError> {
    unimplemented!()
}

pub(in crate::auth) async fn refresh(_call: &mut Call<'_>) -> Result<Answer, AuthError> {
    unimplemented!()
}

pub(in crate::auth) async fn account_info(_call: &mut Call<'_>) -> Result<Answer, AuthError> {
    unimplemented!()
}

pub(in crate::auth) fn describe_get_access_token() -> Description {
    Description::of(Group::Providers, "A provider's access token", "")
}

pub(in crate::auth) fn describe_refresh() -> Description {
    Description::of(Group::Providers, "Refresh a provider's tokens", "")
}

pub(in crate::auth) fn describe_account_info() -> Description {
    Description::of(Group::Providers, "What a provider says of an account", "")
}
