//! Signing in at OAuth providers: from the request that sends a browser there to the session that it comes back to.
//!
//! `start.rs` begins a flow, `flow.rs` remembers it, `callback.rs` ends it; `provider.rs` asks the provider, and
//! `arrival.rs` decides whose account the answer is, `linking.rs` for somebody who asked to have it linked; `failures.rs`
//! writes down what ended before. `tokens.rs` hands provider tokens to their user, and `refresh.rs`
//! gets new ones; `vault.rs` keeps them sealed, and `reseal.rs` by the key of today.

mod arrival;
pub(in crate::auth) mod callback;
mod failures;
mod flow;
mod id_token_form;
mod linking;
mod provider;
mod refresh;
pub mod reseal;
pub(in crate::auth) mod start;
pub(in crate::auth) mod tokens;
pub mod vault;

use std::collections::BTreeMap;

pub(in crate::auth) use self::flow::Family;
pub use self::provider::StartError;
use self::{provider::Provider, refresh::Flights};
use crate::{config::OAuthProvider, db::accounts::Account};

/// The configured providers, by name.
#[derive(Debug, Default)]
pub(in crate::auth) struct Providers {
    by_name: BTreeMap<String, Provider>,
    refreshes: Flights,
}

impl Providers {
    pub(in crate::auth) fn new(settings: &[OAuthProvider], is_local: bool) -> Result<Self, StartError> {
        let provider = |settings: &OAuthProvider| Ok((settings.name.clone(), Provider::new(settings, is_local)?));
        Ok(Self {
            by_name: settings.iter().map(provider).collect::<Result<_, _>>()?,
            refreshes: Flights::default(),
        })
    }

    pub(in crate::auth) fn get(&self, name: &str) -> Option<&Provider> {
        self.by_name.get(name)
    }

    /// The provider that an account is at, if it still goes by that name, and the name means the same issuer as then.
    /// What was brought from elsewhere had no issuer: it is adopted at the next sign-in.
    pub(in crate::auth) fn of(&self, account: &Account) -> Option<&Provider> {
        let provider = self.get(&account.provider_id)?;
        (account.issuer.is_empty() || provider.is_issuer(&account.issuer)).then_some(provider)
    }

    const fn refreshes(&self) -> &Flights {
        &self.refreshes
    }
}
