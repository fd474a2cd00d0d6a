//! The rights that docs/hardening.md gives the gateway's role are enough, and no more: its statements are run as they stand.

use std::{fs, path::Path};

use serde_json::json;
use url::Url;

use crate::harness::{
    Database, Setup,
    people::{PASSWORD, User},
    program::run,
};

/// The blocks of SQL of the document, with names and passwords of this test's own: roles are those of a whole server.
fn statements() -> Vec<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hardening.md");
    let text = fs::read_to_string(document).unwrap();
    let blocks = text.split("```sql\n").skip(1);
    blocks
        .map(|rest| rest.split_once("```").unwrap().0.replace("vestibule", "least_rights"))
        .collect()
}

fn url_of(db: &Database, role: &str, password: &str) -> String {
    let mut url = Url::parse(db.url()).unwrap();
    url.set_username(role).unwrap();
    url.set_password(Some(password)).unwrap();
    url.into()
}

#[tokio::test]
async fn a_gateway_needs_no_more_rights_than_the_document_gives_it() {
    let db = Database::empty().await;
    let owner = db.by(&url_of(&db, "least_rights_owner", "owner password"));
    let gateway = db.by(&url_of(&db, "least_rights", "gateway password"));
    let [roles, audit] = statements().try_into().unwrap();
    db.run(&roles).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let nobody = "127.0.0.1:9".parse().unwrap();
    fs::write(&config, Setup::default().text(&owner, nobody, nobody)).unwrap();
    let migrated = run(&["migrate", "--config", config.to_str().unwrap()], &[], folder.path()).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    owner.run(&audit).await;

    let manual = Setup::default().with("[database]\nmigrate = 'manual'\n[auth.account]\ndelete_user = 'session'");
    let vestibule = manual.start_on(&gateway).await;
    assert_eq!(vestibule.sign_up("ada@example.com").await.status(), 200);
    let link = vestibule.mailbox().next_to("ada@example.com").await.link();
    assert_eq!(vestibule.open(&link).await.status(), 302);
    let ada = User::of(&vestibule, &vestibule.sign_in("ada@example.com").await);
    assert_eq!(vestibule.get("/api/me").with(&ada).await.status(), 200);
    let body = json!({ "password": PASSWORD });
    let deleted = vestibule.post("/api/auth/delete-user").with(&ada).json(&body).await;
    assert_eq!(deleted.status(), 200, "{}", deleted.text());
    assert_eq!(vestibule.get("/api/me").with(&ada).await.status(), 401);

    // What it can't do, though it serves.
    let client = gateway.client().await;
    for refused in [
        "DELETE FROM auth.audit_log",
        "UPDATE auth.audit_log SET action = 'none'",
        "DROP TABLE auth.users",
        "CREATE TABLE auth.other (id int)",
        "CREATE TABLE public.other (id int)",
        "DELETE FROM auth.refinery_schema_history",
    ] {
        let error = client.batch_execute(refused).await.expect_err(refused);
        let code = error.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{refused}: {error:?}");
    }
}
