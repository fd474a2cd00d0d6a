//! Speaking to the authority: the client that `instant-acme` asks with, and the account of all gateways.
//!
//! Requests go through `outbound`: https alone, no redirects, a limit on time and size. The directory is the operator's
//! choice, so it may be at a private address. The account lies in Postgres, sealed; gateways that open one at the same
//! moment end up with the first that was kept.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, Error, ExternalAccountKey, HttpClient, NewAccount,
};
use zeroize::Zeroizing;

use super::{Acme, AcmeError};
use crate::{
    clock::{Clock, Timestamp},
    db::acme as rows,
    outbound::Outbound,
};

/// RFC 8555, section 6.1: the client and its library.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("vestibule/", env!("CARGO_PKG_VERSION"), " instant-acme"));

/// No authority needs longer: `Retry-After` says more by mistake.
const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);

/// How long the authority wants to be left alone, as its last refusal said.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Mutex<Option<Duration>>>);

impl Patience {
    /// Once: what was said of one order counts for that order.
    pub(super) fn take(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, answer: &Response<Vec<u8>>, now: Timestamp) {
        let said = answer.headers().get(header::RETRY_AFTER);
        let said = said.and_then(|value| retry_after(value.to_str().ok()?, now));
        if said.is_some() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
        }
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Timestamp::from_micros(at.as_microsecond()).since(now))
}

/// The library adds what is said to the time, and panics beyond the end of time.
fn cut_retry_after(answer: &mut Response<Vec<u8>>, now: Timestamp) {
    let said = answer.headers().get(header::RETRY_AFTER);
    let said = said.and_then(|value| retry_after(value.to_str().ok()?, now));
    if said.is_some_and(|said| said > LONGEST_PAUSE) {
        let longest = HeaderValue::from(LONGEST_PAUSE.as_secs());
        answer.headers_mut().insert(header::RETRY_AFTER, longest);
    }
}

/// What `instant-acme` sends its requests with.
struct Http {
    outbound: Outbound,
    patience: Patience,
    clock: Clock,
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (outbound, patience, clock) = (self.outbound.clone(), self.patience.clone(), self.clock.clone());
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            head.headers.insert(header::USER_AGENT, USER_AGENT);
            let body = match body.collect().await {
                Ok(body) => body.to_bytes().into(),
                Err(never) => match never {},
            };
            let answer = outbound.send(Request::from_parts(head, body)).await;
            let mut answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() {
                patience.note(&answer, clock.now());
                // A balancer's page would be told as a lack of JSON.
                if !answer.body().trim_ascii_start().starts_with(b"{") {
                    return Err(Error::Other(format!("the authority answered {status}").into()));
                }
            }
            cut_retry_after(&mut answer, clock.now());
            Ok(BytesResponse::from(answer.map(Full::<Bytes>::from)))
        })
    }
}

impl Acme {
    fn http(&self) -> Box<dyn HttpClient> {
        Box::new(Http {
            outbound: self.outbound.clone(),
            patience: self.patience.clone(),
            clock: self.clock.clone(),
        })
    }

    /// The account at the directory, opened if there is none that will do.
    pub(super) async fn account(&self) -> Result<Account, AcmeError> {
        let client = self.db.client().await?;
        let directory = self.settings.directory.as_str();
        let kept = rows::account(&client, directory).await?;
        drop(client);
        if let Some(kept) = kept {
            if let Some(account) = self.kept_account(&kept).await? {
                return Ok(account);
            }
            let client = self.db.client().await?;
            rows::forget_account(&client, directory, &kept.credentials).await?;
        }
        self.new_account().await
    }

    /// `None`: it does not open any more, or belongs to another external account than is configured.
    async fn kept_account(&self, kept: &rows::Account) -> Result<Option<Account>, AcmeError> {
        if kept.eab_key_id.as_deref() != self.settings.eab.as_ref().map(|eab| eab.key_id.as_str()) {
            return Ok(None);
        }
        let Some(plain) = self
            .keys
            .load()
            .open(&kept.credentials, self.account_context().as_bytes())
        else {
            return Ok(None);
        };
        let Ok(credentials) = serde_json::from_slice::<AccountCredentials>(&plain) else {
            return Ok(None);
        };
        let account = Account::builder_with_http(self.http())
            .from_credentials(credentials)
            .await
            .map_err(|source| AcmeError::authority("read the directory", source))?;
        let moved = kept.contact != self.settings.contact;
        if moved {
            let contact: Vec<&str> = self.settings.contact.iter().map(String::as_str).collect();
            account
                .update_contacts(&contact)
                .await
                .map_err(|source| AcmeError::authority("change the account's contact", source))?;
        }
        if moved || !kept.credentials.starts_with(&self.keys.load().current_prefix()) {
            let changed = rows::Account {
                credentials: self.keys.load().seal(&plain, self.account_context().as_bytes()),
                contact: self.settings.contact.clone(),
                eab_key_id: kept.eab_key_id.clone(),
            };
            let client = self.db.client().await?;
            rows::change_account(&client, &self.settings.directory, &kept.credentials, &changed).await?;
        }
        Ok(Some(account))
    }

    async fn new_account(&self) -> Result<Account, AcmeError> {
        let contact: Vec<&str> = self.settings.contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            // The configuration is in force only if the operator said so.
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = &self.settings.directory;
        let (account, credentials) = Account::builder_with_http(self.http())
            .create(&new, directory.clone(), self.external_key().as_ref())
            .await
            .map_err(|source| AcmeError::authority("open an account", source))?;
        let plain = Zeroizing::new(serde_json::to_vec(&credentials).map_err(|_| AcmeError::Unopened)?);
        let row = rows::Account {
            credentials: self.keys.load().seal(&plain, self.account_context().as_bytes()),
            contact: self.settings.contact.clone(),
            eab_key_id: self.settings.eab.as_ref().map(|eab| eab.key_id.clone()),
        };
        let client = self.db.client().await?;
        if rows::open_account(&client, directory, &row, self.clock.now()).await? {
            return Ok(account);
        }
        // Another gateway was first: what all of them use is theirs.
        let kept = rows::account(&client, directory).await?;
        drop(client);
        match kept {
            Some(kept) => self.kept_account(&kept).await?.ok_or(AcmeError::Unopened),
            None => Err(AcmeError::Unopened),
        }
    }

    fn external_key(&self) -> Option<ExternalAccountKey> {
        let eab = self.settings.eab.as_ref()?;
        // The configuration has seen that it is base64url.
        let key = Base64UrlUnpadded::decode_vec(eab.hmac_key.expose().trim_end_matches('=')).ok()?;
        Some(ExternalAccountKey::new(eab.key_id.clone(), &Zeroizing::new(key)))
    }

    /// What the account is sealed for. Never to be changed: what was sealed would not open any more.
    fn account_context(&self) -> String {
        format!("acme_accounts.credentials {}", self.settings.directory)
    }

    /// Forgets the account if the authority does not know it any more, as a staging one that was set up anew: the next
    /// order opens another.
    pub(super) async fn forget_if_unknown(&self, error: &AcmeError) {
        const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
        let AcmeError::Authority { source, .. } = error else {
            return;
        };
        let Error::Api(problem) = &**source else { return };
        if problem.r#type.as_deref() != Some(UNKNOWN) {
            return;
        }
        // Should this fail, so does the next order, and it is done then.
        let forgetting = async {
            let client = self.db.client().await?;
            if let Some(kept) = rows::account(&client, &self.settings.directory).await? {
                rows::forget_account(&client, &self.settings.directory, &kept.credentials).await?;
            }
            Ok::<_, AcmeError>(())
        };
        let _ = forgetting.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_in_seconds_and_as_a_date() {
        let now = Timestamp::from_secs(1_795_248_000);
        let after = |value| retry_after(value, now).map(|pause| pause.as_secs());
        assert_eq!(after("120"), Some(120));
        assert_eq!(after(" 7 "), Some(7));
        assert_eq!(after("Sat, 21 Nov 2026 08:01:00 GMT"), Some(60));
        assert_eq!(after("Fri, 20 Nov 2026 08:01:00 GMT"), Some(0), "over");
        for nothing in ["", "soon", "-5", "1.5"] {
            assert_eq!(after(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn no_pause_is_beyond_the_end_of_time() {
        let now = Timestamp::from_secs(1_795_248_000);
        let week = LONGEST_PAUSE.as_secs().to_string();
        for (said, passed_on) in [
            ("120", "120"),
            (week.as_str(), week.as_str()),
            ("18446744073709551615", week.as_str()),
            ("Tue, 21 Nov 9026 08:01:00 GMT", week.as_str()),
            ("soon", "soon"),
        ] {
            let mut answer = Response::builder()
                .header(header::RETRY_AFTER, said)
                .body(Vec::new())
                .unwrap();
            cut_retry_after(&mut answer, now);
            assert_eq!(answer.headers()[header::RETRY_AFTER], passed_on);
        }
    }
}
