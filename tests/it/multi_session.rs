//! Several people in one browser.

use serde_json::{Value, json};

use crate::harness::{Gateway, Setup, client::Response, people::PASSWORD};

/// A browser: what it was told to keep, it sends.
#[derive(Default)]
struct Browser {
    jar: Vec<(String, String)>,
}

impl Browser {
    fn cookies(&self) -> String {
        let crumbs: Vec<_> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        crumbs.join("; ")
    }

    fn keep(&mut self, answer: &Response) {
        for line in answer.head.all("set-cookie") {
            let (name, rest) = line.split_once('=').unwrap();
            self.jar.retain(|(other, _)| other != name);
            if !line.contains("Max-Age=0") {
                let value = rest.split(';').next().unwrap();
                self.jar.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    fn companions(&self) -> usize {
        let names = self
            .jar
            .iter()
            .filter(|(name, _)| name.contains("session_token_multi-"));
        names.count()
    }

    async fn post(&mut self, gateway: &Gateway, path: &str, body: &Value) -> Response {
        let mut call = gateway.post(&format!("/api/auth/{path}")).json(body);
        if !self.jar.is_empty() {
            call = call.header("Cookie", self.cookies());
        }
        let answer = call.header("Origin", "https://app.example.com").await;
        self.keep(&answer);
        answer
    }

    async fn get(&self, gateway: &Gateway, target: &str) -> Response {
        gateway.get(target).header("Cookie", self.cookies()).await
    }

    /// Signs in, and gives the token.
    async fn sign_in(&mut self, gateway: &Gateway, email: &str) -> String {
        let body = json!({ "email": email, "password": PASSWORD });
        let answer = self.post(gateway, "sign-in/email", &body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    async fn people(&self, gateway: &Gateway) -> Vec<String> {
        let listed = self
            .get(gateway, "/api/auth/multi-session/list-device-sessions")
            .await
            .json();
        let mut people: Vec<_> = listed.as_array().unwrap().iter().map(email).collect();
        people.sort();
        people
    }

    async fn acting(&self, gateway: &Gateway) -> String {
        email(&self.get(gateway, "/api/auth/get-session").await.json())
    }
}

fn email(session: &Value) -> String {
    session["user"]["email"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn two_people_share_a_browser_switch_and_leave() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    let mut browser = Browser::default();
    let ada = browser.sign_in(&gateway, "ada@example.com").await;
    assert_eq!(browser.companions(), 0, "one person needs no companion");
    assert_eq!(browser.people(&gateway).await, ["ada@example.com"]);

    let grace = browser.sign_in(&gateway, "grace@example.com").await;
    assert_eq!(
        (browser.companions(), browser.acting(&gateway).await),
        (2, "grace@example.com".to_owned())
    );
    assert_eq!(browser.people(&gateway).await, ["ada@example.com", "grace@example.com"]);

    let switched = browser
        .post(&gateway, "multi-session/set-active", &json!({ "sessionToken": ada }))
        .await;
    assert_eq!(email(&switched.json()), "ada@example.com", "{}", switched.text());
    assert_eq!(browser.acting(&gateway).await, "ada@example.com");
    assert_eq!(browser.get(&gateway, "/api/me").await.status(), 200);
    assert_eq!(
        gateway.upstream().last().head.one("x-user-email"),
        Some("ada@example.com")
    );
    let seen = gateway.upstream().last();
    assert!(!seen.head.has("cookie"), "companions are ours as well: {:?}", seen.head);

    // Ada leaves: Grace acts again.
    let left = browser
        .post(&gateway, "multi-session/revoke", &json!({ "sessionToken": ada }))
        .await;
    assert_eq!(left.json(), json!({ "status": true }));
    assert_eq!(gateway.get("/api/me").bearer(&ada).await.status(), 401);
    assert_eq!(
        (browser.companions(), browser.acting(&gateway).await),
        (1, "grace@example.com".to_owned())
    );
    let left = browser
        .post(&gateway, "multi-session/revoke", &json!({ "sessionToken": grace }))
        .await;
    assert_eq!(left.status(), 200);
    assert_eq!(
        (browser.companions(), browser.acting(&gateway).await),
        (0, String::new())
    );
}

#[tokio::test]
async fn signing_out_takes_everybody_along() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    let mut browser = Browser::default();
    let ada = browser.sign_in(&gateway, "ada@example.com").await;
    let grace = browser.sign_in(&gateway, "grace@example.com").await;
    browser.post(&gateway, "sign-out", &json!({})).await;
    assert_eq!(browser.jar, []);
    for token in [ada, grace] {
        assert_eq!(gateway.get("/api/me").bearer(&token).await.status(), 401);
    }
}

#[tokio::test]
async fn a_second_sign_in_of_one_of_them_replaces_the_first() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    let mut browser = Browser::default();
    let first = browser.sign_in(&gateway, "ada@example.com").await;
    browser.sign_in(&gateway, "grace@example.com").await;
    browser.sign_in(&gateway, "ada@example.com").await;
    assert_eq!((browser.companions(), browser.people(&gateway).await.len()), (2, 2));
    assert_eq!(gateway.get("/api/me").bearer(&first).await.status(), 401);
}

#[tokio::test]
async fn only_sessions_of_this_browser_can_be_switched_to() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    let mut browser = Browser::default();
    browser.sign_in(&gateway, "grace@example.com").await;
    for token in [ada.token.as_str(), "x"] {
        for path in ["multi-session/set-active", "multi-session/revoke"] {
            let answer = browser.post(&gateway, path, &json!({ "sessionToken": token })).await;
            assert_eq!(
                (answer.status(), answer.code()),
                (401, "INVALID_SESSION_TOKEN".to_owned()),
                "{path}"
            );
        }
    }
    // A cookie whose name is another token's, or that nobody signed, is none.
    let forged = format!("__Host-vestibule.session_token_multi-{}", ada.token.to_lowercase());
    let unsigned = format!("{forged}={}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D", ada.token);
    let misnamed = format!("{forged}x={}", ada.cookie.split_once('=').unwrap().1);
    for cookie in [unsigned, misnamed] {
        let listed = gateway
            .get("/api/auth/multi-session/list-device-sessions")
            .header("Cookie", &cookie)
            .await;
        assert_eq!(listed.json(), json!([]), "{cookie}");
    }
    assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
}

#[tokio::test]
async fn a_browser_keeps_five_people_at_most() {
    let gateway = Gateway::start().await;
    let mut browser = Browser::default();
    for n in 0..7 {
        let email = format!("user{n}@example.com");
        gateway.verified(&email).await;
        browser.sign_in(&gateway, &email).await;
        assert_eq!(browser.acting(&gateway).await, email);
    }
    assert_eq!(browser.companions(), 5);
}

#[tokio::test]
async fn switched_off_a_browser_forgets_and_the_endpoints_are_not_there() {
    let gateway = Setup::default()
        .with("[auth.session]\nmulti_session = 'off'")
        .start()
        .await;
    gateway.verified("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    let mut browser = Browser::default();
    browser.sign_in(&gateway, "ada@example.com").await;
    browser.sign_in(&gateway, "grace@example.com").await;
    assert_eq!(
        (browser.companions(), browser.acting(&gateway).await),
        (0, "grace@example.com".to_owned())
    );
    let listed = browser
        .get(&gateway, "/api/auth/multi-session/list-device-sessions")
        .await;
    assert_eq!((listed.status(), listed.text()), (404, ""));
}

#[tokio::test]
async fn prepared_for_it_a_browser_has_a_companion_from_the_first_sign_in() {
    let gateway = Setup::default()
        .with("[auth.session]\nmulti_session = 'always'")
        .start()
        .await;
    gateway.verified("ada@example.com").await;
    let mut browser = Browser::default();
    let first = browser.sign_in(&gateway, "ada@example.com").await;
    assert_eq!(browser.companions(), 1);
    let second = browser.sign_in(&gateway, "ada@example.com").await;
    assert_eq!(
        browser.companions(),
        1,
        "the same person again takes the first one's place"
    );
    for (token, status) in [(first, 401), (second, 200)] {
        assert_eq!(gateway.get("/api/me").bearer(&token).await.status(), status);
    }
}

#[tokio::test]
async fn a_sign_in_clears_the_companions_of_sessions_that_ended_elsewhere() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.verified("grace@example.com").await;
    let mut browser = Browser::default();
    browser.sign_in(&gateway, "ada@example.com").await;
    browser.sign_in(&gateway, "grace@example.com").await;
    assert_eq!(browser.companions(), 2);
    gateway
        .db()
        .run("UPDATE user_sessions SET revoked_at = created_at")
        .await;
    browser.sign_in(&gateway, "ada@example.com").await;
    assert_eq!(browser.companions(), 0);
}

#[tokio::test]
async fn who_is_signed_out_by_an_upstream_leaves_no_cookie_in_a_shared_browser() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    gateway.verified("bob@example.com").await;
    let mut browser = Browser::default();
    browser.sign_in(&gateway, "ada@example.com").await;
    browser.sign_in(&gateway, "bob@example.com").await;
    assert_eq!(browser.companions(), 2);

    let out = "HTTP/1.1 200 OK\r\nX-Vestibule-Sign-Out: session\r\nContent-Length: 0\r\n\r\n";
    gateway.upstream().answer("/api/out", out);
    let answer = browser.get(&gateway, "/api/out").await;
    assert_eq!(answer.status(), 200);
    browser.keep(&answer);
    assert_eq!(browser.companions(), 1);
    assert_eq!(
        browser.people(&gateway).await,
        ["ada@example.com"],
        "the other one stays"
    );
}

#[tokio::test]
async fn who_signs_in_again_or_leaves_may_still_open_the_link_of_their_new_address() {
    let both = "[auth.session]\nmulti_session = 'always'\n[auth.account]\nchange_email = 'new'";
    let gateway = Setup::default().with(both).start().await;
    for way in ["again", "leave"] {
        let (old, new) = (format!("{way}@example.com"), format!("new-{way}@example.com"));
        gateway.verified(&old).await;
        let mut browser = Browser::default();
        let token = browser.sign_in(&gateway, &old).await;
        let asked = browser
            .post(&gateway, "change-email", &json!({ "newEmail": new }))
            .await;
        assert_eq!(asked.status(), 200, "{}", asked.text());
        let link = gateway.mailbox().next_to(&new).await.link();
        if way == "again" {
            browser.sign_in(&gateway, &old).await;
        } else {
            let body = json!({ "sessionToken": token });
            assert_eq!(
                browser.post(&gateway, "multi-session/revoke", &body).await.status(),
                200
            );
        }
        let ended = "SELECT count(*) FROM user_sessions WHERE revoked_at IS NOT NULL";
        assert!(gateway.db().count(ended).await > 0, "{way}");
        let opened = gateway.open(&link).await;
        assert_eq!(opened.head.one("location"), Some("/"), "{way}");
    }
}
