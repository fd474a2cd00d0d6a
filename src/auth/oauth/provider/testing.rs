//! For this module's tests: a provider on a real socket, and tokens by keys of our own.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaKeyPair,
    },
};
use base64ct::{Base64UrlUnpadded, Encoding};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::config::{OAuthProvider, ProviderEndpoints, ProviderKind, ProviderSignUp};

pub(super) fn settings(kind: ProviderKind) -> OAuthProvider {
    OAuthProvider {
        name: "acme".to_owned(),
        kind,
        client_id: "client".to_owned(),
        client_secret: Some(crate::secret::Secret::new("client-secret".to_owned())),
        apple_key: None,
        issuer: (kind == ProviderKind::Oidc).then(|| "https://idp.test".to_owned()),
        tenant: "common".to_owned(),
        base_url: None,
        hosted_domain: None,
        endpoints: ProviderEndpoints::default(),
        scopes: None,
        audiences: Vec::new(),
        authorization_params: Vec::new(),
        token_endpoint_auth_method: None,
        sign_up: ProviderSignUp::Allowed,
        trust_email: false,
        clock_skew: Duration::from_mins(1),
        timeout: Duration::from_secs(5),
        allow_insecure: false,
        allow_private: false,
        ca: None,
    }
}

/// What a test's provider answers: by path, a status, fields of the header, a body.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) header: Vec<(&'static str, &'static str)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(body: &Value) -> Self {
        Self {
            status: 200,
            header: vec![("content-type", "application/json")],
            body: body.to_string().into_bytes(),
        }
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

/// What it was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) header: http::HeaderMap,
    pub(super) form: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Desk {
    answers: BTreeMap<String, Answer>,
    asked: Vec<Asked>,
}

/// A provider on a port of its own, until the test's runtime ends.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) origin: String,
    desk: Arc<Mutex<Desk>>,
}

impl Peer {
    #[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Mutex::new(Desk::default()));
        let peer = Self {
            origin,
            desk: Arc::clone(&desk),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = Arc::clone(&desk);
                let service = service_fn(move |request| answer(Arc::clone(&desk), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        peer
    }

    /// An OpenID provider with a document and these keys.
    pub(super) async fn openid(keys: &[&Signer]) -> Self {
        let peer = Self::start().await;
        peer.publish(keys);
        let at = |path: &str| format!("{}{path}", peer.origin);
        let document = json!({
            "issuer": peer.origin,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "authorization_response_iss_parameter_supported": true,
        });
        peer.answers("/.well-known/openid-configuration", Answer::json(&document));
        peer
    }

    pub(super) fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.answers("/jwks", Answer::json(&json!({ "keys": keys })));
    }

    pub(super) fn answers(&self, path: &str, answer: Answer) {
        self.desk.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    pub(super) fn asked(&self, path: &str) -> Vec<Asked> {
        let desk = self.desk.lock().unwrap();
        desk.asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }
}

async fn answer(desk: Arc<Mutex<Desk>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().to_owned();
    let mut desk = desk.lock().unwrap();
    desk.asked.push(Asked {
        path: path.clone(),
        header: head.headers,
        form: url::form_urlencoded::parse(&body).into_owned().collect(),
    });
    let none = || Answer::json(&json!({"error": "not_found"})).status(404);
    let Answer { status, header, body } = desk.answers.get(&path).cloned().unwrap_or_else(none);
    let mut response = Response::builder().status(status);
    for (name, value) in header {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

/// A provider's private key.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) kid: Option<&'static str>,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn rsa(kid: Option<&'static str>) -> Self {
        let key = Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        Self { kid, key }
    }

    pub(super) fn ec(kid: Option<&'static str>) -> Self {
        let key = Key::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
        Self { kid, key }
    }

    pub(super) fn ed(kid: Option<&'static str>) -> Self {
        let key = Key::Ed(Ed25519KeyPair::generate().unwrap());
        Self { kid, key }
    }

    pub(super) fn jwk(&self) -> Value {
        let text = Base64UrlUnpadded::encode_string;
        let mut jwk = match &self.key {
            Key::Rsa(key) => {
                // DER of 2048 bits and the exponent 65537: a sequence's head, an integer's head, a zero, the modulus.
                let modulus = &key.public_key().as_ref()[9..265];
                json!({"kty": "RSA", "use": "sig", "n": text(modulus), "e": "AQAB"})
            }
            Key::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "use": "sig", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Key::Ed(key) => json!({"kty": "OKP", "use": "sig", "crv": "Ed25519", "x": text(key.public_key().as_ref())}),
        };
        if let Some(kid) = self.kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    /// The public key as it would be mistaken for a shared secret.
    pub(super) fn public_bytes(&self) -> Vec<u8> {
        match &self.key {
            Key::Rsa(key) => key.public_key().as_ref().to_vec(),
            Key::Ec(key) => key.public_key().as_ref().to_vec(),
            Key::Ed(key) => key.public_key().as_ref().to_vec(),
        }
    }

    pub(super) fn alg(&self) -> &'static str {
        match self.key {
            Key::Rsa(_) => "RS256",
            Key::Ec(_) => "ES256",
            Key::Ed(_) => "EdDSA",
        }
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.alg(), "typ": "JWT"});
        if let Some(kid) = self.kid {
            header["kid"] = json!(kid);
        }
        self.sign_with(&header, claims)
    }

    pub(super) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        jwt(header, claims, |message| match &self.key {
            Key::Rsa(key) => {
                let padding = if header["alg"] == "PS256" {
                    &RSA_PSS_SHA256
                } else {
                    &RSA_PKCS1_SHA256
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &SystemRandom::new(), message, &mut signature)
                    .unwrap();
                signature
            }
            Key::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Key::Ed(key) => key.sign(message).as_ref().to_vec(),
        })
    }
}

pub(super) fn jwt(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = Base64UrlUnpadded::encode_string;
    let signed = format!(
        "{}.{}",
        text(header.to_string().as_bytes()),
        text(claims.to_string().as_bytes())
    );
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", text(&signature))
}
