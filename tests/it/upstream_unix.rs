//! Endpoints on sockets in the file system.

use crate::harness::{
    Setup,
    backend::{Backend, Speaks},
};

#[tokio::test]
async fn an_application_on_a_socket_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    for (scheme, speaks, version) in [
        ("unix", Speaks::Http1, http::Version::HTTP_11),
        ("unix+h2c", Speaks::Http2, http::Version::HTTP_2),
    ] {
        let path = folder.path().join(format!("{scheme}.sock"));
        let backend = Backend::on_socket("app", &path, speaks);
        let endpoint = format!("{scheme}:{}", path.display());
        let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
        for _ in 0..3 {
            assert_eq!(gateway.get("/public/x").await.text(), "app GET /public/x");
        }
        assert_eq!(backend.connections(), 1, "{scheme}: the connection is kept");
        assert_eq!(backend.arrived()[0].head.version, version);
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_502_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let endpoint = format!("unix:{}", path.display());
    let gateway = Setup::default().endpoints(&[endpoint], "").start().await;
    let answer = gateway.get("/public/x").await;
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "UPSTREAM_UNREACHABLE".to_owned())
    );
    let _backend = Backend::on_socket("app", &path, Speaks::Http1);
    assert_eq!(gateway.get("/public/x").await.status(), 200);
}
