//! Certificates that the gateway orders for itself (ACME, RFC 8555): when, by whom, and where they are kept.
//!
//! A certificate is for one domain, so that a name that is led elsewhere holds up no other. Certificates, the account and
//! challenges under way lie in Postgres, keys sealed: gateways on one database share them, answer for each other when the
//! authority looks, and only one orders at a time (a lease on the domain's row). Each looks at the rows every second;
//! that is how it comes by what others did.
//!
//! What holds:
//! - The certificate in use stays in use until a better one is there: whatever fails is told, and tried again later
//!   (`schedule.rs`), never at once.
//! - Without a certificate nobody is served by a made-up one: their handshake fails. People would learn to click
//!   warnings away, and where HSTS holds they can't.
//! - After a restart nothing is ordered that is kept already.
//!
//! Not here: who is shown a certificate or a challenge (`tls.rs`, by way of [`Answers`]).

mod answers;
mod authority;
mod certificate;
mod numbers;
mod order;
mod schedule;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use instant_acme::CertificateIdentifier;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

pub use self::{
    answers::Answers,
    numbers::{Numbers, OfDomain},
};
use self::{
    answers::{InUse, Pending},
    authority::Patience,
    certificate::{Certificate, CertificateError},
    order::Got,
};
use crate::{
    chain::Chain,
    clock::{Clock, Timestamp},
    config,
    db::{
        Db, DbError,
        acme::{self as rows, Issued, Of, Standing},
    },
    outbound::{Outbound, Rules, StartError},
    secret::{random, sealed::SealingKeys},
};

/// How often each gateway looks what the others did.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For a whole order: authorities look from several places, and some take a minute or two to issue.
const ORDER_WITHIN: Duration = Duration::from_mins(5);
/// How long a domain is this gateway's to order for: should it die meanwhile, another takes over.
const HELD_FOR: Duration = Duration::from_mins(10);
/// For an exchange with the authority.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(30);
/// A key that does not open is ordered anew, but not by gateways in turns that lack each other's secrets.
const UNREADABLE_FOR: Duration = Duration::from_hours(1);
/// What is kept of an error's words.
const ERROR_CHARS: usize = 1000;

/// Orders certificates and keeps them in use.
pub struct Acme {
    settings: config::Acme,
    db: Db,
    clock: Clock,
    keys: ArcSwap<SealingKeys>,
    outbound: Outbound,
    patience: Patience,
    answers: Arc<Answers>,
    /// Tells this gateway's orders from others'.
    id: Uuid,
    seen: Mutex<Seen>,
    issued: AtomicU64,
    failed: AtomicU64,
}

/// What the last look showed.
#[derive(Default)]
struct Seen {
    standings: Vec<Standing>,
    /// Certificates that can't be used, by domain, as of when they were issued: each is told of once.
    unreadable: HashMap<String, Timestamp>,
}

/// What an [`Acme`] is made of.
#[derive(Debug)]
pub struct Parts {
    pub settings: config::Acme,
    /// What listeners answer with.
    pub answers: Arc<Answers>,
    pub db: Db,
    pub clock: Clock,
    /// Of `auth.secret`.
    pub keys: SealingKeys,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("could not {doing}")]
    Authority {
        doing: &'static str,
        #[source]
        source: Box<instant_acme::Error>,
    },
    #[error("the authority has no challenge of the kind that is configured for this name ({0:?})")]
    NotOffered(config::Challenge),
    #[error("the authority does not agree that the name is ours: {0}")]
    Disagrees(String),
    #[error("the authority sent a certificate that is of no use")]
    Certificate(#[from] CertificateError),
    #[error("the order took longer than {ORDER_WITHIN:?}")]
    TooLong,
    #[error("another gateway took the order over")]
    Lost,
    #[error("the account is sealed by none of the secrets in auth.secret")]
    Unopened,
}

impl AcmeError {
    fn authority(doing: &'static str, source: instant_acme::Error) -> Self {
        let source = Box::new(source);
        Self::Authority { doing, source }
    }

    /// In one line, for the log and for the row.
    fn line(&self) -> String {
        let line = Chain(self).to_string();
        line.chars().filter(|c| !c.is_control()).take(ERROR_CHARS).collect()
    }
}

impl Acme {
    /// Reads the certificates of authorities that are trusted.
    pub fn new(parts: Parts) -> Result<Self, StartError> {
        let outbound = Outbound::new(Rules {
            allow_insecure: false,
            allow_private: true,
            timeout: EXCHANGE_WITHIN,
            ca: parts.settings.ca.clone(),
        })?;
        Ok(Self {
            settings: parts.settings,
            db: parts.db,
            clock: parts.clock,
            keys: ArcSwap::from_pointee(parts.keys),
            outbound,
            patience: Patience::default(),
            answers: parts.answers,
            id: Uuid::now_v7(),
            seen: Mutex::default(),
            issued: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Goes by other secrets from now on: the next start may lack those that this one sealed with.
    pub fn replace_keys(&self, keys: SealingKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// Makes rows for new domains, and puts to use what is kept: to be awaited before listeners open.
    pub async fn load(&self) -> Result<(), AcmeError> {
        let client = self.db.client().await?;
        let (directory, domains) = (&self.settings.directory, &self.settings.domains);
        rows::enrol(&client, directory, domains, self.clock.now()).await?;
        drop(client);
        self.look().await
    }

    pub fn numbers(&self) -> Numbers {
        let seen = self.seen();
        let domains = seen.standings.iter().map(|standing| {
            let in_use = self.answers.in_use(&standing.domain);
            OfDomain {
                domain: standing.domain.clone(),
                expires_at: in_use.map(|in_use| in_use.expires_at),
                failures: standing.failures,
            }
        });
        Numbers {
            domains: domains.collect(),
            issued: self.issued.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Looks what gateways on this database did, until `stop`. While Postgres is away everything stays as it is.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut away = false;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let looked = stop.run_until_cancelled(self.look()).await;
            match looked {
                Some(Ok(())) => away = false,
                Some(Err(error)) if !away => {
                    away = true;
                    warn!(
                        error = %Chain(&error),
                        "could not see how certificates stand: those in use stay, none is renewed meanwhile"
                    );
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// Orders what is due, one after the other, until `stop`.
    pub async fn renew(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if let Some(due) = self.due() {
                self.renew_one(&due, &stop).await;
            } else if let Some(due) = self.to_be_asked_about() {
                let asking = self.ask(&due);
                if let Some(Err(error)) = stop.run_until_cancelled(asking).await {
                    // The time that was set for the renewal stands.
                    debug!(domain = due.domain, error = %Chain(&error), "the authority said no time for a renewal");
                }
            }
        }
    }

    async fn look(&self) -> Result<(), AcmeError> {
        let client = self.db.client().await?;
        let standings = rows::look(&client, &self.settings.directory, &self.settings.domains).await?;
        drop(client);
        for standing in &standings {
            self.answer_challenge(standing);
            let Some(issued_at) = standing.issued_at else { continue };
            let in_use = self.answers.in_use(&standing.domain);
            let known = in_use.is_some_and(|in_use| in_use.issued_at == issued_at)
                || self.seen().unreadable.get(&standing.domain) == Some(&issued_at);
            if !known {
                self.put_to_use(&standing.domain).await?;
            }
        }
        self.seen().standings = standings;
        Ok(())
    }

    /// Keeps what is answered for a domain as its row has it.
    fn answer_challenge(&self, standing: &Standing) {
        let domain = standing.domain.as_str();
        let token = self.answers.pending(domain).map(|pending| pending.token.clone());
        let wanted = standing.challenge.as_ref();
        if token.as_ref() == wanted.map(|(token, _)| token) {
            return;
        }
        let pending =
            wanted.and_then(
                |(token, key_authorization)| match certificate::of_challenge(domain, key_authorization) {
                    Ok(certificate) => Some(Pending {
                        token: token.clone(),
                        key_authorization: key_authorization.clone(),
                        certificate,
                    }),
                    Err(error) => {
                        warn!(domain, error = %Chain(&error), "can't answer the authority's challenge");
                        None
                    }
                },
            );
        self.answers.challenge(domain, pending);
    }

    /// Reads a certificate that was issued, here or by another gateway.
    async fn put_to_use(&self, domain: &str) -> Result<(), AcmeError> {
        let of = self.of(domain);
        let client = self.db.client().await?;
        let Some(kept) = rows::load(&client, of).await? else {
            return Ok(());
        };
        let Some(private_key) = self
            .keys
            .load()
            .open(&kept.private_key, self.key_context(domain).as_bytes())
        else {
            warn!(
                domain,
                "the key of the certificate is sealed by no auth.secret that is configured: another one is ordered, an \
                 hour after it came"
            );
            self.seen().unreadable.insert(domain.to_owned(), kept.issued_at);
            return Ok(());
        };
        let certificate = match Certificate::parse(&kept.chain, &private_key, domain) {
            Ok(certificate) => certificate,
            Err(error) => {
                warn!(domain, error = %Chain(&error), "the certificate that is kept can't be used");
                self.seen().unreadable.insert(domain.to_owned(), kept.issued_at);
                return Ok(());
            }
        };
        if !kept.private_key.starts_with(&self.keys.load().current_prefix()) {
            let sealed = self.keys.load().seal(&private_key, self.key_context(domain).as_bytes());
            rows::reseal(&client, of, &kept.private_key, &sealed).await?;
        }
        let expires_at = certificate.to;
        info!(domain, expires_at = %expires_at.rfc3339(), "using the certificate for {domain}");
        self.answers.install(
            domain,
            &InUse {
                key: certificate.key,
                issued_at: kept.issued_at,
                expires_at,
            },
        );
        Ok(())
    }

    /// The one that has been due for longest, of those that nobody has taken.
    fn due(&self) -> Option<Standing> {
        let now = self.clock.now();
        let seen = self.seen();
        let due = |standing: &&Standing| {
            let free = standing.held_until.is_none_or(|until| until <= now);
            free && (standing.due_at <= now || seen.is_unreadable(standing, now))
        };
        let due = seen.standings.iter().filter(due).min_by_key(|standing| standing.due_at);
        due.cloned()
    }

    async fn renew_one(&self, standing: &Standing, stop: &CancellationToken) {
        let domain = standing.domain.as_str();
        let held = self.hold(standing).await;
        match held {
            Ok(true) => {}
            // Another gateway was faster.
            Ok(false) => return,
            Err(error) => {
                debug!(domain, error = %Chain(&error), "could not take an order upon this gateway");
                return;
            }
        }
        info!(
            domain,
            directory = self.settings.directory,
            "ordering a certificate for {domain}"
        );
        self.patience.take();
        let replaces = self.identifier_in_use(domain).await;
        let ordering = timeout(ORDER_WITHIN, self.order(domain, replaces));
        let ended = match stop.run_until_cancelled(ordering).await {
            None => self.let_go(domain).await,
            Some(Ok(Ok(got))) => self.keep(domain, &got).await,
            Some(Ok(Err(error))) => self.fail(standing, &error).await,
            Some(Err(_)) => self.fail(standing, &AcmeError::TooLong).await,
        };
        if let Err(error) = ended {
            // The row stays held for some minutes, and then is due as before.
            warn!(domain, error = %Chain(&error), "could not note what came of an order");
        }
    }

    async fn hold(&self, standing: &Standing) -> Result<bool, AcmeError> {
        let now = self.clock.now();
        let useless = standing.issued_at.filter(|_| self.seen().is_unreadable(standing, now));
        let client = self.db.client().await?;
        let of = self.of(&standing.domain);
        Ok(rows::hold(&client, of, self.id, now, now.plus(HELD_FOR), useless).await?)
    }

    async fn let_go(&self, domain: &str) -> Result<(), AcmeError> {
        let client = self.db.client().await?;
        Ok(rows::let_go(&client, self.of(domain), self.id).await?)
    }

    async fn keep(&self, domain: &str, got: &Got) -> Result<(), AcmeError> {
        let now = self.clock.now();
        let (from, to) = (got.certificate.from, got.certificate.to);
        let sealed = self
            .keys
            .load()
            .seal(&got.private_key, self.key_context(domain).as_bytes());
        let issued = Issued {
            chain: &got.chain,
            private_key: &sealed,
            issued_at: now,
            expires_at: to,
            due_at: schedule::renewal(from, to, now, chance()),
            ask_at: got.certificate.identifier.is_some().then_some(now),
        };
        let client = self.db.client().await?;
        rows::keep(&client, self.of(domain), &issued).await?;
        self.issued.fetch_add(1, Ordering::Relaxed);
        info!(
            domain,
            expires_at = %to.rfc3339(),
            renewal_at = %issued.due_at.rfc3339(),
            "got a certificate for {domain}"
        );
        Ok(())
    }

    async fn fail(&self, standing: &Standing, error: &AcmeError) -> Result<(), AcmeError> {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.forget_if_unknown(error).await;
        let now = self.clock.now();
        let domain = standing.domain.as_str();
        let valid_until = self.answers.in_use(domain).map(|in_use| in_use.expires_at);
        let is_down = valid_until.is_none_or(|until| until <= now);
        let failures = standing.failures.saturating_add(1);
        let again_at = schedule::again(now, failures, is_down, self.patience.take(), chance());
        let line = error.line();
        let (again, failures) = (again_at.rfc3339(), failures);
        if is_down {
            error!(
                domain,
                failures,
                error = line,
                again_at = again,
                "no certificate for {domain}: nobody can connect to it"
            );
        } else {
            warn!(
                domain,
                failures,
                error = line,
                again_at = again,
                expires_at = valid_until.map(Timestamp::rfc3339),
                "could not renew the certificate for {domain}; the one in use stays"
            );
        }
        let client = self.db.client().await?;
        Ok(rows::fail(&client, self.of(domain), self.id, &line, again_at).await?)
    }

    /// One about whose renewal the authority is to be asked.
    fn to_be_asked_about(&self) -> Option<Standing> {
        let now = self.clock.now();
        let seen = self.seen();
        let asked = |standing: &&Standing| standing.failures == 0 && standing.ask_at.is_some_and(|at| at <= now);
        seen.standings.iter().find(asked).cloned()
    }

    /// Asks when the authority would have a certificate renewed (RFC 9773): earlier than planned if it will be revoked.
    async fn ask(&self, standing: &Standing) -> Result<(), AcmeError> {
        let now = self.clock.now();
        let of = self.of(&standing.domain);
        let client = self.db.client().await?;
        // Whatever comes of it: not again for long.
        if !rows::ask(&client, of, now, schedule::ask_again(now, Duration::MAX)).await? {
            return Ok(());
        }
        let (Some(certificate), Some(issued_at)) = (self.kept(&standing.domain).await?, standing.issued_at) else {
            return Ok(());
        };
        let Some(identifier) = &certificate.identifier else {
            return Ok(());
        };
        let account = self.account().await?;
        let told = timeout(EXCHANGE_WITHIN, account.renewal_info(identifier)).await;
        let (told, ask_after) = match told {
            Ok(Ok(told)) => told,
            Ok(Err(instant_acme::Error::Unsupported(_))) => return Ok(()),
            Ok(Err(source)) => return Err(AcmeError::authority("ask when to renew", source)),
            Err(_) => return Err(AcmeError::TooLong),
        };
        let seconds = Timestamp::from_secs;
        let window = &told.suggested_window;
        let window = (
            seconds(window.start.unix_timestamp()),
            seconds(window.end.unix_timestamp()),
        );
        // A time that was drawn from the same window stands: drawing again each time would move it towards its end.
        let (start, end) = window;
        let drawn = schedule::suggested(window, (certificate.from, certificate.to), chance());
        let due_at = if (start..=end).contains(&standing.due_at) {
            standing.due_at
        } else {
            drawn
        };
        let client = self.db.client().await?;
        let ask_at = schedule::ask_again(now, ask_after);
        rows::move_renewal(&client, of, issued_at, due_at, ask_at).await?;
        if due_at < standing.due_at {
            info!(
                domain = standing.domain,
                renewal_at = %due_at.rfc3339(),
                why = told.explanation_url,
                "the authority wants the certificate renewed earlier"
            );
        }
        Ok(())
    }

    /// The certificate that the row has.
    async fn kept(&self, domain: &str) -> Result<Option<Certificate>, AcmeError> {
        let client = self.db.client().await?;
        let Some(kept) = rows::load(&client, self.of(domain)).await? else {
            return Ok(None);
        };
        let context = self.key_context(domain);
        let Some(private_key) = self.keys.load().open(&kept.private_key, context.as_bytes()) else {
            return Ok(None);
        };
        Ok(Certificate::parse(&kept.chain, &private_key, domain).ok())
    }

    /// What the next order replaces; to an authority that says no such thing it is not said.
    async fn identifier_in_use(&self, domain: &str) -> Option<CertificateIdentifier<'static>> {
        self.kept(domain).await.ok()??.identifier
    }

    fn of<'a>(&'a self, domain: &'a str) -> Of<'a> {
        Of {
            directory: &self.settings.directory,
            domain,
        }
    }

    /// What a key is sealed for. Never to be changed: what was sealed would not open any more.
    fn key_context(&self, domain: &str) -> String {
        format!("acme_certificates.private_key {} {domain}", self.settings.directory)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether what a row has can't be used, and was not issued a moment ago.
    fn is_unreadable(&self, standing: &Standing, now: Timestamp) -> bool {
        self.unreadable.get(&standing.domain).is_some_and(|issued_at| {
            standing.issued_at == Some(*issued_at) && standing.failures == 0 && now.since(*issued_at) >= UNREADABLE_FOR
        })
    }
}

/// From 0 to 1000.
fn chance() -> u32 {
    u32::from_be_bytes(random()) % 1001
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acme({:?}, {:?})", self.settings.domains, self.answers)
    }
}
