//! A browser: it keeps cookies, follows links between the gateway and providers, and somebody fills in the forms.
//!
//! What a provider sends back to the gateway is handed to the test first, who may take it elsewhere, or change it.

use std::{net::SocketAddr, sync::Mutex};

use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::{
    Gateway,
    client::{Call, Response},
    people,
    provider::{Client, addr_of},
};

/// What everybody has at a provider of the tests.
const PASSWORD: &str = "password";

/// No way through a provider has more steps.
const STEPS: usize = 20;

/// What a browser knows as a site: a gateway in this process, or one that is a process of its own.
pub(crate) trait Place {
    fn addr(&self) -> SocketAddr;

    /// What stands in the address bar.
    fn site(&self) -> &str;

    fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.addr(), self.site(), method, target)
    }
}

impl Place for Gateway {
    fn addr(&self) -> SocketAddr {
        Self::addr(self)
    }

    fn site(&self) -> &str {
        Self::site(self)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Browser {
    cookies: Mutex<Vec<Cookie>>,
}

#[derive(Clone, Debug)]
struct Cookie {
    origin: String,
    path: String,
    name: String,
    value: String,
}

/// What a provider has a browser take to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Back {
    redirect_uri: String,
    pub(crate) params: Vec<(String, String)>,
    /// As a form, which the provider's page posts.
    is_posted: bool,
}

/// What somebody does at a provider.
#[derive(Clone, Copy, Debug)]
enum Decision {
    Allow,
    Deny,
}

impl Browser {
    /// Asks the gateway, as the site's script does.
    pub(crate) async fn get(&self, gateway: &impl Place, target: &str) -> Response {
        let call = self.with_cookies(gateway.call("GET", target), gateway.site(), target);
        self.keep(gateway.site(), target, call.await)
    }

    pub(crate) async fn post(&self, gateway: &impl Place, target: &str, body: &Value) -> Response {
        let call = gateway.call("POST", target).json(body).header("Origin", gateway.site());
        let call = self.with_cookies(call, gateway.site(), target);
        self.keep(gateway.site(), target, call.await)
    }

    /// Where the gateway sends this browser for `sign-in/social`; `body` is what the client says beside the provider.
    pub(crate) async fn start(&self, gateway: &impl Place, provider: &str, body: Value) -> String {
        let mut body = body;
        body["provider"] = json!(provider);
        let answer = self.post(gateway, "/api/auth/sign-in/social", &body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()["url"].as_str().expect("a URL").to_owned()
    }

    /// The whole way, from `sign-in/social` to the gateway's last answer.
    pub(crate) async fn sign_in_at(&self, gateway: &impl Place, client: &Client, login: &str) -> Response {
        let url = self
            .start(gateway, client.name(), json!({ "callbackURL": "/home" }))
            .await;
        let back = self.agree(&url, login).await;
        self.land(gateway, &back).await
    }

    /// Somebody whose address is verified, signed in with their password.
    pub(crate) async fn signed_in(gateway: &Gateway, email: &str) -> Self {
        gateway.verified(email).await;
        let browser = Self::default();
        let answer = browser.sign_in(gateway, email).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        browser
    }

    /// With the password that everybody has here.
    pub(crate) async fn sign_in(&self, gateway: &Gateway, email: &str) -> Response {
        let body = json!({ "email": email, "password": people::PASSWORD });
        self.post(gateway, "/api/auth/sign-in/email", &body).await
    }

    /// Where the gateway sends this browser for `link-social`.
    pub(crate) async fn start_linking(&self, gateway: &Gateway, client: &Client) -> String {
        let body = json!({ "provider": client.name(), "callbackURL": "/linked" });
        let answer = self.post(gateway, "/api/auth/link-social", &body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()["url"].as_str().expect("a URL").to_owned()
    }

    /// The whole way, from `link-social` to the gateway's last answer. The provider knows nobody in this browser yet.
    pub(crate) async fn link_at(&self, gateway: &Gateway, client: &Client, login: &str) -> Response {
        let url = self.start_linking(gateway, client).await;
        let back = Self::default().agree(&url, login).await;
        self.land(gateway, &back).await
    }

    /// Opens an authorisation URL, signs in there and agrees.
    pub(crate) async fn agree(&self, url: &str, login: &str) -> Back {
        self.visit(url, login, Decision::Allow).await
    }

    /// Opens an authorisation URL, signs in there and denies what is asked for.
    pub(crate) async fn deny(&self, url: &str, login: &str) -> Back {
        self.visit(url, login, Decision::Deny).await
    }

    async fn visit(&self, authorization_url: &str, login: &str, decision: Decision) -> Back {
        let redirect_uri = param(authorization_url, "redirect_uri").expect("a redirect_uri");
        let mut url = authorization_url.to_owned();
        let mut form = None;
        for _ in 0..STEPS {
            if url.split('?').next() == Some(&redirect_uri) {
                return Back {
                    redirect_uri,
                    is_posted: form.is_some(),
                    params: form.unwrap_or_else(|| query(&url)),
                };
            }
            let answer = self.open(&url, form.take()).await;
            let base = Url::parse(&url).unwrap();
            if let Some(location) = answer.head.one("location") {
                url = base.join(location).unwrap().into();
                continue;
            }
            let page = answer.text();
            assert!(answer.status() < 400, "{url}: {} {page}", answer.status());
            let (action, fields) = filled_in(page, login, decision);
            url = base.join(&action).unwrap().into();
            form = Some(fields);
        }
        panic!("{authorization_url} leads nowhere");
    }

    /// At a provider.
    async fn open(&self, url: &str, form: Option<Vec<(String, String)>>) -> Response {
        let addr = addr_of(url);
        let origin = format!("http://{addr}");
        let target = &url[origin.len()..];
        let method = if form.is_some() { "POST" } else { "GET" };
        let mut call = Call::new(addr, &origin, method, target).undescribed();
        if let Some(form) = form {
            call = posted(call, &form);
        }
        self.keep(&origin, target, self.with_cookies(call, &origin, target).await)
    }

    /// Takes to the gateway what a provider sent back; a posted form as a page of another site posts it, without cookies.
    pub(crate) async fn land(&self, gateway: &impl Place, back: &Back) -> Response {
        if !back.is_posted {
            return self.get(gateway, &back.target(gateway)).await;
        }
        let target = back.redirect_uri.strip_prefix(gateway.site()).unwrap();
        let call = gateway
            .call("POST", target)
            .header("Origin", "null")
            .header("Sec-Fetch-Site", "cross-site");
        let answer = posted(call, &back.params).await;
        assert_eq!(answer.status(), 302, "{}", answer.text());
        let location = answer.head.one("location").unwrap();
        let target = location.strip_prefix(gateway.site()).unwrap_or(location);
        self.get(gateway, target).await
    }

    /// Who is signed in, or null.
    pub(crate) async fn who(&self, gateway: &impl Place) -> Value {
        let answer = self.get(gateway, "/api/auth/get-session").await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    }

    /// One with the same cookies: what a thief has who copied them.
    pub(crate) fn copy(&self) -> Self {
        Self {
            cookies: Mutex::new(self.cookies.lock().unwrap().clone()),
        }
    }

    /// The names of the cookies that it holds for the gateway.
    pub(crate) fn cookie_names(&self, gateway: &impl Place) -> Vec<String> {
        let cookies = self.cookies.lock().unwrap();
        let ours = cookies.iter().filter(|cookie| cookie.origin == gateway.site());
        ours.map(|cookie| cookie.name.clone()).collect()
    }

    /// What it holds for the gateway under a name.
    pub(crate) fn cookie(&self, gateway: &Gateway, name: &str) -> Option<String> {
        let cookies = self.cookies.lock().unwrap();
        let ours = cookies.iter().filter(|cookie| cookie.origin == gateway.site());
        ours.filter(|cookie| cookie.name == name)
            .map(|cookie| cookie.value.clone())
            .next()
    }

    /// Has it send a cookie to the gateway that it did not get there.
    pub(crate) fn plant(&self, gateway: &Gateway, name: &str, value: &str) {
        let mut cookies = self.cookies.lock().unwrap();
        cookies.retain(|cookie| cookie.origin != gateway.site() || cookie.name != name);
        cookies.push(Cookie {
            origin: gateway.site().to_owned(),
            path: "/".to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }

    fn with_cookies(&self, call: Call, origin: &str, target: &str) -> Call {
        let path = target.split('?').next().unwrap();
        let cookies = self.cookies.lock().unwrap();
        let sent = cookies.iter().filter(|cookie| {
            let below = path.strip_prefix(cookie.path.trim_end_matches('/'));
            cookie.origin == origin && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let sent: Vec<String> = sent.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        if sent.is_empty() {
            return call;
        }
        call.header("Cookie", sent.join("; "))
    }

    fn keep(&self, origin: &str, target: &str, answer: Response) -> Response {
        let mut cookies = self.cookies.lock().unwrap();
        for line in answer.head.all("set-cookie") {
            let mut parts = line.split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let attributes: Vec<(String, &str)> = parts
                .map(|part| part.split_once('=').unwrap_or((part, "")))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            let attribute = |wanted: &str| {
                let found = attributes.iter().find(|(name, _)| name == wanted);
                found.map(|(_, value)| *value)
            };
            let path = attribute("path").unwrap_or_else(|| target.split('?').next().unwrap());
            cookies.retain(|cookie| {
                (cookie.origin.as_str(), cookie.path.as_str(), cookie.name.as_str()) != (origin, path, name)
            });
            let is_cleared =
                attribute("max-age") == Some("0") || attribute("expires").is_some_and(|when| when.contains(" 1970 "));
            if !is_cleared {
                cookies.push(Cookie {
                    origin: origin.to_owned(),
                    path: path.to_owned(),
                    name: name.to_owned(),
                    value: value.to_owned(),
                });
            }
        }
        drop(cookies);
        answer
    }
}

impl Back {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// With another value of a parameter, or without it.
    pub(crate) fn with(&self, name: &str, value: Option<&str>) -> Self {
        let mut changed = self.clone();
        changed.params.retain(|(found, _)| found != name);
        changed
            .params
            .extend(value.map(|value| (name.to_owned(), value.to_owned())));
        changed
    }

    /// What is asked of the gateway.
    pub(crate) fn target(&self, gateway: &impl Place) -> String {
        let path = self.redirect_uri.strip_prefix(gateway.site());
        let path = path.unwrap_or_else(|| panic!("{} leads elsewhere", self.redirect_uri));
        format!("{path}?{}", encoded(&self.params))
    }
}

/// The error with which an answer sends somebody away.
#[track_caller]
pub(crate) fn error_of(answer: &Response) -> String {
    assert_eq!(answer.status(), 302, "{}", answer.text());
    let location = answer.head.one("location").expect("a target");
    let url = Url::parse("http://app").unwrap().join(location).unwrap();
    param(url.as_str(), "error").unwrap_or_else(|| panic!("no error: {location}"))
}

/// A parameter of a URL's query.
pub(crate) fn param(url: &str, name: &str) -> Option<String> {
    let found = query(url).into_iter().find(|(found, _)| found == name);
    found.map(|(_, value)| value)
}

fn query(url: &str) -> Vec<(String, String)> {
    Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

fn encoded(params: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(params)
        .finish()
}

fn posted(call: Call, form: &[(String, String)]) -> Call {
    call.header("Content-Type", "application/x-www-form-urlencoded")
        .body(encoded(form))
}

/// Where a page's form goes, and what is in it when somebody has done what it asks for. The pages are those of
/// `tests/clients/providers/pages.mjs`: one form, attributes in double quotes.
fn filled_in(page: &str, login: &str, decision: Decision) -> (String, Vec<(String, String)>) {
    let mut action = None;
    let mut fields = Vec::new();
    for tag in page.split('<').filter_map(|rest| rest.split('>').next()) {
        let Some(name) = tag.split(' ').next() else { continue };
        let field = attribute(tag, "name");
        match (name, field.as_deref()) {
            ("form", _) => action = attribute(tag, "action"),
            ("input", Some("login")) => fields.push(("login".to_owned(), login.to_owned())),
            ("input", Some("password")) => fields.push(("password".to_owned(), PASSWORD.to_owned())),
            ("input", Some(field)) => {
                fields.push((field.to_owned(), attribute(tag, "value").unwrap_or_default()));
            }
            ("button", Some("decision")) => {
                let pressed = match decision {
                    Decision::Allow => "allow",
                    Decision::Deny => "deny",
                };
                let value = attribute(tag, "value").filter(|value| value == pressed);
                fields.extend(value.map(|value| ("decision".to_owned(), value)));
            }
            _ => {}
        }
    }
    (action.unwrap_or_else(|| panic!("no form: {page}")), fields)
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    let value = rest.split('"').next()?;
    let plain = value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    Some(plain.replace("&amp;", "&"))
}
