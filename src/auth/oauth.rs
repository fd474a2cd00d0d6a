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

use std::{collections::BTreeMap, sync::Arc};

pub(in crate::auth) use self::flow::Family;
pub use self::provider::StartError;
use self::{provider::Provider, refresh::Flights};
use crate::{config::OAuthProvider, db::accounts::Account};

/// The configured providers, by name.
#[derive(Debug, Default)]
pub(in crate::auth) struct Providers {
    by_name: BTreeMap<String, Arc<Provider>>,
    /// Of all configurations that this process has had: two refreshes of one token at once would spoil it.
    refreshes: Arc<Flights>,
}

impl Providers {
    pub(in crate::auth) fn new(settings: &[OAuthProvider], is_local: bool) -> Result<Self, StartError> {
        let provider =
            |settings: &OAuthProvider| Ok((settings.name.clone(), Arc::new(Provider::new(settings, is_local)?)));
        Ok(Self {
            by_name: settings.iter().map(provider).collect::<Result<_, _>>()?,
            refreshes: Arc::default(),
        })
    }

    /// Those of the next configuration. What `is_same` holds for is kept, with all that it has learnt of the provider.
    pub(in crate::auth) fn next(
        &self,
        settings: &[OAuthProvider],
        is_local: bool,
        is_same: impl Fn(&OAuthProvider) -> bool,
    ) -> Result<Self, StartError> {
        let provider = |settings: &OAuthProvider| {
            let kept = self.by_name.get(&settings.name).filter(|_| is_same(settings));
            let provider = match kept {
                Some(kept) => Arc::clone(kept),
                None => Arc::new(Provider::new(settings, is_local)?),
            };
            Ok((settings.name.clone(), provider))
        };
        Ok(Self {
            by_name: settings.iter().map(provider).collect::<Result<_, _>>()?,
            refreshes: Arc::clone(&self.refreshes),
        })
    }

    pub(in crate::auth) fn get(&self, name: &str) -> Option<&Provider> {
        self.by_name.get(name).map(Arc::as_ref)
    }

    /// The provider that an account is at, if it still goes by that name, and the name means the same issuer as then.
    /// What was brought from elsewhere had no issuer: it is adopted at the next sign-in.
    pub(in crate::auth) fn of(&self, account: &Account) -> Option<&Provider> {
        let provider = self.get(&account.provider_id)?;
        (account.issuer.is_empty() || provider.is_issuer(&account.issuer)).then_some(provider)
    }

    fn refreshes(&self) -> &Flights {
        &self.refreshes
    }
}
