//! TLS as the load speaks it: every handshake is a full one.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::TlsConnector;

use crate::scenario::Wire;

/// Trusts `certificate` alone.
pub(crate) fn connector(certificate: &Path, wire: Wire) -> TlsConnector {
    // Fails if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(fs::read(certificate).unwrap())).unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![match wire {
        Wire::H2 => b"h2".to_vec(),
        Wire::Plain | Wire::Tls => b"http/1.1".to_vec(),
    }];
    TlsConnector::from(Arc::new(config))
}

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}
