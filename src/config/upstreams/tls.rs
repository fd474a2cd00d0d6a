//! `[upstreams.*.tls]`: whom https endpoints have to be, and what the gateway shows them.
//!
//! Its files are read with the configuration (`config/pem.rs`): a reload takes over a renewed certificate.

use std::sync::Arc;

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::CertifiedKey,
};

use crate::config::{
    kind::parsed,
    pem::{authorities, certificates, private_key},
    section::Section,
};

/// What TLS to an upstream goes by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UpstreamTls {
    /// The authorities that may vouch for endpoints, in place of the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    pub identity: Option<ClientIdentity>,
    /// Whose certificate is expected; `None`: the endpoint's own host.
    pub server_name: Option<ServerName<'static>>,
}

/// What the gateway shows an endpoint that asks who calls. The key belongs to the first certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    /// Its `Debug` does not print it.
    pub key: Arc<PrivateKeyDer<'static>>,
}

impl UpstreamTls {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let ca = s
            .key(
                "ca",
                "Who may have signed the endpoints' certificates, in place of the system's authorities.",
                authorities(),
            )
            .optional("upstream-ca.crt");
        let certificate = s
            .key(
                "certificate",
                "The certificate that the gateway shows to endpoints that ask for one, and those that lead to its \
                 authority. Read again at a reload.",
                certificates(),
            )
            .optional("gateway.crt");
        let key = s
            .key("key", "The key of `certificate`.", private_key())
            .optional("gateway.key");
        let server_name = s
            .key(
                "server_name",
                "Whose certificate endpoints have to show, also sent as SNI. Absent: the host that the endpoint's URL \
                 names.",
                parsed("a host name such as \"api.internal\", or an address", |text| {
                    ServerName::try_from(text.to_owned()).map_err(|_| "neither a host name nor an address".into())
                }),
            )
            .optional("api.internal");
        let identity = match (certificate, key) {
            (Some(Some(chain)), Some(Some(key))) => identity(s, chain, key).map(Some),
            (Some(None), Some(None)) => Some(None),
            (Some(Some(_)), Some(None)) => {
                s.report(s.wrong("certificate", "without its key").allowed("`key` as well"));
                None
            }
            (Some(None), Some(Some(_))) => {
                s.report(
                    s.wrong("key", "without its certificate")
                        .allowed("`certificate` as well"),
                );
                None
            }
            _ => None,
        };
        Some(Self {
            ca: ca?,
            identity: identity?,
            server_name: server_name?,
        })
    }
}

fn identity(
    s: &Section<'_>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Option<ClientIdentity> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
        Ok(_) => Some(ClientIdentity {
            chain,
            key: Arc::new(key),
        }),
        Err(error) => {
            s.report(
                s.wrong("key", format!("it can't be used with `certificate`: {error}"))
                    .allowed("the private key of the first certificate in `certificate`"),
            );
            None
        }
    }
}
