//! TLS to https endpoints: who may vouch for them, whom the gateway expects, and what it shows of itself.
//!
//! Certificates are always verified. Who has made their own names its authority in `tls.ca`.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::warn;

use crate::config::{self, At, Protocol};

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// For the endpoints of one upstream; sessions are resumed among its connections.
pub(super) struct Tls {
    requests: TlsConnector,
    /// What switches protocols has to begin as HTTP/1.1.
    upgrades: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

/// A configuration that rustls does not take.
#[derive(Debug, thiserror::Error)]
#[error("could not set up TLS to upstream {upstream}")]
pub struct TlsError {
    pub upstream: String,
    #[source]
    pub source: rustls::Error,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum For {
    Requests,
    Upgrade,
}

impl Tls {
    /// `None` if no endpoint is https.
    pub(super) fn of(upstream: &config::Upstream) -> Result<Option<Self>, TlsError> {
        if !upstream.endpoints.iter().any(config::Endpoint::is_tls) {
            return Ok(None);
        }
        let failed = |source| TlsError {
            upstream: upstream.name.clone(),
            source,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(roots(upstream).map_err(failed)?);
        let mut config = match &upstream.tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(failed)?,
        };
        let connector = |config: &ClientConfig| TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let upgrades = connector(&config);
        config.alpn_protocols = match upstream.protocol {
            Protocol::Negotiated => vec![H2.to_vec(), HTTP1.to_vec()],
            Protocol::Http1 => vec![HTTP1.to_vec()],
            Protocol::Http2 => vec![H2.to_vec()],
        };
        Ok(Some(Self {
            requests: connector(&config),
            upgrades,
            server_name: upstream.tls.server_name.clone(),
        }))
    }

    pub(super) async fn connect(&self, stream: TcpStream, at: &At, what: For) -> io::Result<TlsStream<TcpStream>> {
        let expected = match (&self.server_name, at) {
            (Some(name), _) => name.clone(),
            (None, At::Addr(addr)) => ServerName::from(addr.ip()),
            (None, At::Name { host, .. }) => ServerName::try_from(host.clone()).map_err(io::Error::other)?,
            (None, At::Unix(_)) => return Err(io::Error::other("a socket has no TLS")),
        };
        let connector = match what {
            For::Requests => &self.requests,
            For::Upgrade => &self.upgrades,
        };
        connector.connect(expected, stream).await
    }
}

fn roots(upstream: &config::Upstream) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    if let Some(authorities) = &upstream.tls.ca {
        for authority in authorities {
            roots.add(authority.clone())?;
        }
        return Ok(roots);
    }
    let native = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(native.certs);
    if added == 0 {
        warn!(
            upstream = upstream.name,
            "this system knows no certificate authorities: name the upstream's own in `tls.ca`"
        );
    }
    Ok(roots)
}

/// Whether HTTP/2 was chosen.
pub(super) fn chose_http2(alpn: Option<&[u8]>) -> bool {
    alpn == Some(H2)
}
