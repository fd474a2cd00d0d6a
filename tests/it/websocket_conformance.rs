//! WebSockets through the gateway are the same to the byte as without it: every kind of frame, good and bad.

use std::{net::SocketAddr, sync::Arc};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener},
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Setup,
    protocols::{Application, run_cases},
    signer::Signer,
};

#[tokio::test]
async fn every_case_is_the_same_directly_over_http1_and_over_http2() {
    let application = Application::start("websocket_server.py").await;
    cases_are_the_same(&application, &format!("http://{}", application.addr), "").await;
}

/// Joins a connection of the gateway's to the application.
async fn join(mut stream: impl AsyncRead + AsyncWrite + Unpin, application: SocketAddr) {
    let mut application = TcpStream::connect(application).await.unwrap();
    application.set_nodelay(true).unwrap();
    let _ = copy_bidirectional(&mut stream, &mut application).await;
}

#[tokio::test]
async fn every_case_is_the_same_where_the_application_has_tls() {
    let application = Application::start("websocket_server.py").await;
    let (signer, folder) = (Signer::new(), TempDir::new().unwrap());
    let ca = folder.path().join("ca.crt");
    signer.write(&ca);
    // It could speak HTTP/2 as well, over which it would hear of no upgrade.
    let config = signer.sign(&["127.0.0.1"]).server(&["h2", "http/1.1"], None);
    let (tls, listener) = (
        TlsAcceptor::from(Arc::new(config)),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let (endpoint, addr) = (format!("https://{}", listener.local_addr().unwrap()), application.addr);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream = tls.accept(stream).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                join(stream, addr).await;
            });
        }
    });
    cases_are_the_same(&application, &endpoint, &format!("tls = {{ ca = '{}' }}", ca.display())).await;
}

#[tokio::test]
async fn every_case_is_the_same_where_the_application_is_at_a_unix_socket() {
    let application = Application::start("websocket_server.py").await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.sock");
    let (listener, addr) = (UnixListener::bind(&path).unwrap(), application.addr);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(join(stream, addr));
        }
    });
    cases_are_the_same(&application, &format!("unix:{}", path.display()), "").await;
}

/// Through a gateway that reaches the application at `endpoint`.
async fn cases_are_the_same(application: &Application, endpoint: &str, more: &str) {
    let gateway = Setup::default().endpoints(&[endpoint.to_owned()], more).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (direct, through) = (application.addr.to_string(), gateway.addr().to_string());
    let args = [&direct, &through, gateway.host(), "/api/ws", &ada.cookie];
    run_cases("websocket_conformance.py", &args, 90).await;
}
