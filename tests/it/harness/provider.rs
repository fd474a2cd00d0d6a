//! Providers to sign in at: the process of `tests/clients/providers`, which its `README.md` describes.
//!
//! One process serves all tests of a run; each test has a provider of its own in it, on a port of its own, so that its
//! people, faults and keys are nobody else's. The process ends with this one.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use toml::Table;
use vestibule::clock::{Clock, Timestamp};

use super::{client::Call, gateway::SITE};

static PROCESS: OnceCell<Process> = OnceCell::const_new();

struct Process {
    admin: SocketAddr,
    /// Its standard input is open as long as this is here, which is as long as the tests run.
    _child: Child,
}

/// Its folder.
pub(crate) fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/providers");
    assert!(
        folder.join("node_modules").exists(),
        "the providers are not installed: `make test` does it, by scripts/ensure-node-modules"
    );
    folder
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new("node")
            .arg("main.mjs")
            .current_dir(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node is installed");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the providers don't start: {line:?}"));
        Self {
            admin: addr_of(said["admin"].as_str().unwrap()),
            _child: child,
        }
    }
}

/// The system's time, which providers go by, but it stands still until it is moved.
pub(crate) fn clock() -> Clock {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Clock::manual(Timestamp::from_secs(since_epoch.as_secs().try_into().unwrap()))
}

/// What a provider speaks, and what the gateway is told of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Oidc,
    /// The same provider, which the gateway takes for Google.
    Google,
    GitHub,
    Apple,
    Microsoft,
}

pub(crate) struct Provider {
    kind: Kind,
    admin: SocketAddr,
    id: String,
    /// Where it is; OpenID Connect's issuer.
    pub(crate) url: String,
}

/// The gateway's registration at a provider.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: Option<String>,
    pub(crate) redirect_uri: String,
    name: String,
    section: Table,
}

impl Provider {
    /// The certified one.
    pub(crate) async fn oidc() -> Self {
        Self::start(Kind::Oidc, json!({})).await
    }

    /// With options, which the head of the kind's file in `tests/clients/providers` lists.
    pub(crate) async fn start(kind: Kind, options: Value) -> Self {
        let process = PROCESS
            .get_or_init(async || tokio::task::spawn_blocking(Process::start).await.unwrap())
            .await;
        let speaks = match kind {
            Kind::Oidc | Kind::Google => "oidc",
            Kind::GitHub => "github",
            Kind::Apple => "apple",
            Kind::Microsoft => "microsoft",
        };
        let mut order = options;
        order["kind"] = json!(speaks);
        let made = order_at(process.admin, "/providers", &order).await;
        Self {
            kind,
            admin: process.admin,
            id: text(&made["id"]),
            url: text(&made["url"]),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        addr_of(&self.url)
    }

    /// Registers the usual gateway, where the provider has this name.
    pub(crate) async fn client(&self, name: &str) -> Client {
        self.client_with(name, SITE, json!({})).await
    }

    /// Registers a gateway that browsers see at `site`, with metadata of RFC 7591.
    pub(crate) async fn client_with(&self, name: &str, site: &str, metadata: Value) -> Client {
        let redirect_uri = format!("{site}/api/auth/callback/{name}");
        let mut metadata = metadata;
        metadata["redirect_uris"] = json!([redirect_uri]);
        let made = self.order("clients", &metadata).await;
        Client {
            id: text(&made["client_id"]),
            secret: made["client_secret"].as_str().map(str::to_owned),
            redirect_uri,
            name: name.to_owned(),
            section: self.section(&made),
        }
    }

    /// What a configuration says of this provider and this client.
    fn section(&self, client: &Value) -> Table {
        let at = |path: &str| format!("{}{path}", self.url);
        let endpoints = |authorization: &str, token: &str, jwks: &str| {
            [
                ("authorization_endpoint", at(authorization)),
                ("token_endpoint", at(token)),
                ("jwks_uri", at(jwks)),
            ]
        };
        let mut section = Table::new();
        let mut put = |key: &str, value: String| section.insert(key.to_owned(), value.into());
        match self.kind {
            Kind::Oidc => {
                put("kind", "oidc".to_owned());
                put("issuer", self.url.clone());
            }
            Kind::Google => {
                put("kind", "google".to_owned());
                put("issuer", self.url.clone());
                put("userinfo_endpoint", at("/me"));
                for (key, url) in endpoints("/auth", "/token", "/jwks") {
                    put(key, url);
                }
            }
            Kind::GitHub => {
                put("kind", "github".to_owned());
                put("base_url", self.url.clone());
            }
            Kind::Apple => {
                put("kind", "apple".to_owned());
                for key in ["team_id", "key_id", "private_key"] {
                    put(key, text(&client[key]));
                }
                for (key, url) in endpoints("/auth/authorize", "/auth/token", "/auth/keys") {
                    put(key, url);
                }
            }
            Kind::Microsoft => {
                put("kind", "microsoft".to_owned());
                put("userinfo_endpoint", at("/oidc/userinfo"));
                let [authorize, token] = ["/common/oauth2/v2.0/authorize", "/common/oauth2/v2.0/token"];
                for (key, url) in endpoints(authorize, token, "/common/discovery/v2.0/keys") {
                    put(key, url);
                }
            }
        }
        put("client_id", text(&client["client_id"]));
        if let Some(secret) = client["client_secret"].as_str() {
            put("client_secret", secret.to_owned());
        }
        // It is here, and speaks http.
        for key in ["allow_insecure", "allow_private"] {
            section.insert(key.to_owned(), true.into());
        }
        section
    }

    /// Somebody with an address; they sign in there by `sub`.
    pub(crate) async fn person(&self, sub: &str, email: &str, email_verified: bool) {
        self.admit(json!({ "sub": sub, "email": email, "email_verified": email_verified, "name": "Ada Lovelace" }))
            .await;
    }

    /// Somebody of whom exactly this is known, from now on.
    pub(crate) async fn admit(&self, claims: Value) {
        self.order("accounts", &claims).await;
    }

    /// From now on something is wrong at a place; `faults.mjs` says what can be, and where.
    pub(crate) async fn fault(&self, place: &str, fault: Value) {
        self.order("faults", &json!({ place: fault })).await;
    }

    /// Nothing is wrong there any more, and what hung goes on.
    pub(crate) async fn lift(&self, place: &str) {
        self.fault(place, Value::Null).await;
    }

    /// Changes options.
    pub(crate) async fn change(&self, options: Value) {
        self.order("options", &options).await;
    }

    /// New keys; the old ones are gone.
    pub(crate) async fn rotate(&self) {
        self.rotate_keeping(false).await;
    }

    /// New keys, which sign from now on; the old ones stay among those that are published, or not.
    pub(crate) async fn rotate_keeping(&self, keep: bool) {
        self.order("rotate", &json!({ "keep": keep })).await;
    }

    /// An id_token for a client, as its native app would have got it. `more`: a nonce, and what else is to be wrong.
    pub(crate) async fn id_token(&self, client: &Client, sub: &str, more: Value) -> String {
        let mut order = more;
        order["client_id"] = json!(client.id);
        order["sub"] = json!(sub);
        text(&self.order("id-token", &order).await["id_token"])
    }

    /// What it was asked at a place: `query`, `form` and some `headers`, in order.
    pub(crate) async fn requests(&self, place: &str) -> Vec<Value> {
        let target = format!("/providers/{}/requests", self.id);
        let all = admin_call(self.admin, "GET", &target).await.json();
        let all = all.as_array().unwrap().iter();
        all.filter(|request| request["place"] == place).cloned().collect()
    }

    async fn order(&self, what: &str, body: &Value) -> Value {
        order_at(self.admin, &format!("/providers/{}/{what}", self.id), body).await
    }
}

impl Client {
    /// What the gateway calls the provider.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// For a `gateway.toml`.
    pub(crate) fn toml(&self) -> String {
        self.toml_with("")
    }

    /// With further keys of the section, or others.
    pub(crate) fn toml_with(&self, keys: &str) -> String {
        let mut section = self.section.clone();
        section.extend(keys.parse::<Table>().unwrap());
        format!("[auth.oauth.{}]\n{section}", self.name)
    }
}

/// Where a URL leads, whose host is an address.
pub(super) fn addr_of(url: &str) -> SocketAddr {
    let rest = url
        .strip_prefix("http://")
        .unwrap_or_else(|| panic!("{url} is no URL of a provider"));
    let host = rest.split(['/', '?']).next().unwrap();
    host.parse().unwrap_or_else(|_| panic!("{url} has no address"))
}

fn admin_call(admin: SocketAddr, method: &str, target: &str) -> Call {
    Call::new(admin, "http://localhost", method, target).undescribed()
}

async fn order_at(admin: SocketAddr, target: &str, body: &Value) -> Value {
    let answer = admin_call(admin, "POST", target).json(body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
