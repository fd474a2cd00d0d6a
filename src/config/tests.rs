//! The loader as a whole: what it takes, what it refuses, and what it writes about itself.

use std::{fs, path::Path, time::Duration};

use super::*;

mod documents;
mod oauth;
mod routes;
mod targets;
mod upstreams;
mod values;

const SECRET: &str = "0123456789abcdef0123456789abcdef-the-secret";
const DATABASE: &str = "postgres://ada:hunter2@db.example.com/app";
const SMTP: &str = "smtp+starttls://ada:p%40ss@mail.example.com";

const CLIENT_SECRET: &str = "GOCSPX-hunter2";

const MINIMAL: &str = r#"
[server]
public_url = "https://app.example.com"
[database]
url = { env = "DATABASE_URL" }
[auth]
secret = { env = "VESTIBULE_SECRET" }
[mail]
from = "Example <no-reply@example.com>"
smtp = { env = "SMTP_URL" }
[upstreams.api]
endpoints = ["http://127.0.0.1:8000"]
"#;

fn environment(name: &str) -> Option<String> {
    match name {
        "DATABASE_URL" => Some(DATABASE.to_owned()),
        "DATABASE_DIRECT_URL" => Some("postgres://direct.example.com/app".to_owned()),
        "VESTIBULE_SECRET" => Some(SECRET.to_owned()),
        "SMTP_URL" => Some(SMTP.to_owned()),
        "GOOGLE_CLIENT_SECRET" => Some(CLIENT_SECRET.to_owned()),
        _ => None,
    }
}

fn loaded(text: &str) -> Config {
    parse(text, "gateway.toml", &environment).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(text: &str) -> ConfigErrors {
    match parse(text, "gateway.toml", &environment) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors,
    }
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let overrides = Overrides::from_environment(variables);
    parse_with(text, Path::new("gateway.toml"), &environment, &overrides)
}

/// The minimal configuration with `extra` behind it.
fn plus(extra: &str) -> String {
    format!("{MINIMAL}{extra}")
}

/// The only error of the minimal configuration with `extra`.
fn only_error(extra: &str) -> ConfigError {
    let errors = refused(&plus(extra));
    assert_eq!(errors.iter().count(), 1, "{extra}\n{errors}");
    errors.iter().next().unwrap().clone()
}

/// The minimal configuration with the value of a key replaced, or added to its section.
fn set(section: &str, key: &str, value: &str) -> String {
    let header = format!("[{section}]");
    let text = if MINIMAL.lines().any(|line| line == header) {
        MINIMAL.to_owned()
    } else {
        plus(&format!("{header}\n"))
    };
    // The old value goes, the new one stands where its section begins.
    let mut within = "";
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with('[') {
            within = line;
        }
        if within == header && line.starts_with(&format!("{key} =")) {
            continue;
        }
        out.extend([line, "\n"]);
        if line == header {
            out.extend([key, " = ", value, "\n"]);
        }
    }
    out
}

#[test]
fn the_least_is_enough_and_the_rest_has_safe_defaults() {
    let config = loaded(MINIMAL);
    assert_eq!(config.server.listen, [Listen::Tcp("0.0.0.0:8080".parse().unwrap())]);
    assert_eq!(config.server.public_url.as_str(), "https://app.example.com");
    assert!(config.server.trusted_proxies.is_empty());
    assert_eq!(config.server.max_header_bytes, 32 * 1024);
    assert_eq!(config.server.max_body, 100 * 1024 * 1024);
    assert_eq!(config.admin.listen, "127.0.0.1:9901".parse().unwrap());
    assert_eq!(config.database.url.expose(), DATABASE);
    assert_eq!(config.database.schema, "auth");
    assert_eq!(config.auth.base_path, "/api/auth");
    assert_eq!(config.auth.secret.len(), 1);
    assert_eq!(config.auth.secret[0].expose(), SECRET);
    assert_eq!(config.auth.email_verification.expires_in, Duration::from_mins(15));
    assert!(config.auth.email_verification.required);
    assert_eq!(config.auth.session.expires_in, Duration::from_hours(7 * 24));
    assert_eq!(config.auth.session.cookie.same_site, SameSite::Lax);
    assert!(config.auth.oauth.is_empty());
    assert!(config.auth.account.link_by_email);
    assert!(!config.auth.account.link_different_emails);
    let argon2 = Argon2 {
        memory_kib: 19 * 1024,
        iterations: 2,
        parallelism: 1,
    };
    assert_eq!(config.auth.password.argon2, argon2);
    assert_eq!(config.identity.names.user_id.as_ref().unwrap(), "x-user-id");
    assert_eq!(config.mail.smtp.security, SmtpSecurity::StartTls);
    assert_eq!(config.mail.smtp.port, 587);
    let (user, password) = config.mail.smtp.credentials.as_ref().unwrap();
    assert_eq!((user.as_str(), password.expose().as_str()), ("ada", "p@ss"));
    assert_eq!(config.upstreams[0].idle_timeout, Duration::from_secs(4));
    assert!(config.routes.is_empty());
}

#[test]
fn ten_mistakes_are_ten_errors() {
    let text = r#"[server]
lisen = "0.0.0.0:8080"
public_url = "http://app.example.com"
idle_timeout = "75x"
max_connections = "many"
[database]
url = { env = "NO_SUCH_VARIABLE" }
[auth]
secret = "too short"
[auth.session.cookie]
same_site = "laxe"
[mail]
from = "nobody"
smtp = { env = "SMTP_URL" }
[upstreams.api]
endpoints = ["http://127.0.0.1:8000"]
[[routes]]
path = "/café/*"
upstream = "ap"
[[routes]]
path = "/x"
upstream = "api"
auth = "pubic"
"#;
    let errors = refused(text);
    let summary: Vec<_> = errors
        .iter()
        .map(|error| {
            let Place::File { line, column } = error.place else {
                panic!("{error:?}")
            };
            (line, column, error.key.as_str(), error.nearest.as_deref())
        })
        .collect();
    assert_eq!(
        summary,
        [
            (2, 1, "server.lisen", Some("listen")),
            (3, 14, "server.public_url", None),
            (4, 16, "server.idle_timeout", None),
            (5, 19, "server.max_connections", None),
            (7, 7, "database.url", None),
            (9, 10, "auth.secret", None),
            (11, 13, "auth.session.cookie.same_site", Some("lax")),
            (13, 8, "mail.from", None),
            (18, 8, "routes[0].path", Some("/caf%C3%A9/*")),
            (19, 12, "routes[0].upstream", Some("api")),
            (23, 8, "routes[1].auth", Some("public")),
        ],
        "{errors}"
    );
    let told = errors.to_string();
    assert!(
        told.starts_with("gateway.toml:2:1: server.lisen: unknown key\n"),
        "{told}"
    );
    assert!(told.contains("\n    did you mean `listen`?\n"), "{told}");
    assert!(told.contains("environment variable NO_SUCH_VARIABLE"), "{told}");
    assert!(!told.contains("too short\""), "{told}");
    assert!(told.ends_with("gateway.toml: 11 errors\n"), "{told}");
}

#[test]
fn what_is_missing_is_named() {
    let errors = parse("", "gateway.toml", &|_| None).unwrap_err();
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "server.public_url",
            "database.url",
            "auth.secret",
            "mail.from",
            "mail.smtp"
        ]
    );
    let without_endpoints = only_error("[upstreams.web]\n");
    assert_eq!(without_endpoints.key, "upstreams.web.endpoints");
}

#[test]
fn text_that_is_not_toml_is_told_with_every_place() {
    let errors = refused("[server]\nlisten = \npublic_url = 'https://a.example'\nx = 1 2\ny = 1\ny = 2\n");
    let lines: Vec<_> = errors
        .iter()
        .map(|error| match error.place {
            Place::File { line, .. } => line,
            _ => panic!("{error:?}"),
        })
        .collect();
    assert!(
        lines.contains(&2) && lines.contains(&4) && lines.contains(&6),
        "{errors}"
    );
    // A line with a mistake may hold a secret.
    let told = refused("[auth]\nsecret = \"hunter2hunter2\n").to_string();
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn the_environment_overrides_single_keys() {
    let config = with_environment(
        MINIMAL,
        &[
            ("VESTIBULE__SERVER__LISTEN", "127.0.0.1:1234"),
            ("VESTIBULE__SERVER__MAX_CONNECTIONS", "7"),
            ("VESTIBULE__SERVER__HOSTS", "[\"a.example\", \"b.example\"]"),
            ("VESTIBULE__AUTH__SIGN_UP", "false"),
            ("VESTIBULE__AUTH__SECRET", "12345678901234567890123456789012"),
            ("VESTIBULE__AUTH__SESSION__CACHE__TTL", "3s"),
            ("VESTIBULE__UPSTREAMS__API__ENDPOINTS", "http://10.0.0.1:9000"),
            ("VESTIBULE__ROUTES", "[{ path = '/*', upstream = 'api' }]"),
            ("VESTIBULEX", "ignored"),
        ],
    )
    .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.server.listen, [Listen::Tcp("127.0.0.1:1234".parse().unwrap())]);
    assert_eq!(config.server.max_connections, 7);
    assert_eq!(config.server.hosts, ["a.example", "b.example"]);
    assert!(!config.auth.sign_up);
    assert_eq!(config.auth.secret[0].expose(), "12345678901234567890123456789012");
    assert_eq!(config.auth.session.cache.ttl, Duration::from_secs(3));
    assert_eq!(
        config.upstreams[0].endpoints,
        [Endpoint::http("10.0.0.1:9000".parse().unwrap())]
    );
    assert_eq!((config.routes.len(), config.routes[0].line), (1, 0));
}

#[test]
fn an_override_that_is_wrong_is_named_by_its_variable() {
    let errors = with_environment(
        &plus("[[routes]]\npath = '/'\nupstream = 'api'\n"),
        &[
            ("VESTIBULE__AUTH__SECRET", "hunter2"),
            ("VESTIBULE__AUTH__SECRT", "hunter2hunter2"),
            ("VESTIBULE__ROUTES__0__PATH", "/x"),
            ("VESTIBULE__SERVER__IDLE_TIMEOUT", "30"),
            ("VESTIBULE____X", "1"),
        ],
    )
    .unwrap_err();
    let told = errors.to_string();
    for place in [
        "AUTH__SECRET",
        "AUTH__SECRT",
        "ROUTES__0__PATH",
        "SERVER__IDLE_TIMEOUT",
        "__X",
    ] {
        let start = format!("environment variable VESTIBULE__{place}: ");
        assert!(told.contains(&start), "{start}\n{told}");
    }
    assert!(told.contains("did you mean `secret`?"), "{told}");
    assert!(told.contains("did you mean `\"30s\"`?"), "{told}");
    assert!(told.contains("can't be set one by one"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn the_callers_settings_win_over_file_and_environment() {
    let environment_says = Overrides::from_environment([(
        "VESTIBULE__DATABASE__URL".to_owned(),
        "postgres://from-environment/".to_owned(),
    )]);
    let overrides = Overrides::new()
        .set("database.url", "postgres://from-caller/x")
        .over(environment_says);
    let config = parse_with(MINIMAL, Path::new("gateway.toml"), &environment, &overrides).unwrap();
    assert_eq!(config.database.url.expose(), "postgres://from-caller/x");
    assert!(!format!("{overrides:?}").contains("postgres"), "{overrides:?}");

    let overrides = Overrides::new().set_as("database.url", "mysql://hunter2@x", "--database-url");
    let errors = parse_with(MINIMAL, Path::new("gateway.toml"), &environment, &overrides).unwrap_err();
    let told = errors.to_string();
    assert!(told.starts_with("--database-url: database.url: "), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_value_in_a_file_is_found_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
    fs::write(folder.path().join("short"), "hunter2\r\n").unwrap();
    fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
    let file = folder.path().join("gateway.toml");
    let with = |value: &str| {
        let text = MINIMAL.replace("{ env = \"VESTIBULE_SECRET\" }", value);
        parse_with(&text, &file, &environment, &Overrides::new())
    };
    let config = with("[{ file = 'secret' }, { env = 'VESTIBULE_SECRET' }]").unwrap();
    assert_eq!(config.auth.secret.len(), 2);
    assert_eq!(config.auth.secret[0].expose(), SECRET);

    for (value, problem, name) in [
        ("{ file = 'short' }", "too short: 7 of 32 bytes", "short"),
        ("{ file = 'absent' }", "can't be read", "absent"),
        ("{ file = 'binary' }", "not UTF-8", "binary"),
        ("{ file = '/dev/zero' }", "longer than", "/dev/zero"),
        ("{ fiel = 'secret' }", "unknown key", "fiel"),
        ("{ file = 7 }", "wrong type", "file"),
        ("{ file = 'secret', env = 'X' }", "wrong type", "a table"),
    ] {
        let errors = with(value).unwrap_err();
        assert_eq!(errors.iter().count(), 1, "{errors}");
        let told = errors.to_string();
        assert!(told.contains(problem) && told.contains(name), "{value}\n{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_file_that_is_not_there_says_how_to_name_another() {
    let errors = load(Path::new("/nowhere/gateway.toml"), &Overrides::new()).unwrap_err();
    let told = errors.to_string();
    assert!(told.starts_with("/nowhere/gateway.toml: can't be read: "), "{told}");
    assert!(told.contains("--config"), "{told}");
}

#[test]
fn no_secret_is_in_anything_that_prints() {
    let config = loaded(MINIMAL);
    let printed = format!("{config:?}");
    for secret in [SECRET, "hunter2", "p@ss", "p%40ss"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    // Wrong in every way that a value can be.
    for (section, key) in [("database", "url"), ("auth", "secret"), ("mail", "smtp")] {
        for value in [
            "'hunter2'",
            "['hunter2']",
            "[['hunter2']]",
            "{ hunter = 'hunter2' }",
            "{ env = 'A', file = 'hunter2' }",
            "'smtp://ada:hunter2@x/a'",
            "'smtps://user:%ffhunter2@x'",
            "'https://hunter2'",
        ] {
            let errors = refused(&set(section, key, value));
            let told = format!("{errors}{errors:?}");
            assert!(!told.contains("hunter2"), "{section}.{key} = {value}\n{told}");
        }
    }
}

#[test]
fn a_key_in_the_wrong_section_is_shown_its_place() {
    let error = only_error("[auth.session.cookie]\nttl = '3s'\n");
    assert_eq!(error.nearest.as_deref(), Some("auth.session.cache.ttl"));
    let error = only_error("[auth.session.cache]\nexpires_in = '3s'\n");
    assert_eq!(error.nearest.as_deref(), Some("auth.session.expires_in"));
    let error = only_error("[servers]\n");
    assert_eq!(
        (error.key.as_str(), error.nearest.as_deref()),
        ("servers", Some("server"))
    );
}

#[test]
fn every_error_comes_out_whatever_else_is_wrong() {
    // The cookie is judged by public_url though its section fails, and routes by the base path of a broken section.
    let text = MINIMAL
        .replace("https://app.example.com", "http://localhost:8080")
        .replace("[database]", "workers = 'all'\n[database]")
        .replace(
            "secret = { env = \"VESTIBULE_SECRET\" }",
            "secret = 'x'\nbase_path = '/a'",
        )
        + "[auth.session.cookie]\nsame_site = 'none'\n[[routes]]\npath = '/a/b'\nupstream = 'nobody'\n";
    let errors = refused(&text);
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "server.workers",
            "auth.secret",
            "auth.session.cookie.same_site",
            "routes[0].path",
            "routes[0].upstream"
        ],
        "{errors}"
    );
}
