//! How often somebody may ask, guess and have mails sent.
//!
//! - **Per address and path** ([`Throttle::admit`]): before anything of a request is read. Where a secret is tested or a
//!   mail sent, each request is counted in Postgres. All others are counted here, and in Postgres only while a source
//!   has used a quarter of what it may: an ordinary visitor causes no write.
//! - **Per account** ([`attempt`]): each test of a secret takes one beforehand, so that many at once are counted too, and
//!   gives it back if the secret was right. An account is an e-mail address, whether it has a user or not. From where its
//!   user has signed in lately wrong secrets are counted apart, so that a stranger who guesses elsewhere can't lock the
//!   user out there. That tells something to whoever shares such a network, and to nobody else: once the account is
//!   refused elsewhere, who is still let try from here learns that its user has signed in from here.
//! - **Per user who is signed in, or has a link** ([`attempt_in_session`], [`may_hash`]): each test of their password, right
//!   ones too, and each new one. It keeps this process's hashing threads free, so it is counted here alone.
//! - **Per recipient** ([`mod@super::post`]): mails that anybody can have sent by asking. Those that are asked for from where
//!   the recipient has signed in lately are counted apart here, too: strangers can't keep them from being sent.
//!
//! Who was refused is remembered, so that a flood of refused requests asks Postgres nothing. With Postgres away the
//! general limit counts here alone; what tests a secret or sends a mail fails, as it would without us.
//!
//! Not here: the rules and their arithmetic (`policy::rate`).

mod tally;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, request};
use tracing::debug;

use self::tally::{Refused, Tally};
use super::{
    Auth, AuthError,
    http::{Call, Current},
    password::Verdict,
};
use crate::{
    chain::Chain,
    clock::Timestamp,
    config::{self, Budget, RateLimit, RateStorage, WindowFrom},
    db::{DbError, GenericClient, Transaction, audit, known_addresses, rate_limits, users},
    identity::UserId,
    policy::{
        client::ClientFacts,
        rate::{Counted, Network, RULES, Rule, counted_as, wait},
    },
    problem::Code,
    secret::{Secret, SigningKeys},
    session::Trust,
};

/// So long after a sign-in its network is the user's own.
pub(super) const KNOWN_FOR: Duration = Duration::from_hours(24 * 30);

/// A refused account is looked at again so soon: right secrets that were being tested at that moment give back.
const ACCOUNT_REFUSED_FOR: Duration = Duration::from_secs(5);

/// Hashes for one user, in tests of their password when they are signed in, and of new ones: more than a person needs, less
/// than keeps a hashing thread busy.
const IN_SESSION: Budget = Budget {
    limit: 30,
    window: Duration::from_mins(1),
    window_from: WindowFrom::First,
};

/// Names in metrics, beside those of the rules.
const ACCOUNT: &str = "account";
const SESSION: &str = "session";
const MAILBOX: &str = "mailbox";

/// What is counted, of whom. Made with a key of ours: from what is stored no address can be guessed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key([u8; 32]);

/// Whether one more of a person's was left.
enum Taken {
    Yes,
    No {
        wait: Duration,
        /// It was not known already.
        is_news: bool,
    },
}

#[derive(Debug)]
pub(super) struct Throttle {
    rules: RateLimit,
    keys: SigningKeys,
    /// What they hold outlives a configuration, unless its windows are others.
    counts: Arc<Counts>,
    refusals: Arc<[(&'static str, AtomicU64)]>,
}

#[derive(Debug)]
struct Counts {
    /// Apart, so that many addresses can't push accounts out.
    addresses: Tally,
    people: Tally,
    refused_addresses: Refused,
    refused_people: Refused,
}

impl Counts {
    fn new(rules: &RateLimit) -> Self {
        let of_rules = RULES.iter().map(|rule| rule.budget.window).max().unwrap_or_default();
        let windows = [rules.account_failures.window, rules.mails.window, IN_SESSION.window];
        let of_people = windows.into_iter().max().unwrap_or_default();
        Self {
            addresses: Tally::new(of_rules),
            people: Tally::new(of_people),
            refused_addresses: Refused::new(of_rules),
            refused_people: Refused::new(of_people),
        }
    }
}

impl Throttle {
    pub(super) fn new(config: &config::Auth) -> Self {
        let rules = config.rate_limit.clone();
        let names = RULES.iter().map(|rule| rule.name).chain([ACCOUNT, SESSION, MAILBOX]);
        Self {
            keys: SigningKeys::new(config.secret.iter().map(|secret| secret.expose().as_bytes())),
            counts: Arc::new(Counts::new(&rules)),
            refusals: names.map(|name| (name, AtomicU64::new(0))).collect(),
            rules,
        }
    }

    /// By other rules, on what was counted so far: nobody gets a new budget by a reload.
    pub(super) fn next(&self, config: &config::Auth) -> Self {
        let (old, new) = (&self.rules, &config.rate_limit);
        // What is refused is remembered with how long: of a budget that has changed it may be wrong.
        let same = (old.account_failures, old.mails) == (new.account_failures, new.mails);
        Self {
            counts: if same {
                Arc::clone(&self.counts)
            } else {
                Arc::new(Counts::new(new))
            },
            refusals: Arc::clone(&self.refusals),
            rules: new.clone(),
            keys: SigningKeys::new(config.secret.iter().map(|secret| secret.expose().as_bytes())),
        }
    }

    /// How many requests each rule has refused, and mails left out.
    pub(super) fn refusals(&self) -> Vec<(&'static str, u64)> {
        let refusals = self.refusals.iter();
        refusals
            .map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
            .collect()
    }

    fn count_refusal(&self, name: &str) {
        if let Some((_, count)) = self.refusals.iter().find(|(known, _)| *known == name) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn key(&self, of: &[&str]) -> Key {
        // Nothing else that is signed with these keys begins so.
        let mut message = b"rate-limit".to_vec();
        for part in of {
            message.push(0);
            message.extend_from_slice(part.as_bytes());
        }
        Key(self.keys.sign(&message))
    }

    /// Whether the client may ask this at all. `endpoint` is the path of the route that the request found.
    pub(super) async fn admit(
        &self,
        auth: &Auth,
        head: &request::Parts,
        client: &ClientFacts,
        endpoint: Option<&'static str>,
    ) -> Result<(), AuthError> {
        if !self.rules.enabled || head.method == Method::OPTIONS {
            return Ok(());
        }
        let Some(rule) = Rule::of(head.uri.path()) else {
            return Ok(());
        };
        let network = Network::of(client.addr).to_string();
        let key = self.key(&[rule.name, counted_as(endpoint), &network]);
        let taken = self.take_of_rule(auth, rule, endpoint, key).await?;
        taken.map_err(|wait| {
            self.count_refusal(rule.name);
            AuthError::TooManyRequests(wait)
        })
    }

    async fn take_of_rule(
        &self,
        auth: &Auth,
        rule: &Rule,
        endpoint: Option<&'static str>,
        key: Key,
    ) -> Result<Result<(), Duration>, DbError> {
        let (budget, now) = (rule.budget, auth.clock.now());
        if let Some(wait) = self.counts.refused_addresses.wait(key, budget, now) {
            return Ok(Err(wait));
        }
        // Where nothing is, nothing is worth a write.
        let taken = if self.rules.storage == RateStorage::Memory || endpoint.is_none() {
            self.counts.addresses.take(key, budget, now)
        } else {
            match rule.counted {
                Counted::Together => take_together(&auth.db.client().await?, key, budget, 1, now).await?,
                Counted::HereAtFirst => self.take_here_at_first(auth, rule, key, now).await,
            }
        };
        Ok(taken.inspect_err(|wait| self.counts.refused_addresses.remember(key, *wait, Duration::MAX, now)))
    }

    /// Counts here, and tells the others once there is something to tell. Never fails: that they can't be told is no
    /// reason to turn somebody away.
    async fn take_here_at_first(&self, auth: &Auth, rule: &Rule, key: Key, now: Timestamp) -> Result<(), Duration> {
        let tell = self
            .counts
            .addresses
            .take_and_tell(key, rule.budget, rule.counts_alone_until(), now)?;
        if tell == 0 {
            return Ok(());
        }
        if auth.sessions.trust() == Trust::Unreachable {
            self.counts.addresses.not_told(key, tell);
            return Ok(());
        }
        let told = async { take_together(&auth.db.client().await?, key, rule.budget, tell, now).await };
        match told.await {
            Ok(taken) => taken.inspect_err(|_| self.counts.addresses.forget(key)),
            Err(error) => {
                debug!(error = %Chain(&error), "counted a request here alone");
                self.counts.addresses.not_told(key, tell);
                Ok(())
            }
        }
    }

    /// Takes one of what an account or a mailbox has; a refusal is known for `known_for`.
    async fn take_of_person(
        &self,
        client: &impl GenericClient,
        key: Key,
        budget: Budget,
        known_for: Duration,
        now: Timestamp,
    ) -> Result<Taken, DbError> {
        if let Some(wait) = self.counts.refused_people.wait(key, budget, now) {
            return Ok(Taken::No { wait, is_news: false });
        }
        let taken = match self.rules.storage {
            RateStorage::Memory => self.counts.people.take(key, budget, now),
            RateStorage::Database => take_together(client, key, budget, 1, now).await?,
        };
        Ok(taken.map_or_else(
            |wait| {
                self.counts.refused_people.remember(key, wait, known_for, now);
                Taken::No { wait, is_news: true }
            },
            |()| Taken::Yes,
        ))
    }
}

/// Takes `how_many` where all gateways count.
async fn take_together(
    client: &impl GenericClient,
    key: Key,
    budget: Budget,
    how_many: u32,
    now: Timestamp,
) -> Result<Result<(), Duration>, DbError> {
    let want = rate_limits::Want {
        key: &key.0,
        how_many,
        limit: budget.limit,
        window: budget.window,
        from_last: budget.window_from == WindowFrom::Last,
    };
    if rate_limits::take(client, want, now).await? {
        return Ok(Ok(()));
    }
    // It may have been swept since; then there is no reason to wait for long.
    let last_at = rate_limits::last_at(client, &key.0).await?;
    Ok(Err(last_at.map_or(Duration::ZERO, |last_at| wait(last_at, budget, now))))
}

/// Leave to test one secret of an account; dropped, it stays used.
#[derive(Debug)]
#[must_use = "it has been counted"]
pub(super) struct Attempt(Option<Key>);

/// Takes one attempt at a secret of the account with this address, before the secret is tested; 429 if none is left.
///
/// A refusal is noted in the audit log as one of `action`, but only once in a while, not for each of a flood.
pub(super) async fn attempt(call: &Call<'_>, email: &str, action: audit::Action) -> Result<Attempt, AuthError> {
    let throttle = &call.auth.throttle;
    if !throttle.rules.enabled {
        return Ok(Attempt(None));
    }
    let email = email.to_ascii_lowercase();
    let network = Network::of(call.ip_address).to_string();
    let client = call.auth.db.client().await?;
    let since = call.now.minus(KNOWN_FOR);
    let key = if known_addresses::knows(&client, &email, &network, since).await? {
        throttle.key(&[ACCOUNT, &email, &network])
    } else {
        throttle.key(&[ACCOUNT, &email])
    };
    let budget = throttle.rules.account_failures;
    let taken = throttle.take_of_person(&client, key, budget, ACCOUNT_REFUSED_FOR, call.now);
    let Taken::No { wait, is_news } = taken.await? else {
        return Ok(Attempt(Some(key)));
    };
    throttle.count_refusal(ACCOUNT);
    if is_news {
        let user = users::by_email(&client, &email).await?;
        let entry = audit::Entry {
            subject: user.as_ref().map(|user| user.id),
            email: user.is_none().then_some(email.as_str()),
            ..audit::Entry::refused(action, Code::TooManyRequests.as_str())
        };
        call.audit(&client, &entry).await?;
    }
    Err(AuthError::TooManyRequests(wait))
}

/// As [`attempt`], for a user who is signed in. Their right passwords are counted as well, for a minute: the addresses'
/// rule allows so many of these requests that whoever knows one password could keep everybody's sign-in waiting.
///
/// What the account's own count refuses is not among them: whoever has got hold of a session alone can't use it up.
pub(super) async fn attempt_in_session(
    call: &Call<'_>,
    current: &Current,
    action: audit::Action,
) -> Result<Attempt, AuthError> {
    let throttle = &call.auth.throttle;
    if !throttle.rules.enabled {
        return Ok(Attempt(None));
    }
    let key = take_hash(call, current.user.id)?;
    let attempt = attempt(call, &current.user.email, action).await;
    attempt.inspect_err(|_| throttle.counts.people.give_back(key))
}

/// Takes one of the hashes that a user can have made in a minute, for one that no [`attempt`] comes before; 429 if none is
/// left.
pub(super) fn may_hash(call: &Call<'_>, user: UserId) -> Result<(), AuthError> {
    if call.auth.throttle.rules.enabled {
        take_hash(call, user)?;
    }
    Ok(())
}

fn take_hash(call: &Call<'_>, user: UserId) -> Result<Key, AuthError> {
    let throttle = &call.auth.throttle;
    let key = throttle.key(&[SESSION, &user.to_string()]);
    throttle.counts.people.take(key, IN_SESSION, call.now).map_err(|wait| {
        throttle.count_refusal(SESSION);
        AuthError::TooManyRequests(wait)
    })?;
    Ok(key)
}

impl Attempt {
    /// Tests a password, as [`Passwords::verify`](super::password::Passwords::verify) does. Only a wrong one stays
    /// counted: not a right one, nor one that could not be tested.
    pub(super) async fn verify(
        self,
        call: &Call<'_>,
        password: Secret<String>,
        hash: Option<Secret<String>>,
    ) -> Result<Verdict, AuthError> {
        let verdict = call.auth.passwords.verify(password, hash).await;
        if !matches!(verdict, Ok(Verdict::Wrong)) {
            self.give_back(call).await?;
        }
        Ok(verdict?)
    }

    async fn give_back(self, call: &Call<'_>) -> Result<(), DbError> {
        let Some(key) = self.0 else {
            return Ok(());
        };
        let throttle = &call.auth.throttle;
        match throttle.rules.storage {
            RateStorage::Memory => throttle.counts.people.give_back(key),
            RateStorage::Database => rate_limits::give_back(&call.auth.db.client().await?, &key.0).await?,
        }
        throttle.counts.refused_people.forget(key);
        Ok(())
    }
}

/// Whether one more mail may be written to `recipient` because of this call; counted as part of `tx`.
///
/// Whoever asks holds the recipient's row until the transaction ends: ask late in it, after locking a user, and for one
/// recipient only.
pub(super) async fn may_mail(call: &Call<'_>, tx: &Transaction<'_>, recipient: &str) -> Result<bool, DbError> {
    let throttle = &call.auth.throttle;
    if !throttle.rules.enabled {
        return Ok(true);
    }
    let mailbox = Mailbox::of(call, recipient);
    let key = if mailbox.is_asked_by_reader(call, tx).await? {
        mailbox.readers
    } else {
        mailbox.strangers
    };
    let taken = throttle.take_of_person(tx, key, throttle.rules.mails, Duration::MAX, call.now);
    match taken.await? {
        Taken::Yes => Ok(true),
        Taken::No { .. } => Ok(false),
    }
}

/// Counts a mail that is left out, for metrics.
pub(super) fn count_left_out(call: &Call<'_>) {
    call.auth.throttle.count_refusal(MAILBOX);
}

/// Whether [`may_mail`] is known to say no, without counting anything: for those who would lock a row before they ask it,
/// and wait in line for that, which they do for an address that has a user alone.
pub(super) async fn is_mailbox_spent(
    call: &Call<'_>,
    client: &impl GenericClient,
    recipient: &str,
) -> Result<bool, DbError> {
    let throttle = &call.auth.throttle;
    if !throttle.rules.enabled {
        return Ok(false);
    }
    let mailbox = Mailbox::of(call, recipient);
    let refused = &throttle.counts.refused_people;
    let is_refused = |key| refused.wait(key, throttle.rules.mails, call.now).is_some();
    let (strangers, readers) = (is_refused(mailbox.strangers), is_refused(mailbox.readers));
    if strangers == readers {
        return Ok(strangers);
    }
    let is_reader = mailbox.is_asked_by_reader(call, client).await?;
    Ok(if is_reader { readers } else { strangers })
}

/// A recipient's shares of mails, as one call finds them.
struct Mailbox {
    /// In lower case.
    recipient: String,
    network: String,
    strangers: Key,
    /// Of those that are asked for from where the recipient has signed in lately.
    readers: Key,
}

impl Mailbox {
    fn of(call: &Call<'_>, recipient: &str) -> Self {
        let throttle = &call.auth.throttle;
        let recipient = recipient.to_ascii_lowercase();
        let mailbox = mailbox(&recipient);
        let network = Network::of(call.ip_address).to_string();
        Self {
            strangers: throttle.key(&[MAILBOX, &mailbox]),
            readers: throttle.key(&[MAILBOX, &mailbox, &network]),
            recipient,
            network,
        }
    }

    async fn is_asked_by_reader(&self, call: &Call<'_>, client: &impl GenericClient) -> Result<bool, DbError> {
        let since = call.now.minus(KNOWN_FOR);
        known_addresses::knows_reader(client, &self.recipient, &self.network, since).await
    }
}

/// Where mail to an address in lower case arrives, as far as that is known: what stands behind a plus sign tells one's mails
/// apart and not mailboxes (RFC 5233, though no server has to), and Gmail's have no dots. For counting alone: to two people
/// who share a count mails are sent all the same, if fewer.
fn mailbox(recipient: &str) -> String {
    let Some((local, domain)) = recipient.rsplit_once('@') else {
        return recipient.to_owned();
    };
    let local = match local.split_once('+') {
        Some((before, _)) if !before.is_empty() => before,
        _ => local,
    };
    match domain {
        "gmail.com" | "googlemail.com" => format!("{}@gmail.com", local.replace('.', "")),
        _ => format!("{local}@{domain}"),
    }
}

/// Notes that a user signs in from here, as part of `tx`.
pub(super) async fn know_address(call: &Call<'_>, tx: &Transaction<'_>, user: UserId) -> Result<(), DbError> {
    let network = Network::of(call.ip_address).to_string();
    known_addresses::signed_in(tx, user, &network, call.now).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mailbox_has_one_count() {
        for (address, counted_as) in [
            ("ada@example.com", "ada@example.com"),
            ("ada+1@example.com", "ada@example.com"),
            ("ada+1+2@example.com", "ada@example.com"),
            ("+ada@example.com", "+ada@example.com"),
            ("a.d.a@example.com", "a.d.a@example.com"),
            ("a.d.a+x@gmail.com", "ada@gmail.com"),
            ("ada@googlemail.com", "ada@gmail.com"),
        ] {
            assert_eq!(mailbox(address), counted_as);
        }
    }
}
