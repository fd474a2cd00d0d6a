//! Providers' tokens at rest: sealed, each bound to its account and to what it is.

use super::provider::Tokens;
use crate::{db::accounts::tokens::SealedTokens, identity::AccountId, secret::sealed::SealingKeys};

pub(super) fn seal(_keys: &SealingKeys, _account: AccountId, _tokens: &Tokens) -> SealedTokens {
    unimplemented!()
}
