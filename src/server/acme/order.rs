//! One certificate for one domain: order, show that the name is ours, have the key certified.
//!
//! A challenge is written to Postgres, where every gateway sees it, before the authority is told to look: a balancer may
//! lead it to any of them. Each gateway looks every second; the wait in between is what it takes them all.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::{
    Acme, AcmeError, LOOK_EVERY,
    certificate::{Certificate, Request},
};
use crate::{config::Challenge, db::acme as rows};

/// Between showing a challenge to all gateways and telling the authority to look.
const UNTIL_ALL_KNOW: Duration = LOOK_EVERY.saturating_mul(2);
/// For the authority to look, and then to issue; each within the time that the whole order has.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_mins(2));

/// What an order came to.
pub(super) struct Got {
    pub chain: String,
    /// PKCS #8.
    pub private_key: Zeroizing<Vec<u8>>,
    pub certificate: Certificate,
}

impl Acme {
    /// Orders a certificate; `replaces` is the one in use (RFC 9773, section 5). The caller holds the domain's row.
    pub(super) async fn order(
        &self,
        domain: &str,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Got, AcmeError> {
        let account = self.account().await?;
        let mut order = self.begin(&account, domain, replaces).await?;
        self.prove(&mut order, domain).await?;
        let request = Request::new(domain)?;
        order
            .finalize_csr(&request.csr)
            .await
            .map_err(|source| AcmeError::authority("have the certificate issued", source))?;
        let chain = order
            .poll_certificate(&POLLING)
            .await
            .map_err(|source| AcmeError::authority("fetch the certificate", source))?;
        let certificate = Certificate::parse(&chain, &request.private_key, domain)?;
        certificate.check_valid(self.clock.now())?;
        Ok(Got {
            chain,
            private_key: request.private_key,
            certificate,
        })
    }

    async fn begin(
        &self,
        account: &Account,
        domain: &str,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, AcmeError> {
        let identifiers = [Identifier::Dns(domain.to_owned())];
        let new = || {
            let order = NewOrder::new(&identifiers);
            match &self.settings.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        if let Some(replaces) = replaces {
            // Saying so only helps with limits: an authority that won't have it, or that has had it already, is asked
            // without.
            match account.new_order(&new().replaces(replaces)).await {
                Ok(order) => return Ok(order),
                Err(error) if may_dislike_replacing(&error) => {}
                Err(source) => return Err(AcmeError::authority("begin an order", source)),
            }
        }
        account
            .new_order(&new())
            .await
            .map_err(|source| AcmeError::authority("begin an order", source))
    }

    /// Answers what the authority asks, until it is satisfied.
    async fn prove(&self, order: &mut Order, domain: &str) -> Result<(), AcmeError> {
        let wanted = match self.settings.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization =
                authorization.map_err(|source| AcmeError::authority("read what is to be proven", source))?;
            match authorization.status {
                // Proven not long ago.
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(AcmeError::Disagrees(format!("the authorisation is {status:?}"))),
            }
            let Some(mut challenge) = authorization.challenge(wanted.clone()) else {
                return Err(AcmeError::NotOffered(self.settings.challenge));
            };
            let answer = challenge.key_authorization();
            let of = self.of(domain);
            let client = self.db.client().await?;
            if !rows::challenge(&client, of, self.id, &challenge.token, answer.as_str()).await? {
                return Err(AcmeError::Lost);
            }
            drop(client);
            sleep(UNTIL_ALL_KNOW).await;
            challenge
                .set_ready()
                .await
                .map_err(|source| AcmeError::authority("have the authority look", source))?;
        }
        match order.poll_ready(&POLLING).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(AcmeError::Disagrees(self.why(order).await.unwrap_or_default())),
            Err(source @ Error::Api(_)) => match self.why(order).await {
                Some(why) => Err(AcmeError::Disagrees(why)),
                None => Err(AcmeError::authority("prove that the name is ours", source)),
            },
            Err(source) => Err(AcmeError::authority("wait for the authority to look", source)),
        }
    }

    /// What the authority found wrong, as it tells at the challenge.
    async fn why(&self, order: &mut Order) -> Option<String> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.ok()?;
            let state = authorization.refresh().await.ok()?;
            let told = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            if let Some(problem) = told {
                return Some(problem.to_string());
            }
        }
        None
    }
}

/// RFC 9773, section 5: `alreadyReplaced`, or whatever an authority thinks malformed; and one that has no such thing.
fn may_dislike_replacing(error: &Error) -> bool {
    match error {
        Error::Api(problem) => matches!(problem.status, None | Some(400 | 404 | 409)),
        Error::Unsupported(_) => true,
        // That it doesn't say what it replaces: the order was made all the same, and is left to lapse.
        Error::Other(error) => error.to_string().starts_with("replaces field mismatch"),
        _ => false,
    }
}
