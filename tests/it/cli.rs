//! The commands that look before anything is served: `check`, `explain`, `migrate`; and what wrong usage ends in.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Database,
    program::{Ended, run},
};

/// In every secret of these tests: no output may show it.
const SECRET: &str = "hunter2";

const VARIABLES: [(&str, &str); 3] = [
    ("DATABASE_URL", "postgres://vestibule:hunter2@127.0.0.1:1/vestibule"),
    ("VESTIBULE_SECRET", "hunter2 hunter2 hunter2 hunter2 hunter2"),
    ("SMTP_URL", "smtps://mailer:hunter2@127.0.0.1:1"),
];

const CONFIG: &str = r#"
[server]
public_url = "https://app.example.com"

[database]
url = { env = "DATABASE_URL" }

[auth]
secret = { env = "VESTIBULE_SECRET" }

[mail]
from = "Example <no-reply@example.com>"
smtp = { env = "SMTP_URL" }

[upstreams.app]
endpoints = ["http://127.0.0.1:8000"]

[[routes]]
path = "/api/*"
upstream = "app"

[[routes]]
path = "/admin/*"
upstream = "app"
require = { roles = ["admin"] }

[[routes]]
path = "/public/*"
upstream = "app"
auth = "public"
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with this `gateway.toml`.
fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), config).unwrap();
    folder
}

/// Runs a command with the secrets in its environment.
async fn vestibule(args: &[&str], folder: &Path) -> Ended {
    let ended = run(args, &VARIABLES, folder).await;
    for output in [&ended.stdout, &ended.stderr] {
        assert!(!output.contains(SECRET), "{args:?} shows a secret:\n{output}");
        assert!(!output.contains("panicked"), "{args:?}:\n{output}");
        assert!(output.is_empty() || output.ends_with('\n'), "{args:?}: {output:?}");
    }
    ended
}

/// What `explain` prints about a request to [`CONFIG`].
async fn explain(args: &[&str]) -> String {
    let folder = folder(CONFIG);
    let ended = vestibule(&[&["explain"], args].concat(), folder.path()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

#[tokio::test]
async fn fail_02_check_prints_every_mistake_with_its_place_and_what_was_meant() {
    let mistakes = r#"[server]
lisen = "127.0.0.1:8080"
public_url = "http://example.com/path"
header_timeout = "10"

[database]
url = "mysql://root:hunter2@db/x"
pool_size = 0

[auth]
secret = "hunter2"

[mail]
from = "nobody"
smtp = "http://user:hunter2@mail"

[upstreams.app]
endpoints = ["http://127.0.0.1:8000"]

[[routes]]
path = "api/x"
upstream = "ap"
"#;
    let ended = vestibule(&["check"], folder(mistakes).path()).await;
    assert_eq!(ended.code, Some(78));
    assert_eq!(ended.stdout, "");
    for expected in [
        "gateway.toml:2:1: server.lisen: unknown key",
        "gateway.toml:3:14: server.public_url: not an origin",
        "gateway.toml:4:18: server.header_timeout: a duration without a unit",
        "gateway.toml:7:7: database.url: not a PostgreSQL URL",
        "gateway.toml:8:13: database.pool_size: out of range",
        "gateway.toml:11:10: auth.secret: too short",
        "gateway.toml:14:8: mail.from: not a mailbox",
        "gateway.toml:15:8: mail.smtp: the scheme is not",
        "gateway.toml:21:8: routes[0].path: paths begin with a slash",
        "gateway.toml:22:12: routes[0].upstream: no such upstream",
        "did you mean `listen`?",
        "did you mean `10s`?",
        "did you mean `app`?",
        "gateway.toml: 10 errors",
    ] {
        assert!(ended.stderr.contains(expected), "no {expected:?} in:\n{}", ended.stderr);
    }
    let places = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("gateway.toml:") && line.matches(':').count() > 2);
    assert_eq!(places.count(), 10, "{}", ended.stderr);
}

#[tokio::test]
async fn check_refuses_a_database_url_that_serve_could_not_use() {
    for (url, says) in [
        (
            "postgres://vestibule:hunter2@db/x?sslmode=verify-ca",
            "host names are verified as well, always: write sslmode=verify-full",
        ),
        (
            "postgres://vestibule:hunter2@db:99999/x",
            "the value of `port` is not allowed",
        ),
        (
            "postgres://vestibule:hunter2@db/x?sslcert=a",
            "the parameter `sslcert` is not supported",
        ),
        ("postgres:///x", "names no host"),
    ] {
        let config = CONFIG.replace("{ env = \"DATABASE_URL\" }", &format!("\"{url}\""));
        let ended = vestibule(&["check"], folder(&config).path()).await;
        assert_eq!(ended.code, Some(78), "{url}: {}", ended.stdout);
        assert!(
            ended.stderr.contains("database.url: ") && ended.stderr.contains(says),
            "{url}: {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn check_shows_the_right_form_where_a_shape_is_wrong() {
    for (section, wrong, says) in [
        (
            "[[routes]]\npath = '/old'",
            "redirect = '/new'",
            &["].redirect: wrong type", "example: redirect = { to = "][..],
        ),
        (
            "[[routes]]\npath = '/x'\nupstream = 'app'",
            "rate_limit = '100/m'",
            &["].rate_limit: wrong type", "example: rate_limit = { requests = "],
        ),
        (
            "[upstreams.more]\nendpoints = ['http://127.0.0.1:1']",
            "health_check = '/x'",
            &["more.health_check: wrong type", "example: health_check = { path = \"/"],
        ),
        (
            "[upstreams.more]",
            "url = 'http://127.0.0.1:1'",
            &[
                "more.url: unknown key",
                "did you mean `endpoints`?",
                "example: endpoints = [\"http",
            ],
        ),
        (
            "[server.tls]\nkey = 'tls.key'",
            "cert = 'tls.crt'",
            &[
                "tls.cert: unknown key",
                "did you mean `certificate`?",
                "example: certificate = \"tls.crt\"",
            ],
        ),
    ] {
        let ended = vestibule(&["check"], folder(&format!("{CONFIG}\n{section}\n{wrong}\n")).path()).await;
        assert_eq!(ended.code, Some(78), "{wrong}");
        for said in says {
            assert!(ended.stderr.contains(said), "no {said:?} in:\n{}", ended.stderr);
        }
        let errors = ended.stderr.matches("gateway.toml:").count();
        // Each, and how many there are; whoever has the wrong key lacks the right one.
        let at_most = if says[0].contains("unknown") { 3 } else { 2 };
        assert!(errors <= at_most, "{}", ended.stderr);
    }
}

#[tokio::test]
async fn explain_shows_what_is_told_of_a_clients_certificate() {
    let machine = rcgen::generate_simple_self_signed(["machine.example".to_owned()]).unwrap();
    let tls = "[server.tls]\ncertificate = 'site.crt'\nkey = 'site.key'\n";
    let folder = folder(&format!("{tls}client_ca = 'clients.crt'\n{CONFIG}"));
    std::fs::write(folder.path().join("machine.crt"), machine.cert.pem()).unwrap();
    let asked = ["explain", "GET", "https://app.example.com/public/x"];
    let with = [&asked[..], &["--client-cert", "machine.crt"]].concat();
    let ended = vestibule(&with, folder.path()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stdout.contains("x-client-cert-names: machine.example"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("client-cert: :MII"), "{}", ended.stdout);
    let ended = vestibule(&asked, folder.path()).await;
    assert!(ended.stdout.contains("(--client-cert FILE)"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("x-client-cert-"), "{}", ended.stdout);

    std::fs::write(folder.path().join("gateway.toml"), format!("{tls}{CONFIG}")).unwrap();
    let ended = vestibule(&with, folder.path()).await;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("`server.tls.client_ca` is not set"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn check_and_serve_name_the_key_whose_file_can_not_be_loaded() {
    let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
    let tls = "[server.tls]\ncertificate = 'site.crt'\n\nkey = 'site.key'\n";
    let folder = folder(&format!("{tls}{CONFIG}"));
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("site.crt", pair.cert.pem());
    for command in ["check", "serve"] {
        write("site.key", other.signing_key.serialize_pem());
        let ended = vestibule(&[command], folder.path()).await;
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        let told =
            "gateway.toml:4:7: server.tls.key: the key in site.key does not belong to the certificate in site.crt";
        assert!(ended.stderr.starts_with(told), "{}", ended.stderr);
    }
    write("site.key", pair.signing_key.serialize_pem());
    assert_eq!(vestibule(&["check"], folder.path()).await.code, Some(0));
}

#[tokio::test]
async fn check_refuses_a_plain_public_url_where_every_listener_speaks_tls() {
    let plain = CONFIG.replace("https://app.example.com", "http://localhost:8443");
    let tls = "[server.tls]\ncertificate = 'site.crt'\nkey = 'site.key'\n";
    let ended = vestibule(&["check"], folder(&format!("{tls}{plain}")).path()).await;
    assert_eq!(ended.code, Some(78));
    assert!(
        ended.stderr.contains("server.public_url: http, but"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("did you mean `https://localhost:8443`?"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        vestibule(&["check"], folder(&plain).path()).await.code,
        Some(0),
        "without TLS"
    );
    // What comes by the unix socket, some proxy has spoken http to.
    let mixed = plain.replace("[server]\n", "[server]\nlisten = ['0.0.0.0:8443', 'unix:http.sock']\n");
    let ended = vestibule(&["check"], folder(&format!("{tls}{mixed}")).path()).await;
    assert!(!ended.stderr.contains("server.public_url"), "{}", ended.stderr);
}

#[tokio::test]
async fn check_says_where_a_text_stops_being_toml() {
    let ended = vestibule(&["check"], folder("[server]\nlisten = \n").path()).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("gateway.toml:2:"), "{}", ended.stderr);
}

#[tokio::test]
async fn check_names_a_variable_that_is_not_set_or_is_wrong() {
    let folder = folder(CONFIG);
    let ended = run(
        &["check"],
        &[VARIABLES[1], VARIABLES[2], ("VESTIBULE__SERVER__WORKERS", "many")],
        folder.path(),
    )
    .await;
    assert_eq!(ended.code, Some(78));
    for expected in [
        "database.url",
        "DATABASE_URL",
        "environment variable VESTIBULE__SERVER__WORKERS",
    ] {
        assert!(ended.stderr.contains(expected), "no {expected:?} in:\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn check_finds_nothing_wrong_with_the_configurations_that_come_along() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    files.push(root().join("gateway.toml"));
    // Stands for the file that a container mounts.
    let secret = [("VESTIBULE__AUTH__SECRET", VARIABLES[1].1)];
    for file in files {
        let name = file.to_str().unwrap();
        let ended = run(
            &["check", "--config", name],
            &[&VARIABLES[..], &secret].concat(),
            root(),
        )
        .await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{name}");
        assert!(ended.stdout.contains("fine"), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn check_prints_the_redirect_uris_to_register_at_providers() {
    let config = format!(
        r#"{CONFIG}
[auth.oauth.google]
client_id = "google's"
client_secret = "hunter2"

[auth.oauth.acme]
client_id = "acme's"
issuer = "https://id.acme.example"
"#
    )
    .replace("[auth]", "[auth]\nbase_path = \"/auth\"");
    let ended = vestibule(&["check"], folder(&config).path()).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = ended.stdout.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "redirect URI of google: https://app.example.com/auth/callback/google",
            "redirect URI of acme: https://app.example.com/auth/callback/acme",
            "redirect URI of acme, for apps that call signIn.oauth2: https://app.example.com/auth/oauth2/callback/acme",
        ]
    );

    let without = vestibule(&["check"], folder(CONFIG).path()).await;
    assert_eq!(without.stdout, "gateway.toml: fine (3 routes, 1 upstream)\n");
}

#[tokio::test]
async fn check_says_of_a_provider_what_is_wrong_and_shows_none_of_its_secrets() {
    let config = format!(
        r#"{CONFIG}
[auth.oauth.google]
client_id = "id"
base_url = "https://github.example.com"

[auth.oauth.apple]
client_id = "id"
team_id = "ABCDE12345"
key_id = "FGHIJ67890"
private_key = "hunter2"
"#
    );
    let ended = vestibule(&["check"], folder(&config).path()).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""));
    for expected in [
        "gateway.toml:34:12: auth.oauth.google.base_url: means nothing to a provider of kind \"google\"",
        "allowed: only with kind github",
        "gateway.toml:32:1: auth.oauth.google.client_secret: missing",
        "gateway.toml:40:15: auth.oauth.apple.private_key: not a private key in PEM",
    ] {
        assert!(ended.stderr.contains(expected), "no {expected:?} in:\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn explain_shows_the_route_its_demands_and_what_the_upstream_receives() {
    let forged = [
        "GET",
        "https://app.example.com/api/todos?x=1",
        "-H",
        "X-User-Id: forged",
        "-H",
        "X_User_Email: forged",
        "-H",
        "X-Forwarded-For: 10.0.0.1",
        "-H",
        "X-Mine: kept",
    ];
    let text = explain(&forged).await;
    for expected in [
        "route /api/*",
        "line 18 of the configuration",
        "a session",
        "forwarded",
        "/api/todos?x=1",
        "x-user-id: ",
        "x-mine: kept",
    ] {
        assert!(text.contains(expected), "no {expected:?} in:\n{text}");
    }
    let received = text.split("the upstream receives").nth(1).unwrap();
    assert!(!received.contains("forged"), "{received}");
    assert!(!received.contains("10.0.0.1"), "{received}");

    let text = explain(&["GET", "/public/x", "-H", "X-User-Id: forged"]).await;
    assert!(!text.contains("x-user"), "no identity on a public route:\n{text}");
}

#[tokio::test]
async fn explain_shows_refusals() {
    for (args, expected) in [
        (&["GET", "/api/..%2fadmin/x"] as &[_], "refused: 400 BAD_PATH"),
        (&["GET", "/api/../admin/x"], "refused: 403 FORBIDDEN"),
        (&["GET", "/api/x", "--anonymous"], "refused: 401 UNAUTHORIZED"),
        (&["GET", "/admin/x"], "refused: 403 FORBIDDEN"),
        (&["GET", "/admin/x", "--role", "admin"], "forwarded"),
        (&["GET", "/public/x", "--anonymous"], "forwarded"),
        (&["GET", "/elsewhere"], "refused: 404 NOT_FOUND"),
        (&["TRACE", "/api/x"], "refused: 405"),
        (&["GET", "https://other.example/api/x"], "refused: 421"),
        (&["POST", "/api/auth/sign-in/email"], "the auth API"),
    ] {
        let text = explain(args).await;
        assert!(text.contains(expected), "{args:?}: no {expected:?} in:\n{text}");
        let refused = expected.starts_with("refused");
        assert!(!refused || !text.contains("upstream receives"), "{text}");
    }
}

#[tokio::test]
async fn explain_speaks_json_to_scripts() {
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let passed = json(explain(&["GET", "/admin/x", "--role", "admin", "--json"]).await);
    assert_eq!(passed["outcome"], "forwarded");
    assert_eq!(
        (passed["path"].as_str(), passed["upstream"].as_str()),
        (Some("/admin/x"), Some("app"))
    );
    let receives = passed["receives"].as_array().unwrap();
    assert!(receives.contains(&"x-user-roles: admin".into()), "{receives:?}");
    let refused = json(explain(&["GET", "/api/x", "--anonymous", "--json"]).await);
    assert!(
        refused["outcome"].as_str().unwrap().starts_with("refused: 401"),
        "{refused}"
    );
    assert_eq!(refused["receives"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let folder = folder(CONFIG);
    for args in [
        &[] as &[&str],
        &["frobnicate"],
        &["check", "gateway.toml"],
        &["serve", "--port", "80"],
        &["explain", "GET"],
        &["explain", "GE T", "/"],
        &["explain", "GET", "nonsense"],
        &["explain", "GET", "/", "-H", "no colon"],
        &["migrate", "--dry"],
    ] {
        let ended = vestibule(args, folder.path()).await;
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{args:?} says nothing");
        assert_eq!(ended.stdout, "", "{args:?}");
    }
    for args in [["--help"], ["--version"]] {
        let ended = vestibule(&args, folder.path()).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[tokio::test]
async fn migrate_says_what_is_missing_and_then_applies_it() {
    let db = Database::empty().await;
    let folder = folder(CONFIG);
    let variables = [("DATABASE_URL", db.url()), VARIABLES[1], VARIABLES[2]];
    let migrate = async |args: &[&str]| run(&[&["migrate"], args].concat(), &variables, folder.path()).await;

    let planned = migrate(&["--dry-run"]).await;
    assert_eq!(planned.code, Some(1), "{}", planned.stderr);
    let missing: Vec<_> = planned
        .stdout
        .lines()
        .filter_map(|line| line.split_once("missing "))
        .collect();
    assert!(missing.len() >= 5, "{}", planned.stdout);
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'auth'";
    assert_eq!(db.count(schemas).await, 0, "a dry run changes nothing");

    // Two at once, as two gateways that are started together.
    let (one, other) = tokio::join!(migrate(&[]), migrate(&[]));
    assert_eq!(
        (one.code, other.code),
        (Some(0), Some(0)),
        "{}{}",
        one.stderr,
        other.stderr
    );
    let applied = format!("{}{}", one.stdout, other.stdout);
    for (_, migration) in missing {
        assert_eq!(
            applied.matches(&format!("applied {migration}\n")).count(),
            1,
            "{applied}"
        );
    }
    let after = migrate(&["--dry-run"]).await;
    assert_eq!(
        (after.code, after.stdout.as_str()),
        (Some(0), "schema auth: up to date\n")
    );
    assert_eq!(migrate(&[]).await.stdout, "schema auth: up to date\n");
    assert_eq!(db.count("SELECT count(*) FROM auth.users").await, 0);
}

#[tokio::test]
async fn migrate_without_postgres_ends_with_1_and_a_sentence() {
    let ended = vestibule(&["migrate"], folder(CONFIG).path()).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("could not connect to Postgres"),
        "{}",
        ended.stderr
    );
}
