//! Opens connections to peers: resolves, judges, connects, and talks TLS.
//!
//! Names are resolved here, and only the addresses that were judged are handed on to be connected to. So a name that
//! resolves to one thing when it is looked at and to another when it is connected to (DNS rebinding) gains nothing.
//! Literal addresses never come by the resolver: `Outbound::check` judges those.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use http::Uri;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tower_service::Service;

use super::{Rules, StartError, address::is_public};

/// How long a connection may take to come about, its name looked up and TLS agreed on included: more than the slowest
/// of networks needs. Where an exchange may take less, that ends it earlier.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// A connector with a limit on the whole of connecting: those of the parts don't cover TLS, and a connection may go on
/// coming about when nobody waits for it any more.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector<Resolver>>,
}

impl Connector {
    pub(super) fn new(rules: &Rules) -> Result<Self, StartError> {
        let mut http = HttpConnector::new_with_resolver(Resolver {
            allow_private: rules.allow_private,
        });
        http.enforce_http(false);
        http.set_nodelay(true);
        // Divided among the addresses of a name, so that a dead one leaves time for the others.
        http.set_connect_timeout(Some(CONNECT_WITHIN));
        let tls = tls_config(rules.ca.as_deref().unwrap_or_default())?;
        let names = Arc::new(DefaultServerNameResolver::default());
        Ok(Self {
            https: HttpsConnector::new(http, tls, !rules.allow_insecure, names),
        })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        Box::pin(async move {
            match timeout(CONNECT_WITHIN, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(format!("no connection within {CONNECT_WITHIN:?}").into()),
            }
        })
    }
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("could not look up the name")]
    Failed(#[source] io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("the name leads to {0}, which is not a public address")]
    NotPublic(IpAddr),
}

#[derive(Clone, Debug)]
struct Resolver {
    allow_private: bool,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            // The port is set by whoever connects.
            let found = lookup_host((name.as_str(), 0)).await.map_err(ResolveError::Failed)?;
            judged(found, allow_private).map(Vec::into_iter)
        })
    }
}

/// Those addresses that may be connected to; at least one.
fn judged(found: impl Iterator<Item = SocketAddr>, allow_private: bool) -> Result<Vec<SocketAddr>, ResolveError> {
    let (fit, unfit): (Vec<_>, Vec<_>) = found.partition(|address| allow_private || is_public(address.ip()));
    match (fit.is_empty(), unfit.first()) {
        (false, _) => Ok(fit),
        (true, Some(address)) => Err(ResolveError::NotPublic(address.ip())),
        (true, None) => Err(ResolveError::NoAddress),
    }
}

/// Trusts the system's authorities, and those of `ca`.
fn tls_config(ca: &[CertificateDer<'static>]) -> Result<ClientConfig, StartError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in ca {
        roots.add(certificate.clone()).map_err(StartError::Authority)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(StartError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_names_addresses_only_public_ones_are_left() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts
                .iter()
                .map(|text| SocketAddr::new(text.parse().unwrap(), 0))
                .collect()
        };
        let mixed = addresses(&["10.0.0.1", "93.184.216.34", "::1", "::ffff:127.0.0.1"]);
        let left = judged(mixed.clone().into_iter(), false).unwrap();
        assert_eq!(left, addresses(&["93.184.216.34"]));
        assert_eq!(judged(mixed.clone().into_iter(), true).unwrap(), mixed);

        let private = judged(addresses(&["169.254.169.254", "::1"]).into_iter(), false);
        assert!(matches!(private, Err(ResolveError::NotPublic(address)) if address.to_string() == "169.254.169.254"));
        assert!(matches!(judged(std::iter::empty(), true), Err(ResolveError::NoAddress)));
    }
}
