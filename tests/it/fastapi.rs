//! The example application as it is, behind the gateway: the way of a user from sign-up to sign-out.

use serde_json::{Value, json};

use crate::harness::{Database, Gateway, Setup, example, people::User};

#[tokio::test]
async fn people_sign_up_sign_in_and_the_application_knows_who_they_are() {
    let db = Database::fresh().await;
    let (_application, addr) = example::start(&db).await;
    let routes = format!(
        "upstreams = {{ app = {{ endpoints = ['http://{addr}'] }} }}
        routes = [
            {{ path = '/api/public/*', upstream = 'app', auth = 'public' }},
            {{ path = '/api/*', upstream = 'app' }},
        ]"
    );
    let gateway = Setup::default().with(&routes).start_on(&db).await;

    assert_eq!(gateway.get("/api/todos").await.status(), 401);
    assert_eq!(
        gateway.get("/api/public/stats").await.json(),
        json!({ "todos": 0, "users": 0 })
    );

    let ada = sign_up_and_in(&gateway, "ada@example.com").await;
    let me = gateway.get("/api/me").with(&ada).await.json();
    assert_eq!(
        (&me["id"], &me["email"], &me["name"]),
        (&json!(ada.id), &json!("ada@example.com"), &json!("Ada Lovelace"))
    );

    let created = gateway
        .post("/api/todos")
        .with(&ada)
        .json(&json!({ "title": "Weave algebraical patterns" }))
        .await;
    assert_eq!(created.status(), 201, "{}", created.text());
    let id = created.json()["id"].clone();
    assert_eq!(titles(&gateway, &ada).await, ["Weave algebraical patterns"]);

    let bob = sign_up_and_in(&gateway, "bob@example.com").await;
    assert_eq!(titles(&gateway, &bob).await, [""; 0], "another user does not see it");
    let theirs = gateway.call("DELETE", &format!("/api/todos/{id}")).with(&bob).await;
    assert_eq!(theirs.status(), 404);
    let forged = gateway.get("/api/todos").with(&bob).header("X-User-Id", &ada.id).await;
    assert_eq!(forged.json(), json!([]), "nor by saying that he is her");

    gateway.sign_out(&ada).await;
    assert_eq!(gateway.get("/api/todos").with(&ada).await.status(), 401);
    assert_eq!(
        gateway.get("/api/public/stats").await.json(),
        json!({ "todos": 1, "users": 1 })
    );
}

/// The whole way: sign-up, mail, link, sign-in.
async fn sign_up_and_in(gateway: &Gateway, email: &str) -> User {
    assert_eq!(gateway.sign_up(email).await.status(), 200);
    assert_eq!(gateway.sign_in(email).await.code(), "EMAIL_NOT_VERIFIED");
    let link = gateway.mailbox().next_to(email).await.link();
    assert!(matches!(gateway.open(&link).await.status(), 200 | 302));
    User::of(gateway, &gateway.sign_in(email).await)
}

async fn titles(gateway: &Gateway, user: &User) -> Vec<String> {
    let todos = gateway.get("/api/todos").with(user).await.json();
    let todos = todos.as_array().unwrap().iter();
    todos
        .map(|todo: &Value| todo["title"].as_str().unwrap().to_owned())
        .collect()
}
