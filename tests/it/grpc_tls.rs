//! gRPC with TLS, on either side of the gateway: the client and the server that most people use agree on HTTP/2 with it
//! by ALPN.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{
    Database, Gateway, SOON, Setup,
    backend::Backend,
    certificates::{Authority, Folder},
    eventually,
    frames::{self, END_HEADERS, HEADERS},
    people::User,
    protocols::{Application, Client},
    signer::Signer,
};

/// A gateway that speaks nothing but TLS, for an application at `upstream`; and somebody who signed in at another one.
struct Stage {
    gateway: Gateway,
    ada: User,
    ca: PathBuf,
    _folder: Folder,
}

async fn stage(upstream: &str) -> Stage {
    let db = Database::fresh().await;
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let ca = folder.write("ca.crt", &authority.pem());
    let pair = folder.pair("site", &authority.issue(&["app.example.com"]));
    let setup = Setup::default()
        .with("routes = [{ path = '/vestibule.Test/*', upstream = 'app' }]")
        .with(upstream)
        .with(&format!("[server.tls]\n{pair}"));
    let ada = Gateway::on(&db).await.signed_in("ada@example.com").await;
    Stage {
        gateway: setup.start_on(&db).await,
        ada,
        ca,
        _folder: folder,
    }
}

impl Stage {
    fn client(&self, token: &str) -> Client {
        let (addr, ca) = (self.gateway.addr().to_string(), self.ca.to_str().unwrap());
        Client::start("grpc_client.py", &[&addr, self.gateway.host(), token, ca])
    }

    /// One call, and a stream both ways.
    async fn calls_pass(&self) {
        let mut client = self.client(&self.ada.token);
        let echoed = client.does("echo").await;
        assert_eq!((&echoed["code"], &echoed["reply"]), (&json!("OK"), &json!("hello")));
        assert_eq!(client.does("large").await["reply"], true);
        let begun = client.does("begin").await;
        assert_eq!((&begun["code"], &begun["replies"]), (&json!("open"), &json!(true)));
        assert_eq!(begun["began"]["x-began"], "yes");
        assert_eq!(client.does("exchange").await["replies"], true);
        let ended = client.does("end").await;
        assert_eq!((&ended["code"], &ended["rest"]), (&json!("OK"), &json!(0)));
        assert_eq!(ended["trailers"]["x-ended"], "yes");
    }
}

/// An application with TLS, and what of `[upstreams]` leads to it and believes `trusted` about it.
async fn with_tls(folder: &TempDir, signer: &Signer, trusted: &Signer) -> (Application, String) {
    let path = |name: &str| folder.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key, ca) = (path("app.crt"), path("app.key"), path("ca.crt"));
    signer.sign(&["127.0.0.1"]).write(&certificate, &key);
    trusted.write(&ca);
    let application = Application::start_with("grpc_server.py", &[&text(&certificate), &text(&key)]).await;
    let upstream = format!(
        "upstreams = {{ app = {{ endpoints = ['https://{}'], tls = {{ ca = '{}' }} }} }}",
        application.addr,
        text(&ca)
    );
    (application, upstream)
}

#[tokio::test]
async fn calls_pass_from_tls_to_an_application_without() {
    let application = Application::start("grpc_server.py").await;
    let upstream = format!(
        "upstreams = {{ app = {{ endpoints = ['h2c://{}'] }} }}",
        application.addr
    );
    stage(&upstream).await.calls_pass().await;
}

#[tokio::test]
async fn calls_pass_to_an_application_with_tls_of_an_authority_of_its_own() {
    let (folder, signer) = (TempDir::new().unwrap(), Signer::new());
    let (_application, upstream) = with_tls(&folder, &signer, &signer).await;
    stage(&upstream).await.calls_pass().await;
}

#[tokio::test]
async fn an_application_that_its_authority_does_not_vouch_for_is_unavailable() {
    let folder = TempDir::new().unwrap();
    let (_application, upstream) = with_tls(&folder, &Signer::new(), &Signer::new()).await;
    let stage = stage(&upstream).await;
    let refused = stage.client(&stage.ada.token).does("echo").await;
    assert_eq!(refused["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn a_stranger_is_told_so_in_words_of_grpc() {
    let (folder, signer) = (TempDir::new().unwrap(), Signer::new());
    let (_application, upstream) = with_tls(&folder, &signer, &signer).await;
    let stage = stage(&upstream).await;
    for token in ["", "forged"] {
        let mut client = stage.client(token);
        assert_eq!(client.does("echo").await["code"], "UNAUTHENTICATED");
        assert_eq!(client.does("begin").await["code"], "UNAUTHENTICATED");
    }
}

/// What it speaks is found out with the first call, and that it has services by how it answers that.
#[tokio::test]
async fn the_first_call_to_an_application_with_tls_may_be_silent_for_longer_than_a_body() {
    let (folder, signer) = (TempDir::new().unwrap(), Signer::new());
    let (_application, upstream) = with_tls(&folder, &signer, &signer).await;
    let stage = stage(&format!("{upstream}\nserver = {{ body_timeout = '100ms' }}")).await;
    let mut client = stage.client(&stage.ada.token);
    assert_eq!(client.does("begin").await["code"], "open");
    // Takes three times as long, while the stream says nothing.
    assert_eq!(client.does("deadline").await["code"], "DEADLINE_EXCEEDED");
    assert_eq!(client.does("exchange").await["replies"], true);
    assert_eq!(client.does("end").await["code"], "OK");
}

#[tokio::test]
async fn dos_02_calling_a_body_a_call_does_not_let_it_stand_still_where_none_is_served() {
    let signer = Signer::new();
    let folder = TempDir::new().unwrap();
    let ca = folder.path().join("ca.crt");
    signer.write(&ca);
    for offered in [&["http/1.1"][..], &["h2"][..]] {
        let backend = Backend::with_tls("app", signer.sign(&["127.0.0.1"]).server(offered, None)).await;
        let gateway = Setup::default()
            .endpoints(&[backend.endpoint("https")], &format!("tls = {{ ca = {ca:?} }}"))
            .with("[server]\nbody_timeout = '300ms'")
            .start()
            .await;
        let call = [("content-type", "application/grpc")];
        let head = frames::block(&[&frames::fields("POST", "/public/x")[..], &call].concat());
        let mut client = frames::Frames::connect(gateway.addr()).await;
        client.send(frames::frame(HEADERS, END_HEADERS, 1, &head)).await;
        let in_flight = "vestibule_upstream_in_flight{upstream=\"app\"}";
        eventually(SOON, async || gateway.log().contains("\"error\":\"BODY_TIMEOUT\"")).await;
        eventually(SOON, async || gateway.metric(in_flight).await < 1.0).await;
    }
}
