//! Users, by what they have done: signed up, verified, signed in.

use serde_json::{Value, json};

use super::{Gateway, client::Response};

/// Long enough for any rule, and known to every test.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) email: String,
    /// As the browser sends it back: `name=value`.
    pub(crate) cookie: String,
    /// The bare token, for `Authorization: Bearer`.
    pub(crate) token: String,
}

impl User {
    /// Out of the answer to a sign-in.
    #[track_caller]
    pub(crate) fn of(gateway: &Gateway, answer: &Response) -> Self {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let cookie = answer.set_cookie(gateway.session_cookie()).expect("a session cookie");
        let body = answer.json();
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        Self {
            id: text(&body["user"]["id"]),
            email: text(&body["user"]["email"]),
            cookie: cookie.split(';').next().unwrap().to_owned(),
            token: text(&body["token"]),
        }
    }
}

impl Gateway {
    pub(crate) async fn sign_up(&self, email: &str) -> Response {
        let body = json!({ "name": "Ada Lovelace", "email": email, "password": PASSWORD });
        self.post("/api/auth/sign-up/email").json(&body).await
    }

    pub(crate) async fn sign_in(&self, email: &str) -> Response {
        let body = json!({ "email": email, "password": PASSWORD });
        self.post("/api/auth/sign-in/email").json(&body).await
    }

    /// Somebody who signed up, whose address is verified in the database, and who then signed in.
    pub(crate) async fn signed_in(&self, email: &str) -> User {
        self.verified(email).await;
        User::of(self, &self.sign_in(email).await)
    }

    /// As [`Gateway::signed_in`], with roles.
    pub(crate) async fn signed_in_as(&self, email: &str, roles: &[&str]) -> User {
        self.verified(email).await;
        let client = self.db().client().await;
        let changed = client
            .execute("UPDATE users SET roles = $2 WHERE email = $1", &[&email, &roles])
            .await;
        assert_eq!(changed.unwrap(), 1);
        User::of(self, &self.sign_in(email).await)
    }

    /// Somebody who signed up and whose address counts as verified; no session yet.
    pub(crate) async fn verified(&self, email: &str) {
        let answer = self.sign_up(email).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let client = self.db().client().await;
        let changed = client
            .execute("UPDATE users SET email_verified = true WHERE email = $1", &[&email])
            .await;
        assert_eq!(changed.unwrap(), 1);
    }

    pub(crate) async fn sign_out(&self, user: &User) {
        let answer = self.post("/api/auth/sign-out").with(user).json(&json!({})).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
}
