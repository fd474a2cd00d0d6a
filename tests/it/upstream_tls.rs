//! https endpoints prove who they are before a byte of a request is sent; the gateway proves itself where it is asked to.

use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Gateway, Setup, backend::Backend, signer::Signer};

const HTTP1: &[&str] = &["http/1.1"];

/// A gateway that trusts `signer` about the backend.
async fn gateway(backend: &Backend, signer: &Signer, more: &str) -> (Gateway, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    signer.write(&ca);
    let tls = format!("tls = {{ ca = '{}'{more} }}", ca.display());
    let gateway = Setup::default()
        .endpoints(&[backend.endpoint("https")], &tls)
        .start()
        .await;
    (gateway, folder)
}

async fn refused(gateway: &Gateway, backend: &Backend) {
    let answer = gateway.get("/public/x").await;
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "UPSTREAM_UNREACHABLE".to_owned())
    );
    assert_eq!(backend.seen("/public/x"), 0, "nothing was sent to it");
}

#[tokio::test]
async fn an_endpoint_that_its_authority_vouches_for_is_spoken_to() {
    let signer = Signer::new();
    let backend = Backend::with_tls("app", signer.sign(&["127.0.0.1"]).server(HTTP1, None)).await;
    let (gateway, _folder) = gateway(&backend, &signer, "").await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/public/x").await.text(), "app GET /public/x");
    }
    assert_eq!(backend.connections(), 1, "the connection is kept");
    assert_eq!(backend.arrived()[0].head.version, http::Version::HTTP_11);
}

#[tokio::test]
async fn tls_03_an_endpoint_that_another_authority_vouches_for_gets_nothing() {
    let signer = Signer::new();
    let backend = Backend::with_tls("app", Signer::new().sign(&["127.0.0.1"]).server(HTTP1, None)).await;
    let (gateway, _folder) = gateway(&backend, &signer, "").await;
    refused(&gateway, &backend).await;
}

#[tokio::test]
async fn tls_03_without_a_ca_of_its_own_the_systems_authorities_count() {
    let backend = Backend::with_tls("app", Signer::new().sign(&["127.0.0.1"]).server(HTTP1, None)).await;
    let gateway = Setup::default()
        .endpoints(&[backend.endpoint("https")], "")
        .start()
        .await;
    refused(&gateway, &backend).await;
}

#[tokio::test]
async fn tls_03_an_endpoint_that_shows_another_name_gets_nothing() {
    let signer = Signer::new();
    let backend = Backend::with_tls("app", signer.sign(&["elsewhere.internal"]).server(HTTP1, None)).await;
    let (gateway, _folder) = gateway(&backend, &signer, "").await;
    refused(&gateway, &backend).await;
}

#[tokio::test]
async fn whose_certificate_is_expected_can_be_said() {
    let signer = Signer::new();
    let backend = Backend::with_tls("app", signer.sign(&["api.internal"]).server(HTTP1, None)).await;
    let (gateway, _folder) = gateway(&backend, &signer, ", server_name = 'api.internal'").await;
    assert_eq!(gateway.get("/public/x").await.status(), 200);
}

#[tokio::test]
async fn an_endpoint_that_asks_who_calls_is_shown_the_gateways_certificate() {
    let (signer, clients) = (Signer::new(), Signer::new());
    let server = signer.sign(&["127.0.0.1"]).server(HTTP1, Some(&clients));
    let backend = Backend::with_tls("app", server).await;
    let own = tempfile::tempdir().unwrap();
    let path = |name: &str| own.path().join(name);
    clients
        .sign(&["gateway.internal"])
        .write(&path("own.crt"), &path("own.key"));
    let shown = |certificate: &Path, key: &Path| format!(", certificate = {certificate:?}, key = {key:?}");

    let (stranger, _folder) = gateway(&backend, &signer, "").await;
    let status = stranger.get("/public/x").await.status();
    assert_eq!((status, backend.seen("/public/x")), (502, 0));

    let (known, _folder) = gateway(&backend, &signer, &shown(&path("own.crt"), &path("own.key"))).await;
    assert_eq!(known.get("/public/x").await.status(), 200);
}
