//! What `docs/assertion.md` shows of Node and of Python verifies assertions, as it stands there; only where the gateway is
//! differs.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};
use vestibule::clock::Clock;

use crate::harness::{Database, Gateway, SOON, Setup, client::Call, example, program};

/// Where the document says that the gateway is.
const GATEWAY: &str = "http://gateway.internal:8080";

/// The document's block of a language, for a gateway at `port`.
fn snippet(language: &str, port: u16) -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/assertion.md");
    let text = fs::read_to_string(document).unwrap();
    let (_, block) = text
        .split_once(&format!("```{language}\n"))
        .expect("it has such a block");
    let (block, _) = block.split_once("```").expect("a block has an end");
    assert_eq!(block.matches(GATEWAY).count(), 1, "{block}");
    block.replace(GATEWAY, &format!("http://127.0.0.1:{port}"))
}

/// An application of the snippet; it ends when it is dropped.
struct Application {
    addr: SocketAddr,
    _child: Child,
    _folder: TempDir,
}

async fn in_node(port: u16) -> Application {
    let clients = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/assertions");
    let modules = clients.join("node_modules");
    assert!(
        modules.exists(),
        "jose is not installed: `make test` does it, by scripts/ensure-node-modules"
    );
    let folder = TempDir::new().unwrap();
    symlink(modules, folder.path().join("node_modules")).unwrap();
    let module = folder.path().join("snippet.mjs");
    fs::write(&module, snippet("js", port)).unwrap();
    let mut child = Command::new("node")
        .arg(clients.join("server.mjs"))
        .arg(&module)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(4 * SOON, lines.next_line()).await.expect("it starts");
    let port: u16 = line.unwrap().and_then(|line| line.parse().ok()).expect("a port");
    Application {
        addr: SocketAddr::from(([127, 0, 0, 1], port)),
        _child: child,
        _folder: folder,
    }
}

async fn in_python(port: u16) -> Application {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("main.py"), snippet("python", port)).unwrap();
    let (child, addr) = example::start_from(folder.path(), &[]).await;
    Application {
        addr,
        _child: child,
        _folder: folder,
    }
}

/// A gateway at a port that was promised, before an application of the document's that is two upstreams.
async fn gateway(port: u16, application: SocketAddr, algorithm: &str) -> Gateway {
    let over = format!(
        "server.listen = '127.0.0.1:{port}'
        server.hosts = ['127.0.0.1']
        identity.assertion = true
        identity.assertion_algorithm = '{algorithm}'
        upstreams.app.endpoints = ['http://{application}']
        upstreams.other.endpoints = ['http://{application}']
        routes = [{{ path = '/orders/*', upstream = 'app' }}, {{ path = '/other/*', upstream = 'other', strip_prefix = '/other' }}]"
    );
    // The libraries go by the machine's clock.
    let setup = Setup::default().clock(&Clock::System).with(&over);
    setup.start_on(&Database::fresh().await).await
}

/// Past the gateway, with an assertion of one's own.
async fn told(application: &Application, assertion: &str) -> u16 {
    let call = Call::new(application.addr, "http://127.0.0.1", "GET", "/orders/mine").undescribed();
    call.header("X-Vestibule-Assertion", assertion).await.status()
}

/// An assertion that says nothing that was ever true.
fn unsigned(claims: &Value) -> String {
    let encode = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    format!(
        "{}.{}.",
        encode(&json!({ "alg": "none", "typ": "JWT" })),
        encode(claims)
    )
}

#[tokio::test]
async fn the_snippet_for_node_believes_the_gateway_and_nobody_else() {
    for algorithm in ["EdDSA", "ES256"] {
        let port = program::free_port();
        let application = in_node(port).await;
        let gateway = gateway(port, application.addr, algorithm).await;
        let ada = gateway.signed_in_as("ada@example.com", &["admin"]).await;
        let answer = gateway.get("/orders/mine").with(&ada).await;
        assert_eq!(answer.status(), 200, "{algorithm}: {}", answer.text());
        let claims = answer.json();
        assert_eq!(
            (&claims["sub"], &claims["roles"], &claims["aud"]),
            (&json!(ada.id), &json!(["admin"]), &json!("app"))
        );
        // Genuine, but for another upstream.
        let other = gateway.get("/other/orders/mine").with(&ada).await;
        assert_eq!(other.status(), 401);
        assert!(other.text().contains("aud"), "{}", other.text());
        for forged in [unsigned(&claims), "a.b.c".to_owned()] {
            assert_eq!(told(&application, &forged).await, 401, "{forged}");
        }
    }
}

#[tokio::test]
async fn the_snippet_for_python_believes_the_gateway_and_nobody_else() {
    for algorithm in ["EdDSA", "ES256"] {
        let port = program::free_port();
        let application = in_python(port).await;
        let gateway = gateway(port, application.addr, algorithm).await;
        let ada = gateway.signed_in("ada@example.com").await;
        let answer = gateway.get("/orders/mine").with(&ada).await;
        assert_eq!(answer.status(), 200, "{algorithm}: {}", answer.text());
        assert_eq!(answer.json(), json!({ "user": ada.id }));
        assert_eq!(gateway.get("/other/orders/mine").with(&ada).await.status(), 401);
        let claims = json!({ "sub": ada.id, "aud": "app", "iss": "https://app.example.com" });
        for forged in [unsigned(&claims), "a.b.c".to_owned()] {
            assert_eq!(told(&application, &forged).await, 401, "{forged}");
        }
    }
}
