//! Signing in, and linking, with an id_token that an app got by itself.

use super::provider::Provider;
use crate::auth::{
    AuthError,
    http::{Answer, Call, Current},
};

pub(super) async fn sign_in(_call: &mut Call<'_>, _provider: &Provider) -> Result<Answer, AuthError> {
    unimplemented!()
}

pub(super) async fn link(_call: &mut Call<'_>, _provider: &Provider, _current: &Current) -> Result<Answer, AuthError> {
    unimplemented!()
}
