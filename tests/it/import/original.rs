//! A database that better-auth itself made, on this machine: its migration, its hashes, its cookies.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use super::{Move, Source, counts};
use crate::harness::{Database, Setup};

const PEOPLE: i64 = 500;

/// Needs what `make test` installs for the client's tests.
#[tokio::test]
async fn people_of_a_real_better_auth_server_move_here() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/better-auth");
    assert!(
        scripts.join("node_modules").exists(),
        "the client is not installed: `make test` does it, by scripts/ensure-node-modules"
    );
    for prisma in [false, true] {
        let moving = Move::new(Source {
            db: Database::empty().await,
        })
        .await;
        let file = moving.folder.path().join("people.json");
        let mut seed = Command::new("node");
        seed.current_dir(&scripts)
            .args([
                "seed.mjs",
                "--url",
                moving.source.db.url(),
                "--out",
                file.to_str().unwrap(),
            ])
            .args(["--users", &PEOPLE.to_string(), "--signed-in", "5"])
            .args(prisma.then_some("--prisma-names"))
            .stdin(Stdio::null());
        let seeded = seed.output().await.unwrap();
        assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
        let made: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();

        let report = moving.import(&[]).await;
        assert_eq!(counts(&report, "users"), [PEOPLE, PEOPLE, 0, 0, 0], "{report:#}");
        assert_eq!(counts(&report, "sessions"), [5, 5, 0, 0, 0], "{report:#}");
        assert_eq!(report["notes"], json!([]));

        let old_secret = made["secret"].as_str().unwrap();
        // The other server ran on http: so its cookies have no prefix.
        let successor = format!(
            "[server]\npublic_url = 'http://localhost'\n[auth]\nsecret = ['a secret that only the tests use, and only \
             here', '{old_secret}']\n[auth.session.cookie]\nprefix = 'better-auth'"
        );
        let gateway = Setup::default().with(&successor).start_on(&moving.target).await;
        for user in made["users"].as_array().unwrap() {
            let of = |name: &str| user[name].as_str().unwrap();
            let answer = gateway.get("/api/me").header("Cookie", of("cookie")).await;
            assert_eq!(answer.status(), 200, "{} by the old cookie", of("email"));
            let upstream = gateway.upstream().last();
            assert_eq!(upstream.head.one("x-user-email"), Some(of("email")));
            let body = json!({ "email": of("email"), "password": of("password") });
            let answer = gateway.post("/api/auth/sign-in/email").json(&body).await;
            assert_eq!(answer.status(), 200, "{} by the old password", of("email"));
        }
    }
}
