//! TLS to Postgres: a server whose certificate is of an authority that is trusted, and for its host, is spoken to; others are
//! refused with words that say why.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
};

use vestibule::dev::postgres::Cluster;

use crate::harness::{
    Database, SOON, Setup,
    certificates::{Authority, Folder, Pair},
    eventually,
    people::User,
    program::{Ended, run},
    surroundings::Surroundings,
};

/// A Postgres of the test's own that speaks TLS, and how to reach it without.
struct Secured {
    cluster: Cluster,
    db: Database,
}

impl Secured {
    async fn with(pair: &Pair) -> Self {
        let started = tokio::task::spawn_blocking(Cluster::temporary).await.unwrap();
        let cluster = started.unwrap();
        let db = Database::at(&cluster.url("postgres"));
        let data = cluster.folder().join("data");
        let owner = fs::metadata(&data).unwrap();
        for (name, text) in [("server.crt", &pair.certificate), ("server.key", &pair.key)] {
            let file = data.join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let client = db.client().await;
        client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually(SOON, async || {
            db.count("SELECT count(*) FROM pg_settings WHERE name = 'ssl' AND setting = 'on'")
                .await
                == 1
        })
        .await;
        Self { cluster, db }
    }

    fn url(&self, host: &str, parameters: &str) -> String {
        let url = self.cluster.url("postgres").replace("127.0.0.1", host);
        format!("{url}?{parameters}")
    }
}

#[tokio::test]
async fn a_server_that_shows_the_right_certificate_is_spoken_to() {
    let authority = Authority::new("Of databases");
    let server = Secured::with(&authority.issue(&["localhost", "127.0.0.1"])).await;
    let folder = Folder::new();
    let ca = folder.write("ca.crt", &authority.pem());
    let ca = ca.display();
    for database in [
        format!(
            "url = '{}'\nca = '{ca}'",
            server.url("localhost", "sslmode=verify-full")
        ),
        // And SCRAM is bound to the very channel.
        format!(
            "url = '{}'",
            server.url(
                "127.0.0.1",
                &format!("sslmode=verify-full&sslrootcert={ca}&channel_binding=require")
            )
        ),
    ] {
        let gateway = Setup::default()
            .with(&format!("[database]\n{database}"))
            .start_on(&server.db)
            .await;
        let email = format!("ada{}@example.com", database.len());
        let ada: User = gateway.signed_in(&email).await;
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200);
        let plain = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
            WHERE application_name = 'vestibule' AND NOT ssl";
        let secured = plain.replace("NOT ssl", "ssl");
        assert_eq!(server.db.count(plain).await, 0, "{database}");
        assert!(server.db.count(&secured).await >= 2, "{database}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_server_with_another_certificate_is_refused_and_it_is_said_why() {
    let (authority, another) = (Authority::new("Of databases"), Authority::new("Of strangers"));
    let server = Secured::with(&authority.issue(&["db.example.com"])).await;
    let folder = Folder::new();
    let right = folder.write("ca.crt", &authority.pem());
    let wrong = folder.write("another.crt", &another.pem());
    let surroundings = Surroundings::on(server.db.clone()).await;
    let url = server.url("127.0.0.1", "sslmode=verify-full");
    for (database, words) in [
        (format!("url = '{url}'\nca = '{}'", right.display()), "127.0.0.1"),
        (format!("url = '{url}'\nca = '{}'", wrong.display()), "database.ca"),
        (format!("url = '{url}'"), "database.ca"),
        // Whoever asks for TLS gets no less: nobody could tell the server from another.
        (
            format!("url = '{}'", server.url("127.0.0.1", "sslmode=require")),
            "database.ca",
        ),
    ] {
        let config = surroundings.config(&format!("[database]\n{database}"));
        let ended: Ended = run(&["serve", "--config", config.to_str().unwrap()], &[], folder.path()).await;
        assert_eq!(ended.code, Some(1), "{database}: {}", ended.stderr);
        assert!(ended.stderr.contains("certificate"), "{database}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{database}: {}", ended.stderr);
    }
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'auth'";
    assert_eq!(server.db.count(schemas).await, 0, "nothing was said to it");
}

/// Who is on the way could say that the server has none, and ask for a password in the clear.
#[tokio::test]
async fn who_names_authorities_is_not_spoken_to_without_tls() {
    let folder = Folder::new();
    let ca = folder.write("ca.crt", &Authority::new("Of databases").pem());
    let surroundings = Surroundings::new().await;
    let url = surroundings.db.url();
    let with = |parameters: &str| {
        let sign = if url.contains('?') { '&' } else { '?' };
        format!("{url}{sign}{parameters}")
    };
    for database in [
        format!("url = '{url}'\nca = '{}'", ca.display()),
        format!("url = '{}'\nca = '{}'", with("sslmode=prefer"), ca.display()),
        format!("url = '{}'", with(&format!("sslrootcert={}", ca.display()))),
        format!("url = '{}'", with("sslrootcert=system")),
    ] {
        let config = surroundings.config(&format!("[database]\n{database}"));
        let ended: Ended = run(&["serve", "--config", config.to_str().unwrap()], &[], folder.path()).await;
        assert_eq!(ended.code, Some(1), "{database}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("server does not support TLS"),
            "{database}: {}",
            ended.stderr
        );
    }
}
