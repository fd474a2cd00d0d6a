//! Refreshing a provider's tokens, once however many ask.
//!
//! A refresh token may be good only once: a provider that rotates them takes a second use for theft, and revokes all that
//! came of the sign-in (RFC 9700, section 4.14.2). So nobody spends one that somebody else is spending:
//!
//! - In one gateway the first who asks for an account leads, and all who come meanwhile get what came of it ([`Flights`]).
//! - Between gateways the leader needs the lease of the account (`accounts.refreshing_until`), which one statement gives
//!   to one of them, and only while the stored refresh token is the one that the leader has read. Who does not get it
//!   looks now and then whether something else is stored. If the lease ends and nothing is, the refresh failed there, and
//!   it is no use to ask again at once.
//! - The provider has its time-out to answer, and the lease lasts for longer ([`SLACK`]): for storing, and for clocks that
//!   differ. A gateway that dies leaves a lease behind; when it is over, the next who asks may take it.
//!
//! What came of it is stored in place of the refresh token *that was spent*, and compared with nothing else. If a sign-in
//! stored another one meanwhile, that one stays, with all that came with it: it belongs to a newer grant, which the
//! refresh knows nothing of. But if the sign-in brought none, as with providers that give one only at the first consent,
//! the new one must be stored although the access token is not the one that was read: the old one is spent, and
//! without its successor nothing could be refreshed ever again.
//!
//! No connection to Postgres is held while the provider is asked.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{error, warn};

use super::{
    provider::{Provider, ProviderError, Tokens},
    vault,
};
use crate::{
    auth::{Auth, AuthError},
    chain::Chain,
    clock::{Timestamp, monotonic},
    db::{
        DbError,
        accounts::{
            Account,
            tokens::{self, Held, Lease, SealedTokens},
        },
    },
    identity::AccountId,
    secret::Secret,
};

/// How much longer a lease lasts than the provider may take.
const SLACK: Duration = Duration::from_secs(30);

/// How often who waits for another gateway looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A token that can't be stored is lost, so storing it is tried again.
const ATTEMPTS: u32 = 3;
const ATTEMPT_AGAIN: Duration = Duration::from_millis(500);

/// Accounts that are refreshed at the same time in one gateway. Beyond it nobody waits for a leader: each asks for the
/// lease, which does the same with more work for Postgres.
const MOST_FLIGHTS: usize = 1_024;

/// Why there is nothing newer. What is to be known of it is in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// The provider refused or did not answer, or another gateway that asks it has not come back.
    Provider,
    Db,
    /// The account was taken away meanwhile.
    Gone,
}

impl Failure {
    /// `otherwise`: what the endpoint says of a provider that gives nothing.
    pub(super) fn told(self, otherwise: AuthError) -> AuthError {
        match self {
            Self::Provider => otherwise,
            Self::Db => DbError::Unavailable("what a refresh needed or brought".into()).into(),
            Self::Gone => AuthError::AccountNotFound,
        }
    }
}

type Outcome = Result<Arc<Tokens>, Failure>;

/// What is to be refreshed, as it was read.
#[derive(Clone, Copy)]
pub(super) struct Seen<'s> {
    pub(super) account: &'s Account,
    pub(super) sealed: &'s SealedTokens,
    pub(super) tokens: &'s Tokens,
}

/// Tokens that are newer than those that were seen.
pub(super) async fn refresh(auth: &Auth, provider: &Provider, seen: Seen<'_>, request_id: &str) -> Outcome {
    let (Some(spends), Some(token)) = (seen.sealed.refresh.as_deref(), seen.tokens.refresh.as_ref()) else {
        return Err(Failure::Provider);
    };
    let refresh = Refresh {
        auth,
        provider,
        seen,
        spends,
        token,
        request_id,
    };
    match auth.providers.refreshes().join(refresh.seen.account.id) {
        Part::Lead(lead) => {
            let outcome = Box::pin(refresh.lead()).await;
            lead.land(&outcome);
            outcome
        }
        Part::Follow(landing) => landed(landing, refresh.limit() + SLACK).await,
        Part::Alone => Box::pin(refresh.lead()).await,
    }
}

/// What the leader brought; nothing, if it was dropped on the way.
async fn landed(mut landing: watch::Receiver<Option<Outcome>>, at_most: Duration) -> Outcome {
    match timeout(at_most, landing.wait_for(Option::is_some)).await {
        Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Failure::Provider)),
        Ok(Err(_)) | Err(_) => Err(Failure::Provider),
    }
}

/// What is stored in place of what was seen.
enum Found {
    Newer(Arc<Tokens>),
    /// The same, sealed with another secret (`reseal.rs`): nobody has refreshed anything.
    Resealed(Held),
}

/// By what a refresh changes.
fn are_the_same(one: &Tokens, other: &Tokens) -> bool {
    one.access_expires_at == other.access_expires_at
        && exposed(one.access.as_ref()) == exposed(other.access.as_ref())
        && exposed(one.refresh.as_ref()) == exposed(other.refresh.as_ref())
}

fn exposed(token: Option<&Secret<String>>) -> Option<&String> {
    token.map(Secret::expose)
}

#[derive(Clone, Copy)]
struct Refresh<'r> {
    auth: &'r Auth,
    provider: &'r Provider,
    seen: Seen<'r>,
    /// The refresh token, sealed.
    spends: &'r [u8],
    token: &'r Secret<String>,
    request_id: &'r str,
}

impl Refresh<'_> {
    /// For all that the provider is asked.
    const fn limit(&self) -> Duration {
        self.provider.settings().timeout
    }

    async fn lead(&self) -> Outcome {
        let held = match self.once().await? {
            Found::Newer(tokens) => return Ok(tokens),
            Found::Resealed(held) => held,
        };
        let tokens = self.opened(&held);
        let (Some(spends), Some(token)) = (held.sealed.refresh.as_deref(), tokens.refresh.as_ref()) else {
            return Err(Failure::Provider);
        };
        let again = Refresh {
            seen: Seen {
                account: self.seen.account,
                sealed: &held.sealed,
                tokens: &tokens,
            },
            spends,
            token,
            ..*self
        };
        match again.once().await? {
            Found::Newer(tokens) => Ok(tokens),
            Found::Resealed(_) => Err(Failure::Provider),
        }
    }

    async fn once(&self) -> Result<Found, Failure> {
        let now = self.auth.clock.now();
        let lasts = self.limit() + SLACK;
        let lease = Lease {
            account: self.seen.account.id,
            spends: self.spends,
            until: now.plus(lasts),
        };
        // Further ahead than any lease of a gateway whose clock is ahead by less than a lease's length.
        let at_most = lease.until.plus(lasts);
        match self.take(lease, at_most).await {
            Ok(true) => self.spend(lease).await.map(Found::Newer),
            Ok(false) => self.wait().await,
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn take(&self, lease: Lease<'_>, at_most: Timestamp) -> Result<bool, DbError> {
        let client = self.auth.db.client().await?;
        tokens::take_lease(&client, lease, self.auth.clock.now(), at_most).await
    }

    /// Asks the provider, and stores what it gives.
    async fn spend(&self, lease: Lease<'_>) -> Outcome {
        let provider = self.provider.name();
        let Seen { account, tokens, .. } = self.seen;
        let asked = self
            .provider
            .refresh(self.token, tokens, account, self.auth.clock.now());
        let answer = timeout(self.limit(), asked).await.unwrap_or_else(|_| {
            Err(ProviderError::Unreachable {
                provider: provider.to_owned(),
                why: format!("no answer within {:?}", self.limit()),
            })
        });
        let (request_id, account) = (self.request_id, self.seen.account.id);
        let given = match answer {
            Ok(given) if given.access.is_some() => given,
            Ok(_) => {
                warn!(provider, account = %account, request_id, "a provider gave no access token for a refresh token");
                self.give_back(lease).await;
                return Err(Failure::Provider);
            }
            Err(error) => {
                warn!(
                    error = %Chain(&error),
                    provider, account = %account, request_id, "a provider's tokens could not be refreshed"
                );
                self.give_back(lease).await;
                return Err(Failure::Provider);
            }
        };
        // Sealed anew even if it is the same: who waits tells by it that it was refreshed.
        let given = Tokens {
            refresh: given.refresh.or_else(|| self.seen.tokens.refresh.clone()),
            ..given
        };
        match self.store(lease, &given).await {
            Ok(true) => Ok(Arc::new(self.whole(given))),
            Ok(false) => {
                self.give_back(lease).await;
                self.stored()
                    .await?
                    .map_or(Err(Failure::Gone), |held| Ok(self.opened(&held)))
            }
            Err(error) => {
                error!(
                    error = %Chain(&error),
                    provider, account = %account, request_id,
                    "what a provider gave for a refresh token could not be stored: if it was good only once, the user has \
                     to sign in there again"
                );
                Err(Failure::Db)
            }
        }
    }

    /// Whether the refresh token that was spent was still there.
    async fn store(&self, lease: Lease<'_>, given: &Tokens) -> Result<bool, DbError> {
        let sealed = vault::seal(&self.auth.sealing, self.seen.account.id, given);
        let mut attempt = 1;
        loop {
            let stored = async {
                let client = self.auth.db.client().await?;
                tokens::refreshed(&client, lease, &sealed, self.auth.clock.now()).await
            };
            match stored.await {
                Err(error) if attempt < ATTEMPTS && error.is_unavailable() => {
                    attempt += 1;
                    sleep(ATTEMPT_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// What was given, with what was not given anew.
    fn whole(&self, given: Tokens) -> Tokens {
        let seen = self.seen.tokens;
        Tokens {
            id: given.id.or_else(|| seen.id.clone()),
            refresh_expires_at: given.refresh_expires_at.or(seen.refresh_expires_at),
            // A refresh may say less than what was granted.
            scopes: seen.scopes.clone(),
            ..given
        }
    }

    /// Lets others try. Should it fail, the lease ends by itself.
    async fn give_back(&self, lease: Lease<'_>) {
        let given_back = async {
            let client = self.auth.db.client().await?;
            tokens::end_lease(&client, lease).await
        };
        if let Err(error) = given_back.await {
            self.failed(&error);
        }
    }

    /// Until another gateway has stored what it got, or a sign-in what that brought.
    async fn wait(&self) -> Result<Found, Failure> {
        let until = Instant::from_std(monotonic()) + self.limit();
        let found = async {
            loop {
                let Some(held) = self.stored().await? else {
                    return Err(Failure::Gone);
                };
                if held.sealed.refresh.as_deref() != Some(self.spends) {
                    let tokens = self.opened(&held);
                    return Ok(if are_the_same(&tokens, self.seen.tokens) {
                        Found::Resealed(held)
                    } else {
                        Found::Newer(tokens)
                    });
                }
                if held.refreshing_until.is_none_or(|until| until <= self.auth.clock.now()) {
                    return Err(Failure::Provider);
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout_at(until, found).await.unwrap_or_else(|_| {
            let (account, request_id) = (self.seen.account.id, self.request_id);
            warn!(account = %account, request_id, "another gateway that refreshes a provider's tokens has not come back");
            Err(Failure::Provider)
        })
    }

    async fn stored(&self) -> Result<Option<Held>, Failure> {
        let held = async {
            let client = self.auth.db.client().await?;
            tokens::held(&client, self.seen.account.id).await
        };
        held.await.map_err(|error| self.failed(&error))
    }

    fn opened(&self, held: &Held) -> Arc<Tokens> {
        Arc::new(vault::open(&self.auth.sealing, self.seen.account.id, &held.sealed))
    }

    fn failed(&self, error: &DbError) -> Failure {
        let (account, request_id) = (self.seen.account.id, self.request_id);
        warn!(
            error = %Chain(error),
            account = %account, request_id, "Postgres could not be asked about a provider's tokens"
        );
        Failure::Db
    }
}

/// Accounts whose tokens are being refreshed in this gateway, each with whoever waits for it.
#[derive(Debug, Default)]
pub(in crate::auth) struct Flights(Mutex<HashMap<AccountId, watch::Receiver<Option<Outcome>>>>);

/// What somebody who wants an account refreshed does.
enum Part<'f> {
    Lead(Lead<'f>),
    Follow(watch::Receiver<Option<Outcome>>),
    /// There are too many.
    Alone,
}

impl Flights {
    fn join(&self, account: AccountId) -> Part<'_> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = flights.len() >= MOST_FLIGHTS;
        match flights.entry(account) {
            Entry::Occupied(flight) => Part::Follow(flight.get().clone()),
            Entry::Vacant(_) if is_full => Part::Alone,
            Entry::Vacant(place) => {
                let (tell, told) = watch::channel(None);
                place.insert(told);
                Part::Lead(Lead {
                    flights: self,
                    account,
                    tell,
                })
            }
        }
    }
}

/// Leads a flight. Dropped before it has landed, by a panic or the end of the gateway, it leaves no one waiting.
struct Lead<'f> {
    flights: &'f Flights,
    account: AccountId,
    tell: watch::Sender<Option<Outcome>>,
}

impl Lead<'_> {
    fn land(self, outcome: &Outcome) {
        self.tell.send_replace(Some(outcome.clone()));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.account);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn account(number: u128) -> AccountId {
        AccountId(Uuid::from_u128(number))
    }

    fn tokens() -> Arc<Tokens> {
        Arc::new(Tokens {
            access: Some(Secret::new("access".to_owned())),
            refresh: None,
            id: None,
            access_expires_at: None,
            refresh_expires_at: None,
            scopes: Vec::new(),
        })
    }

    fn lead(flights: &Flights, number: u128) -> Lead<'_> {
        match flights.join(account(number)) {
            Part::Lead(lead) => lead,
            Part::Follow(_) | Part::Alone => panic!("somebody leads already"),
        }
    }

    fn follow(flights: &Flights, number: u128) -> watch::Receiver<Option<Outcome>> {
        match flights.join(account(number)) {
            Part::Follow(landing) => landing,
            Part::Lead(_) | Part::Alone => panic!("nobody leads"),
        }
    }

    #[tokio::test]
    async fn all_who_come_meanwhile_get_what_the_first_brought() {
        let flights = Flights::default();
        let first = lead(&flights, 1);
        let followers: Vec<_> = (0..20).map(|_| follow(&flights, 1)).collect();
        let _other = lead(&flights, 2);
        let brought = tokens();
        first.land(&Ok(Arc::clone(&brought)));
        for landing in followers {
            let got = landed(landing, SOON).await.unwrap();
            assert!(Arc::ptr_eq(&got, &brought));
        }
        // It is over: the next one leads again.
        lead(&flights, 1).land(&Err(Failure::Provider));
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_and_nobody_asks_again() {
        let flights = Flights::default();
        let first = lead(&flights, 1);
        let landing = follow(&flights, 1);
        first.land(&Err(Failure::Db));
        assert_eq!(landed(landing, SOON).await.unwrap_err(), Failure::Db);
    }

    #[tokio::test]
    async fn a_leader_that_is_lost_leaves_nobody_waiting() {
        let flights = Flights::default();
        let first = lead(&flights, 1);
        let landing = follow(&flights, 1);
        drop(first);
        assert_eq!(landed(landing, SOON).await.unwrap_err(), Failure::Provider);
        drop(lead(&flights, 1));
        assert!(flights.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_was_only_sealed_anew_is_not_taken_for_refreshed() {
        let seen = || Arc::into_inner(tokens()).unwrap();
        assert!(are_the_same(&seen(), &seen()));
        let other = || Some(Secret::new("other".to_owned()));
        for newer in [
            Tokens {
                access: other(),
                ..seen()
            },
            Tokens {
                refresh: other(),
                ..seen()
            },
            Tokens {
                access_expires_at: Some(Timestamp::from_secs(1)),
                ..seen()
            },
        ] {
            assert!(!are_the_same(&newer, &seen()));
        }
    }

    #[test]
    fn flights_have_a_bound() {
        let flights = Flights::default();
        let most = u128::try_from(MOST_FLIGHTS).unwrap();
        let leads: Vec<_> = (0..most).map(|number| lead(&flights, number)).collect();
        assert!(matches!(flights.join(account(most)), Part::Alone));
        follow(&flights, 0);
        drop(leads);
        lead(&flights, most);
    }
}
