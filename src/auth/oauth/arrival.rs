//! Somebody comes back from a provider: whose account that is, whether it becomes one, and whether they are signed in.

use super::provider::{Profile, Provider, Tokens};
use crate::{
    auth::{AuthError, complete::SignedIn, http::Call},
    identity::{SessionId, UserId},
};

/// What a provider has shown.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    pub(super) provider: &'a Provider,
    pub(super) profile: Profile,
    pub(super) tokens: Tokens,
}

/// Somebody signed in; the cookies are on their way.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) signed_in: SignedIn,
    /// The user was made just now.
    pub(super) is_new: bool,
}

/// Why somebody whom the provider knows does not get in, or gets no account linked.
#[derive(Debug)]
pub(super) enum Refusal {
    /// `account_not_linked`
    NotLinked,
    /// `signup_disabled`
    SignUpDisabled,
    /// `email_not_found`
    EmailNotFound,
    /// `email_not_verified`: a mail with a link is on its way.
    EmailNotVerified,
    /// `BANNED_USER`
    Banned,
    /// `email_does_not_match`
    EmailDoesNotMatch,
    /// `account_already_linked_to_different_user`
    LinkedToAnother,
    /// `unable_to_link_account`
    UnableToLink,
    /// Not a refusal but a failure of ours.
    Failed(AuthError),
}

/// Signs in whoever the provider says it is. `callback_url`: where a verification mail's link leads.
pub(super) async fn sign_in(
    _call: &mut Call<'_>,
    _arrival: Arrival<'_>,
    _may_sign_up: bool,
    _callback_url: Option<&str>,
) -> Result<Entered, Refusal> {
    unimplemented!()
}

/// Links the account to the user who asked, if the session in which they asked is still theirs.
pub(super) async fn link(
    _call: &mut Call<'_>,
    _arrival: Arrival<'_>,
    _to: UserId,
    _session: SessionId,
) -> Result<(), Refusal> {
    unimplemented!()
}
